"""Read documents from YAML or JSON text, and say of every mistake on which line and in which field it is.

JSON is read as the YAML that it is, so both have lines. It knows text and documents, no files and no terminals.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, SequenceNode

from farshore_schema.documents import DOCUMENT, FORMAT, MySQLPair, Site

DOCUMENTS_MAX = 10_000
TEXT_BYTES_MAX = 16 * 1024 * 1024
KINDS = ("Site", "MySQLPair")


class Failure(NamedTuple):
    """One mistake. `line` counts from 1; `field` is a path such as site_b.admin.password, "" for the whole document."""

    line: int
    field: str
    message: str


class Parsed(NamedTuple):
    """What a text declares, and everything that is wrong with it. The documents are valid ones only."""

    documents: tuple[Site | MySQLPair, ...]
    failures: tuple[Failure, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML would silently drop."""


def _mapping(loader: _Loader, node: MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f'"{key}" is given twice', key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    found: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# No field is a date: 2026-01-31 in a description is text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_documents(text: str) -> Parsed:
    """Return the documents of a text and its mistakes; a text without any document is a mistake."""
    if len(text.encode(errors="replace")) > TEXT_BYTES_MAX:
        return Parsed((), (Failure(1, "", f"the text is larger than {TEXT_BYTES_MAX} bytes"),))
    documents: list[Site | MySQLPair] = []
    failures: list[Failure] = []
    try:
        for number, (node, value) in enumerate(_values(_without_tabs(text)), 1):
            if number > DOCUMENTS_MAX:
                failures.append(Failure(_line(node), "", f"more than {DOCUMENTS_MAX} documents"))
                break
            _judge(node, value, documents, failures)
    except yaml.YAMLError as error:
        failures.append(_syntax(error))
    except RecursionError:
        failures.append(Failure(1, "", "the text is nested too deeply to be a document"))
    if not documents and not failures:
        failures.append(Failure(1, "", f'there is no document; start with "kind: {KINDS[0]}" and "version: {FORMAT}"'))
    return Parsed(tuple(documents), tuple(failures))


def _without_tabs(text: str) -> str:
    """Return JSON text with spaces for tabs, which JSON allows between values (never within) and YAML does not."""
    if "\t" not in text or text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.replace("\t", " ")


def _values(text: str) -> Iterator[tuple[Node, Any]]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                value = loader.construct_document(node)
                if value is not None:
                    yield node, value
    finally:
        loader.dispose()


def _judge(node: Node, value: Any, documents: list[Site | MySQLPair], failures: list[Failure]) -> None:
    if not isinstance(value, Mapping):
        failures.append(Failure(_line(node), "", "a document is a mapping of fields"))
        return
    if value.get("kind") not in KINDS:
        failures.append(Failure(_line(node, ("kind",)), "kind", f"must be one of {', '.join(KINDS)}"))
        return
    if "version" not in value:
        failures.append(Failure(_line(node), "version", f'is missing; write "version: {FORMAT}"'))
        return
    try:
        documents.append(DOCUMENT.validate_python(value))
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            place = tuple(item["loc"])[1:]  # the first part is the kind, by which the model was chosen
            field = ".".join(str(part) for part in place)
            failures.append(Failure(_line(node, place), field, message_of(item["type"], field, str(item["msg"]))))


def message_of(kind: str, field: str, message: str) -> str:
    """Return a validation message in our words; never the value, which might be a secret in the wrong place."""
    if kind == "extra_forbidden":
        return "is not a field of this document"
    if kind == "string_pattern_mismatch" and field.endswith("password"):
        return "must be a reference that the agent resolves, env:NAME or file:/absolute/path, never the secret itself"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ")


def _line(node: Node, place: tuple[str | int, ...] = ()) -> int:
    """Return the line of the deepest part of `place` that is there."""
    line = node.start_mark.line + 1
    for part in place:
        child = _child(node, part)
        if child is None:
            return line
        key, node = child
        line = key.start_mark.line + 1
    return line


def _child(node: Node, part: str | int) -> tuple[Node, Node] | None:
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _syntax(error: yaml.YAMLError) -> Failure:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return Failure(mark.line + 1 if mark else 1, "", str(problem))
