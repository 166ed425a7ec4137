"""Decides when a pair's report is written: only when it would say something else.

What was last told is kept in memory as references, so an idle visit costs a comparison. After a restart the stored
report is compared first, so that ten thousand pairs do not write ten thousand equal reports.
"""

from typing import NamedTuple

from farshore.plan import Policy
from farshore.report import Told, report
from farshore.store import Put, keys
from farshore.store.records import Records, put


class Pending(NamedTuple):
    """A report that should be written with the next transaction; `change` is None when it is stored already."""

    pair: str
    told: Told
    change: Put | None


class Reporter:
    """What every pair was last reported as."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._told: dict[str, Told] = {}

    def due(self, pair: str, told: Told, *, now: str, policy: Policy) -> Pending | None:
        """Return the report to write, None when it would say what was said."""
        if self._told.get(pair) == told:
            return None
        before = self._records.status(pair)
        fresh = report(told, before=before.value if before else None, now=now, policy=policy)
        stored = before is not None and before.value == fresh
        return Pending(pair, told, None if stored else put(keys.status(pair), fresh))

    def written(self, pending: Pending) -> None:
        """Note that it was written."""
        self._told[pending.pair] = pending.told

    def forget(self, pair: str) -> None:
        """Drop what is known of a pair that is no more."""
        self._told.pop(pair, None)
