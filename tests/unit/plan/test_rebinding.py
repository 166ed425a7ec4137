"""Following the server that took the active one's place: proved, decided, carried out; or nothing at all (R3)."""

import pytest

from farshore.plan import Bound, Policy, operation_epoch, plan, progress, why_not
from farshore_schema.roles import Consent, Facts, Operation, Role, Step
from tests.unit.plan.sides import INITIAL, active, standby

BOUND: Bound = {"a": "server-a", "b": "server-b"}
CONSENT = Consent("a", "server-n", 4, "ann")
REBOUND = Role("a", 4, "rebound")
NEW = active(server="server-n")
STOPPED = standby(receiving=False, stopped="source_replaced")


def request(**changes: object) -> Operation:
    """Return the request to follow server-n."""
    return Operation("op", "rebind", "a", 4, consent=CONSENT)._replace(**changes)  # type: ignore[arg-type]


def step(role: Role, op: Operation, a: Facts | None, b: Facts | None) -> Step:
    return plan(role, op, {"a": a, "b": b}, Policy())


def test_both_gateways_prove_their_part_before_anything_is_decided() -> None:
    """The active side's first; only then is the operation's epoch spent, for the same active side."""
    op = request()
    assert step(INITIAL, op, NEW, STOPPED) == Step("prove", "a", 4, consent=CONSENT)
    proved = NEW._replace(proved_for="op")
    assert step(INITIAL, op, proved, STOPPED) == Step("prove", "b", 4, consent=CONSENT)
    assert step(INITIAL, op, NEW, STOPPED._replace(proved_for="op")).side == "a"
    decided = step(INITIAL, op, proved, STOPPED._replace(proved_for="op"))
    assert decided == Step("decide", role=REBOUND)


def test_a_proof_for_another_operation_is_none() -> None:
    """What was proved once is proved again when it is asked for again."""
    earlier = {"proved_for": "op-before"}
    assert step(INITIAL, request(), NEW._replace(**earlier), STOPPED).name == "prove"  # type: ignore[arg-type]
    own = NEW._replace(proved_for="op")
    assert step(INITIAL, request(), own, STOPPED._replace(**earlier)).side == "b"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (None, STOPPED, "active_unreachable"),
        (NEW._replace(db="down"), STOPPED, "active_db_down"),
        (NEW._replace(proved_for="op"), None, "standby_unreachable"),
        (NEW._replace(proved_for="op"), STOPPED._replace(db="unknown"), "standby_db_down"),
        (NEW._replace(proved_for="op"), STOPPED._replace(stopped="applier_stopped"), "applier_stopped"),
    ],
)
def test_it_waits_for_whoever_must_prove(a: Facts | None, b: Facts | None, reason: str) -> None:
    """Unknown is never treated as proved."""
    assert step(INITIAL, request(), a, b) == Step("wait", reason=reason)


def test_it_is_for_exactly_one_server() -> None:
    """A third server ends it before the decision, and holds it after; it is never taken for the one that was named."""
    third = NEW._replace(server="server-x", proved_for="op")
    assert step(INITIAL, request(), third, STOPPED) == Step("finish", outcome="failed", reason="other_active")
    opened = third._replace(epoch=4, promoted_epoch=4)
    assert step(REBOUND, request(), opened, STOPPED) == Step("wait", reason="replaced_again")


def test_a_decided_one_is_recorded_at_both_gateways_with_the_consent() -> None:
    """The active side first, then the standby's fence in the new epoch, then its stream."""
    op = request()
    assert step(REBOUND, op, NEW, STOPPED) == Step("promote", "a", 4, consent=CONSENT, evidence="rebound")
    opened = NEW._replace(epoch=4, promoted_epoch=4)
    assert step(REBOUND, op, opened, STOPPED) == Step("fence", "b", 4)
    fenced = STOPPED._replace(epoch=4, fenced_epoch=4)
    assert step(REBOUND, op, opened, fenced) == Step("stream", "b", 4, consent=CONSENT)
    assert step(REBOUND, op, opened, fenced._replace(stopped="")) == Step("stream", "b", 4, consent=CONSENT)
    assert step(REBOUND, op, opened, None) == Step("wait", reason="standby_unreachable")
    held = fenced._replace(stopped="applier_stopped")
    assert step(REBOUND, op, opened, held) == Step("wait", reason="applier_stopped")
    follows = standby(epoch=4, fenced_epoch=4, stream_epoch=4)
    assert step(REBOUND, op, opened, follows) == Step("finish", outcome="done")


