"""What agent sessions promise: who may speak, who serves what, and which words count."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from farshore.agents import DEAD_SECONDS, REVOKED_SECONDS, AgentSessions, Identity
from farshore.conversation import COMMANDS_MAX
from farshore.directory import StoreDirectory
from farshore.sessions import Standing
from farshore.sightings import UNHEARD_SECONDS, Sightings
from farshore.store import Delete, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import AgentRecord, PairRecord, Records, SiteRecord, put
from farshore_schema.documents import Site
from farshore_schema.errors import FarshoreError
from farshore_schema.messages import (
    TO_AGENT,
    Alive,
    Assign,
    Command,
    Goodbye,
    Hello,
    Inspect,
    Inspected,
    Measure,
    Measured,
    Message,
    Report,
    Result,
    Unassign,
    Welcome,
)
from farshore_schema.observed import STALE_SECONDS, SideReport, StreamMeasurements
from farshore_schema.roles import Record, Side
from tests.unit.loop.world import PAIR, HandClock, document

PATIENCE_SECONDS = 5.0
EMBEDDED = Identity("embedded", embedded=True)
TOKYO = Identity("agent-tokyo", frozenset({"tokyo"}), credential="0")


class Closed(Exception):
    """The socket is closed."""


class MemoryWire:
    """A socket whose two ends are queues."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[str] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def accept(self) -> None:
        """Nothing to do."""

    async def receive_text(self) -> str:
        text = await self.incoming.get()
        if text is None:
            raise Closed
        return text

    async def send_text(self, data: str) -> None:
        if self.closed.is_set():
            raise Closed
        await self.outgoing.put(data)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed.set()


class Agent:
    """The agent's end of a socket."""

    def __init__(self, sessions: AgentSessions, identity: Identity) -> None:
        self.wire = MemoryWire()
        self.task = asyncio.create_task(sessions.handle(self.wire, identity))
        self.sequence = 0

    def say(self, message: Message) -> None:
        self.wire.incoming.put_nowait(message.model_dump_json())

    def hello(self, *sites: str, **more: object) -> None:
        self.say(Hello.model_validate({"agent": "x", "agent_version": "0", "sites": sites} | more))

    async def hear(self) -> object:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return TO_AGENT.validate_json(await self.wire.outgoing.get())

    async def hear_all(self) -> list[object]:
        """Return everything that was said so far."""
        await settle()
        heard: list[object] = []
        while not self.wire.outgoing.empty():
            heard.append(TO_AGENT.validate_json(self.wire.outgoing.get_nowait()))
        return heard

    def report(self, side: Side, *, incarnation: int = 1, pair: str = PAIR, **facts: object) -> None:
        self.sequence += 1
        report = SideReport.model_validate(facts)
        self.say(Report(pair=pair, side=side, incarnation=incarnation, sequence=self.sequence, report=report))

    def alive(self, *unheld: tuple[str, Side]) -> None:
        self.sequence += 1
        self.say(Alive(sequence=self.sequence, unheld=unheld))

    async def hang_up(self) -> None:
        self.wire.incoming.put_nowait(None)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.task


async def settle() -> None:
    """Let every task run until nothing moves."""
    for _ in range(50):
        await asyncio.sleep(0)


