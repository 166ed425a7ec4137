"""Documents as Pulumi sees them: normalising, validating with unknowns, and comparing. Pure.

Inputs are kept without defaults, so that two spellings of one declaration are the same declaration and a new release
of this package shows no difference. It knows no transport and nothing of the Pulumi runtime but its mark for values
that are not known yet.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pulumi.output import Unknown
from pydantic import BaseModel, ValidationError

from farshore_schema.documents import MySQLPair, Site
from farshore_schema.validate import message_of

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Pulumi's wire value for "known only after other resources were made" (pulumi.runtime.rpc.UNKNOWN)."""

HIDDEN = frozenset({"__provider", "owner", "program_sites"})
OPTIONS = frozenset({"wait_for", "wait_timeout", "switchover_timeout", "force_destroy", "delete_journal"})
COMPUTED = frozenset({"active_site", "role_epoch", "incarnation", "generation"})

Path = tuple[str | int, ...]


class Failure(NamedTuple):
    """One property that is wrong. `field` is a Pulumi property path."""

    field: str
    reason: str


class Checked(NamedTuple):
    """A validated declaration: `document` is None when it is wrong or not fully known."""

    inputs: dict[str, Any]
    document: dict[str, Any] | None
    failures: tuple[Failure, ...]
    complete: bool


def declared(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document part of a resource's properties: no hidden, computed or provider-only ones, no None."""
    drop = HIDDEN | OPTIONS | COMPUTED
    return {key: _prune(value) for key, value in properties.items() if key not in drop and value is not None}


def _prune(value: Any) -> Any:
    if isinstance(value, Unknown):
        return UNKNOWN  # the host gives an object where the engine sent the wire value, and takes back only that
    if isinstance(value, list):
        return [_prune(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: _prune(inner) for key, inner in value.items() if inner is not None}
    return value


def unknown_paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every value that is not known yet."""
    if value == UNKNOWN:
        yield at
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unknown_paths(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unknown_paths(inner, (*at, index))


def check(model: type[Site] | type[MySQLPair], properties: Mapping[str, Any]) -> Checked:
    """Validate the declared properties; what is unknown is not judged, and neither is what depends on it."""
    raw = declared(properties)
    unknown = tuple(unknown_paths(raw))
    try:
        document = canonical(model.model_validate(raw))
    except ValidationError as error:
        failures = tuple(_failure(item) for item in error.errors(include_input=False, include_url=False))
        judged = [
            f for f, item in zip(failures, error.errors(include_input=False), strict=True) if _judge(item, unknown)
        ]
        return Checked(inputs=raw, document=None, failures=tuple(judged), complete=not unknown)
    return Checked(
        inputs=raw if unknown else document, document=None if unknown else document, failures=(), complete=not unknown
    )


def _judge(item: Mapping[str, Any], unknown: tuple[Path, ...]) -> bool:
    place: Path = tuple(item["loc"])
    return not any(place[: len(path)] == path or path[: len(place)] == place for path in unknown)


def _failure(item: Mapping[str, Any]) -> Failure:
    field = ".".join(str(part) for part in item["loc"])
    return Failure(field=field, reason=message_of(str(item["type"]), field, str(item["msg"])))


def canonical(document: BaseModel) -> dict[str, Any]:
    """Return a document's declared values without defaults, as plain JSON values."""
    return document.model_dump(mode="json", exclude_defaults=True) | {"name": document.model_dump()["name"]}


def changed_fields(olds: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the declared top-level fields that differ; an unknown new value counts as changed."""
    before, after = declared(olds), declared(news)
    return tuple(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)))


def options(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provider-only options that are set."""
    return {key: _prune(properties[key]) for key in OPTIONS if properties.get(key) is not None}
