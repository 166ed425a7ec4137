"""What is left to do with the tables, shared by the workers: rows first, keys of a table once all its rows are there.

It knows no server: it hands out tasks and hears what became of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from farshore_agent.mysql.seed.pieces import Piece
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.table_ddl import TablePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class TableWork:
    """One table: how its rows travel, in what pieces, and what is to be added afterwards."""

    layout: RowFormat
    plan: TablePlan
    pieces: tuple[Piece, ...]
    label: str
    rows_estimate: int
    bytes_estimate: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyRows:
    """Copy one piece of a table."""

    work: TableWork
    piece: Piece


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildKeys:
    """Add the secondary keys of a table whose rows are there."""

    work: TableWork


Task = CopyRows | BuildKeys


class Board:
    """The tasks of one epoch, largest first."""

    def __init__(self, works: Sequence[TableWork]) -> None:
        ordered = sorted(works, key=lambda work: work.bytes_estimate, reverse=True)
        self._copies = deque(CopyRows(work=work, piece=piece) for work in ordered for piece in work.pieces)
        self._keys: deque[BuildKeys] = deque()
        self._left = {work.label: len(work.pieces) for work in works}
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()
        self.rows_done = threading.Event()
        """Set when the last piece is copied: the source is not needed any more."""
        if not self._copies:
            self.rows_done.set()

    def next(self) -> Task | None:
        """Return something to do, waiting while only others are at work; None when all is done or stopped."""
        with self._changed:
            while not self._stopped:
                if self._copies:
                    self._running += 1
                    return self._copies.popleft()
                if self._keys:
                    self._running += 1
                    return self._keys.popleft()
                if not self._running:
                    break
                self._changed.wait()
            return None

    def done(self, task: Task) -> bool:
        """Take note that a task is finished; return whether it was the last piece of its table."""
        with self._changed:
            self._running -= 1
            last = False
            if isinstance(task, CopyRows):
                self._left[task.work.label] -= 1
                last = not self._left[task.work.label]
                if last:
                    self._keys.append(BuildKeys(work=task.work))
                if not any(self._left.values()):
                    self.rows_done.set()
            self._changed.notify_all()
            return last

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