class Room:
    """A store with two sites and a pair, and the sessions over it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = MemoryStore(self.clock)
        self.records = Records(self.store)
        for name in ("tokyo", "osaka"):
            site = SiteRecord(document=Site(name=name), created=self.clock.now())
            self.store.txn([], [put(keys.site(name), site)])
        spec = PairRecord(document=document(), generation=1, incarnation=1, created=self.clock.now())
        self.store.txn([], [put(keys.spec(PAIR), spec)])
        self.directory = StoreDirectory(self.records)
        self.sightings = Sightings(self.clock)
        self.changes: list[tuple[str, float]] = []
        self.results: list[Result] = []
        self.sessions = AgentSessions(
            sightings=self.sightings,
            directory=self.directory,
            on_change=self.change,
            on_result=self.results.append,
        )
        self.busy = False
        self.visit()

    def change(self, pair: str, seconds: float) -> None:
        """Note that a visit was asked for; an arriving agent has its pairs visited."""
        self.changes.append((pair, seconds))
        if seconds == 0:
            self.visit(busy=self.busy)

    def visit(self, **changes: Any) -> None:
        """Do what a visit of the pair does to the sessions."""
        spec = self.records.spec(PAIR)
        assert spec is not None
        standing = Standing(PAIR, "tokyo", "osaka", spec.value.incarnation, spec.value.generation, None, 0, False)
        self.sessions.settle(standing._replace(**changes))

    def enrol(self, site: str, credential: str = "0") -> None:
        record = AgentRecord(agent=f"agent-{site}", site=site, token_hash=credential, enrolled=self.clock.now())
        self.store.txn([], [put(keys.agent(site), record)])
        self.directory.forget()
        self.sessions.sites_changed()

    def revoke(self, site: str) -> None:
        self.store.txn([], [Delete(keys.agent(site))])
        self.directory.forget()
        self.sessions.sites_changed()

    async def embedded(self) -> Agent:
        agent = Agent(self.sessions, EMBEDDED)
        agent.hello("tokyo", "osaka", embedded=True)
        await settle()
        return agent


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test's coroutine in an event loop of its own."""

    def run() -> None:
        asyncio.run(test(Room()))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def kinds(heard: list[object]) -> list[str]:
    return [f"{type(each).__name__} {getattr(each, 'side', '')}".strip() for each in heard]


@runs
async def test_the_embedded_agent_serves_every_site_without_an_enrolled_one(room: Room) -> None:
    """R7: one process and no configuration are enough."""
    agent = await room.embedded()
    heard = await agent.hear_all()
    assert kinds(heard) == ["Welcome", "Assign a", "Assign b"]
    assert isinstance(heard[0], Welcome)
    assert heard[0].sites == ("osaka", "tokyo")
    assert isinstance(heard[1], Assign)
    assert heard[1].document == document()
    await agent.hang_up()


@runs
async def test_an_assignment_is_sent_once_and_again_when_it_changes(room: Room) -> None:
    """Visits come often; the agent hears only what is new."""
    agent = await room.embedded()
    await agent.hear_all()
    for _ in range(5):
        room.visit()
    assert await agent.hear_all() == []
    room.visit(active="a", epoch=2)
    assert kinds(await agent.hear_all()) == ["Assign a", "Assign b"]
    await agent.hang_up()


@runs
async def test_a_busy_pair_keeps_its_agent(room: Room) -> None:
    """No side changes hands in the middle of an operation."""
    embedded = await room.embedded()
    embedded.report("a", enrolled=True, epoch=4, token=9, fenced_epoch=4, base="complete", stream_epoch=4)
    await embedded.hear_all()
    room.busy = True
    room.enrol("tokyo")
    enrolled = Agent(room.sessions, TOKYO)
    enrolled.hello("tokyo")
    assert kinds(await enrolled.hear_all()) == ["Welcome"]
    assert "Unassign a" not in kinds(await embedded.hear_all())
    assert room.sessions.send(command("a"))
    assert kinds(await embedded.hear_all()) == ["Command a"]
    room.visit()
    assert kinds(await embedded.hear_all()) == ["Unassign a"]
    assert kinds(await enrolled.hear_all()) == ["Assign a"]
    await embedded.hang_up()
    await enrolled.hang_up()


