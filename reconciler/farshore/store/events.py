"""What changed lately, in order: the log behind the watches of the embedded engines.

The log lives in memory: a restart compacts it, which every watcher must be able to bear anyway. It knows keys and
revisions, no values, no storage and no threads: the engine's lock protects it.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from typing import Final

from farshore.store import EVENTS_KEPT, Compacted, Event

_TRIM_AT: Final = 1.25  # times what is kept; trimming in slices keeps appending cheap


class EventLog:
    """The newest changes in order of their revision."""

    def __init__(self, *, compacted: int = 0, kept: int = EVENTS_KEPT) -> None:
        self._events: list[Event] = []
        self._compacted = compacted  # changes up to this revision are not (all) here
        self._kept = kept

    def append(self, rev: int, changed: Iterable[tuple[str, bool]]) -> tuple[Event, ...]:
        """Log the changes (key, deleted) of one revision and return them."""
        events = tuple(Event(rev, key, deleted) for key, deleted in changed)
        self._events += events
        if len(self._events) > self._kept * _TRIM_AT:
            self.trim(self._kept)
        return events

    def trim(self, kept: int) -> None:
        """Keep about the newest `kept` changes, never a part of a revision."""
        cut = len(self._events) - kept
        if cut <= 0:
            return
        self._compacted = self._events[cut - 1].rev
        while cut < len(self._events) and self._events[cut].rev == self._compacted:
            cut += 1
        del self._events[:cut]

    def since(self, prefix: str, from_rev: int, limit: int) -> tuple[tuple[Event, ...], int]:
        """Return the changes below `prefix` later than `from_rev`, and the revision up to which nothing is left out.

        A revision is never cut in two, so the answer may exceed `limit` by one revision's changes. Raises Compacted.
        """
        if from_rev < self._compacted:
            raise Compacted(from_rev, self._compacted)
        found: list[Event] = []
        reached = from_rev
        start = bisect_right(self._events, from_rev, key=attrgetter("rev"))
        for event in islice(self._events, start, None):
            if len(found) >= limit and event.rev != reached:
                break
            reached = event.rev
            if event.key.startswith(prefix):
                found.append(event)
        return tuple(found), reached
