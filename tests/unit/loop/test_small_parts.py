"""Promises of the loop's small parts: agenda, ownership, journal, reports in batches, orders."""

from datetime import datetime, timedelta, timezone

import pytest

from farshore import journal, operations
from farshore.agenda import PATIENCE, Agenda
from farshore.clock import SystemClock, rfc3339, seconds_between
from farshore.operations import LOG_HEAD, LOG_MAX
from farshore.orders import BACKOFF_MAX_SECONDS, OVERTAKEN, RUNNING_RESEND_SECONDS, SETTLE_SECONDS, Orders, Sending
from farshore.ownership import LEASE_SECONDS, Ownership, shard_of
from farshore.reporting import BATCH
from farshore.store import Put, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import PairRecord, RoleRecord, ServersRecord, put
from farshore_schema.errors import ErrorBody
from farshore_schema.messages import Result
from farshore_schema.roles import Operation, Receipt, Step
from farshore_schema.status import OperationView
from tests.unit.loop.world import PAIR, HandClock, World, document

AT = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:00:07.500Z"


def birth(**more: object) -> OperationView:
    return operations.birth(
        id="op-1", pair=PAIR, verb="switchover", to="b", to_site="osaka", epoch=4, created=AT, by="ann"
    ).model_copy(update=more)


# ---- agenda


def test_a_name_waits_once_and_urgent_names_go_first() -> None:
    """Wakes are merged; what changed goes before what is only looked at again."""
    agenda = Agenda()
    for name in ("calm", "calm", "hot", "hot"):
        agenda.put(name, urgent=name == "hot")
    agenda.put("calm", urgent=False)
    assert len(agenda) == 2
    assert [agenda.take(0), agenda.take(0), agenda.take(0)] == ["hot", "calm", None]


def test_a_calm_name_moves_up_when_it_changes() -> None:
    """A change of a pair that already waits must not wait behind ten thousand others."""
    agenda = Agenda()
    for name in ("a", "b", "c"):
        agenda.put(name, urgent=False)
    agenda.put("c")
    assert [agenda.take(0) for _ in range(3)] == ["c", "a", "b"]


def test_the_next_step_of_a_change_goes_before_everything() -> None:
    """A switchover's steps follow one another although others wait."""
    agenda = Agenda()
    agenda.put("a")
    agenda.put("b", urgent=False)
    agenda.first("b")
    assert [agenda.take(0), agenda.take(0)] == ["b", "a"]


def test_urgent_names_never_starve_the_others() -> None:
    """However much changes, every pair is looked at in the end."""
    agenda = Agenda()
    agenda.put("calm", urgent=False)
    for number in range(PATIENCE + 1):
        agenda.put(f"hot-{number}")
    taken = [agenda.take(0) for _ in range(PATIENCE + 1)]
    assert "calm" in taken


def test_putting_off_again_replaces_the_moment_and_other_moments_stay() -> None:
    """The loop's own "come back" has one moment; a moment that somebody else asked for is kept beside it."""
    agenda = Agenda()
    agenda.put_off("a", 10)
    agenda.put_off("a", 60)
    agenda.at("a", 30)
    assert agenda.take(20) is None
    assert agenda.take(30) == "a"
    assert agenda.take(59) is None
    assert agenda.take(60) == "a"
    assert agenda.next_due() is None


def test_a_forgotten_name_does_not_come_back_by_itself() -> None:
    """A removed pair costs nothing."""
    agenda = Agenda()
    agenda.put_off("a", 10)
    agenda.forget("a")
    assert agenda.take(20) is None


# ---- ownership


def test_shards_are_fixed_for_ever() -> None:
    """A release that mapped a pair elsewhere would let two processes own it."""
    assert [shard_of(name) for name in ("orders", "a", "pair-00000")] == [79, 222, 63]
    assert {shard_of(f"pair-{number}") for number in range(5000)} == set(range(keys.SHARD_COUNT))


