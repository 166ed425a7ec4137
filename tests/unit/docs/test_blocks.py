"""What the pages and examples show can be used as it is: documents validate, programs compile and use names we have."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest
import yaml

import pulumi_farshore
from farshore_schema.validate import read_documents
from tests.unit.docs.commands import ROOT
from tests.unit.docs.prose import PAGES, Found, blocks


def documents() -> Iterator[Found]:
    """Yield every text with a document: YAML blocks of pages and YAML files of examples."""
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("yaml", "yml", "json", ""):
                yield Found(page, block.line, block.text)
    for path in sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "examples").rglob("*.yml")]):
        yield Found(path, 1, path.read_text())


def programs() -> Iterator[Found]:
    """Yield every program: Python blocks of pages and Python files of examples."""
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("python", "py"):
                yield Found(page, block.line, block.text)
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield Found(path, 1, path.read_text())


DECLARATIONS = [found for found in documents() if any(line.startswith("kind:") for line in found.text.splitlines())]
PROGRAMS = list(programs())


def where(found: Found) -> str:
    return found.where


@pytest.mark.parametrize("found", DECLARATIONS, ids=where)
def test_every_document_that_is_shown_is_valid(found: Found) -> None:
    """By the same reader that `apply` uses; a mistake is told with its line in the page."""
    read = read_documents(found.text)
    assert not [f"{found.path.name}:{found.line + f.line - 1}: {f.field}: {f.message}" for f in read.failures]
    assert len(read.documents) == len([each for each in yaml.safe_load_all(found.text) if each])


@pytest.mark.parametrize("found", PROGRAMS, ids=where)
def test_every_program_compiles_and_imports_what_there_is(found: Found) -> None:
    """Names that are imported exist, and what is used of a module that was imported whole does, too."""
    tree = compile(found.text, str(found.path), "exec", ast.PyCF_ONLY_AST)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert hasattr(importlib.import_module(str(node.module)), alias.name), f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = importlib.import_module(modules[node.value.id])
            assert hasattr(module, node.attr), f"line {found.line + node.lineno - 1}: {module.__name__}.{node.attr}"


@pytest.mark.parametrize("found", [each for each in PROGRAMS if "pulumi_farshore" in each.text], ids=where)
def test_a_pulumi_program_uses_public_names_with_arguments_that_they_have(found: Found) -> None:
    """A resource of the package gets only arguments it takes, and endpoints only fields they have."""
    tree = ast.parse(found.text)
    name = next(
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "pulumi_farshore"
    )
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(name)]
    assert calls
    for call in calls:
        public = ast.unparse(call.func).removeprefix(f"{name}.")
        assert public in pulumi_farshore.__all__
        signature = inspect.signature(getattr(pulumi_farshore, public))
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        signature.bind(*call.args, **{str(key): value for key, value in given.items()})
        for side in ("site_a", "site_b"):
            if isinstance(value := given.get(side), ast.Dict):
                keys = {key.value for key in value.keys if isinstance(key, ast.Constant)}
                assert keys <= pulumi_farshore.MySQLEndpoint.__annotations__.keys(), f"{found.where}: {side}"


def test_there_is_something_to_judge() -> None:
    """The pages show a declaration and a program; an extraction that finds none proves nothing."""
    assert {found.path.name for found in DECLARATIONS} >= {"quick-start.md"}
    assert {found.path.name for found in PROGRAMS} >= {"README.md", "journal.md", "__main__.py"}
