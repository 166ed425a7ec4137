"""What the plan promises about copies: with a consent, onto the server it names, and never behind an abort."""

import pytest

from farshore.plan import Policy, gap_consent, plan
from farshore.plan.view import Seen
from farshore_schema.roles import Facts, Operation, Role, Side, Step
from tests.unit.plan.sides import CONSENT, INITIAL, active, protect, standby

POLICY = Policy()
EMPTY = standby(
    fenced_epoch=0, writable=True, base="none", receiving=False, applying=False, stream_epoch=0, server="server-b"
)
BARE: dict[str, object] = {"epoch": 0, "fenced_epoch": 0, "promoted_epoch": 0, "enrolled": False, "base": "none"}


def step(role: Role | None, op: Operation | None, a: Facts | None, b: Facts | None, policy: Policy = POLICY) -> Step:
    return plan(role, op, {"a": a, "b": b}, policy)


@pytest.mark.parametrize("preferred", ["a", "b"])
def test_a_new_pair_begins_with_the_declared_side_once_both_were_seen(preferred: Side) -> None:
    """The first role is even, initial, and never decided half blind (R8)."""
    a, b = active(**BARE), EMPTY._replace(**BARE)  # type: ignore[arg-type]
    policy = Policy(preferred=preferred)
    assert step(None, protect(), a, b, policy) == Step("decide", role=Role(preferred, 2, "initial"))
    for one, other in ((None, b), (a, None), (a._replace(db="down"), b), (a, b._replace(db="unknown"))):
        assert step(None, protect(), one, other, policy).name == "wait"


def test_a_new_life_begins_above_every_epoch_of_the_old_one() -> None:
    """Records of an earlier life of the pair never make an order of it count again."""
    a, b = active(**BARE), EMPTY._replace(enrolled=False, epoch=9)
    assert step(None, protect(), a, b).role == Role("a", 10, "initial")


def test_every_agent_is_enrolled_before_its_first_command() -> None:
    """An agent without a record gets the store's epoch first (R5)."""
    assert step(INITIAL, protect(), active(**BARE), EMPTY) == Step("enrol", "a", 2)
    assert step(INITIAL, protect(), active(), EMPTY._replace(enrolled=False, epoch=0)) == Step("enrol", "b", 2)


def test_the_server_that_is_not_ours_yet_is_never_touched_but_by_the_copy() -> None:
    """A writable server of somebody else is neither fenced nor told to follow before it was copied onto."""
    for op in (None, protect(consent=None)):
        assert step(INITIAL, op, active(), EMPTY).name == "wait"


def test_a_record_of_an_earlier_life_does_not_make_a_server_ours() -> None:
    """A server that stood by for such a pair long ago may be in use now: it is copied onto with consent only."""
    reborn, opened = Role("a", 10, "initial"), active(epoch=10, promoted_epoch=10)
    old = standby(epoch=8, fenced_epoch=8, stream_epoch=8, writable=True)
    assert step(reborn, None, opened, old).name == "wait"
    again = protect(epoch=10, consent=CONSENT._replace(epoch=10))
    assert step(reborn, again, opened, old).name == "seed"
    assert step(reborn, protect(epoch=10, consent=None), opened, old).reason == "no_consent"


def test_a_copy_carries_the_consent_and_goes_to_the_server_it_names() -> None:
    """No consent, another server, another side, another epoch, an unknown server: no copy (R9)."""
    assert step(INITIAL, protect(), active(), EMPTY) == Step("seed", "b", 2, consent=CONSENT)
    refused = {
        "no_consent": protect(consent=None),
        "other_server": protect(consent=CONSENT._replace(server="server-c")),
    }
    for reason, op in refused.items():
        assert step(INITIAL, op, active(), EMPTY) == Step("wait", reason=reason)
    for wrong in (CONSENT._replace(side="a"), CONSENT._replace(epoch=4)):
        assert step(INITIAL, protect(consent=wrong), active(), EMPTY).reason == "no_consent"
    assert step(INITIAL, protect(), active(), EMPTY._replace(server="")).reason == "unknown_server"


def test_a_copy_is_awaited_fenced_and_followed() -> None:
    """Seed, wait, fence, follow, done: in this order, each once."""
    loading = EMPTY._replace(base="incomplete", seeding=True, writable=False)
    assert step(INITIAL, protect(), active(), loading).reason == "seeding"
    copied = standby(fenced_epoch=0, seeded_for="op")
    assert step(INITIAL, protect(), active(), copied) == Step("fence", "b", 2)
    attached = standby(seeded_for="op", receiving=False)
    assert step(INITIAL, protect(), active(), attached) == Step("stream", "b", 2)
    assert step(INITIAL, protect(), active(), standby(seeded_for="op")) == Step("finish", outcome="done")


