"""Carry JSON documents that hold more than their text tells: DECIMAL, dates, times, binary strings.

JSON_OBJECT('price', decimal_column) keeps a DECIMAL inside the document. Read back from its text it would be a DOUBLE,
and 12.50 would become 12.5: dump tools lose it. Rows with such documents are few or many, but never in the relay: they
are written with INSERT, and each such value is put into its document by an expression of its type.

Here is the text of the SQL; sessions are somebody else's.
"""

# ruff: noqa: S608 - names and values are quoted by sql.py

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.rows import BINARY_TYPES, TEXT_TYPES, Column, RowFormat, json_types

ODD_TYPES = ("DECIMAL", "DATE", "TIME", "DATETIME", "TIMESTAMP", "BLOB", "BIT", "OPAQUE")
"""What JSON_TYPE says of values that their text does not bring back."""
DECIMAL_DIGITS_MAX = 65
OPAQUE_PREFIX = "base64:type"
VARBINARY_CODE = "15"
"""Type code of a binary string literal inside JSON; other codes (252 for BLOB columns, 16 for BIT) have no literal."""

Path = tuple[str | int, ...]


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document as text, and the types of its values in the order in which MySQL finds them."""

    text: str
    own: str
    members: dict[str, str]
    items: dict[str, str]


def odd(columns: Sequence[Column]) -> str:
    """Return an expression that is 1 for rows with a document that its text does not bring back, else 0.

    As CASE and not as a bare condition: the optimizer of 9.7.4 turns NOT EXISTS over JSON_TABLE into an antijoin that
    finds every row.
    """
    types = ", ".join(f"'{each}'" for each in ODD_TYPES)
    tests = []
    for column in columns:
        name = sql.name(column.name)
        tests.append(f"IFNULL(JSON_TYPE({name}) IN ({types}), 0)")
        tests += [
            f"EXISTS (SELECT 1 FROM JSON_TABLE({name}, '{path}' COLUMNS (v JSON PATH '$')) AS inside "
            f"WHERE JSON_TYPE(v) IN ({types}))"
            for path in ("$**.*", "$**[*]")
        ]
    return f"(CASE WHEN {' OR '.join(tests)} THEN 1 ELSE 0 END)"


def also(where: str, condition: str) -> str:
    """Add a condition to a WHERE that may be empty."""
    return f"{where} AND {condition}" if where else f" WHERE {condition}"


def select_odd(layout: RowFormat, where: str) -> str:
    """Return the SELECT of all values of the odd rows, with the types of every document behind them."""
    values = [layout.octets(column) for column in layout.columns]
    types = [each for column in layout.json_columns for each in json_types(column.name)]
    table = sql.name(layout.schema, layout.table)
    return f"SELECT {', '.join([*values, *types])} FROM {table}{also(where, odd(layout.json_columns) + ' = 1')}"


def insert_head(layout: RowFormat) -> str:
    """Return the beginning of the INSERT that takes rows made by `row_values`."""
    names = ", ".join(sql.name(column.name) for column in layout.columns)
    return f"INSERT INTO {sql.name(layout.schema, layout.table)} ({names}) VALUES "


def row_values(layout: RowFormat, row: Sequence[bytes | None]) -> tuple[str, int]:
    """Return one row of `select_odd` as the values of an INSERT, and how many of its values lose their inner type."""
    types = iter(row[len(layout.columns) :])
    values: list[str] = []
    lost = 0
    for column, value in zip(layout.columns, row, strict=False):
        if column.data_type != "json":
            values.append(_literal(column, value))
            continue
        own, members, items = (next(types) or b"" for _ in range(3))
        if value is None:
            values.append("NULL")
            continue
        document = Document(
            text=value.decode(),
            own=own.decode(),
            members=json.loads(members or b"{}"),
            items=json.loads(items or b"{}"),
        )
        expression, missed = document_expression(document)
        values.append(expression)
        lost += missed
    return f"({', '.join(values)})", lost


def document_expression(document: Document) -> tuple[str, int]:
    """Return SQL that makes the document, and how many of its values lose their inner type.

    The text is read as JSON; then every value of an odd type is set again, by its path, with its type.
    """
    content = json.loads(document.text, parse_float=_Number, parse_int=_Number)
    if document.own in ODD_TYPES:
        typed = _typed(document.own, content)
        return (f"CAST({typed} AS JSON)", 0) if typed else (_parsed(document.text), 1)
    changes: list[str] = []
    lost = 0
    for types, found in ((document.members, _members(content, ())), (document.items, _items(content, ()))):
        for number, (path, value) in enumerate(found, start=1):
            kind = types.get(str(number), "")
            if kind not in ODD_TYPES:
                continue
            typed = _typed(kind, value)
            if typed:
                changes.append(f"{sql.text(_path(path))}, {typed}")
            lost += not typed or kind == "TIMESTAMP"
    text = _parsed(document.text)
    return (f"JSON_SET({', '.join([text, *changes])})" if changes else text), lost


def _members(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield members in the order of '$**.*': those of an object, then those of everything inside it, one by one."""
    if isinstance(value, dict):
        yield from (((*path, key), each) for key, each in value.items())
    for key, each in _inside(value):
        yield from _members(each, (*path, key))


def _items(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield items in the order of '$**[*]'."""
    if isinstance(value, list):
        yield from (((*path, number), each) for number, each in enumerate(value))
    for key, each in _inside(value):
        yield from _items(each, (*path, key))


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _path(path: Path) -> str:
    legs = [f"[{leg}]" if isinstance(leg, int) else "." + json.dumps(leg, ensure_ascii=False) for leg in path]
    return "$" + "".join(legs)


def _typed(kind: str, value: Any) -> str:
    """Return SQL for a value of an odd type; '' when there is none that makes this type."""
    if kind == "DECIMAL" and isinstance(value, _Number):
        whole, _, fraction = value.lstrip("-").partition(".")
        digits = max(len(whole.lstrip("0")) + len(fraction), len(fraction), 1)
        if digits <= DECIMAL_DIGITS_MAX:
            return f"CAST({sql.plain(value)} AS DECIMAL({digits}, {len(fraction)}))"
    if isinstance(value, str) and not isinstance(value, _Number):
        if kind == "DATE":
            return f"CAST({sql.plain(value)} AS DATE)"
        if kind == "TIME":
            return f"CAST({sql.plain(value)} AS TIME(6))"
        if kind in ("DATETIME", "TIMESTAMP"):
            return f"CAST({sql.plain(value)} AS DATETIME(6))"
        if kind == "BLOB" and value.startswith(f"{OPAQUE_PREFIX}{VARBINARY_CODE}:"):
            try:
                return sql.octets(base64.b64decode(value.rpartition(":")[2], validate=True))
            except binascii.Error:
                return ""
    return ""


def _parsed(text: str) -> str:
    return f"CAST({sql.text(text)} AS JSON)"


def _literal(column: Column, value: bytes | None) -> str:
    """Return a value of `RowFormat.octets` as the SQL that stores the same."""
    if value is None:
        return "NULL"
    if column.by_number:
        return value.decode("ascii")
    if column.data_type in BINARY_TYPES:
        return sql.octets(value)
    if column.data_type in TEXT_TYPES:
        return f"_{column.character_set} {sql.octets(value)}"
    return sql.plain(value.decode("ascii"))
