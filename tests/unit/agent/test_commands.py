"""One order at one side: refused, repeated, interrupted; durable before and after its effect (I6, R5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farshore_agent.commands import POINTS, Point
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import Order, Receipt, Record, Side
from tests.unit.agent.worlds import Pair, order


class Killed(BaseException):
    """kill -9 of the agent."""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    made = Pair(tmp_path)
    made.protect()
    return made


def test_an_agent_without_a_record_takes_nothing_but_enrolment(tmp_path: Path) -> None:
    """Before it is enrolled a side refuses every move, and no record appears (R5)."""
    pair = Pair(tmp_path)
    for name in ("seed", "stream", "prepare", "prove", "fence", "stop_acks", "cleanup"):
        refused = pair.run(order(name, "b", 2))
        assert (refused.state, refused.code) == ("refused", "not_enrolled")
    assert pair.record("b") == Record()
    assert pair.world.databases["b"].writable


def test_stale_tokens_and_epochs_are_refused_also_after_a_restart(pair: Pair) -> None:
    """What an older owner or an older decision sends is refused for ever, by the record alone (I6)."""
    assert pair.run(order("fence", "a", 4, token=7)).state == "done"
    again = pair.restarted()
    assert again.run(order("promote", "a", 6, token=6, evidence="aborted")).code == "stale_token"
    assert again.run(order("stream", "a", 2, token=7)).code == "stale_epoch_command"
    assert again.run(order("promote", "a", 4, token=7, evidence="aborted")).code == "wrong_role"
    assert not again.world.databases["a"].writable
    assert again.record("a") == pair.record("a")


def test_a_repeated_intent_takes_effect_once(pair: Pair) -> None:
    """A fence delivered again after its side was opened again changes nothing: it is answered from the record."""
    fence = order("fence", "a", 4)
    first = pair.run(fence)
    assert pair.run(fence) == first
    assert pair.run(order("promote", "a", 6, evidence="aborted")).state == "done"
    late = pair.restarted().run(fence)
    assert late.state == "done"
    assert late.receipt is None  # the fence no longer holds, and the answer does not claim it
    assert pair.world.databases["a"].writable


def test_an_order_for_the_other_side_is_refused(pair: Pair) -> None:
    """Two sides at one agent never take each other's orders (R5)."""
    refused = pair.runner("b").run(order("fence", "a", 4))
    assert (refused.state, refused.code) == ("refused", "wrong_role")
    assert pair.world.databases["a"].writable


def test_one_agent_with_two_sides_keeps_two_records(pair: Pair) -> None:
    """A fence of one side leaves no trace in the other side's record (R5)."""
    before = pair.record("b")
    pair.run(order("fence", "a", 4, token=9))
    assert pair.record("b") == before
    assert pair.run(order("promote", "b", 2, token=1, evidence="attested")).code == "wrong_role"
    assert (pair.record("a").fenced_epoch, pair.record("b").token) == (4, 1)


