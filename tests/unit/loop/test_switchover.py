"""What the loop promises about a planned switchover, on a memory store with agents that do as they are told."""

from collections.abc import Callable

import pytest

from farshore import operations
from farshore.limits import FENCE_SECONDS, PREPARE_SECONDS
from farshore.store import keys
from farshore.store.records import put
from farshore_schema.errors import ErrorBody
from farshore_schema.roles import Receipt, Role
from tests.unit.loop.world import PAIR, World

HAPPY = ["prepare a 4", "fence a 4", "drain b 4", "promote b 4", "stream a 4"]
TRANSIENT = ErrorBody(code="timeout", message="busy", retry_seconds=0.1)
PERMANENT = ErrorBody(code="missing_privilege", message="no CONNECTION_ADMIN", hint="GRANT CONNECTION_ADMIN")


@pytest.fixture
def world() -> World:
    made = World()
    made.protect()
    return made


def abort(world: World, reason: str = "changed my mind") -> None:
    found = world.records.operation(PAIR)
    assert found is not None
    asked = operations.aborting(found.value, reason)
    assert world.store.txn([found.unchanged()], [put(keys.operation(PAIR), asked)]).ok


def test_a_switchover_takes_each_step_once_and_ends_with_the_roles_changed(world: World) -> None:
    """Prepare, fence, drain, decide, promote, follow: every command is sent once, and the journal holds them all."""
    world.request("switchover")
    assert world.settle() == HAPPY
    assert world.role() == Role("b", 4, "fenced", Receipt("a", 4, "end-of-a-in-4"))
    ended = world.ended()
    assert ended.state == "done"
    assert [line.name for line in ended.log] == ["prepare", "fence", "drain", "decide", "promote", "stream"]
    assert all(line.state == "done" and line.ended for line in ended.log)
    assert (ended.step, ended.steps) == (7, 7)
    assert world.role_record().by == "ann"
    assert world.status().phase == "protected"
    assert world.status().operation == ended


def test_while_clients_wait_nothing_is_awaited_but_the_agents(world: World) -> None:
    """From the fence on, the very visit that sees a report sends the next command: no timer lies between them."""
    world.request("switchover")
    sent = []
    for _ in range(len(HAPPY)):
        world.visit()
        sent += [command.step for command in world.agents.sent]
        world.answer()
    assert sent == [name.split()[0] for name in HAPPY]
    assert world.clock.seconds == 1000.0


@pytest.mark.parametrize("steps_before", range(len(HAPPY) + 1))
@pytest.mark.parametrize("heard", [True, False])
def test_a_restart_at_any_point_changes_nothing_about_the_end(world: World, steps_before: int, heard: bool) -> None:
    """A new process over the same store finishes the switchover, whether the last command took effect or not."""
    world.request("switchover")
    for _ in range(steps_before):
        world.visit()
        world.answer()
    world.visit()
    if heard and world.agents.sent:
        for command in world.agents.sent:
            world.agents.carry_out(command)  # the effect happens, the answer is never heard
    world.agents.sent.clear()
    world.restart()
    world.settle()
    assert world.operation() is None
    assert world.ended().state == "done"
    assert world.role() == Role("b", 4, "fenced", Receipt("a", 4, "end-of-a-in-4"))
    assert [side.writable for side in world.agents.facts.values() if side] == [False, True]


def test_the_same_attempt_keeps_its_intent_over_a_restart(world: World) -> None:
    """An agent that carried a command out before the restart can recognise it: journal and intent agree."""
    world.request("switchover")
    world.visit()
    before = world.agents.sent.pop()
    world.restart()
    world.visit()
    after = world.agents.sent.pop()
    assert (after.step, after.intent) == (before.step, before.intent)
    assert after.token > before.token


def test_a_preparation_that_fails_never_blocks(world: World) -> None:
    """The reverse stream is attached afterwards instead; the journal says why."""
    world.agents.fails["prepare"] = PERMANENT
    world.request("switchover")
    assert world.settle() == HAPPY
    line = world.ended().log[0]
    assert (line.name, line.state) == ("prepare", "failed")
    assert line.error is not None
    assert line.error.code == "missing_privilege"
    assert world.ended().state == "done"


