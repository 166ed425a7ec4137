"""The store in memory: for tests and the simulation, as honest as the durable ones about everything but durability."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from farshore.clock import Clock, SystemClock
from farshore.store import EVENTS_KEPT, Item, prefix_end
from farshore.store.embedded import Embedded


class MemoryStore(Embedded):
    """A store that is gone with the process."""

    def __init__(self, clock: Clock | None = None, *, events_kept: int = EVENTS_KEPT) -> None:
        super().__init__(clock=clock or SystemClock(), rev=0, events_kept=events_kept)
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []  # sorted

    def snapshot(self) -> dict[str, Item]:
        """Return everything in the store, for tests that compare before and after."""
        with self._lock:
            return dict(self._items)

    def _read(self, key: str) -> Item | None:
        return self._items.get(key)

    def _scan(self, prefix: str, after: str, limit: int) -> tuple[Item, ...]:
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        end = bisect_left(self._keys, prefix_end(prefix))
        return tuple(self._items[key] for key in self._keys[start : min(end, start + limit)])

    def _leased(self, lease: int, limit: int) -> tuple[str, ...]:
        return tuple(sorted(key for key, item in self._items.items() if item.lease == lease)[:limit])

    def _commit(self, rev: int, puts: Sequence[Item], deletes: Sequence[str]) -> None:
        for item in puts:
            if item.key not in self._items:
                insort(self._keys, item.key)
            self._items[item.key] = item
        for key in deletes:
            del self._items[key]
            del self._keys[bisect_left(self._keys, key)]

    def _close(self) -> None:
        self._items.clear()
        self._keys.clear()
