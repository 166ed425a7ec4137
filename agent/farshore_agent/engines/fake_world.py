"""Two small databases and the streams between them, in memory: what the fake engine works on.

Honest where it matters for roles: a setting that was not persisted is gone after a restart, a client's transaction is
there for ever once it got its OK, the stream receives in order and never skips, and a server that was replaced or began
a new history is noticed. Nothing moves by itself: `receive` and `apply` are single steps that a simulation can choose.
It knows nothing of engines, tokens or epochs beyond the number a stream was attached under.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from farshore_schema.roles import SIDES, Side, peer

EMPTY: Final = ""


class DatabaseRefused(Exception):
    """A client's statement failed: the database is down, read-only or closed to clients."""


def position(transactions: Iterable[str]) -> str:
    """Return a set of transactions as the opaque text that positions travel as."""
    return ",".join(sorted(transactions))


def transactions(text: str) -> frozenset[str]:
    """Return the set that a position stands for."""
    return frozenset(text.split(",")) if text else frozenset()


class FakeDatabase:
    """One server: a set of committed transactions, and a read-only switch with a persisted and a present value."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.up = True
        self.committed: list[str] = []  # in commit order, durable
        self.read_only = False
        self.persisted_read_only = False
        self.offline = False  # closed to clients while a copy is loaded
        self.can_persist = True  # False: a server on which settings cannot be persisted

    @property
    def executed(self) -> frozenset[str]:
        """Return everything committed here."""
        return frozenset(self.committed)

    @property
    def writable(self) -> bool:
        """Return whether a client could commit now."""
        return self.up and not self.read_only and not self.offline

    def write(self, transaction: str) -> None:
        """Commit as a client does; returns with the OK, raises DatabaseRefused without having committed."""
        if not self.writable:
            raise DatabaseRefused(f"{self.server} takes no writes")
        self.committed.append(transaction)

    def set_read_only(self, value: bool, *, persist: bool) -> None:
        """Set the switch, also for the time after a restart when `persist`."""
        self.read_only = value
        if persist:
            self.persisted_read_only = value

    def kill(self) -> None:
        """End the server as a power cut or kill -9 does."""
        self.up = False

    def restart(self) -> None:
        """Start it again: only what was persisted holds."""
        self.up = True
        self.read_only = self.persisted_read_only


class FakeStream:
    """The data path into one side. It outlives agents; it stops with a code instead of skipping."""

    def __init__(self) -> None:
        self.receiving = False
        self.applying = False
        self.epoch = 0
        self.source = ""  # the server it is bound to (R3)
        self.received: list[str] = []  # durable at this side, in order
        self.stopped = ""
        self.applier_broken = False  # fault: the next transaction cannot be applied

    def detach(self) -> None:
        """Stop receiving; what was received stays and goes on being applied."""
        self.receiving = False


class FakeWorld:
    """Both sides' databases, the stream into each, the network between them, and the fault hook.

    `hook` is called with a point's name (for example "fence:before" and "fence:after" with the side) around every
    effect; it may raise, kill or restart whatever it wants.
    """

    def __init__(self, hook: Callable[[str, Side], None] | None = None) -> None:
        self.lock = threading.RLock()
        self.databases: dict[Side, FakeDatabase] = {side: FakeDatabase(f"server-{side}") for side in SIDES}
        self.streams: dict[Side, FakeStream] = {side: FakeStream() for side in SIDES}
        self.bound: dict[Side, str] = {}  # the server that each side's own gateway was bound to (R3)
        self.linked = True  # the network between the sites
        self.hook = hook or _no_fault
        self.paused: set[Side] = set()  # sides whose stream is held still, for tests

    def reachable(self, side: Side) -> bool:
        """Return whether the other side's database can be reached from `side`."""
        return self.linked and self.databases[peer(side)].up

    def missing(self, side: Side) -> list[str]:
        """Return what the other side committed and this one neither received nor has."""
        have = self.databases[side].executed | frozenset(self.streams[side].received)
        return [name for name in self.databases[peer(side)].committed if name not in have]

    def backlog(self, side: Side) -> list[str]:
        """Return what was received and is not applied here yet."""
        executed = self.databases[side].executed
        return [name for name in self.streams[side].received if name not in executed]

    def receive(self, side: Side) -> bool:
        """Receive one transaction into `side`; returns whether anything changed."""
        with self.lock:
            stream, source = self.streams[side], self.databases[peer(side)]
            if not stream.receiving or stream.stopped or side in self.paused or not self.reachable(side):
                return False
            if source.server != stream.source:
                return self._stop(stream, "source_replaced")
            if not frozenset(stream.received) <= source.executed:
                return self._stop(stream, "history_reset")
            missing = self.missing(side)
            if missing:
                stream.received.append(missing[0])
            return bool(missing)

    def apply(self, side: Side) -> bool:
        """Apply one received transaction at `side`; returns whether anything changed."""
        with self.lock:
            stream, database = self.streams[side], self.databases[side]
            backlog = self.backlog(side)
            if not backlog or not stream.applying or not database.up or side in self.paused or database.writable:
                return False
            if stream.applier_broken:
                return stream.stopped != "applier_stopped" and self._stop(stream, "applier_stopped")
            database.committed.append(backlog[0])
            return True

    def flow(self) -> None:
        """Let both streams run until nothing more moves."""
        while any(self.receive(side) or self.apply(side) for side in SIDES):
            pass

    def _stop(self, stream: FakeStream, code: str) -> bool:
        stream.stopped = code
        stream.applying = stream.applying and code != "applier_stopped"
        return True


def _no_fault(_point: str, _side: Side) -> None:
    """Let everything go well."""