def test_a_consent_is_good_for_one_copy() -> None:
    """A stream that stops after the copy waits for a new consent instead of using the old one twice."""
    stopped = standby(seeded_for="op", stopped="source_purged")
    assert step(INITIAL, protect(), active(), stopped) == Step("wait", reason="source_purged")


def test_an_operation_that_needed_no_copy_ends_only_when_none_can_come_any_more() -> None:
    """The side notes that it follows before the operation ends: a late order to copy is then refused."""
    op = Operation("op", "reprotect", "b", 2, consent=CONSENT)
    assert step(INITIAL, op, active(), standby()) == Step("stream", "b", 2)
    assert step(INITIAL, op, active(), standby(seeded_for="op")) == Step("finish", outcome="done")


def test_a_copy_that_is_taken_back_cannot_begin_any_more() -> None:
    """The abort burns the epoch of every order to copy, and ends once the standby has durably seen the next one."""
    op = protect(abort=True)
    back = Role("a", 4, "aborted")
    assert step(INITIAL, op, active(), EMPTY) == Step("decide", role=back, reason="aborted")
    assert step(back, op, active(), EMPTY).name == "promote"
    opened = active(epoch=4, promoted_epoch=4)
    assert step(back, op, opened, EMPTY) == Step("stop_acks", "b", 4)
    assert step(back, op, opened, None).reason == "standby_unreachable"
    assert step(back, op, opened, EMPTY._replace(epoch=4)) == Step("finish", outcome="aborted", reason="aborted")
    assert step(back, None, opened, EMPTY._replace(epoch=4)).name == "wait"  # and the server is left alone


def test_an_abort_of_a_reprotect_does_not_make_the_old_side_follow() -> None:
    """What was known of the old side's rights stays known: after a failover it still follows nobody (R12)."""
    role = Role("b", 4, "attested")
    op = Operation("op", "reprotect", "a", 4, abort=True)
    decided = step(role, op, active(epoch=4, fenced_epoch=4, writable=False), standby(epoch=4, promoted_epoch=4))
    assert decided.role == Role("b", 6, "attested")


@pytest.mark.parametrize("code", ["source_purged", "diverged", "history_reset", "corrupt_journal"])
def test_a_standing_consent_calls_for_a_copy_only_where_a_stream_cannot_go_on(code: str) -> None:
    """`on_gap: reseed` names the server that is seen, permits overwriting it, and says whose word it was."""
    policy = Policy(reseed_on_gap=True)
    seen: Seen = {"a": active(), "b": standby(stopped=code)}
    unsure: Seen = {"a": None, "b": standby(stopped=code)}
    broken: Seen = {"a": active(), "b": standby(stopped="applier_stopped")}
    consent = gap_consent(INITIAL, None, seen, policy)
    assert consent is not None
    assert (consent.side, consent.server, consent.epoch, consent.overwrite) == ("b", "server-b", 2, True)
    assert gap_consent(INITIAL, None, seen, Policy()) is None
    assert gap_consent(INITIAL, protect(), seen, policy) is None
    assert gap_consent(INITIAL, None, broken, policy) is None
    assert gap_consent(INITIAL, None, unsure, policy) is None
    assert gap_consent(Role("a", 2, "attested"), None, seen, policy) is None


def test_a_removal_ends_the_active_side_first_and_keeps_what_was_ended() -> None:
    """Semi-sync goes before the receiver does (R20); a side that cannot be reached is awaited by name."""
    op = Operation("op", "remove", "b", 2)
    gone = {"enrolled": False, "base": "none"}
    assert step(INITIAL, op, active(), standby()) == Step("cleanup", "a", 2)
    assert step(INITIAL, op, active(**gone), standby()) == Step("cleanup", "b", 2)
    assert step(INITIAL, op, active(**gone), standby(**gone)) == Step("finish", outcome="done")
    assert step(INITIAL, op, None, standby()).reason == "active_unreachable"
    assert step(INITIAL, op, active(**gone), standby(db="down")).reason == "standby_db_down"


def test_a_removal_leaves_no_active_side_closed_that_we_closed() -> None:
    """A role change that was cut short has fenced it; one that people closed is theirs."""
    op = Operation("op", "remove", "b", 6)
    role = Role("a", 6, "aborted")
    closed = active(epoch=4, fenced_epoch=4, promoted_epoch=2, writable=False)
    opened = plan(role, op, {"a": closed, "b": standby(epoch=4)}, Policy())
    assert opened == Step("promote", "a", 6, evidence="aborted")
    by_hand = active(epoch=6, promoted_epoch=6, writable=False)
    assert plan(role, op, {"a": by_hand, "b": standby(epoch=4)}, Policy()).name == "cleanup"
