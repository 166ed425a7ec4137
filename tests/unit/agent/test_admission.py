"""What an agent's admission promises: old orders never count, and what matters is durable before and after effects."""

from typing import Any

import pytest

from farshore_agent.admission import (
    INTENTS_MAX,
    Admitted,
    Effect,
    Refused,
    Repeated,
    admit,
    after,
    before,
    claim,
    names_server,
    serves_primary,
    still_holds,
)
from farshore_schema.errors import TABLE
from farshore_schema.roles import Consent, Order, Receipt, Record, Step

FENCE_OF_A = Receipt("a", 4, "end")
CONSENT = Consent("b", "server-b", 2, "ann")
ACTIVE = Record(token=5, epoch=2, promoted_epoch=2, base="complete", enrolled=True)
STANDBY = Record(token=5, epoch=2, fenced_epoch=2, stream_epoch=2, base="complete", enrolled=True)
EMPTY = Record(token=5, epoch=2, enrolled=True)


def order(name: str, epoch: int, *, token: int = 5, intent: str = "i", operation: str = "", **more: Any) -> Order:
    return Order(intent, token, Step(name, more.pop("side", "b"), epoch, **more), operation)  # type: ignore[arg-type]


PROMOTE = order("promote", 4, evidence="fenced", receipt=FENCE_OF_A)


def refused(record: Record, asked: Order) -> str:
    verdict = admit(record, asked)
    assert isinstance(verdict, Refused), verdict
    assert verdict.code in TABLE
    return verdict.code


def test_old_tokens_and_epochs_are_refused() -> None:
    """Whatever an older owner or an older decision sent has no effect, however late it arrives (I6)."""
    assert refused(STANDBY, order("fence", 4, token=4)) == "stale_token"
    assert refused(STANDBY, order("fence", 1)) == "stale_epoch_command"
    assert isinstance(admit(STANDBY, order("fence", 2)), Admitted)


def test_an_agent_without_a_record_takes_nothing_but_enrolment() -> None:
    """And an enrolment gives it the store's token and epoch (R5)."""
    for name in ("seed", "stream", "prepare", "prove", "fence", "drain", "stop_acks", "promote", "cleanup"):
        assert refused(Record(), order(name, 2)) == "not_enrolled"
    verdict = admit(Record(), order("enrol", 2))
    assert isinstance(verdict, Admitted)
    assert (verdict.record.token, verdict.record.epoch, verdict.record.enrolled) == (5, 2, True)


def test_an_enrolment_never_changes_what_a_record_knows() -> None:
    """A record that exists knows more than the enrolment; an ended life is begun again only in a newer epoch."""
    assert before(STANDBY, order("enrol", 8)) == STANDBY
    ended = after(STANDBY, order("cleanup", 2), Effect())
    assert (ended.enrolled, ended.epoch, ended.base) == (False, 2, "none")
    assert refused(ended, order("enrol", 2, intent="late")) == "stale_epoch_command"
    assert isinstance(admit(ended, order("enrol", 4, intent="new")), Admitted)


def test_a_repeated_order_is_known_again_and_the_memory_is_bounded() -> None:
    """The same sending takes effect once; only completed ones are remembered."""
    record = after(STANDBY, order("fence", 2, intent="once"), Effect(Receipt("b", 2, "")))
    assert admit(record, order("fence", 2, intent="once")) == Repeated("once")
    assert isinstance(admit(before(STANDBY, order("fence", 2, intent="x")), order("fence", 2, intent="x")), Admitted)
    for number in range(INTENTS_MAX + 5):
        record = after(record, order("fence", 2, intent=str(number)), Effect())
    assert len(record.intents) == INTENTS_MAX


def test_a_fence_is_noted_before_it_happens_and_receipted_after() -> None:
    """From the note on this side refuses its own promotion in that epoch, and its probe answers 503."""
    fence = order("fence", 4, side="a")
    noted = before(ACTIVE, fence)
    assert (noted.epoch, noted.fenced_epoch, noted.receipt) == (4, 4, None)
    assert serves_primary(ACTIVE)
    assert not serves_primary(noted)
    assert refused(noted, order("promote", 4, side="a", evidence="attested")) == "wrong_role"
    assert after(noted, fence, Effect(FENCE_OF_A)).receipt == FENCE_OF_A


def test_what_an_effect_proved_is_not_noted_once_a_newer_order_came() -> None:
    """A fence, a stream or a copy of an older epoch says nothing about the present one."""
    fence = order("fence", 4, side="a")
    newer = before(before(ACTIVE, fence), order("fence", 6, side="a"))
    assert after(newer, fence, Effect(FENCE_OF_A)).receipt is None
    seed = order("seed", 2, consent=CONSENT)
    overtaken = before(before(EMPTY, seed), order("stop_acks", 4))
    assert after(overtaken, seed, Effect()).base == "incomplete"


def test_a_promotion_needs_evidence_and_the_receipt_of_the_other_side() -> None:
    """Checked again at the call, because decisions are made on reports (I1)."""
    assert refused(STANDBY, order("promote", 4)) == "evidence_missing"
    assert refused(STANDBY, order("promote", 4, evidence="fenced")) == "evidence_missing"
    own, later = Receipt("b", 4, ""), Receipt("a", 6, "")
    for wrong in (own, later):
        assert refused(STANDBY, order("promote", 4, evidence="receipt", receipt=wrong)) == "evidence_missing"
    incomplete = STANDBY._replace(base="incomplete")
    assert refused(incomplete, PROMOTE) == "wrong_role"
    noted = before(STANDBY, PROMOTE)
    assert (noted.promoted_epoch, noted.stream_epoch, noted.receipt) == (4, 0, None)
    assert serves_primary(noted)


