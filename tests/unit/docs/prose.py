"""Where commands, documents and programs stand in the pages and in the product's own strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.unit.docs.commands import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
ROOMS = ("schema/farshore_schema", "provider/pulumi_farshore", "reconciler/farshore", "agent/farshore_agent")

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CONTINUED = re.compile(r"\\\n")
INLINE = re.compile(r"`([^`]+)`")
STARTS = re.compile(r"(?:\$ |sudo |[A-Z_]+=\S+ )*(?:farshore|farshore-agent|make) ")
QUOTED = re.compile(r"`((?:farshore|farshore-agent) [^`]+)`")
BARE = re.compile(r"(?<![\w`/.-])((?:farshore|farshore-agent) [a-z][^`,;:()\n]*)")
PLACEHOLDER = "VALUE"


class Found(NamedTuple):
    """A piece of text and its place."""

    path: Path
    line: int
    text: str

    @property
    def where(self) -> str:
        """The place as an editor takes it."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"


class Block(NamedTuple):
    """A fenced block; `line` is that of its first line."""

    path: Path
    line: int
    language: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = path.read_text()
    for match in FENCE.finditer(text):
        yield Block(path, _line(text, match.start(2)), match[1], match[2])


def commands_of_page(path: Path) -> Iterator[Found]:
    """Yield every line of a fenced block and every inline span that begins with one of the programs and a word."""
    for block in blocks(path):
        joined = CONTINUED.sub(lambda match: " " * len(match[0]), block.text)
        for match in re.finditer(r"^.*$", joined, re.MULTILINE):
            line = " ".join(match[0].split())
            if STARTS.match(line):
                yield Found(path, block.line + block.text.count("\n", 0, match.start()), line)
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
    for match in INLINE.finditer(text):
        span = " ".join(match[1].split())
        if STARTS.match(span):
            yield Found(path, _line(text, match.start()), span)


def strings_of_product() -> Iterator[Found]:
    """Yield every string of the product, docstrings too, with a placeholder for what an f-string fills in."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    yield Found(path, node.lineno, "".join(_piece(value) for value in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                    yield Found(path, node.lineno, re.sub(r"\{\w+\}", PLACEHOLDER, node.value))


def _piece(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else PLACEHOLDER


def commands_of_product() -> Iterator[Found]:
    """Yield what the product's strings tell people to run.

    In backticks a command is what stands between them; without, it ends with the line, the sentence or a parenthesis.
    """
    for found in strings_of_product():
        quoted = [match[1] for match in QUOTED.finditer(found.text)]
        bare = [match[1] for match in BARE.finditer(INLINE.sub("", found.text))]
        for text in (*quoted, *bare):
            yield Found(found.path, found.line, " ".join(text.split()).rstrip("."))


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
