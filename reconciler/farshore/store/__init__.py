"""The store's contract: five calls that memory, SQLite and a distributed engine answer alike.

`get`, `list`, `txn`, `watch` and `lease` are all that the rest of the reconciler knows of storage. The interface is
synchronous, so that the simulation can drive it call by call; every call returns with its effect durable or raises with
nothing changed. Values are bytes: what they mean is the business of `records`, where they live that of `keys`.

Revisions follow etcd (api/v3 `KeyValue`): one counter for the whole store, +1 for each transaction that changes
something; an absent key has revision 0. All changes of one transaction carry one revision.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

KEY_BYTES_MAX: Final = 512  # bytes; long enough for two names and an id
VALUE_BYTES_MAX: Final = 1024 * 1024  # bytes; etcd refuses requests over 1.5 MiB
TXN_CHANGES_MAX: Final = 128  # etcd's --max-txn-ops
LIST_MAX: Final = 10_000  # items one call returns; ask again with `after`
EVENTS_KEPT: Final = 50_000  # events a watcher may be behind; about 10 MB


class Item(NamedTuple):
    """A key with its value and history. `lease` is 0 for a key that lives until it is deleted."""

    key: str
    value: bytes
    mod_rev: int  # revision of the transaction that wrote this value
    create_rev: int  # revision of the transaction that created the key; a deleted and re-created key has a new one
    lease: int = 0


class Guard(NamedTuple):
    """A condition of a transaction: this revision of this key has this number. Made by the constructors below."""

    key: str
    revision: int
    of: Literal["mod", "create"]


def mod_rev(key: str, revision: int) -> Guard:
    """Require that the key was last written by `revision` (0: the key is absent)."""
    return Guard(key, revision, "mod")


def create_rev(key: str, revision: int) -> Guard:
    """Require that the key was created by `revision` (0: the key is absent). A lock's fencing token."""
    return Guard(key, revision, "create")


def absent(key: str) -> Guard:
    """Require that the key does not exist."""
    return Guard(key, 0, "create")


class Put(NamedTuple):
    """Write a value. A `lease` binds the key's life to it; 0 unbinds."""

    key: str
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Remove a key; no change, and no event, when it is absent."""

    key: str


Change = Put | Delete


class Txn(NamedTuple):
    """The outcome of a transaction. When `ok` is False nothing was changed."""

    ok: bool
    rev: int  # the store's revision after it
    current: dict[str, Item | None] = {}  # noqa: RUF012 (never written) # not ok: the guarded keys as they are


class Page(NamedTuple):
    """A part of a listing, in the order of keys, and the revision it was true at."""

    items: tuple[Item, ...]
    rev: int


class Event(NamedTuple):
    """Something changed. Level-triggered: it names the key, the value is read with `get`."""

    rev: int
    key: str
    deleted: bool


class Compacted(Exception):
    """The watcher is further behind than the log reaches; list again and watch from that revision."""

    def __init__(self, from_rev: int, compacted: int) -> None:
        super().__init__(f"changes after revision {from_rev} are no longer kept; the log begins after {compacted}")
        self.from_rev, self.compacted = from_rev, compacted


class LeaseGone(Exception):
    """The lease has run out or was revoked; its keys are deleted."""


class Watch(Protocol):
    """Changes below a prefix, in order, pulled by the reader. Made by `Store.watch`."""

    def poll(self, limit: int = 1000) -> tuple[Event, ...]:
        """Return the changes since the last call, oldest first; all changes of one revision come together, so the
        answer may exceed `limit` by them. Raises Compacted when changes were lost; nothing is skipped silently."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every commit that changes a key below the prefix, in the committing thread. It must be
        quick and must not call the store."""
        ...

    def close(self) -> None:
        """Forget the watch. Idempotent."""
        ...


class Store(Protocol):
    """A small ordered database of keys with transactions guarded by revisions.

    Every call may raise FarshoreError: `disk_full` (nothing changed, nothing lost), `store_failed` (the storage itself
    failed; the process should end, because what was last written is unknown).
    """

    def get(self, key: str) -> Item | None:
        """Return the key's newest value, or None. Linearizable."""
        ...

    def list(self, prefix: str, *, limit: int = LIST_MAX, after: str = "") -> Page:
        """Return up to `limit` items below `prefix` in key order, only those greater than the key `after`."""
        ...

    def txn(self, if_: Sequence[Guard] = (), then: Sequence[Change] = ()) -> Txn:
        """Apply all changes of `then` if every guard holds, else none; durable when it returns. A key appears at most
        once in `then`; a put may name only a live lease (LeaseGone)."""
        ...

    def watch(self, prefix: str, from_rev: int) -> Watch:
        """Return the changes below `prefix` later than `from_rev`, the revision of the caller's last listing."""
        ...

    def lease(self, ttl_seconds: float) -> int:
        """Return a new lease that runs out `ttl_seconds` after its last keepalive, deleting its keys. A lease never
        outlives the process that holds an embedded store."""
        ...

    def keepalive(self, lease: int) -> None:
        """Start the lease's time anew. Raises LeaseGone."""
        ...

    def revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Idempotent."""
        ...

    def close(self) -> None:
        """Let go of the storage. Idempotent; every other call afterwards is a bug."""
        ...


def check_changes(then: Sequence[Change]) -> None:
    """Raise ValueError for a transaction that no engine may accept: over a limit, or a key changed twice."""
    if len(then) > TXN_CHANGES_MAX:
        raise ValueError(f"{len(then)} changes in one transaction; at most {TXN_CHANGES_MAX}")
    if len({change.key for change in then}) != len(then):
        raise ValueError("a key is changed twice in one transaction")
    for change in then:
        if not change.key.startswith("/") or len(change.key.encode()) > KEY_BYTES_MAX:
            raise ValueError(f"not a key: {change.key[:80]!r}")
        if isinstance(change, Put) and len(change.value) > VALUE_BYTES_MAX:
            raise ValueError(f"the value of {change.key} has {len(change.value)} bytes; at most {VALUE_BYTES_MAX}")


def holds(guard: Guard, item: Item | None) -> bool:
    """Say whether a guard is true of the key as it is."""
    if item is None:
        return guard.revision == 0
    return guard.revision == (item.mod_rev if guard.of == "mod" else item.create_rev)


def prefix_end(prefix: str) -> str:
    """Return the first key greater than every key below `prefix` (keys are valid UTF-8 text)."""
    return prefix + "\U0010ffff"