def test_every_start_has_a_higher_token_and_two_processes_never_own_one_shard() -> None:
    """The create revision of the owner key is the fencing token (I6)."""
    clock = HandClock()
    store = MemoryStore(clock)
    first, second = Ownership(store, clock, "one"), Ownership(store, clock, "two")
    assert first.keep()
    assert not second.keep()
    old = first.owner(PAIR)
    assert old is not None
    assert second.owner(PAIR) is None
    first.release()
    assert second.keep()
    new = second.owner(PAIR)
    assert new is not None
    assert new.token > old.token
    assert first.owner(PAIR) is None


def test_a_process_that_slept_stops_by_itself_before_its_lease_runs_out() -> None:
    """It does not wait to be told: after two thirds of the lease without a keepalive it acts no more."""
    clock = HandClock()
    owner = Ownership(MemoryStore(clock), clock, "one")
    owner.keep()
    clock.seconds += LEASE_SECONDS * 0.6
    assert owner.owner(PAIR) is not None
    clock.seconds += LEASE_SECONDS * 0.1
    assert owner.owner(PAIR) is None
    clock.seconds += LEASE_SECONDS
    assert owner.keep(), "the lease is gone: every token is new"
    assert owner.owner(PAIR) is not None


def test_of_two_that_claim_at_the_same_moment_one_owns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that looked free is claimed only if it still is."""
    clock = HandClock()
    store = MemoryStore(clock)
    first, second = Ownership(store, clock, "one"), Ownership(store, clock, "two")
    first.keep()
    held = first.owner(PAIR)
    assert held is not None
    with monkeypatch.context() as blind:
        blind.setattr(store, "get", lambda _key: None)
        second.keep()
    assert second.owner(PAIR) is None
    found = store.get(held.key)
    assert found is not None
    assert found.create_rev == held.token


def test_a_lost_shard_is_claimed_again_only_when_it_is_free() -> None:
    """A write that was refused at the owner's guard says who is right."""
    clock = HandClock()
    store = MemoryStore(clock)
    first = Ownership(store, clock, "one")
    first.keep()
    first.lost(PAIR)
    assert first.owner(PAIR) is None
    first.keep()
    assert first.owner(PAIR) is None


# ---- operations and their journal


def test_core_carries_everything_that_decides() -> None:
    """The one place where the stored shape becomes the deciding one."""
    receipt = Receipt("a", 4, "p")
    view = birth(receipt=receipt, attested=True, prepared=True, overdue=True, abort=True)
    expected = Operation("op-1", "switchover", "b", 4, None, receipt, True, True, True, True)
    assert operations.core(view) == expected
    assert operations.core(operations.decode(operations.encode(view))) == expected


def test_attempts_share_a_line_and_the_journal_is_bounded() -> None:
    """Tried a thousand times is one line; a thousand steps keep the beginning and the end."""
    view = birth()
    for attempt in range(1, 1000):
        view = operations.begun(view, name="drain", site="osaka", at=AT, attempt=attempt)
        error = ErrorBody(code="timeout", message=str(attempt))
        view = operations.closed(view, name="drain", site="osaka", at=LATER, state="failed", error=error)
    (line,) = view.log
    assert (line.attempt, line.seconds) == (999, 7.5)
    assert line.error is not None
    assert line.error.message == "999"
    for number in range(1000):
        view = operations.noted(view, name=f"step-{number}", at=AT)
    assert len(view.log) == LOG_MAX
    assert view.log[0].name == "drain"
    assert view.log[LOG_HEAD - 1].name == f"step-{LOG_HEAD - 2}"
    assert view.log[-1].name == "step-999"
    assert operations.decode(operations.encode(view)) == view


def test_a_step_that_is_done_and_done_again_has_two_lines() -> None:
    """A fence that was broken and made again is told as two."""
    view = operations.begun(birth(), name="fence", site="tokyo", at=AT)
    view = operations.closed(view, name="fence", site="tokyo", at=AT)
    assert journal.attempt(view, "fence", "tokyo") == 2
    view = operations.begun(view, name="fence", site="tokyo", at=LATER, attempt=2)
    assert [line.attempt for line in view.log] == [1, 2]


