"""The sides of an agent with real threads and the fake engine: orders in turn, looks, the watch of the fence."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farshore_agent.engines import Engine, Seat, SeedCall, Seen
from farshore_agent.engines.fake import FakeEngine
from farshore_agent.engines.fake_world import FakeWorld
from farshore_agent.lane import Hands
from farshore_agent.observe import Key, Observer
from farshore_agent.records import FileKeeper
from farshore_agent.secrets import Secrets
from farshore_agent.sides import Sides
from farshore_schema.errors import Permanent, Transient
from farshore_schema.messages import Command, Result
from farshore_schema.observed import SideReport
from farshore_schema.roles import SIDES, Consent, Receipt, Side
from tests.unit.agent.declared import assign, command, unassign
from tests.unit.agent.waiting import eventually


class Heard:
    """What the reconciler would hear."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.reports: dict[Key, SideReport] = {}
        self.history: list[tuple[Key, SideReport]] = []
        self.gone: list[Key] = []

    def result(self, result: Result) -> None:
        self.results.append(result)

    def report(self, key: Key, incarnation: int, report: SideReport) -> None:
        self.reports[key] = report
        self.history.append((key, report))

    def assigned(self, key: Key) -> None:
        pass

    def released(self, key: Key) -> None:
        self.gone.append(key)
        self.reports.pop(key, None)

    def of(self, asked: Command) -> list[str]:
        return [result.state for result in list(self.results) if result.intent == asked.intent]

    def last(self, asked: Command) -> Result:
        return [result for result in list(self.results) if result.intent == asked.intent][-1]


class Rig:
    """One agent's sides over a fake world; `again` is the next process on the same disk."""

    def __init__(self, root: Path, world: FakeWorld, engine: Callable[[Seat], Engine] | None = None) -> None:
        self.root, self.world, self.heard = root, world, Heard()
        self.pools = [ThreadPoolExecutor(8) for _ in range(3)]
        self.observer = Observer(lambda work: void(self.pools[2].submit(work)))
        self.sides = Sides(
            root=root,
            engines={"MySQLPair": engine or (lambda seat: FakeEngine(world, seat.side, autoflow=True))},
            secrets=Secrets(),
            hands=Hands(lambda work: void(self.pools[0].submit(work)), lambda work: void(self.pools[1].submit(work))),
            observer=self.observer,
            outlet=self.heard,
            on_served=lambda: None,
        )
        self.observer.start()

    def close(self) -> None:
        self.observer.close()
        self.sides.close()
        for pool in self.pools:
            pool.shutdown(wait=True)

    def do(self, asked: Command) -> Result:
        self.sides.command(asked)
        eventually(lambda: self.heard.of(asked) and self.heard.of(asked)[-1] != "running", f"the end of {asked.step}")
        return self.heard.last(asked)

    def report(self, side: Side, condition: Callable[[SideReport], object]) -> SideReport:
        found: list[SideReport] = []

        def seen() -> bool:
            report = self.heard.reports.get(("orders", side))
            if report is not None and condition(report):
                found.append(report)
            return bool(found)

        eventually(seen, f"the report of {side}")
        return found[0]

    def protect(self) -> None:
        for side in SIDES:
            self.sides.assign(assign(side))
        for asked in (
            command("enrol", "a", 2),
            command("enrol", "b", 2),
            command("promote", "a", 2, evidence="initial"),
            command("seed", "b", 2, consent=self.consent(2)),
            command("fence", "b", 2),
            command("stream", "b", 2),
        ):
            assert self.do(asked).state == "done", asked

    def consent(self, epoch: int) -> Consent:
        return Consent("b", self.world.databases["b"].server, epoch, "test")


def void(_value: object) -> None:
    """Drop a value."""


@pytest.fixture
def world() -> FakeWorld:
    made = FakeWorld()
    for row in ("one", "two"):
        made.databases["a"].write(row)
    return made


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(world: FakeWorld, engine: Callable[[Seat], Engine] | None = None) -> Rig:
        made.append(Rig(tmp_path, world, engine))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(rigs: Callable[..., Rig], world: FakeWorld) -> Rig:
    made = rigs(world)
    made.protect()
    return made