def test_an_order_is_judged_again_right_before_it_takes_effect() -> None:
    """A newer order that was admitted meanwhile stops the older one."""
    noted = before(STANDBY, PROMOTE)
    assert still_holds(noted, PROMOTE) is None
    overtaken = before(noted, order("fence", 4))
    assert isinstance(still_holds(overtaken, PROMOTE), Refused)
    assert isinstance(still_holds(noted._replace(token=9), PROMOTE), Refused)


def test_a_preparation_moves_no_epoch() -> None:
    """The side stays the active one: neither its epoch nor its probe changes."""
    prepared = before(ACTIVE, order("prepare", 4, side="a", token=7))
    assert prepared == ACTIVE._replace(token=7)
    assert serves_primary(prepared)


REBIND = Consent("a", "server-n", 4, "ann")


def test_a_proof_promises_nothing_and_is_asked_of_the_right_side() -> None:
    """No epoch moves; the consent names this epoch, and the side that this record says is the active one."""
    for record, side in ((ACTIVE, "a"), (STANDBY, "b")):
        asked = order("prove", 4, side=side, token=7, consent=REBIND)
        assert admit(record, asked) == Admitted(record._replace(token=7))
        other = asked._replace(step=asked.step._replace(consent=REBIND._replace(side="b")))
        assert refused(record, other) == "wrong_role"
        for consent in (None, REBIND._replace(epoch=2)):
            assert refused(record, order("prove", 4, side=side, consent=consent)) == "evidence_missing"
    half = STANDBY._replace(base="incomplete")
    assert refused(half, order("prove", 4, consent=REBIND)) == "wrong_role"


def test_a_rebind_is_recorded_only_under_a_consent_for_this_side_and_epoch() -> None:
    """Promotion and stream go on without one, in steady work; a consent that is for something else is refused."""
    promote = order("promote", 4, side="a", evidence="rebound", consent=REBIND)
    stream = order("stream", 4, consent=REBIND)
    assert isinstance(admit(ACTIVE, promote), Admitted)
    assert isinstance(admit(STANDBY, stream), Admitted)
    for wrong in (REBIND._replace(side="b"), REBIND._replace(epoch=2)):
        for record, asked in ((ACTIVE, promote), (STANDBY, stream)):
            assert refused(record, asked._replace(step=asked.step._replace(consent=wrong))) == "evidence_missing"
    assert isinstance(admit(ACTIVE, order("promote", 4, side="a", evidence="rebound")), Admitted)
    assert isinstance(admit(STANDBY, order("stream", 4)), Admitted)


@pytest.mark.parametrize("name", ["stream", "drain", "stop_acks"])
def test_a_side_that_is_open_obeys_nothing_meant_for_a_standby(name: str) -> None:
    """Not even in a newer epoch: an emergency decision at this gateway stays visible (R16)."""
    assert refused(ACTIVE, order(name, 4, side="a", receipt=Receipt("b", 4, ""))) == "wrong_role"


def test_a_copy_needs_its_consent_and_never_overwrites_an_open_side() -> None:
    """The consent names this side and this epoch, and is good for one copy."""
    assert refused(EMPTY, order("seed", 2)) == "evidence_missing"
    for wrong in (CONSENT._replace(side="a"), CONSENT._replace(epoch=4)):
        assert refused(EMPTY, order("seed", 2, consent=wrong)) == "evidence_missing"
    consent = Consent("a", "server-a", 4, "ann")
    assert refused(ACTIVE, order("seed", 4, side="a", consent=consent)) == "wrong_role"
    seed = order("seed", 2, consent=CONSENT, operation="op")
    noted = before(EMPTY, seed)
    assert noted.base == "incomplete"
    done = after(noted, seed, Effect())
    assert (done.base, done.stream_epoch, done.seeded_for) == ("complete", 2, "op")
    assert refused(done, seed._replace(intent="again")) == "wrong_role"
    followed = after(STANDBY, order("stream", 2, operation="other"), Effect())
    assert refused(followed, seed._replace(intent="again", operation="other")) == "wrong_role"


def test_a_consent_names_exactly_one_known_server() -> None:
    """An unknown server is never the one that was meant (I5)."""
    assert names_server(CONSENT, side="b", server="server-b", epoch=2)
    assert not names_server(CONSENT, side="b", server="server-c", epoch=2)
    assert not names_server(CONSENT._replace(server=""), side="b", server="", epoch=2)
    assert not names_server(CONSENT, side="b", server="server-b", epoch=4)
    assert not names_server(None, side="b", server="server-b", epoch=2)


def test_an_incomplete_copy_neither_follows_nor_opens() -> None:
    """Half a copy is nothing (R10)."""
    half = EMPTY._replace(base="incomplete")
    assert refused(half, order("stream", 2)) == "wrong_role"
    assert refused(half, order("promote", 2, evidence="initial")) == "wrong_role"


def test_an_emergency_takes_the_next_odd_epoch_and_needs_attestation() -> None:
    """Above everything durably seen here, and only with a complete copy (R16)."""
    assert isinstance(claim(STANDBY, attested=False), Refused)
    assert isinstance(claim(EMPTY, attested=True), Refused)
    claimed = claim(STANDBY._replace(epoch=4), attested=True)
    assert isinstance(claimed, Record)
    assert (claimed.epoch, claimed.promoted_epoch) == (5, 5)
    assert serves_primary(claimed)