def test_the_first_reason_of_an_abort_stays() -> None:
    """Who asked first is why it was taken back."""
    view = operations.aborting(birth(), "ann")
    assert operations.aborting(view, "bob") == view


def test_the_step_shown_never_goes_back_because_a_side_is_silent() -> None:
    """Progress is told from facts; a missing fact is not a step undone."""
    view = operations.at_step(birth(), 5, 7, "decide")
    shown = journal.placed(view, None, {"a": None, "b": None})
    assert (shown.step, shown.label) == (5, "decide")


def test_times_are_rfc_3339_and_never_run_backwards() -> None:
    """A clock that was set back makes a wait longer, never negative."""
    assert seconds_between(LATER, AT) == 0.0
    assert seconds_between(AT, LATER) == 7.5
    assert rfc3339(datetime(2026, 1, 1, 1, 0, 7, 500_999, tzinfo=timezone(timedelta(hours=1)))) == LATER
    assert seconds_between(SystemClock().now(), SystemClock().now()) < 60


# ---- orders


def order(orders: Orders, step: Step, now: float, *, session: int = 1, journaled: int = 0) -> Sending | float:
    sending = orders.sending(PAIR, step, operation="op", journaled=journaled, session=session, now=now)
    if isinstance(sending, Sending):
        orders.sent(PAIR, step, sending, operation="op", session=session, now=now)
    return sending


def answer(sending: Sending | float, state: str, **more: object) -> Result:
    assert isinstance(sending, Sending)
    return Result.model_validate({"intent": sending.intent, "pair": PAIR, "side": "b", "state": state} | more)


def test_done_is_given_a_moment_to_show_before_it_is_asked_again() -> None:
    """The report follows on another path; a second order is a new sending."""
    orders, step = Orders(), Step("stream", "b", 4)
    first = order(orders, step, 0)
    assert orders.heard(answer(first, "done"), 1)
    assert order(orders, step, 1.5) == pytest.approx(SETTLE_SECONDS - 0.5)
    second = order(orders, step, 1 + SETTLE_SECONDS)
    assert isinstance(second, Sending)
    assert isinstance(first, Sending)
    assert second.intent != first.intent


def test_the_first_end_of_a_command_is_the_one_that_counts() -> None:
    """An agent that restarts may answer twice; a second answer changes nothing."""
    orders, step = Orders(), Step("stream", "b", 4)
    sent = order(orders, step, 0)
    assert orders.heard(answer(sent, "done"), 1)
    assert not orders.heard(answer(sent, "failed", error={"code": "timeout", "message": ""}), 2)
    found = orders.answer(PAIR, step, operation="op")
    assert found is not None
    assert found.state == "done"


def test_long_work_is_left_alone_until_its_patience_ends() -> None:
    """`running` is an answer: the command is not repeated every few seconds."""
    orders, step = Orders(), Step("seed", "b", 4)
    first = order(orders, step, 0)
    orders.heard(answer(first, "running"), 1)
    assert order(orders, step, 30) == pytest.approx(RUNNING_RESEND_SECONDS - 29)
    assert order(orders, step, 1 + RUNNING_RESEND_SECONDS) == first, "the same sending once more"


def test_pauses_after_failures_are_bounded_and_end_with_success() -> None:
    """From half a second to half a minute, and back to nothing."""
    orders, step, now = Orders(), Step("drain", "b", 4), 0.0
    pause = 0.0
    for _ in range(12):
        sent = order(orders, step, now)
        orders.heard(answer(sent, "failed", error={"code": "timeout", "message": "", "retry_seconds": 1}), now)
        waits = order(orders, step, now)
        assert isinstance(waits, float)
        assert pause <= waits <= BACKOFF_MAX_SECONDS
        pause = waits
        now += waits
    assert pause == BACKOFF_MAX_SECONDS
    sent = order(orders, step, now)
    orders.heard(answer(sent, "done"), now)
    found = orders.answer(PAIR, step, operation="op")
    assert found is not None
    assert (found.failures, found.error) == (0, None)