def test_a_switchover_by_commands_reports_every_fact_the_plan_waits_for(rig: Rig) -> None:
    """Prepare, fence, drain, promote, stream: each end shows in a result and in the facts of the next report."""
    assert rig.do(command("prepare", "a", 4)).state == "done"
    rig.report("a", lambda report: report.prepared_epoch == 4)
    fenced = rig.do(command("fence", "a", 4))
    assert fenced.receipt == Receipt("a", 4, "one,two")
    rig.report("a", lambda report: report.receipt == fenced.receipt and not report.writable)
    drain = command("drain", "b", 4, receipt=fenced.receipt)
    assert rig.do(drain).state == "done"
    assert rig.heard.of(drain) == ["running", "done"]
    rig.report("b", lambda report: report.drained == fenced.receipt and report.draining is None)
    assert rig.do(command("promote", "b", 4, evidence="fenced", receipt=fenced.receipt)).state == "done"
    opened = rig.report("b", lambda report: report.writable and report.promoted_epoch == 4)
    assert (opened.epoch, opened.base, opened.stream_epoch, opened.db) == (4, "complete", 0, "up")
    assert rig.do(command("stream", "a", 4)).state == "done"
    rig.report("a", lambda report: report.stream_epoch == 4 and report.receiving and report.applying)


def test_a_rebind_by_commands_is_proved_for_its_operation_and_then_followed(rig: Rig, world: FakeWorld) -> None:
    """Each proof shows as the operation's own in the next report; then both gateways take the new server."""
    world.databases["a"].server = "server-n"
    rig.report("b", lambda report: report.stopped == "source_replaced")
    consent = Consent("a", "server-n", 4, "ann")
    for side in ("a", "b"):
        assert rig.do(command("prove", side, 4, consent=consent, operation="op-r")).state == "done"
        seen = rig.report(side, lambda report: report.proved_for == "op-r")
        assert seen.epoch == 2
    assert rig.do(command("stream", "b", 4)).state == "failed"
    assert rig.do(command("promote", "a", 4, evidence="rebound", consent=consent)).state == "done"
    assert rig.do(command("fence", "b", 4)).state == "done"
    assert rig.do(command("stream", "b", 4, consent=consent)).state == "done"
    world.databases["a"].write("on the new server")
    rig.report("b", lambda report: report.stream_epoch == 4 and report.receiving and "new" in report.position)


def test_a_proof_that_fails_is_not_reported_as_one(rig: Rig, world: FakeWorld) -> None:
    """With its reason in the result, and with no epoch moved."""
    world.databases["a"].server = "server-n"
    world.databases["a"].committed.clear()
    failed = rig.do(command("prove", "b", 4, consent=Consent("a", "server-n", 4, "ann"), operation="op-r"))
    assert (failed.state, failed.error.code if failed.error else "") == ("failed", "diverged")
    seen = rig.report("b", lambda report: report.db == "up")
    assert (seen.proved_for, seen.epoch) == ("", 2)


def test_a_second_process_on_the_same_disk_goes_on_with_nobody_to_tell_it(
    rigs: Callable[..., Rig], rig: Rig, world: FakeWorld
) -> None:
    """A restarted agent looks at the same sides, keeps their records, and follows again after a power cut (I10)."""
    rig.close()
    world.streams["b"].receiving = False  # the data path's processes died with the machine
    again = rigs(world)
    assert again.sides.restore() == []
    report = again.report("b", lambda report: report.receiving)
    assert (report.enrolled, report.epoch, report.stream_epoch) == (True, 2, 2)
    assert again.report("a", lambda report: report.writable).promoted_epoch == 2
    assert again.do(command("promote", "a", 2, token=0, evidence="initial")).error is not None


