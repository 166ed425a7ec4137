"""Decides when a pair's report is written: only when it would say something else, and many in one transaction.

What was last told is kept in memory as references, so an idle visit costs a comparison. After a restart the stored
report is compared first, so that ten thousand pairs do not write ten thousand equal reports.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from farshore.plan import Policy
from farshore.report import report
from farshore.store import Change, Guard, Put, keys
from farshore.store.records import Records, put
from farshore.told import Told
from farshore_schema.status import PairStatus

BATCH: Final = 25  # reports in one transaction: four guards each, and a transaction has at most 128


class Batch(NamedTuple):
    """Reports of several pairs for one transaction."""

    pairs: tuple[str, ...]
    guards: Sequence[Guard]
    changes: Sequence[Change]

    def apart(self) -> "list[Batch]":
        """Return one batch for each pair: one pair that changed meanwhile must not hold up the others."""
        each = len(self.guards) // len(self.pairs)
        return [
            Batch((pair,), self.guards[n * each : (n + 1) * each], self.changes[n : n + 1])
            for n, pair in enumerate(self.pairs)
        ]


class Reporter:
    """What every pair was last reported as, and the reports that wait to be written."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._told: dict[str, Told] = {}
        self._waiting: dict[str, tuple[Put, tuple[Guard, ...]]] = {}

    def due(self, pair: str, told: Told | None, *, now: str, policy: Policy) -> Put | None:
        """Return the report to write now, None when it would say what was said. It counts as written from here on.

        `told` None: nothing is to be said now. A report of the pair that still waits comes back with this call.
        """
        waiting = self._waiting.pop(pair, None)
        if told is None:
            return None
        if self._told.get(pair) == told:
            return waiting[0] if waiting else None
        item = self._records.store.get(keys.status(pair))
        # Parsed afresh and not kept: it is read only when something changed, and ten thousand of them are 200 MB.
        before = PairStatus.model_validate_json(item.value) if item is not None else None
        fresh = report(told, before=before, now=now, policy=policy)
        self._told[pair] = told
        return None if before == fresh else put(keys.status(pair), fresh)

    def put_off(self, pair: str, change: Put, guards: tuple[Guard, ...]) -> None:
        """Let a report wait for others; `guards` are what it was decided on."""
        self._waiting[pair] = (change, guards)

    @property
    def waiting(self) -> int:
        """How many reports wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether enough wait for one transaction."""
        return len(self._waiting) >= BATCH

    def take(self) -> Batch:
        """Return the reports that have waited longest, for one transaction."""
        pairs = tuple(islice(self._waiting, BATCH))
        found = [self._waiting.pop(pair) for pair in pairs]
        return Batch(pairs, [guard for _, guards in found for guard in guards], [change for change, _ in found])

    def forget(self, pair: str) -> None:
        """Say everything anew at the next visit, or never again of a pair that is no more."""
        self._told.pop(pair, None)
        self._waiting.pop(pair, None)