def test_a_preparation_that_hangs_is_given_up_after_its_time(world: World) -> None:
    """Clients are not kept from the other site by a stream that can also be attached later."""
    world.request("switchover")
    again = world.visit()
    world.agents.sent.clear()  # it never answers
    assert again is not None
    assert again <= PREPARE_SECONDS
    world.sleep(PREPARE_SECONDS)
    world.visit()
    assert [command.step for command in world.agents.sent] == ["fence"]


def test_a_drain_that_takes_too_long_is_taken_back_by_itself(world: World) -> None:
    """After `drain_timeout` the old side is opened again in a newer epoch (R15), and nothing is tried again (R11)."""
    world.request("switchover")
    for _ in range(2):
        world.visit()
        world.answer()
    again = world.visit()
    assert [command.step for command in world.agents.sent] == ["drain"]
    world.agents.sent.clear()
    assert again is not None
    world.sleep(30.0)
    steps = world.settle()
    assert steps == ["fence b 6", "promote a 6", "stream b 6"] or steps[0] == "promote a 6", steps
    assert world.ended().state == "aborted"
    assert world.ended().overdue
    assert world.ended().error is not None
    assert "30s" in world.ended().error.message  # type: ignore[union-attr]
    assert world.role() == Role("a", 6, "aborted")
    world.sleep(600)
    assert world.settle() == []
    assert world.operation() is None


def test_the_time_of_a_drain_survives_a_restart(world: World) -> None:
    """The clock starts with the journal, not with the process."""
    world.request("switchover")
    for _ in range(2):
        world.visit()
        world.answer()
    world.visit()
    world.agents.sent.clear()
    world.sleep(20.0)
    world.restart()
    world.visit()
    world.agents.sent.clear()
    world.sleep(10.0)
    world.visit()
    role = world.role()
    assert role is not None
    assert role.evidence == "aborted"


def test_a_fence_that_never_ends_is_taken_back(world: World) -> None:
    """A source that cannot be fenced keeps its clients."""
    world.request("switchover")
    world.visit()
    world.answer()
    world.agents.fails["fence"] = TRANSIENT
    for _ in range(200):
        if world.operation() is None or world.operation().abort or world.role() != Role("a", 2, "initial"):  # type: ignore[union-attr]
            break
        world.visit()
        world.answer()
        world.sleep(1.0)
    assert world.clock.seconds - 1000 <= 30 + FENCE_SECONDS + 5
    del world.agents.fails["fence"]
    world.sleep(31.0)
    world.settle()
    assert world.ended().state == "aborted"
    assert world.role() == Role("a", 6, "aborted")


@pytest.mark.parametrize("step", ["fence", "drain"])
def test_a_step_that_fails_for_good_takes_the_switchover_back(world: World, step: str) -> None:
    """Before the decision there is a way back, and it is taken at once, with the error as the reason (R15)."""
    world.agents.fails[step] = PERMANENT
    world.request("switchover")
    world.settle()
    ended = world.ended()
    assert ended.state == "aborted"
    assert "no CONNECTION_ADMIN" in ended.abort_reason
    assert ended.error is not None
    assert world.role() == Role("a", 6, "aborted")
    failed = [line for line in ended.log if line.name == step]
    assert failed[0].error is not None
    assert failed[0].error.hint == "GRANT CONNECTION_ADMIN"


def test_after_the_decision_a_failing_step_is_tried_on_and_on_and_shown(world: World) -> None:
    """There is no way back from a decision: the promotion is repeated, with bounded pauses, and its reason is shown."""
    world.agents.fails["promote"] = PERMANENT
    world.request("switchover")
    intents: set[str] = set()
    for _ in range(20):
        again = world.visit()
        intents |= {each.intent for each in world.agents.sent if each.step == "promote"}
        world.answer()
        again = world.visit()
        assert again is not None
        world.sleep(again)
    operation = world.operation()
    assert len(intents) > 3
    assert operation is not None
    assert (operation.state, operation.waiting_for) == ("waiting", "missing_privilege")
    assert "GRANT CONNECTION_ADMIN" in operation.waiting_hint
    assert world.status().phase == "waiting"
    line = operations.newest(operation, "promote", "osaka")
    assert line is not None
    assert line.attempt == len(intents)
    assert len(operation.log) < 10
    world.agents.fails.clear()
    world.sleep(31)
    world.settle()
    assert world.ended().state == "done"


