"""An honest engine without a database: the contract on a `FakeWorld`, for the simulation and for tests of the API.

Never blocks: what a real engine would wait for either moves at once (with `autoflow`) or raises Transient. Every effect
has a fault point before and after it. It must not be reachable from a declaration: tests plug it in by hand.
"""

from collections.abc import Callable

from farshore_agent.engines import Capabilities, Look, Looker, Seat, SeedCall, Seen
from farshore_agent.engines.fake_world import FakeDatabase, FakeStream, FakeWorld, position, transactions
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Transient
from farshore_schema.observed import Finding, SeedProgress, StreamMeasurements
from farshore_schema.roles import SIDES, Consent, Evidence, Receipt, Side, peer

RETRY_SECONDS = 0.1


class FakeEngine:
    """One side of a `FakeWorld`. Holds nothing of its own: a new one beside the same world is a restarted agent."""

    capabilities = Capabilities(kind="fake", prepare=True, zero_rpo=False, points=False)

    def __init__(self, world: FakeWorld, side: Side, *, autoflow: bool = False) -> None:
        self._world = world
        self._side: Side = side
        self._autoflow = autoflow

    def observe(self) -> Seen:
        """Return what is seen now; never raises."""
        with self._world.lock:
            self._flow()
            database, stream = self._database, self._stream
            if not database.up:
                return Seen(db="down", stopped=stream.stopped)
            stopped = ErrorBody(code=stream.stopped, message="the fake stream stopped") if stream.stopped else None
            return Seen(
                db="up",
                server=database.server,
                server_version="9.7.4",
                writable=database.writable,
                fence_holds=database.read_only and database.persisted_read_only,
                receiving=stream.receiving and self._world.reachable(self._side) and not stream.stopped,
                applying=stream.applying and not stream.stopped,
                position=position(database.executed),
                durability="full",
                peer_ready=self._world.reachable(self._side),
                stream=StreamMeasurements(
                    behind_transactions=len(self._world.backlog(self._side)),
                    received_transactions=len(stream.received),
                    connected=stream.receiving,
                ),
                stopped=stream.stopped,
                stopped_error=stopped,
            )

    def seed(self, call: SeedCall) -> None:
        """Copy the other side here transaction by transaction, then follow it."""
        with self._world.lock:
            self._need_up()
            self._need_peer()
            self._seedable(call.consent, call.epoch)
            call.before_first_write()
            self._point("seed:before")
            database, source = self._database, self._world.databases[peer(self._side)]
            database.offline = True
            database.set_read_only(True, persist=True)
            self._world.streams[self._side] = stream = FakeStream()
            database.committed.clear()
            snapshot = list(source.committed)
            for done, name in enumerate(snapshot, start=1):
                if call.cancelled():
                    raise Transient("not_possible_now", "the seed was cancelled", retry_seconds=RETRY_SECONDS)
                self._point("seed:row")
                database.committed.append(name)
                call.progress(SeedProgress(phase="tables", rows_done=done, rows_total=len(snapshot)))
            database.offline = False
            self._world.bound[self._side] = database.server
            stream.source = source.server
            stream.receiving = stream.applying = True
            stream.epoch = call.epoch
            self._point("seed:after")

    def stream(self, epoch: int, consent: Consent | None = None) -> None:
        """Follow the other side under this epoch."""
        with self._world.lock:
            self._need_up()
            self._need_peer()
            database, stream = self._database, self._stream
            source = self._world.databases[peer(self._side)]
            if database.writable:
                raise Permanent("wrong_direction", "this side is open for writes; it follows nobody")
            self._bound(peer(self._side), stream.source, consent)
            self._contained()
            self._point("stream:before")
            if not stream.applier_broken:
                stream.stopped = ""
            stream.source, stream.epoch = source.server, epoch
            stream.receiving = stream.applying = True
            self._point("stream:after")

    def prove(self, consent: Consent) -> None:
        """Look whether the server that took the active one's place can be followed from here; change nothing."""
        with self._world.lock:
            self._need_up()
            self._need_peer()
            self._point("prove:before")
            self._bound(consent.side, "", consent)
            if consent.side == self._side and not self._database.writable:
                raise Transient("not_possible_now", "the new server is not open", retry_seconds=RETRY_SECONDS)
            if consent.side != self._side:
                self._contained()

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver to the other side, without applying."""
        with self._world.lock:
            self._need_peer()
            self._point("prepare:before")
            stream = self._stream
            stream.source, stream.epoch, stream.receiving = self._world.databases[peer(self._side)].server, epoch, True
            self._point("prepare:after")

    def fence(self, epoch: int) -> str:
        """Make this side read-only, also after a restart, and return everything it ever committed."""
        with self._world.lock:
            self._need_up()
            if not self._database.can_persist:
                raise Permanent("unsuitable_server", "the server cannot persist read_only", hint="allow SET PERSIST")
            self._point("fence:before")
            self._database.set_read_only(True, persist=True)
            self._point("fence:after")
            return position(self._database.executed)

    def drain(self, receipt: Receipt, cancelled: Callable[[], bool]) -> None:
        """Return once the receipt's position is applied here; raises Transient while it is not."""
        with self._world.lock:
            self._need_up()
            self._point("drain:before")
            self._flow()
            if cancelled():
                raise Transient("not_possible_now", "the drain was cancelled", retry_seconds=RETRY_SECONDS)
            if not transactions(receipt.position) <= self._database.executed:
                raise Transient("timeout", "not everything is applied yet", retry_seconds=RETRY_SECONDS)
            self._point("drain:after")

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving; what was received goes on being applied."""
        with self._world.lock:
            self._point("stop_acks:before")
            self._stream.detach()
            self._point("stop_acks:after")

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still_holds: Callable[[], None],
        consent: Consent | None = None,
    ) -> None:
        """Open this side, when everything that was received is applied."""
        with self._world.lock:
            self._need_up()
            database, stream = self._database, self._stream
            self._bound(self._side, self._world.bound.get(self._side, ""), consent)
            if consent is not None and not database.writable:
                raise Transient("not_possible_now", "the new server is not open", retry_seconds=RETRY_SECONDS)
            self._world.bound[self._side] = database.server
            if database.offline:
                raise Permanent("not_possible_now", "this side holds an incomplete copy")
            if database.writable:
                return
            self._point("promote:before")
            stream.detach()
            self._flow()
            if self._world.backlog(self._side):
                raise Transient("not_possible_now", "not everything received is applied", retry_seconds=RETRY_SECONDS)
            if evidence == "fenced" and (receipt is None or not transactions(receipt.position) <= database.executed):
                raise Transient(
                    "evidence_missing", "the fenced side's position is not here", retry_seconds=RETRY_SECONDS
                )
            still_holds()
            stream.applying = False
            database.set_read_only(False, persist=True)
            self._point("promote:after")

    def cleanup(self) -> None:
        """End the stream here; data and the read-only switch stay as they are."""
        with self._world.lock:
            self._need_up()
            self._point("cleanup:before")
            self._world.streams[self._side] = FakeStream()
            self._world.bound.pop(self._side, None)
            self._point("cleanup:after")

    def close(self) -> None:
        """Hold nothing to let go of."""

    @property
    def _database(self) -> FakeDatabase:
        return self._world.databases[self._side]

    @property
    def _stream(self) -> FakeStream:
        return self._world.streams[self._side]

    def _flow(self) -> None:
        if self._autoflow:
            self._world.flow()

    def _point(self, name: str) -> None:
        self._world.hook(name, self._side)

    def _need_up(self) -> None:
        if not self._database.up:
            raise _unreachable(f"{self._database.server} does not answer")

    def _need_peer(self) -> None:
        if not self._world.reachable(self._side):
            raise _unreachable("the other side does not answer")

    def _bound(self, side: Side, bound: str, consent: Consent | None) -> None:
        """Refuse another server than the bound one, but for exactly the one that a consent names."""
        found = self._world.databases[side].server
        named = consent is not None and (consent.side, consent.server) == (side, found)
        if not named and (consent is not None or bound not in ("", found)):
            raise Permanent("source_replaced", f"{found} answers at side {side}, not {bound or 'the consented one'}")

    def _contained(self) -> None:
        """Refuse to follow a server that lacks what was received here."""
        held = self._database.executed | frozenset(self._stream.received)
        extra = held - self._world.databases[peer(self._side)].executed
        if extra:
            raise Permanent("diverged", f"this side holds what the other does not: {position(extra)}")

    def _seedable(self, consent: Consent | None, epoch: int) -> None:
        database = self._database
        if self._world.databases[peer(self._side)].server == database.server:
            raise Permanent("same_server", "both sides are one server")
        if not database.committed and not database.offline:
            return
        if consent is None or (consent.side, consent.server, consent.epoch) != (self._side, database.server, epoch):
            raise Permanent(
                "target_has_data",
                f"{database.server} holds data and no consent names it in epoch {epoch}",
                hint="farshore reprotect PAIR",
            )


def fake_look(world: FakeWorld) -> Looker:
    """Return the looker of a world."""

    def look(document: MySQLPair, own: Side, existing: bool, secret: Callable[[str], str]) -> Look:
        down = [side for side in SIDES if not world.databases[side].up]
        return Look(
            findings=tuple(Finding(code="unreachable", severity="error", message="down", side=side) for side in down),
            servers={side: world.databases[side].server for side in SIDES if side not in down},
            empty={side: not world.databases[side].committed for side in SIDES if side not in down},
        )

    return look


def fake_engines(world: FakeWorld) -> Callable[[Seat], FakeEngine]:
    """Return the engine factory of a world whose streams move whenever somebody looks."""
    return lambda seat: FakeEngine(world, seat.side, autoflow=True)


def _unreachable(message: str) -> FarshoreError:
    return Transient("unreachable", message, retry_seconds=RETRY_SECONDS)
