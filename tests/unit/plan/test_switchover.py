"""What the plan promises about a planned switchover: lossless or taken back, and short for clients."""

import pytest

from farshore.plan import Policy, plan, progress
from farshore_schema.roles import Evidence, Facts, Operation, Receipt, Role, Step
from tests.unit.plan.sides import FENCE, INITIAL, active, fenced, standby, switchover

POLICY = Policy()
MOVED = Role("b", 4, "fenced", FENCE)


def step(role: Role, op: Operation | None, a: Facts | None, b: Facts | None) -> Step:
    return plan(role, op, {"a": a, "b": b}, POLICY)


def test_the_reverse_stream_is_attached_before_clients_are_stopped() -> None:
    """Prepare comes first, is recorded, and only then the source is fenced."""
    op = switchover(prepared=False)
    assert step(INITIAL, op, active(), standby()) == Step("prepare", "a", 4)
    assert step(INITIAL, op, active(prepared_epoch=4), standby()) == Step("record_prepared")
    assert step(INITIAL, switchover(), active(), standby()) == Step("fence", "a", 4)


def test_between_fence_and_promote_lie_one_drain_and_one_transaction() -> None:
    """The receipt travels with the drain and is stored with the decision: nothing else is done while clients wait."""
    assert step(INITIAL, switchover(), fenced(), standby()) == Step("drain", "b", 4, receipt=FENCE)
    drained = standby(epoch=4, drained=FENCE)
    assert step(INITIAL, switchover(), fenced(), drained) == Step("decide", role=MOVED)
    promote = Step("promote", "b", 4, receipt=FENCE, evidence="fenced")
    assert step(MOVED, switchover(), fenced(), drained) == promote


def test_a_drain_that_takes_its_time_has_its_receipt_stored_meanwhile() -> None:
    """A source that dies then is known to be fenced."""
    draining = standby(epoch=4, draining=FENCE)
    assert step(INITIAL, switchover(), fenced(), draining) == Step("record_fence", receipt=FENCE)
    assert step(INITIAL, switchover(receipt=FENCE), fenced(), draining).reason == "draining"


def test_what_was_drained_to_a_receipt_of_this_fence_decides_even_without_the_source() -> None:
    """The target's own word, or the store's, stands in for a source that went silent; an older receipt does not."""
    drained = standby(epoch=4, drained=FENCE)
    assert step(INITIAL, switchover(), None, drained).role == MOVED
    assert step(INITIAL, switchover(receipt=FENCE), fenced(db="down"), drained).role == MOVED
    old = standby(epoch=4, drained=Receipt("a", 2, "older"))
    assert step(INITIAL, switchover(), None, old) == Step("wait", reason="active_unreachable")


def test_a_fence_that_does_not_hold_is_no_evidence() -> None:
    """A source that is seen writable, or without its receipt, is fenced again, whatever was stored or drained (R13)."""
    drained = standby(epoch=4, drained=FENCE)
    again = Step("fence", "a", 4)
    assert step(INITIAL, switchover(receipt=FENCE), fenced(writable=True, receipt=None), drained) == again
    assert step(INITIAL, switchover(receipt=FENCE), fenced(receipt=None), drained) == again
    # After the decision too: before the other side is opened.
    assert step(MOVED, switchover(), fenced(writable=True), standby(epoch=4)) == again


def test_an_overdue_drain_is_taken_back_at_once_above_the_burned_epoch() -> None:
    """The source is opened again without waiting for anything of the target (R15)."""
    op = switchover(overdue=True, receipt=FENCE)
    back = Role("a", 6, "aborted")
    for target in (standby(epoch=4), standby(epoch=4, stopped="applier_stopped"), None):
        assert step(INITIAL, op, fenced(), target).role == back
    assert step(back, op, fenced(), None) == Step("promote", "a", 6, evidence="aborted")
    opened = active(epoch=6, promoted_epoch=6, fenced_epoch=4)
    assert step(back, op, opened, None) == Step("finish", outcome="aborted", reason="aborted")


def test_an_overdue_switchover_keeps_its_receipt_while_the_source_cannot_be_opened() -> None:
    """Taking back would spend the evidence and open nothing: it waits, with a reason, until the source answers."""
    op = switchover(overdue=True, receipt=FENCE)
    assert step(INITIAL, op, None, standby(epoch=4, draining=FENCE)).reason == "active_unreachable"
    assert step(INITIAL, op, fenced(db="down"), standby(epoch=4, draining=FENCE)).reason == "active_db_down"
    assert step(INITIAL, op, fenced(db="down"), None).reason == "standby_unreachable"