def test_transient_failures_are_repeated_with_a_growing_bounded_pause(world: World) -> None:
    """A step that may heal by itself is not hammered."""
    world.agents.fails["drain"] = TRANSIENT
    world.request("switchover")
    while not any(command.step == "drain" for command in world.agents.sent):
        world.answer()
        world.visit()
    pauses = []
    for _ in range(5):
        world.answer()
        again = world.visit()
        assert again is not None
        assert world.agents.sent == []
        pauses.append(again)
        world.sleep(again)
        world.visit()
        assert [command.step for command in world.agents.sent] == ["drain"]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0
    assert len({command.intent for command in world.agents.sent}) == 1
    del world.agents.fails["drain"]
    world.settle()
    assert world.ended().state == "done"


@pytest.mark.parametrize("answers", range(4))
def test_an_abort_at_any_point_ends_in_one_writable_side(world: World, answers: int) -> None:
    """Before the decision the abort wins and the old side is opened in a newer epoch; afterwards it is too late."""
    world.request("switchover")
    for _ in range(answers):
        world.visit()
        world.answer()
    if world.operation() is None:
        return
    decided = world.role() != Role("a", 2, "initial")
    abort(world)
    world.agents.sent.clear()
    world.sleep(10)
    world.settle()
    sides = world.agents.facts
    assert [bool(sides[side].writable) for side in ("a", "b")] == ([False, True] if decided else [True, False])  # type: ignore[union-attr]
    assert world.operation() is None
    assert world.ended().state == ("done" if decided else "aborted")


def test_a_command_under_way_is_not_sent_again_until_its_time(world: World) -> None:
    """Visits come as often as they like; a lost command is repeated with the same intent."""
    world.request("switchover")
    world.visit()
    first = world.agents.sent.pop()
    for _ in range(5):
        world.visit()
    assert world.agents.sent == []
    world.sleep(4.9)
    world.visit()
    assert world.agents.sent == []
    world.sleep(0.2)
    # a preparation has its own, shorter patience: what is asked next is the fence
    world.visit()
    fence = world.agents.sent.pop()
    assert (first.step, fence.step) == ("prepare", "fence")
    world.sleep(5.1)
    world.visit()
    assert world.agents.sent.pop().intent == fence.intent


def test_a_new_session_of_the_agent_is_asked_again(world: World) -> None:
    """An agent that restarted may have lost the command: it gets the same one at once."""
    world.request("switchover")
    world.visit()
    first = world.agents.sent.pop()
    world.agents.sessions["a"] = 9
    world.visit()
    assert world.agents.sent.pop().intent == first.intent


def test_late_and_repeated_answers_are_ignored(world: World) -> None:
    """An answer to an older command says nothing about the present one."""
    world.request("switchover")
    world.visit()
    prepare = world.agents.sent[0]
    late = world.agents.carry_out(prepare)
    world.answer()
    world.visit()
    fence = world.agents.sent[0]
    failed = late.model_copy(update={"state": "failed", "error": PERMANENT})
    world.loop.heard(failed)
    world.loop.heard(failed)
    world.visit()
    operation = world.operation()
    assert operation is not None
    assert not operation.abort
    assert world.agents.sent == [fence]


def test_an_unreachable_side_is_waited_for_with_a_name_and_two_commands(world: World) -> None:
    """R15: the operation says what it waits for, how to go on and how to go back; then it goes on by itself."""
    world.request("switchover")
    for _ in range(2):
        world.visit()
        world.answer()
    target, world.agents.facts["b"] = world.agents.facts["b"], None
    world.agents.sent.clear()
    world.visit()
    operation = world.operation()
    assert operation is not None
    assert (operation.state, operation.waiting_for) == ("waiting", "standby_unreachable")
    assert "farshore-agent run" in operation.waiting_hint
    assert f"farshore abort {PAIR}" in operation.waiting_hint
    assert world.status().phase == "waiting"
    assert operation.receipt is not None, "the receipt of the fence is kept while the target is away"
    world.agents.facts["b"] = target
    world.settle()
    assert world.ended().state == "done"


def test_with_no_agent_for_a_side_nothing_is_sent(world: World) -> None:
    """A side that reports but whose agent is gone in between is not commanded into the void."""
    world.request("switchover")
    world.agents.sessions = {"a": 0, "b": 0}
    world.visit()
    operation = world.operation()
    assert world.agents.sent == []
    assert operation is not None
    assert operation.waiting_for == "active_unreachable"