def test_a_side_found_writable_after_its_receipt_is_fenced_again_and_says_so(rig: Rig) -> None:
    """The receipt is revoked before anything else, the finding is there, the side is closed again by itself (R13)."""
    receipt = rig.do(command("fence", "a", 4)).receipt
    rig.report("a", lambda report: report.receipt == receipt)
    rig.world.databases["a"].set_read_only(False, persist=True)
    assert rig.world.databases["a"].writable
    report = rig.report("a", lambda report: any(each.code == "fence_violated" for each in report.findings))
    assert report.receipt is None
    eventually(lambda: not rig.world.databases["a"].writable, "the second fence")
    closed = rig.report("a", lambda report: not report.writable and report.findings)
    assert closed.receipt is None  # revoked until a fence is ordered again
    assert FileKeeper(rig.root, "orders", "a").load().receipt is None
    assert rig.do(command("fence", "a", 4)).receipt == receipt
    rig.report("a", lambda report: report.receipt == receipt and not report.findings)


def test_a_fence_under_way_is_never_taken_for_a_broken_one(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """Looks taken while a fence, a promote and a fence run never find a violation and never mix two states."""
    rig = rigs(world)
    rig.protect()
    for epoch in range(4, 44, 4):
        assert rig.do(command("fence", "a", epoch)).state == "done"
        assert rig.do(command("promote", "a", epoch + 2, evidence="aborted")).state == "done"
    rig.report("a", lambda report: report.promoted_epoch == 42 and report.writable)
    for key, report in list(rig.heard.history):
        assert not report.findings, (key, report)
        assert not (report.receipt is not None and report.writable)


def test_a_look_that_an_order_passed_is_thrown_away(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """The side is opened after the record was read and before the engine looked: no broken fence is seen."""
    order: list[Callable[[], object]] = []

    class Interrupted(FakeEngine):
        def observe(self) -> Seen:
            if self._side == "a" and order:
                order.pop()()
            return super().observe()

    rig = rigs(world, lambda seat: Interrupted(world, seat.side, autoflow=True))
    rig.protect()
    receipt = rig.do(command("fence", "a", 4)).receipt
    rig.report("a", lambda report: report.receipt == receipt)
    order.append(lambda: rig.do(command("promote", "a", 6, evidence="aborted")))
    rig.report("a", lambda report: report.writable and report.promoted_epoch == 6)
    assert not order
    for key, report in list(rig.heard.history):
        assert not report.findings, (key, report)
        assert not (key[1] == "a" and report.writable and report.promoted_epoch < report.fenced_epoch)


class SlowSeed(FakeEngine):
    """A seed that runs until it is cancelled or let go."""

    def __init__(self, world: FakeWorld, side: Side) -> None:
        super().__init__(world, side, autoflow=True)
        self.begun, self.go = threading.Event(), threading.Event()
        self.seeds = 0

    def seed(self, call: SeedCall) -> None:
        self.seeds += 1
        call.before_first_write()
        self.begun.set()
        while not self.go.wait(0.01):
            if call.cancelled():
                raise Transient("not_possible_now", "cancelled")
        super().seed(dataclasses.replace(call, before_first_write=lambda: None))


@pytest.fixture
def slow(rigs: Callable[..., Rig], world: FakeWorld) -> tuple[Rig, SlowSeed]:
    engines: dict[Side, SlowSeed] = {"a": SlowSeed(world, "a"), "b": SlowSeed(world, "b")}
    rig = rigs(world, lambda seat: engines[seat.side])
    for side in SIDES:
        rig.sides.assign(assign(side))
        assert rig.do(command("enrol", side, 2)).state == "done"
    assert rig.do(command("promote", "a", 2, evidence="initial")).state == "done"
    return rig, engines["b"]


def test_a_long_copy_answers_running_and_repeats_join_it(slow: tuple[Rig, SlowSeed]) -> None:
    """The same seed sent again, by intent or as a new sending, joins the one under way and is answered with it."""
    rig, engine = slow
    first = command("seed", "b", 2, consent=rig.consent(2))
    second = command("seed", "b", 2, consent=rig.consent(2))
    rig.sides.command(first)
    assert engine.begun.wait(10)
    rig.report("b", lambda report: report.seeding and report.base == "incomplete")
    rig.sides.command(first)
    rig.sides.command(second)
    eventually(lambda: rig.heard.of(first) == ["running", "running"] and rig.heard.of(second) == ["running"])
    engine.go.set()
    eventually(lambda: rig.heard.of(first)[-1] == "done" and rig.heard.of(second)[-1] == "done", "the seed's end")
    assert engine.seeds == 1
    rig.report("b", lambda report: report.base == "complete" and not report.seeding and report.seed is not None)


def test_a_newer_decision_cancels_a_copy_and_does_not_wait_for_it(slow: tuple[Rig, SlowSeed]) -> None:
    """A fence in a newer epoch stops a running seed, which is answered as failed; the fence is done."""
    rig, engine = slow
    seed = command("seed", "b", 2, consent=rig.consent(2))
    rig.sides.command(seed)
    assert engine.begun.wait(10)
    assert rig.do(command("fence", "b", 4)).state == "done"
    assert rig.heard.last(seed).state == "failed"
    report = rig.report("b", lambda report: not report.seeding and report.fenced_epoch == 4)
    assert report.base == "incomplete"


def test_enrolment_by_a_new_owner_does_not_disturb_a_copy(slow: tuple[Rig, SlowSeed]) -> None:
    """A restarted reconciler enrols with its newer token; the copy that runs for hours goes on (I10)."""
    rig, engine = slow
    seed = command("seed", "b", 2, consent=rig.consent(2))
    rig.sides.command(seed)
    assert engine.begun.wait(10)
    assert rig.do(command("enrol", "b", 2, token=5)).state == "done"
    engine.go.set()
    eventually(lambda: rig.heard.of(seed)[-1] == "done", "the seed's end")


def test_what_an_engine_throws_becomes_an_answer_and_ends_nothing(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """Our errors travel with code and hint; a foreign exception becomes `bug`; the next order works."""
    errors: list[Exception] = [Permanent("missing_privilege", "no SUPER", hint="GRANT SUPER"), ZeroDivisionError("x")]

    class Throwing(FakeEngine):
        def fence(self, epoch: int) -> str:
            if errors:
                raise errors.pop(0)
            return super().fence(epoch)

    rig = rigs(world, lambda seat: Throwing(world, seat.side, autoflow=True))
    rig.sides.assign(assign("a"))
    rig.do(command("enrol", "a", 2))
    first, second = rig.do(command("fence", "a", 4)), rig.do(command("fence", "a", 4))
    assert first.error is not None
    assert (first.state, first.error.code, first.error.hint) == ("failed", "missing_privilege", "GRANT SUPER")
    assert second.error is not None
    assert (second.state, second.error.code) == ("failed", "bug")
    assert rig.do(command("fence", "a", 4)).state == "done"


def test_secrets_in_engine_errors_and_findings_do_not_leave(
    rigs: Callable[..., Rig], world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that quotes the password in its error is cut before the result and the report leave (I9)."""
    monkeypatch.setenv("FARSHORE_TEST_PASSWORD", "hunter2-secret")

    class Leaking(FakeEngine):
        def fence(self, epoch: int) -> str:
            raise Permanent("access_denied", "denied with hunter2-secret", hint="try hunter2-secret")

    def engine(seat: Seat) -> Engine:
        assert seat.secret("env:FARSHORE_TEST_PASSWORD") == "hunter2-secret"
        return Leaking(world, seat.side, autoflow=True)

    rig = rigs(world, engine)
    rig.sides.assign(assign("a"))
    rig.do(command("enrol", "a", 2))
    failed = rig.do(command("fence", "a", 4))
    assert failed.error is not None
    assert "hunter2" not in failed.model_dump_json()
    assert "(secret)" in failed.error.message


def test_a_side_given_away_is_let_go_and_comes_back_with_its_record(rig: Rig) -> None:
    """Unassigned, the side takes no orders and is not looked at; assigned again, it goes on with the same record."""
    before = FileKeeper(rig.root, "orders", "b").load()
    rig.sides.unassign(unassign("b"))
    eventually(lambda: ("orders", "b") in rig.heard.gone, "the release")
    refused = rig.do(command("fence", "b", 4))
    assert refused.error is not None
    assert (refused.state, refused.error.code) == ("refused", "not_enrolled")
    assert rig.world.streams["b"].receiving  # the data path goes on (I10)
    rig.sides.assign(assign("b", incarnation=2))
    report = rig.report("b", lambda report: report.receiving)
    assert (report.epoch, report.base) == (before.epoch, before.base)
    assert rig.do(command("fence", "b", 4, incarnation=2)).state == "done"


def test_commands_and_assignments_of_another_incarnation_are_refused(rig: Rig) -> None:
    """A command of a deleted pair of the same name does nothing; an older assignment does not bring it back."""
    rig.sides.assign(assign("b", incarnation=3))
    rig.sides.assign(assign("b", incarnation=2))
    old = rig.do(command("fence", "b", 4, incarnation=2))
    assert (old.state, old.error.code if old.error else "") == ("refused", "not_enrolled")
    assert rig.do(command("fence", "b", 4, incarnation=3)).state == "done"


def test_a_damaged_record_makes_the_side_obey_nothing_and_say_so(
    rigs: Callable[..., Rig], rig: Rig, world: FakeWorld
) -> None:
    """The other side of the same agent is not affected."""
    rig.close()
    path = FileKeeper(rig.root, "orders", "a").path
    path.write_bytes(b"{")
    again = rigs(world)
    again.sides.restore()
    report = again.report("a", lambda report: report.findings)
    assert (report.findings[0].code, report.enrolled, report.db) == ("corrupt_record", False, "unknown")
    refused = again.do(command("enrol", "a", 9, token=9))
    assert (refused.state, refused.error.code if refused.error else "") == ("failed", "corrupt_record")
    assert path.read_bytes() == b"{"
    assert again.do(command("fence", "b", 4)).state == "done"


def test_an_engine_that_cannot_be_made_says_why(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """A missing secret shows as a finding and as the error of every order, and heals by itself once it is there."""
    missing = [True]

    def engine(seat: Seat) -> Engine:
        if missing:
            raise Permanent("secret_missing", "TOKYO is not set", hint="set TOKYO")
        return FakeEngine(world, seat.side, autoflow=True)

    rig = rigs(world, engine)
    rig.sides.assign(assign("a"))
    report = rig.report("a", lambda report: report.findings)
    assert (report.findings[0].code, report.db) == ("secret_missing", "unknown")
    rig.do(command("enrol", "a", 2))
    failed = rig.do(command("fence", "a", 2))
    assert (failed.state, failed.error.code if failed.error else "") == ("failed", "secret_missing")
    missing.clear()
    rig.report("a", lambda report: report.db == "up" and not report.findings)
    assert rig.do(command("fence", "a", 2)).state == "done"


def test_a_declared_switchover_does_not_cost_a_new_engine(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """A new `primary_site` keeps the engine and its connections; what an engine works with brings a new one."""
    made: list[Seat] = []

    def engine(seat: Seat) -> Engine:
        made.append(seat)
        return FakeEngine(world, seat.side, autoflow=True)

    rig = rigs(world, engine)
    rig.sides.assign(assign("a"))
    rig.sides.assign(assign("a", generation=2, primary_site="osaka", description="moved"))
    rig.sides.assign(assign("a", generation=3, primary_site="osaka", seed_workers=4))
    rig.do(command("enrol", "a", 2))
    assert [seat.document.seed_workers for seat in made] == [2, 4]


def test_a_hanging_engine_is_no_longer_vouched_for(rigs: Callable[..., Rig], world: FakeWorld) -> None:
    """A look that does not come back names its side as overdue, and only that one."""
    hang = threading.Event()

    class Hanging(FakeEngine):
        def observe(self):  # type: ignore[no-untyped-def]
            if self._side == "a":
                hang.wait(30)
            return super().observe()

    rig = rigs(world, lambda seat: Hanging(world, seat.side, autoflow=True))
    rig.sides.assign(assign("a"))
    rig.sides.assign(assign("b"))
    eventually(lambda: rig.observer.overdue() == (("orders", "a"),), "the overdue side")
    hang.set()
    eventually(lambda: rig.observer.overdue() == (), "the side looked at again")
