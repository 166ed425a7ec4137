"""The product's own processes on virtual time: the reconciler with its loop, the agent with its lanes of orders.

Only the edges are simulated: the socket between them, the disk of the agent, threads, and the engine below. A process
dies by `Died`, which is no Exception on purpose: the product's nets must not catch its own death.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from farshore.admission import Desk
from farshore.loop import Loop
from farshore.ownership import KEEPALIVE_SECONDS, Ownership
from farshore.sessions import Standing
from farshore.sightings import Sightings
from farshore.store import Change, Guard, Txn
from farshore.store.memory import MemoryStore
from farshore.store.records import Records
from farshore_agent.engines.fake import FakeEngine
from farshore_agent.holder import EngineHolder
from farshore_agent.lane import Hands, Lane, fence_violated, follows
from farshore_agent.observe import RESUME_SECONDS
from farshore_agent.records import side_directory
from farshore_agent.report import assemble, is_violated
from farshore_schema.errors import FarshoreError, Transient
from farshore_schema.messages import Command, Result
from farshore_schema.observed import PairObserved, SideReport
from farshore_schema.roles import SIDES, Record, Side
from tests.simulation.clockwork import ProcessClock
from tests.simulation.witness import PAIR

if TYPE_CHECKING:
    from tests.simulation.stage import Stage

LOOK_SECONDS: Final = 0.8
QUICK_LOOK_SECONDS: Final = 0.02
STORE_RETRY_SECONDS: Final = 5.0


class Died(BaseException):
    """This process ends here and now."""


class Tap:
    """The store as one reconciler process reaches it: it can fail around a transaction, and the witness watches."""

    def __init__(self, stage: "Stage", process: "Reconciler") -> None:
        self._stage, self._process, self._store = stage, process, stage.store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def txn(self, if_: Sequence[Guard] = (), then: Sequence[Change] = ()) -> Txn:
        """Commit, with the deaths that can happen on either side of it."""
        self._stage.chance_to_die(self._process, "before a transaction")
        self._stage.chance_to_stall(self._process)
        done = self._store.txn(if_, then)
        if done.ok:
            self._stage.witness.committed(then, by_loop=self._process.visiting)
            self._stage.stir()
        self._stage.chance_to_die(self._process, "after a transaction")
        return done


class Reconciler:
    """One reconciler process. `frozen` stops it as SIGSTOP does; what reaches it then waits."""

    def __init__(self, stage: "Stage", number: int) -> None:
        self.stage, self.number = stage, number
        self.alive, self.frozen, self.visiting = True, False, False
        self.clock = ProcessClock(stage.clockwork)
        self.sightings = Sightings(self.clock)
        self.lines: dict[int, int] = {}  # session by agent number
        self._inbox: list[Callable[[], None]] = []
        self._due = float("inf")
        records = Records(Tap(self.stage, self))  # type: ignore[arg-type]
        random = Random(stage.random.getrandbits(32))
        self.desk = Desk(records=records, clock=self.clock, random=random, observed=self.sightings.observed)
        self.ownership = Ownership(records.store, self.clock, f"node-{number}")
        self.loop = Loop(desk=self.desk, sessions=self, owner=self.ownership.owner, on_lost=self.ownership.lost)
        self._keep()

    # ---- what the loop asks (farshore.sessions.Sessions)

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports."""
        return self.sightings.observed(pair)

    def send(self, command: Command) -> bool:
        """Put a command on the line to the agent that serves the side."""
        agent = self.stage.agent_of(command.side)
        if agent is None or agent.number not in self.lines:
            return False
        self.stage.show(f"{self.number} sends {command.step} {command.side} {command.epoch}, token {command.token}")
        self.stage.carry(agent, partial(agent.command, command))
        return True

    def session(self, pair: str, side: Side) -> int:
        """Return the session that serves a side, 0 when none does."""
        agent = self.stage.agent_of(side)
        return 0 if agent is None else self.lines.get(agent.number, 0)

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation the agent was given."""
        return 1 if self.session(pair, side) else 0

    def settle(self, standing: Standing) -> None:
        """Assignments do not change in this world."""

    def gone(self, pair: str) -> None:
        """The pair is no more."""
        self.sightings.forget(pair)

    # ---- what reaches it

    def heard(self, act: Callable[[], None]) -> None:
        """Take something from a line, now or when it wakes up again."""
        if self.frozen:
            self._inbox.append(act)
        elif self.alive:
            act()

    def connected(self, agent: "Agent") -> None:
        """Begin a session."""
        self.lines[agent.number] = self.sightings.opened()
        self.wake()

    def disconnected(self, agent: "Agent") -> None:
        """End a session."""
        session = self.lines.pop(agent.number, None)
        if session is not None:
            self.sightings.closed(session)
            self.wake(3.1)

    def reported(self, session: int, side: Side, report: SideReport) -> None:
        """Take a report."""
        if session in self.lines.values() and self.sightings.reported(session, PAIR, side, report):
            self.wake()

    def alive_said(self, session: int) -> None:
        """Take a sign of life."""
        if self.sightings.alive(session).back:
            self.wake()

    def answered(self, result: Result) -> None:
        """Take an agent's answer."""
        self.loop.heard(result)
        self.wake()

    # ---- running

    def wake(self, seconds: float = 0.0) -> None:
        """Visit after so many seconds, or earlier if that was planned."""
        due = self.stage.clockwork.seconds + seconds
        if due < self._due:
            self._due = due
            self.stage.clockwork.after(seconds + 0.001, partial(self._visit, due))

    def kill(self) -> None:
        """End as kill -9 does."""
        self.alive = False
        for agent in self.stage.agents:
            agent.lost(self)

    def freeze(self, *, clock_too: bool) -> None:
        """Stop, for a while, at whatever it was about to do."""
        self.frozen = True
        if clock_too:
            self.clock.suspend()

    def thaw(self) -> None:
        """Go on, unaware."""
        self.frozen = False
        self.clock.resume()
        waiting, self._inbox = self._inbox, []
        for act in waiting:
            act()
        self.wake()

    def _visit(self, due: float) -> None:
        if not self.alive or due != self._due:
            return
        self._due = float("inf")
        if self.frozen:
            return
        self.visiting = True
        try:
            again = self.loop.visit(PAIR)
        except FarshoreError:
            again = STORE_RETRY_SECONDS
        except Died:
            self.kill()
            return
        finally:
            self.visiting = False
        if again is not None:
            self.wake(again)

    def _keep(self) -> None:
        if not self.alive:
            return
        if not self.frozen:
            try:
                if self.ownership.keep():
                    self.wake()
            except Died:
                self.kill()
                return
        self.stage.clockwork.after(KEEPALIVE_SECONDS, self._keep)