@runs
async def test_a_side_changes_hands_with_its_durable_record(room: Room) -> None:
    """R7: the record is kept in the store, goes with every assignment until the next agent has one, and no longer."""
    embedded = await room.embedded()
    await embedded.hear_all()
    room.enrol("tokyo")
    enrolled = Agent(room.sessions, TOKYO)
    enrolled.hello("tokyo")
    assert kinds(await enrolled.hear_all()) == ["Welcome"], "the embedded agent has not said what it knows"
    embedded.report("a", enrolled=True, epoch=4, token=9, fenced_epoch=4, base="complete", seeded_for="op-1")
    assert "Unassign a" in kinds(await embedded.hear_all())
    expected = Record(token=9, epoch=4, fenced_epoch=4, base="complete", enrolled=True, seeded_for="op-1")
    (assigned,) = await enrolled.hear_all()
    assert isinstance(assigned, Assign)
    assert assigned.record == expected
    again = StoreDirectory(room.records).assignment((PAIR, "a"))  # as after a restart of the reconciler
    assert again is not None
    assert again.record == expected
    enrolled.report("a", enrolled=False)
    await settle()
    assert room.store.get(keys.handover(PAIR, "a")) is not None
    enrolled.report("a", enrolled=True, epoch=4)
    await settle()
    assert room.store.get(keys.handover(PAIR, "a")) is None
    room.visit(generation=2)
    (assigned,) = await enrolled.hear_all()
    assert isinstance(assigned, Assign)
    assert assigned.record is None
    await embedded.hang_up()
    await enrolled.hang_up()


@runs
async def test_an_enrolled_agent_that_is_away_is_not_replaced_by_the_embedded_one(room: Room) -> None:
    """R4: a gateway that is down makes its side unfenceable, not somebody else's."""
    room.enrol("tokyo")
    embedded = await room.embedded()
    assert kinds(await embedded.hear_all()) == ["Welcome", "Assign b"]
    assert room.sessions.session(PAIR, "a") == 0
    assert not room.sessions.send(command("a"))
    await embedded.hang_up()


@runs
async def test_a_second_live_agent_for_a_site_is_refused_and_a_silent_one_replaced(room: Room) -> None:
    """R7: two live agents would both think they may act; a crashed one must not block its successor."""
    room.enrol("tokyo")
    first = Agent(room.sessions, TOKYO)
    first.hello("tokyo")
    await first.hear_all()
    second = Agent(room.sessions, TOKYO)
    second.hello("tokyo")
    said = await second.hear()
    assert isinstance(said, Goodbye)
    assert said.error.code == "second_agent"
    assert said.retry_seconds > 0
    room.clock.seconds += STALE_SECONDS + 0.1
    third = Agent(room.sessions, TOKYO)
    third.hello("tokyo")
    assert isinstance(await third.hear(), Welcome)
    assert room.sessions.serves("tokyo")
    await third.hang_up()
    await first.hang_up()


@runs
async def test_a_revoked_agent_hands_its_side_over_and_is_sent_away(room: Room) -> None:
    """A socket does not outlive its credential: the side goes back with its record, then the agent is sent away."""
    room.enrol("tokyo")
    embedded, agent = await room.embedded(), Agent(room.sessions, TOKYO)
    agent.hello("tokyo")
    await settle()
    room.visit()
    agent.report("a", enrolled=True, epoch=4, token=9, fenced_epoch=4, base="complete")
    assert kinds(await agent.hear_all()) == ["Welcome", "Assign a"]
    await embedded.hear_all()
    room.revoke("tokyo")
    room.sessions.check()
    await settle()
    room.sessions.check()
    heard = await agent.hear_all()
    assert kinds(heard) == ["Goodbye"], "what waited is not said to it any more"
    assert isinstance(heard[0], Goodbye)
    assert heard[0].error.code == "unauthenticated"
    (welcome, assigned) = await embedded.hear_all()
    assert isinstance(welcome, Welcome)
    assert isinstance(assigned, Assign)
    assert assigned.record == Record(token=9, epoch=4, fenced_epoch=4, base="complete", enrolled=True)
    assert agent.wire.closed.is_set()
    await embedded.hang_up()


@runs
async def test_a_revoked_agent_that_cannot_hand_over_is_sent_away_all_the_same(room: Room) -> None:
    """Nobody takes its side, and revoked means revoked: it serves a moment longer, and no command after that."""
    room.enrol("tokyo")
    agent = Agent(room.sessions, TOKYO)
    agent.hello("tokyo")
    await settle()
    room.visit()
    room.revoke("tokyo")
    room.sessions.check()
    assert kinds(await agent.hear_all()) == ["Welcome", "Assign a"]
    assert not agent.wire.closed.is_set()
    for _ in range(int(REVOKED_SECONDS) + 2):
        room.clock.seconds += 1
        agent.alive()
        await settle()
        room.sessions.check()
    assert kinds(await agent.hear_all()) == ["Goodbye"]
    assert not room.sessions.send(command("a"))