@pytest.mark.parametrize("code", sorted(OVERTAKEN))
def test_a_refusal_that_says_the_reports_are_old_is_never_permanent(code: str) -> None:
    """Newer reports lead on; nobody has to mend anything."""
    orders, step = Orders(), Step("fence", "b", 4)
    orders.heard(answer(order(orders, step, 0), "refused", error={"code": code, "message": ""}), 0)
    found = orders.answer(PAIR, step, operation="op")
    assert found is not None
    assert not found.permanent


def test_steady_work_never_repeats_an_intent_although_steps_alternate() -> None:
    """An agent remembers intents; a repeated one would be taken for done."""
    orders, seen = Orders(), set()
    for number in range(20):
        step = Step("stream" if number % 2 else "fence", "b", 4)
        sent = order(orders, step, number * 10.0)
        assert isinstance(sent, Sending)
        seen.add(sent.intent)
        orders.heard(answer(sent, "done"), number * 10.0)
    assert len(seen) == 20


# ---- reports in batches


def crowd(world: World, count: int) -> list[str]:
    """Add protected pairs that the fake agents speak for as well."""
    names = [f"pair-{number}" for number in range(count)]
    for name in names:
        spec = PairRecord(document=document(name), generation=1, incarnation=1, created=AT)
        role = RoleRecord(active="a", epoch=2, evidence="initial", since=AT)
        servers = ServersRecord(a="server-a", b="server-b")
        world.store.txn([], [put(keys.spec(name), spec), put(keys.role(name), role)])
        world.store.txn([], [put(keys.pair_servers(name), servers)])
    return names


def test_reports_that_change_together_are_written_together() -> None:
    """When a site is lost, thousands of reports cost dozens of transactions."""
    world = World()
    world.protect()
    names = crowd(world, 3 * BATCH)
    before = world.loop.counters.transactions
    for name in names:
        world.loop.visit(name)
    world.loop.flush()
    assert world.loop.counters.transactions - before == 3
    assert all(world.store.get(keys.status(name)) for name in names)


def test_one_pair_that_changed_meanwhile_does_not_hold_up_the_others() -> None:
    """The batch is written apart then, and the one that lost the race is reported by its next visit."""
    world = World()
    world.protect()
    names = crowd(world, 5)
    for name in names:
        world.loop.visit(name)
    found = world.records.spec(names[2])
    assert found is not None
    world.store.txn([], [put(keys.spec(names[2]), found.value.model_copy(update={"generation": 2}))])
    world.loop.flush()
    written = [world.store.get(keys.status(name)) is not None for name in names]
    assert written == [True, True, False, True, True]
    world.loop.visit(names[2])
    world.loop.flush()
    assert world.store.get(keys.status(names[2])) is not None


def test_a_report_that_could_not_be_written_is_written_later() -> None:
    """A full disk loses nothing that is still true when there is space again."""
    world = World()
    world.protect()
    (name,) = crowd(world, 1)
    world.loop.visit(name)
    real = world.store.txn

    def full(if_: object = (), then: object = ()) -> object:
        raise OSError("no space")

    world.store.txn = full  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="no space"):
        world.loop.flush()
    world.store.txn = real  # type: ignore[method-assign]
    world.loop.visit(name)
    world.loop.flush()
    assert world.store.get(keys.status(name)) is not None


def test_stored_values_are_small() -> None:
    """A report is a page of text: ten thousand of them are some dozen megabytes."""
    world = World()
    world.protect()
    item = world.store.get(keys.status(PAIR))
    assert item is not None
    assert len(Put(item.key, item.value).value) < 8000
