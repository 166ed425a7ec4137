"""What the clients of a load recorded: one value a transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["I", "U", "D", "B", "C", "N"]
"""Insert, counter update, change of tables, big transaction, the client's own counter row, no connection."""
Outcome = Literal["ok", "unknown", "error"]
"""`ok`: the client was told OK. `unknown`: the connection broke first. `error`: refused, or there was no connection."""


class Record(NamedTuple):
    """One transaction as its client saw it; a named tuple because a run has hundreds of thousands."""

    client: int
    kind: str
    number: int
    """Of the client's transactions; a row's id is made of both numbers."""
    start: float
    """CLOCK_MONOTONIC, seconds."""
    end: float
    outcome: str
    code: int
    """MySQL's error number; 0 with `ok`."""


def read_records(folder: Path) -> list[Record]:
    """Read every client's file; a line that is being written is left out."""
    found: list[Record] = []
    for path in folder.iterdir():
        if not path.name.isdigit():
            continue
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                kind, number, start, end, outcome, code = line.split()
                found.append(Record(int(path.name), kind, int(number), float(start), float(end), outcome, int(code)))
    return found