@runs
async def test_the_successor_of_a_revoked_agent_is_let_in_at_once(room: Room) -> None:
    """A site that is enrolled anew belongs to the newcomer, though the former agent's socket is still open."""
    room.enrol("tokyo")
    former = Agent(room.sessions, TOKYO)
    former.hello("tokyo")
    await settle()
    room.enrol("tokyo", credential="1")
    room.sessions.check()
    newcomer = Agent(room.sessions, TOKYO._replace(credential="1"))
    newcomer.hello("tokyo")
    assert isinstance(await newcomer.hear(), Welcome)
    await newcomer.hang_up()


@runs
async def test_a_credential_serves_only_its_own_sites(room: Room) -> None:
    """R7: what an agent may serve is in its credential, not in its words."""
    for sites, more in ((("osaka",), {}), ((), {}), (("tokyo",), {"embedded": True})):
        agent = Agent(room.sessions, TOKYO)
        agent.hello(*sites, **more)
        said = await agent.hear()
        assert isinstance(said, Goodbye)
        assert said.error.code == "forbidden"
        assert "enrol" in said.error.hint


@runs
async def test_another_protocol_is_refused_with_what_to_do(room: Room) -> None:
    """Agents and reconciler are at most one release apart; further apart they say so and part."""
    agent = Agent(room.sessions, EMBEDDED)
    agent.hello("tokyo", protocol=99, embedded=True)
    said = await agent.hear()
    assert isinstance(said, Goodbye)
    assert said.error.code == "protocol_mismatch"
    assert "one apart" in said.error.hint
    assert agent.wire.closed.is_set() or await asyncio.wait_for(agent.wire.closed.wait(), PATIENCE_SECONDS)


@runs
async def test_a_word_that_is_not_understood_ends_the_session(room: Room) -> None:
    """I8: an unknown message is never skipped."""
    agent = await room.embedded()
    await agent.hear_all()
    agent.wire.incoming.put_nowait('{"type": "prophecy"}')
    said = await agent.hear()
    assert isinstance(said, Goodbye)
    assert said.error.code == "protocol_mismatch"
    await asyncio.wait_for(agent.task, PATIENCE_SECONDS)
    assert room.sessions.session(PAIR, "a") == 0


@runs
async def test_a_report_wakes_its_pair_only_when_a_fact_changed(room: Room) -> None:
    """Repeated facts and new measurements cost no visit."""
    agent = await room.embedded()
    await agent.hear_all()
    room.changes.clear()
    agent.report("a", db="up", server="s")
    await settle()
    assert room.changes == [(PAIR, 0.0)]
    agent.report("a", db="up", server="s")
    agent.report("a", db="up", server="s", position="7", stream=StreamMeasurements(lag_seconds=1.0))
    await settle()
    assert len(room.changes) == 1
    agent.report("a", db="down", server="s")
    await settle()
    assert len(room.changes) == 2
    await agent.hang_up()


@runs
async def test_measurements_replace_older_ones_without_waking_anybody(room: Room) -> None:
    """Lag is laid over the report when it is read; samples stay in memory, and only so many."""
    agent = await room.embedded()
    agent.report("b", db="up")
    await settle()
    changes = len(room.changes)
    for lag in range(200):
        agent.sequence += 1
        stream = StreamMeasurements(lag_seconds=float(lag))
        measure = Measure(pair=PAIR, side="b", incarnation=1, position=str(lag), stream=stream)
        agent.say(Measured(sequence=agent.sequence, measures=(measure,)))
        await settle()
        room.clock.seconds += 0.01
    seen = room.sessions.observed(PAIR).b
    assert seen is not None
    assert (seen.db, seen.position, seen.stream.lag_seconds) == ("up", "199", 199.0)
    samples = room.sightings.samples(PAIR, "b")
    assert [each.lag_seconds for each in samples] == [float(lag) for lag in range(136, 200)]
    assert len(room.changes) == changes
    await agent.hang_up()


