"""Carry one piece of a table from the source's answer into the target's LOAD DATA, and accept it only if it is exact.

The piece is one transaction of the target: it is committed after the target's count of rows equals the number that
passed and no warning is left unexplained (LOAD DATA LOCAL turns every error into a warning and goes on). It must not
decide what happens after a failure.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from farshore_agent.mysql.seed import sql, typed_json
from farshore_agent.mysql.seed.errors import NotExact
from farshore_agent.mysql.seed.framing import RowFramer
from farshore_agent.mysql.seed.pieces import Piece
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.session import Answer, Session

SEPARATOR_WARNING = 1638
"""'Non-ASCII separator arguments are not fully supported': true of ESCAPED BY only, which is ASCII here."""
WARNINGS_SHOWN = 3
GATHER_BYTES = 256 * 1024
INSERT_BYTES = 1024 * 1024
"""Text of one INSERT; a single row may be longer. Well under the least max_allowed_packet in use, 4 MiB."""

Moved = Callable[[int, int], None]
"""Told how many rows and bytes more have passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What one piece was."""

    rows: int
    bytes: int
    types_lost: int = 0
    """Values inside JSON documents whose text arrived and whose inner type did not."""


def copy_piece(
    reader: Session, writer: Session, layout: RowFormat, piece: Piece, moved: Moved, *, long_rows: bool = False
) -> Copied:
    """Copy and commit the rows of `piece`.

    With `long_rows` the values are put together here, for rows that the source cannot make one string of; `layout`
    must then be of style `token`. Raises ConnectionLost, StatementFailed, NotExact; NullRow when a row is too long
    for one string. The writer's transaction is then rolled back or its session gone, and the reader may be in the
    middle of its rows (`Session.sending`).
    """
    passed = _Passed()
    framer = RowFramer()
    where = piece.where
    odd_there = bool(layout.json_columns) and _odd_rows(reader, layout, where) > 0
    if odd_there:
        where = typed_json.also(where, typed_json.odd(layout.json_columns) + " = 0")
    writer.ask("BEGIN")
    if long_rows:
        rows = passed.joined(reader.rows(layout.select_fields(where)), layout, framer)
    else:
        rows = reader.raw_rows(layout.select(where), framer)
    answer = writer.load(layout.load(), passed.through(rows, framer, moved))
    odd = _insert_odd_rows(reader, writer, layout, piece.where, moved) if odd_there else Copied(rows=0, bytes=0)
    _accept(reader, writer, layout, piece, answer, framer.rows, odd)
    return Copied(rows=framer.rows + odd.rows, bytes=passed.bytes + odd.bytes, types_lost=odd.types_lost)


class _Passed:
    """Counts bytes on their way."""

    def __init__(self) -> None:
        self.bytes = 0

    def through(self, pieces: Iterator[bytes], framer: RowFramer, moved: Moved) -> Iterator[bytes]:
        rows = 0
        for octets in pieces:
            yield octets
            self.bytes += len(octets)
            moved(framer.rows - rows, len(octets))
            rows = framer.rows

    def joined(self, rows: Iterator[tuple[bytes | None, ...]], layout: RowFormat, framer: RowFramer) -> Iterator[bytes]:
        gathered: list[bytes] = []
        size = 0
        for row in rows:
            octets = layout.join(row)
            gathered.append(octets)
            size += len(octets)
            framer.rows += 1
            if size >= GATHER_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        yield b"".join(gathered)


def _odd_rows(reader: Session, layout: RowFormat, where: str) -> int:
    """Return how many rows hold documents that their text does not bring back."""
    condition = typed_json.also(where, typed_json.odd(layout.json_columns) + " = 1")
    return reader.ask(f"SELECT COUNT(*) FROM {sql.name(layout.schema, layout.table)}{condition}").number()


def _insert_odd_rows(reader: Session, writer: Session, layout: RowFormat, where: str, moved: Moved) -> Copied:
    """Write those rows by INSERT, some at a time."""
    head = typed_json.insert_head(layout)
    gathered: list[str] = []
    size = rows = total = lost = 0

    def write() -> None:
        if gathered:
            writer.ask(head + ", ".join(gathered))
            moved(len(gathered), size)

    for row in reader.rows(typed_json.select_odd(layout, where)):
        values, missed = typed_json.row_values(layout, row)
        gathered.append(values)
        size += len(values)
        rows, total, lost = rows + 1, total + len(values), lost + missed
        if size >= INSERT_BYTES:
            write()
            gathered, size = [], 0
    write()
    return Copied(rows=rows, bytes=total, types_lost=lost)


def _accept(
    reader: Session, writer: Session, layout: RowFormat, piece: Piece, answer: Answer, rows: int, odd: Copied
) -> None:
    """Commit what was loaded, or roll it back and raise NotExact.

    Warnings are no proof of a difference: an ENUM's error value cannot be written without one, nor can a generated
    value that warned on the source. Where there are any, hashes of both sides decide; as they do over rows that were
    written in another way.
    """
    warnings = _warnings(writer) if answer.warnings else []
    reason = ""
    if answer.affected != rows:
        reason = f"{rows} rows were read and {answer.affected} written"
    elif warnings or odd.rows:
        question = layout.digest(piece.where, typed=not odd.types_lost)
        if reader.ask(question).rows != writer.ask(question).rows:
            reason = "the hashes of the rows differ"
    if reason:
        writer.ask("ROLLBACK")
        raise NotExact(
            "; ".join([f"{piece.label} did not arrive as it is on the source: {reason}", *warnings[:WARNINGS_SHOWN]]),
            hint="nothing of it was kept; compare the table's definition on both sides, then repeat the seed",
        )
    writer.ask("COMMIT")


def _warnings(writer: Session) -> list[str]:
    rows = writer.ask("SHOW WARNINGS").names()
    # Codes only: the texts show values of the rows.
    return [f"warning {code}" for code in dict.fromkeys(row[1] for row in rows) if int(code) != SEPARATOR_WARNING]
