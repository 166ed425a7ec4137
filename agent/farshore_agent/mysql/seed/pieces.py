"""Cut a large table into ranges of its primary key, so that a cut connection costs a range and not the table.

Sizes come from the optimizer's estimates (EXPLAIN dives into the index and reads no rows), so a range may be off by
some factor; what matters is that together they hold every row exactly once, which open ends and half-open bounds see
to whatever the estimates say.
"""

# ruff: noqa: S608 - names are quoted by sql.py, bounds are numbers

from __future__ import annotations

import itertools
from dataclasses import dataclass

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.catalogue import Table
from farshore_agent.mysql.seed.session import Session

PIECES_MAX = 4096
EXPLAIN_ROWS_COLUMN = 9
"""Of the traditional format: id, select_type, table, partitions, type, possible_keys, key, key_len, ref, rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """The rows of a table whose range column is above `after` and up to `upto`; None is open."""

    table: Table
    after: int | None = None
    upto: int | None = None
    bytes_estimate: int = 0

    @property
    def whole(self) -> bool:
        """Whether this is the whole table."""
        return self.after is None and self.upto is None

    @property
    def where(self) -> str:
        """The condition, with a leading blank; empty for a whole table."""
        column = self.table.range_column
        if self.whole or column is None:
            return ""
        bounds = []
        if self.after is not None:
            bounds.append(f"{sql.name(column)} > {self.after:d}")
        if self.upto is not None:
            bounds.append(f"{sql.name(column)} <= {self.upto:d}")
        return " WHERE " + " AND ".join(bounds)

    @property
    def label(self) -> str:
        """Table and range, for people."""
        return self.table.label + self.where


def cut(session: Session, table: Table, *, bytes_max: int) -> list[Piece]:
    """Return pieces of about `bytes_max` bytes that together are the table."""
    column = table.range_column
    whole = Piece(table=table, bytes_estimate=table.bytes_estimate)
    if column is None or table.bytes_estimate <= bytes_max or not table.rows_estimate:
        return [whole]
    target = sql.name(table.schema, table.name)
    row = session.ask(f"SELECT MIN({sql.name(column)}), MAX({sql.name(column)}) FROM {target}").rows[0]
    if row[0] is None or row[1] is None:
        return [whole]
    rows_max = max(1, table.rows_estimate * bytes_max // table.bytes_estimate)
    bounds = _bounds(session, table, int(row[0]) - 1, int(row[1]), rows_max)
    edges: list[int | None] = [None, *bounds, None]
    count = len(edges) - 1
    return [
        Piece(table=table, after=after, upto=upto, bytes_estimate=table.bytes_estimate // count)
        for after, upto in itertools.pairwise(edges)
    ]


def _bounds(session: Session, table: Table, low: int, high: int, rows_max: int) -> list[int]:
    """Halve ranges until each is estimated at `rows_max` rows or fewer; return the inner bounds, ascending."""
    bounds: list[int] = []
    todo = [(low, high)]
    while todo:
        after, upto = todo.pop()
        if (
            upto - after > 1
            and len(bounds) + len(todo) < PIECES_MAX
            and _estimate(session, table, after, upto) > rows_max
        ):
            middle = (after + upto) // 2
            todo += [(middle, upto), (after, middle)]  # the lower half is looked at first
        elif upto < high:
            bounds.append(upto)
    return bounds


def _estimate(session: Session, table: Table, after: int, upto: int) -> int:
    piece = Piece(table=table, after=after, upto=upto)
    column = sql.name(table.range_column or "")
    rows = session.ask(
        f"EXPLAIN SELECT {column} FROM {sql.name(table.schema, table.name)} FORCE INDEX (PRIMARY){piece.where}"
    ).rows
    return int(rows[0][EXPLAIN_ROWS_COLUMN] or 0)