def test_without_the_standby_it_ends_with_the_new_server_recorded() -> None:
    """Nothing is asked of the standby, and it is not told to follow."""
    alone = request(consent=CONSENT._replace(overwrite=True))
    assert step(INITIAL, alone, NEW, None).name == "prove"
    assert step(INITIAL, alone, NEW._replace(proved_for="op"), None) == Step("decide", role=REBOUND)
    opened = NEW._replace(epoch=4, promoted_epoch=4)
    assert step(REBOUND, alone, opened, None) == Step("finish", outcome="done")
    fenced = STOPPED._replace(epoch=4, fenced_epoch=4, stopped="")
    assert step(REBOUND, alone, opened, fenced) == Step("finish", outcome="done")


def test_a_server_that_was_never_copied_to_is_still_somebody_elses() -> None:
    """R8: going without the standby gives no right to fence what stands there."""
    theirs = Facts(
        token=1, epoch=2, fenced_epoch=0, promoted_epoch=0, db="up", server="server-b", writable=True, base="none"
    )
    opened = NEW._replace(epoch=4, promoted_epoch=4)
    alone = request(consent=CONSENT._replace(overwrite=True))
    assert step(REBOUND, alone, NEW, theirs).name == "promote"
    assert step(REBOUND, alone, opened, theirs) == Step("finish", outcome="done")
    assert plan(REBOUND, None, {"a": opened, "b": theirs}, Policy()) == Step("wait")


def test_it_can_be_taken_back_at_any_time() -> None:
    """Before the decision nothing was changed; after it the pair waits for another rebind or a copy."""
    op = request(abort=True)
    assert step(INITIAL, op, None, None) == Step("finish", outcome="aborted", reason="not_rebound")
    assert step(REBOUND, op, NEW, STOPPED) == Step("finish", outcome="aborted", reason="rebound_alone")


def test_a_role_that_moved_meanwhile_ends_it() -> None:
    """The request was about another active side."""
    moved = Step("finish", outcome="failed", reason="role_moved")
    there = standby(epoch=3, promoted_epoch=3, writable=True)
    assert step(Role("b", 3, "emergency"), request(), NEW, there) == moved
    assert step(Role("a", 6, "aborted"), request(), NEW, STOPPED) == moved
    assert step(Role("a", 4, "aborted"), request(), NEW, STOPPED) == moved


def test_it_is_allowed_only_where_it_is_needed() -> None:
    """Another server must answer, open for writes, and the standby must be able to follow; every doubt has a reason."""

    def asked(a: Facts | None, b: Facts | None, role: Role = INITIAL, *, alone: bool = False) -> str | None:
        return why_not("rebind", role, None, {"a": a, "b": b}, Policy(), BOUND, without_standby=alone)

    assert asked(NEW, STOPPED) is None
    assert asked(active(), standby()) == "not_replaced"
    assert why_not("rebind", INITIAL, None, {"a": NEW, "b": standby()}, Policy()) == "not_replaced"
    assert asked(active(), STOPPED) is None  # the old server is back, and the stream stands
    assert asked(None, STOPPED) == "active_unreachable"
    assert asked(NEW._replace(db="down"), STOPPED) == "active_db_down"
    assert asked(NEW._replace(server=""), STOPPED) == "unknown_active"
    assert asked(NEW._replace(writable=False), STOPPED) == "not_open"
    assert asked(NEW, None) == "standby_unreachable"
    assert asked(NEW, STOPPED._replace(base="incomplete")) == "not_seeded"
    assert asked(NEW, STOPPED._replace(stream_epoch=0), Role("a", 2, "attested")) == "failed_over"
    assert asked(NEW, STOPPED._replace(stopped="applier_stopped")) == "applier_stopped"
    assert asked(NEW, None, alone=True) is None
    assert asked(active(), None, alone=True) == "not_replaced"
    begun = active(server="server-a", epoch=4, promoted_epoch=4)
    assert asked(begun, standby(), REBOUND) is None  # taken back after its decision
    assert asked(begun, standby(stream_epoch=4), REBOUND) == "not_replaced"


def test_other_verbs_name_the_rebind_as_the_way_on() -> None:
    """Nothing is copied from, and nobody is moved away from, a server that nobody has agreed to."""
    for verb in ("switchover", "reprotect"):
        seen = {"a": NEW, "b": STOPPED}
        assert why_not(verb, INITIAL, None, seen, Policy(), BOUND) == "source_replaced"  # type: ignore[arg-type]


def test_its_epoch_is_its_own_and_its_steps_are_counted() -> None:
    """The next even one; the progress bar goes from the proof to the stream."""
    assert operation_epoch("rebind", INITIAL) == 4
    op, opened = request(), NEW._replace(epoch=4, promoted_epoch=4)
    places = [
        progress(op, INITIAL, {"a": NEW, "b": STOPPED}),
        progress(op, REBOUND, {"a": NEW, "b": STOPPED}),
        progress(op, REBOUND, {"a": opened, "b": STOPPED}),
    ]
    assert [(k, label) for k, _, label in places] == [(1, "prove"), (3, "record the new server"), (4, "follow")]
