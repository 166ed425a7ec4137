"""A store that says how long its transactions take: a wrapper, so that engines know nothing of metrics."""

from collections.abc import Callable, Sequence

from farshore.clock import Clock
from farshore.store import LIST_MAX, Change, Guard, Item, Page, Store, Txn, Watch


class TimedStore:
    """Passes every call on; tells `took(seconds)` of each transaction that had something to write."""

    def __init__(self, store: Store, clock: Clock, took: Callable[[float], None]) -> None:
        self._store, self._clock, self._took = store, clock, took

    def get(self, key: str) -> Item | None:
        """Return the key's newest value, or None."""
        return self._store.get(key)

    def list(self, prefix: str, *, limit: int = LIST_MAX, after: str = "") -> Page:
        """Return up to `limit` items below `prefix`, greater than `after`."""
        return self._store.list(prefix, limit=limit, after=after)

    def txn(self, if_: Sequence[Guard] = (), then: Sequence[Change] = ()) -> Txn:
        """Apply all changes of `then` if every guard holds."""
        began = self._clock.monotonic()
        done = self._store.txn(if_, then)
        if then:
            self._took(self._clock.monotonic() - began)
        return done

    def watch(self, prefix: str, from_rev: int) -> Watch:
        """Return the changes below `prefix` later than `from_rev`."""
        return self._store.watch(prefix, from_rev)

    def lease(self, ttl_seconds: float) -> int:
        """Return a new lease."""
        return self._store.lease(ttl_seconds)

    def keepalive(self, lease: int) -> None:
        """Start the lease's time anew."""
        self._store.keepalive(lease)

    def revoke(self, lease: int) -> None:
        """End a lease."""
        self._store.revoke(lease)

    def close(self) -> None:
        """Let go of the storage."""
        self._store.close()
