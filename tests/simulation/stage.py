"""One simulated installation: two databases, their streams, agents, reconcilers, the network, clients, and bad luck."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from farshore.admission import put_site
from farshore.store.memory import MemoryStore
from farshore_agent.admission import serves_primary
from farshore_agent.engines.fake_world import FakeWorld
from farshore_schema.documents import MySQLPair, Site
from farshore_schema.errors import Transient
from farshore_schema.roles import SIDES, Record, Side
from tests.simulation.clockwork import Clockwork, ProcessClock
from tests.simulation.processes import Agent, Died, Disk, Reconciler, database_failed
from tests.simulation.witness import PAIR, Witness

SITES: Final[dict[Side, str]] = {"a": "tokyo", "b": "osaka"}
FLOW_SECONDS: Final = 0.15
CLIENT_SECONDS: Final = 0.4
FAULT_SHARE: Final = 0.04  # of the places where a process can die or an effect can fail, while luck is bad
LOST_SHARE: Final = 0.04
LATE_SHARE: Final = 0.04
REPEATED_SHARE: Final = 0.04
LATE_SECONDS: Final = 6.0
STALL_SECONDS: Final = 25.0  # longer than a lease
WIRE_SECONDS: Final = 0.03


class Stage:
    """Everything there is. All randomness comes from the seed, all time from the clockwork."""

    def __init__(self, seed: int, show: Callable[[str], None]) -> None:
        self._show = show
        self.random = Random(seed)
        self.world = FakeWorld(self._effect)
        self.witness = Witness(self.world, self.show)
        self.clockwork = Clockwork(self.witness.look)
        self.store = MemoryStore(ProcessClock(self.clockwork))
        self.unlucky = False
        self._stalled = False
        self.reconcilers: list[Reconciler] = []
        self.one_agent = self.random.random() < 0.5
        disks = {side: Disk() for side in SIDES}
        shapes: list[tuple[Side, ...]] = [SIDES] if self.one_agent else [("a",), ("b",)]
        self.agents = [Agent(self, number, sides, disks[sides[0]]) for number, sides in enumerate(shapes)]
        self._written = 0
        self._arrival: dict[int, float] = {}

    def show(self, line: str) -> None:
        """Tell what happens, with its moment."""
        self._show(f"{self.clockwork.seconds:9.3f} {line}")

    def open(self) -> None:
        """Start every process and the streams."""
        self.start_reconciler()
        for side, site in SITES.items():
            put_site(self.reconcilers[0].desk, site, Site(name=site))
            del side
        for agent in self.agents:
            agent.start()
        self._flow()

    # ---- processes

    def start_reconciler(self) -> None:
        """Start one more reconciler on the same store."""
        process = Reconciler(self, len(self.reconcilers))
        self.reconcilers.append(process)
        process.wake()

    def living(self) -> list[Reconciler]:
        """Return the reconcilers that answer."""
        return [each for each in self.reconcilers if each.alive and not each.frozen]

    def agent_of(self, side: Side) -> Agent | None:
        """Return the living agent that serves a side."""
        return next((agent for agent in self.agents if side in agent.sides and agent.alive), None)

    def stir(self) -> None:
        """The store changed: whoever watches it comes to look."""
        for each in self.living():
            each.wake()

    # ---- bad luck

    def chance_to_die(self, process: Reconciler | Agent, _where: str) -> None:
        """End the calling process, sometimes, while luck is bad."""
        if self.unlucky and process.alive and self.random.random() < FAULT_SHARE / 4:
            self._revive_later(process)
            raise Died

    def chance_to_stall(self, process: Reconciler) -> None:
        """Stop a reconciler between reading and writing, sometimes, while a successor takes over; it then writes."""
        if not self.unlucky or self._stalled or not process.visiting or self.random.random() > FAULT_SHARE / 2:
            return
        self._stalled = True
        self.show(f"{process.number} stands still in the middle of a visit")
        process.freeze(clock_too=self.random.random() < 0.5)
        self.start_reconciler()
        self.clockwork.run(self.clockwork.seconds + self.random.uniform(0.5, STALL_SECONDS))
        self._stalled = False
        process.thaw()
        self.show(f"{process.number} goes on")

    def _revive_later(self, process: Reconciler | Agent) -> None:
        again = self.start_reconciler if isinstance(process, Reconciler) else process.start
        self.clockwork.after(self.random.uniform(0.2, 6.0), again)

    def _effect(self, point: str, side: Side) -> None:
        """Fail around an effect: the process dies, the database dies, or the engine raises (`FakeWorld.hook`)."""
        step, _, moment = point.partition(":")
        self.show(f"{point} at {side}")
        if step == "seed" and moment == "before":
            self.witness.overwriting(side)
        if step == "promote" and moment == "after":
            self.witness.opened(side)
        if not self.unlucky or self.random.random() > FAULT_SHARE:
            return
        kind = self.random.randrange(3)
        agent = self.agent_of(side)
        if kind == 0 and agent is not None:
            self._revive_later(agent)
            raise Died
        if kind == 1:
            self.clockwork.after(self.random.uniform(0.5, 5.0), self.world.databases[side].restart)
            raise database_failed(self, side)
        raise Transient("timeout", "the engine gave up", retry_seconds=0.3)

    # ---- the wire

    def carry(self, agent: Agent, act: Callable[[], None], *, reliable: bool = False) -> None:
        """Carry something over the line of an agent: in order what is reported, and commands as bad luck has it."""
        delay = self.random.uniform(0.001, WIRE_SECONDS)
        if reliable:
            arrival = max(self.clockwork.seconds + delay, self._arrival.get(agent.number, 0.0) + 1e-6)
            self._arrival[agent.number] = arrival
            self.clockwork.after(arrival - self.clockwork.seconds, act)
            return
        luck = self.random.random() if self.unlucky else 1.0
        if agent.cut or luck < LOST_SHARE:
            return
        if luck < LOST_SHARE + LATE_SHARE:
            delay += self.random.uniform(0.0, LATE_SECONDS)
        self.clockwork.after(delay, partial(self._arrive, agent, act))
        if LOST_SHARE + LATE_SHARE < luck < LOST_SHARE + LATE_SHARE + REPEATED_SHARE:
            self.clockwork.after(delay + self.random.uniform(0.0, LATE_SECONDS), partial(self._arrive, agent, act))

    def _arrive(self, agent: Agent, act: Callable[[], None]) -> None:
        if agent.alive:
            act()

    # ---- data and clients

    def _flow(self) -> None:
        for side in SIDES:
            for _ in range(self.random.randrange(4)):
                self.world.receive(side)
            for _ in range(self.random.randrange(4)):
                self.world.apply(side)
        self.clockwork.after(self.random.uniform(0.2, 1.8) * FLOW_SECONDS, self._flow)

    def client(self) -> None:
        """A client writes where the role probe sends it; a stubborn one wherever it is let, once the pair is ours."""
        stubborn = self.random.random() < 0.2
        for side in SIDES:
            database, record = self.world.databases[side], self.witness.records[side]
            led = serves_primary(record) or (stubborn and self._is_ours(side, record))
            if led and database.writable and side not in self.witness.tampered:
                name = f"t{self._written}"
                self._written += 1
                database.write(name)
                self.witness.acknowledged.add(name)
        self.clockwork.after(self.random.uniform(0.2, 1.8) * CLIENT_SECONDS, self.client)

    def _is_ours(self, side: Side, record: Record) -> bool:
        return side == self.witness.preferred or record.base == "complete"


def document(*, primary_site: str | None, overwrite: bool, reseed: bool, description: str = "") -> MySQLPair:
    """Return the declaration of the one pair."""
    body: dict[str, object] = {"name": PAIR, "description": description, "primary_site": primary_site}
    for side, site in SITES.items():
        body[f"site_{side}"] = {
            "site": site,
            "host": f"{site}.example",
            "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
            "replication": {"user": f"farshore_{site}_r", "password": f"env:{site.upper()}_REPLICATION"},
        }
    body["on_existing_data"] = "overwrite" if overwrite else "refuse"
    body["on_gap"] = "reseed" if reseed else "stop"
    return MySQLPair.model_validate(body)