def test_a_person_s_abort_needs_nobody() -> None:
    """It is a decision of the store, taken whoever answers."""
    assert step(INITIAL, switchover(abort=True), None, None).role == Role("a", 6, "aborted")


def test_after_the_decision_there_is_no_way_back() -> None:
    """An abort or a deadline that comes too late does not undo it."""
    late = switchover(abort=True, overdue=True)
    assert step(MOVED, late, fenced(), standby(epoch=4)).name == "promote"


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (active(), standby(stopped="applier_stopped"), "applier_stopped"),
        (active(), standby(stopped="a_code_of_the_future"), "standby_stopped"),
        (active(), standby(base="incomplete"), "not_seeded"),
        (active(), standby(seeding=True), "seeding"),
        (active(writable=False), standby(), "not_open"),
    ],
)
def test_what_cannot_be_lossless_is_taken_back_before_clients_are_stopped(a: Facts, b: Facts, reason: str) -> None:
    """Nothing is fenced for a switchover that cannot succeed; the reason is kept."""
    assert step(INITIAL, switchover(prepared=False), a, b) == Step("abort", reason=reason)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (None, standby(), "active_unreachable"),
        (active(), None, "standby_unreachable"),
        (active(db="down", writable=False), standby(), "active_db_down"),
        (active(), standby(db="unknown"), "standby_db_down"),
    ],
)
def test_while_a_side_does_not_answer_it_waits_with_that_reason(a: Facts | None, b: Facts | None, reason: str) -> None:
    """Unknown is never good: no client is stopped for a switchover that half the pair cannot take part in."""
    assert step(INITIAL, switchover(), a, b) == Step("wait", reason=reason)


def test_a_standby_that_merely_lost_its_stream_is_told_to_follow_first() -> None:
    """A stream without a reason to stand still is started again before anything is fenced."""
    assert step(INITIAL, switchover(), active(), standby(applying=False)) == Step("stream", "b", 2)


def test_the_operation_ends_with_the_reverse_stream_or_without_a_side_that_cannot_follow() -> None:
    """Protection in the new direction belongs to the switchover (R12); a dead old side does not keep it open."""
    opened = standby(epoch=4, promoted_epoch=4, writable=True, receiving=False, stream_epoch=0)
    assert step(MOVED, switchover(), fenced(), opened) == Step("stream", "a", 4)
    following = fenced(stream_epoch=4, receiving=True, applying=True)
    done = Step("finish", outcome="done")
    assert step(MOVED, switchover(), following, opened) == done
    for gone in (None, fenced(db="down"), fenced(stopped="diverged"), fenced(base="none")):
        assert step(MOVED, switchover(), gone, opened) == done
    assert step(MOVED, switchover(abort=True), fenced(), opened) == done  # stop waiting for the stream


@pytest.mark.parametrize("evidence", ["attested", "acks_stopped", "receipt", "emergency"])
def test_after_a_failover_the_old_side_is_fenced_and_left_alone(evidence: Evidence) -> None:
    """Nothing follows by itself until a reprotect exists (R12)."""
    role = Role("b", 4, evidence, FENCE if evidence == "receipt" else None)
    opened = standby(epoch=4, promoted_epoch=4, writable=True)
    assert step(role, None, active(), opened) == Step("fence", "a", 4)
    assert step(role, None, fenced(), opened) == Step("wait")
    asked = Operation("op", "reprotect", "a", 4)
    assert step(role, asked, fenced(), opened) == Step("stream", "a", 4)


def test_progress_counts_up_from_check_to_follow() -> None:
    """People see step k of n, and an abort as what it is."""
    seen = [
        progress(op, role, {"a": a, "b": b})[0]
        for role, op, a, b in (
            (INITIAL, switchover(prepared=False), None, standby()),
            (INITIAL, switchover(prepared=False), active(), standby()),
            (INITIAL, switchover(), active(), standby()),
            (INITIAL, switchover(), fenced(), standby()),
            (INITIAL, switchover(), fenced(), standby(drained=FENCE)),
            (MOVED, switchover(), fenced(), standby()),
            (MOVED, switchover(), fenced(), standby(epoch=4, promoted_epoch=4, writable=True)),
        )
    ]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert progress(switchover(abort=True), INITIAL, {"a": None, "b": None}) == (1, 2, "take back")
