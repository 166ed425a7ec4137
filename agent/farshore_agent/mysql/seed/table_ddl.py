"""Take a CREATE TABLE apart: what the rows need to arrive, what is cheaper to add once they are there, foreign keys.

Adding a secondary index after the data sorts once instead of searching a place for every row. The text is what SHOW
CREATE TABLE prints with sql_mode='', so only backquotes, single quotes and parentheses have to be understood.

It knows no server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_IDENTIFIER = rb"`(?:[^`]|``)+`"
_AUTO_INCREMENT = re.compile(rb"(" + _IDENTIFIER + rb") .* AUTO_INCREMENT\b", re.DOTALL)
_KEY = re.compile(rb"(?:(UNIQUE|FULLTEXT|SPATIAL) )?KEY (" + _IDENTIFIER + rb") ")
_PRIMARY = re.compile(rb"PRIMARY KEY \(")
_FOREIGN = re.compile(rb"CONSTRAINT " + _IDENTIFIER + rb" FOREIGN KEY\b")
_FIRST_PART = re.compile(rb"[^(]*\((" + _IDENTIFIER + rb")")
_COUNTER = re.compile(rb" AUTO_INCREMENT=\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TablePlan:
    """A table in the three steps in which it is built."""

    create: bytes
    """CREATE TABLE with what must be there from the beginning."""
    keys: tuple[tuple[bytes, ...], ...]
    """Clauses of ALTER TABLE, a tuple for each statement, to be run in this order so that SHOW CREATE TABLE agrees."""
    foreign_keys: tuple[bytes, ...]
    """Clauses of ALTER TABLE, for when every table has its keys."""


def plan_table(create: bytes) -> TablePlan:
    """Split the text of SHOW CREATE TABLE.

    Kept are the primary key, and with every secondary key that must be there from the beginning all that precede it,
    because the order of keys is part of the definition: keys that AUTO_INCREMENT needs, and the unique keys of a table
    without primary key (InnoDB clusters by the first of them).
    """
    head, items, tail = _split(create)
    keys = [item for item in items if _KEY.match(item)]
    foreign = [item for item in items if _FOREIGN.match(item)]
    needed = [index for index, key in enumerate(keys) if _needed_at_once(key, items)]
    kept = keys[: needed[-1] + 1] if needed else []
    later = keys[len(kept) :]
    gone = {id(item) for item in (*later, *foreign)}
    body = b",\n  ".join(item for item in items if id(item) not in gone)
    return TablePlan(
        create=head + b"(\n  " + body + b"\n)" + tail,
        keys=tuple(_statements(later)),
        foreign_keys=tuple(b"ADD " + item for item in foreign),
    )


def without_counter(create: bytes) -> bytes:
    """Return a CREATE TABLE without the AUTO_INCREMENT counter of its options, which moves with every row."""
    head, items, tail = _split(create)
    end = _options_end(tail)
    return head + b"(" + b",".join(items) + b")" + _COUNTER.sub(b"", tail[:end]) + tail[end:]


def key_name(clause: bytes) -> str | None:
    """Return the name of the key that an `ADD ... KEY` clause adds."""
    match = _KEY.match(clause.removeprefix(b"ADD "))
    return None if match is None else match.group(2)[1:-1].replace(b"``", b"`").decode("utf-8", "surrogateescape")


def constraint_name(clause: bytes) -> str | None:
    """Return the name of the foreign key that an `ADD CONSTRAINT` clause adds."""
    match = re.match(rb"ADD CONSTRAINT (" + _IDENTIFIER + rb")", clause)
    return None if match is None else match.group(1)[1:-1].replace(b"``", b"`").decode("utf-8", "surrogateescape")


def _needed_at_once(key: bytes, items: Sequence[bytes]) -> bool:
    match = _KEY.match(key)
    first = _FIRST_PART.match(key[match.end() :]) if match else None
    counters = [found.group(1) for item in items if (found := _AUTO_INCREMENT.match(item))]
    if counters and first is not None and first.group(1) == counters[0]:
        primary = next((item for item in items if _PRIMARY.match(item)), b"")
        leading = _FIRST_PART.match(primary)
        if leading is None or leading.group(1) != counters[0]:
            return True
    return key.startswith(b"UNIQUE ") and not any(_PRIMARY.match(item) for item in items)


def _statements(keys: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Group keys: B-trees together, each FULLTEXT and SPATIAL alone (InnoDB builds one of them at a time)."""
    group: list[bytes] = []
    for key in keys:
        if key.startswith((b"FULLTEXT ", b"SPATIAL ")):
            if group:
                yield tuple(group)
                group = []
            yield (b"ADD " + key,)
        else:
            group.append(b"ADD " + key)
    if group:
        yield tuple(group)


def _split(create: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return what precedes the list of definitions, its items, and what follows it."""
    depth = 0
    start = 0
    head = b""
    items: list[bytes] = []
    position = 0
    while position < len(create):
        byte = create[position : position + 1]
        if byte in (b"`", b"'"):
            position = _quoted_end(create, position)
            continue
        if byte == b"(":
            depth += 1
            if depth == 1:
                head, start = create[:position], position + 1
        elif byte == b",":
            if depth == 1:
                items.append(create[start:position].strip())
                start = position + 1
        elif byte == b")":
            depth -= 1
            if depth == 0:
                items.append(create[start:position].strip())
                return head, items, create[position + 1 :]
        position += 1
    raise ValueError("no list of definitions in the text of SHOW CREATE TABLE")


def _quoted_end(text: bytes, start: int) -> int:
    """Return the position after the quoted name or string that begins at `start`."""
    quote = text[start : start + 1]
    position = start + 1
    while position < len(text):
        byte = text[position : position + 1]
        if byte == b"\\" and quote == b"'":
            position += 2
        elif byte == quote:
            if text[position + 1 : position + 2] != quote:
                return position + 1
            position += 2
        else:
            position += 1
    raise ValueError("a quoted name or string has no end in the text of SHOW CREATE TABLE")


def _options_end(tail: bytes) -> int:
    """Return where the options end: a comment or string may hold what looks like a counter."""
    match = re.search(rb"'", tail)
    return match.start() if match else len(tail)