def test_an_abort_written_between_look_and_write_wins(world: World) -> None:
    """The visit's transaction is guarded by what it was decided on: it fails, and the next visit sees the abort."""
    world.request("switchover")
    for _ in range(3):
        world.visit()
        world.answer()  # drained: the next visit decides

    store, real = world.store, world.store.txn
    calls: list[int] = []

    def racing(if_: object = (), then: object = ()) -> object:
        if not calls:
            calls.append(1)
            abort(world)
        return real(if_, then)  # type: ignore[arg-type]

    store.txn = racing  # type: ignore[method-assign,assignment]
    world.visit()
    store.txn = real  # type: ignore[method-assign]
    world.settle()
    assert world.role() == Role("a", 6, "aborted")
    assert world.ended().state == "aborted"
    assert world.loop.counters.conflicts >= 1


def test_a_replaced_process_can_neither_write_nor_be_obeyed(world: World) -> None:
    """I6: the zombie's transactions fail at the owner's guard, and its commands carry a token that is too old."""
    zombie = world.loop
    world.request("switchover")
    world.restart()
    newest = world.settle()
    assert newest == HAPPY
    world.request("switchover", id="op-3")
    before = world.store.snapshot()
    lost: list[str] = []
    present = zombie._owner(PAIR) or world.ownership.owner(PAIR)
    assert present is not None
    stale = present._replace(token=1)
    zombie._owner = lambda _pair: stale
    zombie._ledger._on_lost = lost.append
    zombie.visit(PAIR)
    assert world.store.snapshot() == before
    assert lost == [PAIR]
    for command in world.agents.sent:
        assert world.agents.carry_out(command).state == "refused"


def test_a_stale_report_is_unknown_and_decides_nothing(world: World) -> None:
    """Silence is never taken for fencedness or for health."""
    world.agents.facts["a"] = None
    world.visit()
    assert world.status().phase == "unknown"
    assert world.condition("Protected") == "Unknown"
    refused = {each.verb: each.why_not for each in world.status().allowed_operations if not each.allowed}
    assert "active_unreachable" in str(refused["switchover"])


@pytest.mark.parametrize("during_operation", [False, True])
def test_an_emergency_decision_is_adopted_and_cancels_the_open_operation(world: World, during_operation: bool) -> None:
    """R16: what a gateway decided without us becomes the role, after the other side was fenced in that epoch or with a
    decision above the epoch that the open operation has burned."""
    if during_operation:
        world.request("switchover")
        world.visit()
        world.agents.sent.clear()
    world.agents.change("b", epoch=3, promoted_epoch=3, writable=True, receiving=False, applying=False)
    steps = world.settle()
    assert steps[0] == ("fence a 6" if during_operation else "fence a 3")
    role = world.role()
    assert role is not None
    assert (role.active, role.evidence) == ("b", "emergency")
    assert (world.role_record().by, world.role_record().operation) == ("gateway", "")
    assert world.operation() is None
    if during_operation:
        assert world.ended().state == "aborted"


def test_a_fenced_side_found_writable_is_fenced_again_and_shown(world: World) -> None:
    """R13: a fence that does not hold is no evidence; a person hears of it."""
    world.agents.change("b", writable=True, receipt=None)
    world.visit()
    assert [command.step for command in world.agents.sent] == ["fence"]
    held = next(each for each in world.status().conditions if each.type == "FenceHolds")
    assert (held.status, held.reason) == ("False", "fence_violated")
    assert any(finding.code == "fence_violated" for finding in world.status().findings)
    world.settle()
    assert world.condition("FenceHolds") == "True"


def nothing_changed(world: World) -> Callable[[], bool]:
    before = world.store.snapshot()
    return lambda: world.store.snapshot() == before


def test_an_idle_pair_costs_no_write(world: World) -> None:
    """Visits, new measurements and a restart of the reconciler leave the store as it is."""
    unchanged = nothing_changed(world)
    for lag in range(10):
        world.sleep(60)
        now = world.agents.facts["b"]
        assert now is not None
        world.agents.change("b", stream=now.stream.model_copy(update={"lag_seconds": lag / 10}), position=str(lag))
        world.visit()
    assert unchanged()
    assert world.agents.sent == []