@runs
async def test_overtaken_reports_and_those_of_another_life_or_agent_are_dropped(room: Room) -> None:
    """A sequence that does not grow, an older incarnation, a side that is not assigned here: none of them counts."""
    room.enrol("tokyo")
    agent = await room.embedded()
    await agent.hear_all()
    agent.report("b", position="new", db="up")
    agent.sequence -= 1
    agent.report("b", position="overtaken", db="down")
    agent.report("b", incarnation=7, db="down")
    agent.report("a", db="up")
    await settle()
    observed = room.sessions.observed(PAIR)
    assert observed.a is None
    assert observed.b is not None
    assert observed.b.position == "new"
    await agent.hang_up()


@runs
async def test_a_leftover_of_a_pair_that_is_no_more_is_told_to_let_go(room: Room) -> None:
    """A reconciler that died between removing a pair and saying so makes good for it when it hears of the side."""
    agent = await room.embedded()
    await agent.hear_all()
    agent.report("a", pair="forgotten", incarnation=3)
    said = await agent.hear()
    assert isinstance(said, Unassign)
    assert (said.pair, said.side, said.incarnation) == ("forgotten", "a", 3)
    await agent.hang_up()


@runs
async def test_alive_keeps_reports_fresh_but_for_the_sides_it_names(room: Room) -> None:
    """One short message a second stands for ten thousand reports; a side that hangs goes stale by itself."""
    agent = await room.embedded()
    agent.report("a", db="up")
    agent.report("b", db="up")
    agent.alive()
    await settle()
    room.changes.clear()
    for _ in range(10):
        room.clock.seconds += 1
        agent.alive((PAIR, "b"))
        await settle()
    observed = room.sessions.observed(PAIR)
    assert observed.a is not None
    assert observed.b is None
    assert observed.age_b is not None
    assert observed.age_b >= 9
    assert [seconds > UNHEARD_SECONDS for _, seconds in room.changes] == [True], "one visit, when it is to be reported"
    agent.alive()
    await settle()
    assert room.sessions.observed(PAIR).b is not None
    await agent.hang_up()


@runs
async def test_a_session_that_ends_makes_its_sides_unknown_after_their_time(room: Room) -> None:
    """Silence is not a fact about the database."""
    agent = await room.embedded()
    agent.report("a", db="up")
    agent.alive()
    await settle()
    await agent.hang_up()
    assert room.sessions.observed(PAIR).a is not None
    assert any(seconds > UNHEARD_SECONDS for _, seconds in room.changes)
    room.clock.seconds += STALE_SECONDS + 0.1
    assert room.sessions.observed(PAIR).a is None
    assert room.sessions.session(PAIR, "a") == 0


@runs
async def test_a_silent_session_is_noticed_and_at_last_closed(room: Room) -> None:
    """A socket that is open but says nothing makes its sides unknown, and is closed so that its agent dials again."""
    agent = await room.embedded()
    agent.report("a", db="up")
    await settle()
    room.changes.clear()
    room.clock.seconds += STALE_SECONDS + 0.5
    room.sessions.check()
    room.sessions.check()
    assert [pair for pair, seconds in room.changes if 0 < seconds < UNHEARD_SECONDS] == [PAIR]
    assert room.sessions.observed(PAIR).a is None
    room.clock.seconds += DEAD_SECONDS
    room.sessions.check()
    heard = await agent.hear_all()
    assert isinstance(heard[-1], Goodbye)
    await asyncio.wait_for(agent.task, PATIENCE_SECONDS)


@runs
async def test_during_an_operation_silence_is_noticed_as_soon_as_it_decides(room: Room) -> None:
    """A step that waits for a side hears at once that the side is unknown, and at once that it is back."""
    room.busy = True
    room.visit(busy=True)
    agent = await room.embedded()
    agent.report("a", db="up")
    agent.alive()
    await settle()
    room.changes.clear()
    agent.alive((PAIR, "a"))
    await settle()
    assert [STALE_SECONDS < seconds < UNHEARD_SECONDS for _, seconds in room.changes] == [True]
    agent.alive()
    await settle()
    assert room.changes[-1] == (PAIR, 0.0)
    room.clock.seconds += STALE_SECONDS + 1
    agent.alive()
    await settle()
    assert room.changes[-1] == (PAIR, 0.0)
    await agent.hang_up()


