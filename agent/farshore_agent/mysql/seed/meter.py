"""Count what a seed has done so far and make Progress of it, from any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from farshore_agent.mysql.seed.values import Phase, Progress


@dataclass(slots=True)
class _Table:
    rows_estimate: int
    bytes_estimate: int
    rows: int = 0
    bytes: int = 0
    copied: bool = False


class Meter:
    """The counters of one seed. `report` is called by one thread at a time."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._guard = threading.Lock()
        self._reporting = threading.Lock()
        self._phase = Phase.SNAPSHOT
        self._epoch = 0
        self._tables: dict[str, _Table] = {}
        self._done = 0
        self._current: set[str] = set()

    def begin_epoch(self) -> None:
        """Start again at nothing: there is a new snapshot."""
        with self._guard:
            self._epoch += 1
            self._phase = Phase.SNAPSHOT
            self._tables.clear()
            self._current.clear()
            self._done = 0
        self.report()

    def expect(self, table: str, *, rows: int, bytes: int) -> None:
        """Tell of a table to be copied and the estimates of its size."""
        with self._guard:
            self._tables[table] = _Table(rows_estimate=rows, bytes_estimate=bytes)

    def enter(self, phase: Phase) -> None:
        """Enter a phase, and report."""
        with self._guard:
            self._phase = phase
        self.report()

    def working(self, table: str, *, on: bool) -> None:
        """Show a table as being worked on, or no more."""
        with self._guard:
            if on:
                self._current.add(table)
            else:
                self._current.discard(table)

    def add(self, table: str, *, rows: int, bytes: int) -> None:
        """Count rows and bytes of a table; negative when a try is given up."""
        with self._guard:
            entry = self._tables[table]
            entry.rows += rows
            entry.bytes += bytes

    def copied(self, table: str) -> None:
        """Take the counted size of a table for its estimate: all its rows are there."""
        with self._guard:
            self._tables[table].copied = True

    def finished(self) -> None:
        """Count one table as finished: rows and keys."""
        with self._guard:
            self._done += 1

    def rows_of(self, table: str) -> int:
        """Return the rows of a table copied so far."""
        with self._guard:
            return self._tables[table].rows

    def totals(self) -> tuple[int, int]:
        """Return rows and bytes copied so far."""
        with self._guard:
            return sum(each.rows for each in self._tables.values()), sum(each.bytes for each in self._tables.values())

    def report(self) -> None:
        """Hand the present Progress to the caller of the seed."""
        with self._reporting:
            self._report(self._progress())

    def _progress(self) -> Progress:
        with self._guard:
            tables = list(self._tables.values())
            return Progress(
                phase=self._phase,
                epoch=max(self._epoch, 1),
                tables_done=self._done,
                tables_total=len(tables),
                rows_done=sum(each.rows for each in tables),
                rows_total=sum(each.rows if each.copied else max(each.rows, each.rows_estimate) for each in tables),
                bytes_done=sum(each.bytes for each in tables),
                bytes_total=sum(each.bytes if each.copied else max(each.bytes, each.bytes_estimate) for each in tables),
                current=tuple(sorted(self._current)),
            )
