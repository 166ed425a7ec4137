"""Carry one piece of a table from the source's answer into the target's LOAD DATA, and accept it only if it is exact.

The piece is one transaction of the target: it is committed after the target's count of rows equals the number that
passed and no warning is left unexplained (LOAD DATA LOCAL turns every error into a warning and goes on). It must not
decide what happens after a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from farshore_agent.mysql.seed.errors import NotExact
from farshore_agent.mysql.seed.framing import RowFramer
from farshore_agent.mysql.seed.pieces import Piece
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.session import Answer, Session

SEPARATOR_WARNING = 1638
"""'Non-ASCII separator arguments are not fully supported': true of ESCAPED BY only, which is ASCII here."""
WARNINGS_SHOWN = 3
GATHER_BYTES = 256 * 1024

Moved = Callable[[int, int], None]
"""Told how many rows and bytes more have passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What one piece was."""

    rows: int
    bytes: int


def copy_piece(reader: Session, writer: Session, layout: RowFormat, piece: Piece, moved: Moved) -> Copied:
    """Copy and commit the rows of `piece`.

    Raises ConnectionLost, StatementFailed, NotExact; NullRow when a row is too long for `layout` in one string. The
    writer's transaction is then rolled back or its session gone; the reader may be in the middle of its rows, which
    `Session.drop_rows` ends.
    """
    passed = _Passed()
    framer = RowFramer()
    writer.ask("BEGIN")
    answer = writer.load(
        layout.load(), passed.through(reader.raw_rows(layout.select(piece.where), framer), framer, moved)
    )
    _accept(reader, writer, layout, piece, answer, framer.rows)
    return Copied(rows=framer.rows, bytes=passed.bytes)


def copy_long_rows(reader: Session, writer: Session, layout: RowFormat, piece: Piece, moved: Moved) -> Copied:
    """As `copy_piece`, for rows that the source cannot make one string of; `layout` must be of style `token`.

    Values are put together here, row by row. After an exception the reader is of no use any more.
    """
    passed = _Passed()
    framer = RowFramer()
    writer.ask("BEGIN")
    rows = passed.joined(reader.rows(layout.select_fields(piece.where)), layout, framer)
    answer = writer.load(layout.load(), passed.through(rows, framer, moved))
    _accept(reader, writer, layout, piece, answer, framer.rows)
    return Copied(rows=framer.rows, bytes=passed.bytes)


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


def _accept(reader: Session, writer: Session, layout: RowFormat, piece: Piece, answer: Answer, rows: int) -> None:
    """Commit what was loaded, or roll it back and raise NotExact.

    Warnings are no proof of a difference: an ENUM's error value cannot be written without one, nor can a generated
    value that warned on the source. Where there are any, hashes of both sides decide.
    """
    warnings = _warnings(writer) if answer.warnings else []
    reason = ""
    if answer.affected != rows:
        reason = f"{rows} rows were read and {answer.affected} written"
    elif warnings:
        question = layout.digest(piece.where)
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