SCENARIOS: dict[str, Callable[[Pair], list[Order]]] = {
    "fence": lambda pair: [order("fence", "a", 4)],
    "switchover": lambda pair: [
        order("prepare", "a", 4),
        order("fence", "a", 4),
        order("drain", "b", 4, receipt=Receipt("a", 4, "one,three,two")),
        order("promote", "b", 4, evidence="fenced", receipt=Receipt("a", 4, "one,three,two")),
        order("stream", "a", 4),
    ],
    "abort": lambda pair: [order("fence", "a", 4), order("promote", "a", 6, evidence="aborted")],
    "re-seed": lambda pair: [order("seed", "b", 2, consent=pair.consent("b", 2), operation="again")],
    "stop acks": lambda pair: [order("stop_acks", "b", 4)],
    "cleanup": lambda pair: [order("cleanup", "b", 2), order("cleanup", "a", 2)],
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_any_order_the_repeat_ends_the_same(tmp_path: Path, name: str, point: Point) -> None:
    """Killed twice in a row at this point of every order and asked again, the end is that of an undisturbed run."""
    undisturbed, disturbed = Pair(tmp_path / "undisturbed"), Pair(tmp_path / "disturbed")
    for each in (undisturbed, disturbed):
        each.protect()
    for asked in SCENARIOS[name](undisturbed):
        assert undisturbed.run(asked).state == "done"
    for asked in SCENARIOS[name](disturbed):
        survivor = disturbed
        for _ in range(2):

            def kill(at: Point) -> None:
                if at == point:
                    raise Killed

            survivor = survivor.restarted()
            survivor.crash = kill
            try:
                survivor.run(asked)
            except Killed:
                continue
        last = survivor.restarted().run(asked)
        assert last.state == "done" or last.code == "not_enrolled"  # a cleanup that was complete already
    for side in ("a", "b"):
        assert normal(disturbed.record(side)) == normal(undisturbed.record(side))
        ours, theirs = disturbed.world.databases[side], undisturbed.world.databases[side]
        assert (ours.writable, ours.persisted_read_only, ours.committed) == (
            theirs.writable,
            theirs.persisted_read_only,
            theirs.committed,
        )
        assert disturbed.world.streams[side].receiving == undisturbed.world.streams[side].receiving


def normal(record: Record) -> Record:
    return record._replace(intents=())


def test_a_noted_fence_outlives_an_agent_that_died_before_the_effect(pair: Pair) -> None:
    """The agent dies between note and fence: the side refuses to be promoted in that epoch, and gave no receipt."""

    def kill(at: Point) -> None:
        if at == "noted":
            raise Killed

    pair.crash = kill
    with pytest.raises(Killed):
        pair.run(order("fence", "a", 4))
    again = pair.restarted()
    assert again.world.databases["a"].writable
    assert (again.record("a").fenced_epoch, again.record("a").receipt) == (4, None)
    assert again.run(order("promote", "a", 4, evidence="aborted")).code == "wrong_role"


def test_a_seed_the_engine_refuses_leaves_the_copy_promotable(pair: Pair) -> None:
    """A re-seed whose consent names another server is refused before the record calls the copy incomplete."""
    wrong = pair.consent("b", 2)._replace(server="another")
    with pytest.raises(FarshoreError):
        pair.run(order("seed", "b", 2, consent=wrong, operation="again"))
    assert pair.record("b").base == "complete"
    assert pair.run(order("promote", "b", 4, evidence="attested")).state == "done"


def test_a_seed_under_way_is_durably_incomplete(pair: Pair) -> None:
    """From the first write on the record says that the copy is not whole; a promote is refused until it is (R10)."""

    def kill(at: str, side: Side) -> None:
        if at == "seed:row":
            raise Killed

    pair.world.hook = kill
    with pytest.raises(Killed):
        pair.run(order("seed", "b", 2, consent=pair.consent("b", 2), operation="again"))
    pair.world.hook = lambda point, side: None
    again = pair.restarted()
    assert (again.record("b").base, again.record("b").stream_epoch) == ("incomplete", 0)
    assert again.run(order("promote", "b", 4, evidence="attested")).code == "wrong_role"


def test_an_order_overtaken_while_it_waits_does_nothing(pair: Pair) -> None:
    """Accepted, then overtaken by a newer decision before its turn: it is refused when its turn comes."""
    runner = pair.runner("a")
    older, newer = order("fence", "a", 4), order("promote", "a", 6, evidence="aborted")
    assert runner.accept(older) is None
    assert runner.accept(newer) is None
    assert runner.perform(older).code == "stale_epoch_command"
    assert pair.world.databases["a"].writable
    assert runner.perform(newer).state == "done"
    assert pair.record("a").promoted_epoch == 6


def test_a_promote_overtaken_right_before_it_opens_does_not_open(pair: Pair) -> None:
    """A fence admitted while a promote is inside the engine stops it at its last check (I1)."""
    receipt = pair.run(order("fence", "a", 4)).receipt
    runner = pair.runner("b")
    promote = order("promote", "b", 4, evidence="fenced", receipt=receipt)
    assert runner.accept(promote) is None

    def fence_comes(point: str, side: Side) -> None:
        if point == "promote:before":
            assert runner.accept(order("fence", "b", 6)) is None

    pair.world.hook = fence_comes
    overtaken = runner.perform(promote)
    assert (overtaken.state, overtaken.code) == ("refused", "stale_epoch_command")
    assert not pair.world.databases["b"].writable
    assert pair.record("b").fenced_epoch == 6


def test_a_broken_fence_is_mended_by_the_agent_itself_and_its_receipt_stays_revoked(pair: Pair) -> None:
    """Found writable after its receipt, the side is fenced again; the old receipt is void, also after a crash (R13)."""
    assert pair.run(order("fence", "a", 4)).receipt is not None
    pair.world.databases["a"].set_read_only(False, persist=True)
    assert pair.world.databases["a"].writable
    assert pair.runner("a").refence()
    assert not pair.world.databases["a"].writable
    assert pair.restarted().record("a").receipt is None
    assert pair.run(order("fence", "a", 4)).receipt is not None


def test_a_side_that_was_opened_since_is_never_fenced_by_the_agent_itself(pair: Pair) -> None:
    """The watch must not fence what a newer decision opened."""
    pair.run(order("fence", "a", 4))
    pair.run(order("promote", "a", 6, evidence="aborted"))
    assert not pair.runner("a").refence()
    assert pair.world.databases["a"].writable


def test_a_step_that_is_no_command_is_refused(pair: Pair) -> None:
    """A store step sent by mistake is refused, not skipped (I8)."""
    refused = pair.run(order("decide", "a", 4))
    assert (refused.state, refused.code) == ("refused", "invalid_request")