@dataclass
class Disk:
    """What an agent's machine keeps: records by their place."""

    records: dict[Path, Record] = field(default_factory=dict)


class DiskKeeper:
    """The record of one side, at the place where the product keeps it (R5)."""

    def __init__(self, agent: "Agent", side: Side) -> None:
        self._agent, self._side = agent, side
        self._place = side_directory(Path("agent"), PAIR, side)

    def load(self) -> Record:
        """Return the durable record."""
        return self._agent.disk.records.get(self._place, Record())

    def save(self, record: Record) -> None:
        """Make it durable, unless the process dies first; and it may die right after."""
        self._agent.stage.chance_to_die(self._agent, "before a record is durable")
        self._agent.disk.records[self._place] = record
        self._agent.stage.witness.saved(self._side, record)
        self._agent.stage.chance_to_die(self._agent, "after a record is durable")


class Agent:
    """One agent process; `life` counts its restarts, so that work of a dead one is never carried out."""

    def __init__(self, stage: "Stage", number: int, sides: tuple[Side, ...], disk: Disk) -> None:
        self.stage, self.number, self.sides, self.disk = stage, number, sides, disk
        self.alive, self.life, self.cut = False, 0, False
        self.line: Reconciler | None = None
        self._sent: dict[Side, SideReport] = {}
        self._sequence = 0
        self._silent_since: dict[Side, float] = {}
        self.lanes: dict[Side, Lane] = {}
        self.engines: dict[Side, EngineHolder] = {}

    def start(self) -> None:
        """Begin with what the disk remembers."""
        self.alive, self.life = True, self.life + 1
        hands = Hands(quick=partial(self._later, 0.02), slow=partial(self._later, 0.6))
        for side in self.sides:
            self.engines[side] = EngineHolder(FakeEngine(self.stage.world, side))
            self.lanes[side] = Lane(
                pair=PAIR,
                side=side,
                keeper=DiskKeeper(self, side),
                holder=self.engines[side],
                hands=hands,
                listener=self,
            )
        self._later(0.5, partial(self._look_again, self.life))

    def kill(self) -> None:
        """End as kill -9 does: databases and data path go on (I10)."""
        self.alive = False
        if self.line is not None:
            self.line.heard(partial(self.line.disconnected, self))
        self.line = None
        self._silent_since.clear()

    def lost(self, reconciler: Reconciler) -> None:
        """The other end of the line is gone."""
        if self.line is reconciler:
            self.line = None

    def command(self, command: Command) -> None:
        """Take a command from the line."""
        self._act(partial(self.lanes[command.side].admit, command))

    # ---- what a lane tells (farshore_agent.lane.Listener)

    def answered(self, result: Result) -> None:
        """Send an outcome up the line, if there is one."""
        line = self.line
        self.stage.show(
            f"{result.side} answers {result.state} {result.error.code if result.error else ''} {result.intent}"
        )
        if line is not None:
            self.stage.carry(self, partial(line.heard, partial(line.answered, result)))

    def stirred(self, pair: str, side: Side) -> None:
        """Look at the side soon."""
        self._later(QUICK_LOOK_SECONDS, partial(self._look, side))

    # ---- running

    def _later(self, seconds_max: float, act: Callable[[], None]) -> None:
        life = self.life

        def run() -> None:
            if self.alive and self.life == life:
                self._act(act)

        self.stage.clockwork.after(self.stage.random.uniform(0.001, seconds_max), run)

    def _act(self, act: Callable[[], None]) -> None:
        if not self.alive:
            return
        try:
            act()
        except Died:
            self.kill()

    def _look_again(self, life: int) -> None:
        self._dial()
        for side in self.sides:
            self._look(side)
        line = self.line
        if line is not None and self.number in line.lines:
            session = line.lines[self.number]
            self.stage.carry(self, partial(line.heard, partial(line.alive_said, session)), reliable=True)
        self._later(LOOK_SECONDS * 1.2, partial(self._look_again, life))

    def _dial(self) -> None:
        """Keep a line to the reconciler that owns the pair; one that is silent or only stands by is left in the end."""
        if self.cut:
            if self.line is not None:
                self.line.heard(partial(self.line.disconnected, self))
                self.line = None
            return
        ready = [each for each in self.stage.living() if each.ownership.owner(PAIR)] or self.stage.living()
        if self.line is not None and (self.line in ready or self.stage.random.random() < 0.8):
            return
        if self.line is not None:
            self.line.heard(partial(self.line.disconnected, self))
        self.line = self.stage.random.choice(ready) if ready else None
        self._sent.clear()
        if self.line is not None:
            self.line.connected(self)

    def _look(self, side: Side) -> None:
        """Look once, watch the fence, follow again where nobody needs to say so, and report what changed."""
        lane = self.lanes[side]
        record = lane.record()
        with self.engines[side].engine() as engine:
            seen = engine.observe()
        work, _ = lane.work()
        if is_violated(record, seen, work):
            lane.refence(work.violation or fence_violated(PAIR, record.receipt))
            work, _ = lane.work()
            record = record._replace(receipt=None)
        self._resume(
            side, follows(record) and seen.db == "up" and not (seen.receiving or seen.stopped or seen.writable)
        )
        report = assemble(record, seen, work)
        line = self.line
        if line is None or self.number not in line.lines or self._sent.get(side) == report:
            return
        self._sent[side] = report
        session = line.lines[self.number]
        self.stage.carry(self, partial(line.heard, partial(line.reported, session, side, report)), reliable=True)

    def _resume(self, side: Side, silent: bool) -> None:
        now = self.stage.clockwork.seconds
        if not silent:
            self._silent_since.pop(side, None)
        elif now - self._silent_since.setdefault(side, now) > RESUME_SECONDS and self.lanes[side].is_idle():
            self._silent_since[side] = now
            self.lanes[side].resume()


def database_failed(stage: "Stage", side: Side) -> Transient:
    """Kill a database in the middle of an effect, and return what its engine then raises."""
    stage.world.databases[side].kill()
    return Transient("unreachable", "the server went away", retry_seconds=0.5)


__all__ = ["SIDES", "Agent", "Died", "Disk", "MemoryStore", "Reconciler", "database_failed"]
