"""What the embedded engines have in common: guards, revisions, leases and watches over four storage moves.

An engine of one process subclasses `Embedded` and says how to read a key, scan a range, find a lease's keys and commit
a set of changes at once. Any thread may call; one lock makes every call whole.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from farshore.clock import Clock
from farshore.store import (
    EVENTS_KEPT,
    LIST_MAX,
    Change,
    Delete,
    Event,
    Guard,
    Item,
    Page,
    Put,
    Txn,
    check_changes,
    holds,
)
from farshore.store.events import EventLog
from farshore.store.leases import Leases
from farshore_schema.errors import Bug

_EXPIRE_AT_ONCE: Final = 1000  # keys of a dead lease deleted in one commit


class Embedded(ABC):
    """A store whose only process is this one."""

    def __init__(self, *, clock: Clock, rev: int, events_kept: int = EVENTS_KEPT) -> None:
        self._lock = threading.RLock()
        self._rev = rev
        self._leases = Leases(clock)
        self._next_lease = 1
        self._log = EventLog(compacted=rev, kept=events_kept)
        self._watches: set[LogWatch] = set()
        self._closed = False

    # ---- what an engine says

    @abstractmethod
    def _read(self, key: str) -> Item | None:
        """Return the item of a key."""

    @abstractmethod
    def _scan(self, prefix: str, after: str, limit: int) -> tuple[Item, ...]:
        """Return up to `limit` items below `prefix` and greater than `after`, in key order (by code point)."""

    @abstractmethod
    def _leased(self, lease: int, limit: int) -> tuple[str, ...]:
        """Return up to `limit` keys bound to a lease, in key order."""

    @abstractmethod
    def _commit(self, rev: int, puts: Sequence[Item], deletes: Sequence[str]) -> None:
        """Make the changes durable, all or none; raise with none of them made."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of the storage."""

    # ---- the contract

    def get(self, key: str) -> Item | None:
        """Return the key's newest value, or None."""
        with self._lock:
            self._begin()
            return self._read(key)

    def list(self, prefix: str, *, limit: int = LIST_MAX, after: str = "") -> Page:
        """Return up to `limit` items below `prefix` in key order, only those greater than the key `after`."""
        with self._lock:
            self._begin()
            return Page(self._scan(prefix, after, min(limit, LIST_MAX)), self._rev)

    def txn(self, if_: Sequence[Guard] = (), then: Sequence[Change] = ()) -> Txn:
        """Apply all changes of `then` if every guard holds, else none; durable when it returns."""
        check_changes(then)
        with self._lock:
            self._begin()
            current = {guard.key: self._read(guard.key) for guard in if_}
            if not all(holds(guard, current[guard.key]) for guard in if_):
                return Txn(False, self._rev, current)
            wakes = self._apply(then)
            rev = self._rev
        for wake in wakes:
            wake()
        return Txn(True, rev)

    def watch(self, prefix: str, from_rev: int) -> "LogWatch":
        """Return the changes below `prefix` later than `from_rev`."""
        with self._lock:
            self._begin()
            watch = LogWatch(self, prefix, from_rev)
            self._watches.add(watch)
            return watch

    def lease(self, ttl_seconds: float) -> int:
        """Return a new lease."""
        with self._lock:
            self._begin()
            lease, self._next_lease = self._next_lease, self._next_lease + 1
            self._leases.grant(lease, ttl_seconds)
            return lease

    def keepalive(self, lease: int) -> None:
        """Start the lease's time anew. Raises LeaseGone."""
        with self._lock:
            self._begin()
            self._leases.keepalive(lease)

    def revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Idempotent."""
        with self._lock:
            self._begin()
            self._end(lease)

    def close(self) -> None:
        """Let go of the storage. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    # ---- for the watches

    def since(self, prefix: str, from_rev: int, limit: int) -> tuple[tuple[Event, ...], int]:
        """Return logged changes; for LogWatch."""
        with self._lock:
            self._begin()
            return self._log.since(prefix, from_rev, limit)

    def forget(self, watch: "LogWatch") -> None:
        """Wake this watch no more; for LogWatch."""
        with self._lock:
            self._watches.discard(watch)

    def compact(self, kept: int) -> None:
        """Keep only about the newest `kept` changes for watchers."""
        with self._lock:
            self._log.trim(kept)

    # ---- inside, under the lock

    def _begin(self) -> None:
        if self._closed:
            raise Bug("the store is used after it was closed")
        for lease in self._leases.overdue():
            self._end(lease)

    def _end(self, lease: int) -> None:
        # The keys go before the lease: a commit that fails leaves the lease overdue, to be ended at the next call.
        while keys := self._leased(lease, _EXPIRE_AT_ONCE):
            for wake in self._apply([Delete(key) for key in keys]):
                wake()
        self._leases.drop(lease)

    def _apply(self, then: Sequence[Change]) -> Sequence[Callable[[], None]]:
        rev = self._rev + 1
        puts: list[Item] = []
        deletes: list[str] = []
        changed: list[tuple[str, bool]] = []  # in the order of the transaction
        for change in then:
            old = self._read(change.key)
            if isinstance(change, Put):
                if change.lease:
                    self._leases.require(change.lease)
                puts.append(Item(change.key, change.value, rev, old.create_rev if old else rev, change.lease))
                changed.append((change.key, False))
            elif old:
                deletes.append(change.key)
                changed.append((change.key, True))
        if not changed:
            return ()
        self._commit(rev, puts, deletes)
        self._rev = rev
        events = self._log.append(rev, changed)
        return [wake for watch in self._watches for wake in watch.wakes_for(events)]


class LogWatch:
    """A reader's place in the log of an embedded store."""

    def __init__(self, store: Embedded, prefix: str, from_rev: int) -> None:
        self._store, self._prefix, self._rev = store, prefix, from_rev
        self._wakes: list[Callable[[], None]] = []

    def poll(self, limit: int = 1000) -> tuple[Event, ...]:
        """Return the changes since the last call, oldest first. Raises Compacted."""
        events, self._rev = self._store.since(self._prefix, self._rev, limit)
        return events

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every commit that changes a key below the prefix."""
        self._wakes.append(wake)

    def wakes_for(self, events: Sequence[Event]) -> Sequence[Callable[[], None]]:
        """Return whom to wake for these changes."""
        return tuple(self._wakes) if any(event.key.startswith(self._prefix) for event in events) else ()

    def close(self) -> None:
        """Forget the watch. Idempotent."""
        self._wakes.clear()
        self._store.forget(self)
