"""What the supervisor promises: everything that changes is visited soon, and nothing that breaks spreads."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from farshore import operations
from farshore.admission import Desk, request_operation
from farshore.agents import Identity
from farshore.clock import SystemClock
from farshore.store import Delete, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import PairRecord, SiteRecord, put
from farshore.supervisor import AT_ONCE_MAX, Supervisor
from farshore_schema.documents import Site
from farshore_schema.errors import Permanent
from farshore_schema.messages import TO_AGENT, Alive, Assign, Command, Hello, Report
from farshore_schema.observed import REPORT_SECONDS
from farshore_schema.roles import Consent
from farshore_schema.status import OperationRequest
from tests.unit.loop.test_agents import MemoryWire
from tests.unit.loop.world import PAIR, FakeAgents, document

PATIENCE_SECONDS = 20.0


class WiredAgent:
    """An embedded agent that does as it is told, at the other end of a socket, and says `alive`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.wire = MemoryWire()
        self.world = FakeAgents()
        self.sequence = 0
        self.obeyed: list[str] = []
        self.tasks = [
            asyncio.create_task(supervisor.agents.handle(self.wire, Identity("embedded", embedded=True))),
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._breathe()),
        ]

    def _say(self, text: str) -> None:
        self.wire.incoming.put_nowait(text)

    def report(self, pair: str, side: Any) -> None:
        self.sequence += 1
        report = self.world.facts[side]
        assert report is not None
        message = Report(pair=pair, side=side, incarnation=1, sequence=self.sequence, report=report)
        self._say(message.model_dump_json())

    async def _listen(self) -> None:
        self._say(Hello(agent="x", agent_version="0", sites=(), embedded=True).model_dump_json())
        while True:
            message = TO_AGENT.validate_json(await self.wire.outgoing.get())
            if isinstance(message, Assign):
                self.report(message.pair, message.side)
            if isinstance(message, Command):
                self.obeyed.append(f"{message.step} {message.side} {message.epoch}")
                result = self.world.carry_out(message)
                self.report(message.pair, message.side)
                self._say(result.model_dump_json())

    async def _breathe(self) -> None:
        while True:
            self.sequence += 1
            self._say(Alive(sequence=self.sequence).model_dump_json())
            await asyncio.sleep(REPORT_SECONDS)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class House:
    """A running supervisor over a memory store."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.store = MemoryStore(self.clock)
        self.supervisor = Supervisor(store=self.store, clock=self.clock, random=Random(1), node="here")
        self.records = self.supervisor.desk.records

    @property
    def desk(self) -> Desk:
        return self.supervisor.desk

    def declare(self, name: str = PAIR) -> None:
        for site in ("tokyo", "osaka"):
            record = SiteRecord(document=Site(name=site), created=self.clock.now())
            self.store.txn([], [put(keys.site(site), record)])
        spec = PairRecord(document=document(name), generation=1, incarnation=1, created=self.clock.now())
        operation = operations.birth(
            id="op-1", pair=name, verb="protect", to="b", to_site="osaka", epoch=2, created=self.clock.now(),
            consent=Consent("b", "server-b", 2, "first seed"),
        )  # fmt: skip
        self.store.txn([], [put(keys.spec(name), spec), put(keys.operation(name), operation)])

    def phase(self, name: str = PAIR) -> str:
        found = self.records.status(name)
        return found.value.phase if found else ""

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110 (conditions of the store have no event)
                await asyncio.sleep(0.01)


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test's coroutine beside a running supervisor, and end both."""

    async def beside() -> None:
        house = House()
        task = asyncio.create_task(house.supervisor.run())
        try:
            await test(house)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not [key for key in house.store.snapshot() if key.startswith(keys.SHARDS)], "the shards are given back"

    def run() -> None:
        asyncio.run(beside())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@runs
async def test_a_declared_pair_is_protected_and_switched_over_without_anybody_asking_twice(house: House) -> None:
    """From a declaration to `protected`, and through a switchover and back: watch, queue, loop and agents together."""
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected")
    for active in ("b", "a"):
        request_operation(house.desk, PAIR, OperationRequest(verb="switchover"), by="ann")
        await house.until(lambda: house.records.operation(PAIR) is None)
        role = house.records.role(PAIR)
        assert role is not None
        assert role.value.active == active
    await house.until(lambda: house.phase() == "protected")
    assert agent.obeyed[:6] == ["enrol a 2", "promote a 2", "enrol b 2", "seed b 2", "fence b 2", "prepare a 4"]
    assert house.supervisor.loop.counters.conflicts == 0
    await agent.end()


@runs
async def test_live_numbers_are_laid_over_the_stored_report(house: House) -> None:
    """What the API shows has the present lag, although no sample is ever stored."""
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected")
    stored = house.records.status(PAIR)
    assert stored is not None
    assert stored.value.replication.lag_seconds is None
    assert house.supervisor.live(PAIR, stored.value).replication.lag_seconds == 0.1
    await agent.end()


@runs
async def test_a_pair_whose_data_is_broken_does_not_hold_up_the_others(house: House) -> None:
    """The net around a visit: it is counted, tried again later, and every other pair goes on."""
    house.store.txn([], [put(keys.spec("broken"), SiteRecord(document=Site(name="tokyo"), created=house.clock.now()))])
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected" and house.supervisor.visits_failed > 0)
    await agent.end()


@runs
async def test_a_pair_that_fights_itself_lets_others_have_their_turn(house: House) -> None:
    """A visit that always wants to come back at once is put off after so many."""
    real, visits = house.supervisor.loop.visit, {"n": 0}

    def restless(pair: str) -> float | None:
        if pair != "restless":
            return real(pair)
        visits["n"] += 1
        return 0.0

    house.supervisor.loop.visit = restless  # type: ignore[method-assign]
    house.supervisor.wake("restless")
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected")
    assert visits["n"] <= 20 * AT_ONCE_MAX
    await agent.end()


@runs
async def test_a_removed_pair_is_forgotten(house: House) -> None:
    """Nothing is kept of a pair whose keys are gone, and its agents are told to let go."""
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected")
    gone = [Delete(key) for key in house.store.snapshot() if key.startswith(keys.pair(PAIR))]
    house.store.txn([], gone)
    await house.until(lambda: house.supervisor.agents.session(PAIR, "a") == 0)
    assert len(house.supervisor.sightings) == 0
    await agent.end()


@runs
async def test_an_agent_that_leaves_is_noticed_and_its_return_too(house: House) -> None:
    """Silence becomes `unknown` by itself, and the word of an agent that is back is taken at once."""
    agent = WiredAgent(house.supervisor)
    house.declare()
    await house.until(lambda: house.phase() == "protected")
    world = agent.world
    await agent.end()
    await house.until(lambda: house.phase() == "unknown")
    again = WiredAgent(house.supervisor)
    again.world = world
    await house.until(lambda: house.phase() == "protected")
    await again.end()


def test_a_store_that_fails_ends_the_process() -> None:
    """What was last written is unknown then: going on would be guessing."""

    async def run() -> None:
        house = House()

        def broken(pair: str) -> float | None:
            raise Permanent("store_failed", "the disk is gone", hint="check the disk")

        house.supervisor.loop.visit = broken  # type: ignore[method-assign]
        house.supervisor.wake(PAIR)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await house.supervisor.run()

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(run())
    assert ended.group_contains(Permanent, match="the disk is gone")