@runs
async def test_a_command_never_overtakes_the_assignment_of_its_side(room: Room) -> None:
    """An agent hears what it serves before it hears what to do."""
    agent = await room.embedded()
    await agent.hear_all()
    room.visit(active="a", epoch=4)
    room.sessions.send(command("b"))
    assert kinds(await agent.hear_all()) == ["Assign b", "Command b", "Assign a"]
    await agent.hang_up()


@runs
async def test_what_waits_for_a_socket_is_bounded(room: Room) -> None:
    """A socket that takes nothing costs bounded memory: further commands are refused, and sent by a later visit."""
    agent = await room.embedded()
    taken = 0
    while room.sessions.send(command("a")):
        taken += 1
        assert taken <= COMMANDS_MAX
    assert taken >= COMMANDS_MAX - 1
    await agent.hang_up()


@runs
async def test_inspect_is_answered_by_the_gateway_of_its_own_side(room: Room) -> None:
    """The question goes to the side's own agent, and the answer to the one who asked."""
    agent = await room.embedded()
    await agent.hear_all()
    asking = asyncio.create_task(room.sessions.inspect(document(), "b", False))
    question = await agent.hear()
    assert isinstance(question, Inspect)
    assert question.own == "b"
    agent.say(Inspected(request="another", findings=()))
    agent.say(Inspected(request=question.request, findings=(), servers={"b": "s"}))
    assert (await asyncio.wait_for(asking, PATIENCE_SECONDS)).servers == {"b": "s"}
    await agent.hang_up()


@runs
async def test_inspect_without_an_agent_or_an_answer_says_what_to_start(room: Room) -> None:
    """Nobody there, nobody answering: two errors that try again and name the command."""
    with pytest.raises(FarshoreError) as nobody:
        await room.sessions.inspect(document(), "a", False)
    assert nobody.value.code == "agent_unreachable"
    assert "farshore-agent run" in nobody.value.hint
    agent = await room.embedded()
    with pytest.raises(FarshoreError) as silent:
        await room.sessions.inspect(document(), "a", False, timeout_seconds=0.01)
    assert silent.value.code == "timeout"
    await agent.hang_up()


@runs
async def test_a_question_to_an_agent_that_goes_away_ends_at_once(room: Room) -> None:
    """Whoever asked does not wait for the time to run out."""
    agent = await room.embedded()
    await agent.hear_all()
    asking = asyncio.create_task(room.sessions.inspect(document(), "a", False))
    await agent.hear()
    await agent.hang_up()
    with pytest.raises(FarshoreError) as gone:
        await asyncio.wait_for(asking, PATIENCE_SECONDS)
    assert gone.value.code == "agent_unreachable"


@runs
async def test_results_are_heard_only_from_the_agent_that_serves_the_side(room: Room) -> None:
    """Another agent's word about a side is not its answer."""
    room.enrol("tokyo")
    agent = await room.embedded()
    await agent.hear_all()
    agent.say(Result(intent="i", pair=PAIR, side="b", state="done"))
    agent.say(Result(intent="j", pair=PAIR, side="a", state="done"))
    await settle()
    assert [each.intent for each in room.results] == ["i"]
    await agent.hang_up()


@runs
async def test_a_removed_pair_is_taken_back(room: Room) -> None:
    """After the last step the agent lets go of both sides."""
    agent = await room.embedded()
    await agent.hear_all()
    room.sessions.gone(PAIR)
    room.sessions.gone(PAIR)
    assert kinds(await agent.hear_all()) == ["Unassign a", "Unassign b"]
    await agent.hang_up()


def command(side: Side) -> Command:
    return Command(intent="i", pair=PAIR, side=side, incarnation=1, token=1, epoch=2, step="stream")
