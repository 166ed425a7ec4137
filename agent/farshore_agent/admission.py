"""What an agent obeys, and what it makes durable around every effect: pure, one record per (pair, side) (R5).

An order passes four moments::

    admit        may this order take effect, judged by what this side has durably seen?
    before       the record to sync to disk BEFORE the first effect
    still_holds  asked again right before an irreversible step (open for writes, first write of a seed)
    after        the record to sync once the effect is complete and read back

Whatever an older owner (token) or an older decision (epoch) sent is refused, however late it arrives (I6). An agent
that dies between `before` and `after` carries the order out again when it is asked again: every effect is idempotent.
This module knows no engine, no transport, no time and no disk; it must not, so that the explorer can drive it (R25).
"""

from typing import Final, NamedTuple

from farshore_schema.roles import Consent, Evidence, Order, Receipt, Record, Side, Step, StepName, next_odd, peer

INTENTS_MAX: Final = 64  # remembered orders per (pair, side); an older one can no longer be under way in any session

RECEIPTS_NEEDED: Final[frozenset[Evidence]] = frozenset({"fenced", "receipt"})

STANDBY_STEPS: Final[frozenset[StepName]] = frozenset({"stream", "drain", "stop_acks"})
"""Steps that presuppose a side which is not active. An emergency decision of this side refuses them by itself (R16)."""


class Admitted(NamedTuple):
    """The order may take effect once `record` is durable."""

    record: Record


class Refused(NamedTuple):
    """The order must not take effect; nothing changes, not even the record. `code` is in the errors table."""

    code: str
    message: str


class Repeated(NamedTuple):
    """The order took full effect before; answer it as done (a fence with `Record.receipt`) and do nothing."""

    intent: str


class Effect(NamedTuple):
    """What a completed step brought back: a fence its receipt, everything else nothing."""

    receipt: Receipt | None = None


def admit(record: Record, order: Order) -> Admitted | Refused | Repeated:
    """Judge one order by the durable record of the side it is addressed to."""
    if order.intent in record.intents:
        return Repeated(order.intent)
    refusal = still_holds(record, order)
    return refusal if refusal is not None else Admitted(before(record, order))


def still_holds(record: Record, order: Order) -> Refused | None:
    """Return why the order may no longer take effect, None while it may.

    Call it with the newest record right before every irreversible step: between admission and effect a newer order may
    have been admitted (a fence while a promote waits for the last transactions to be applied).
    """
    step = order.step
    if order.token < record.token:
        return Refused("stale_token", f"token {order.token} is older than {record.token}")
    if step.name == "enrol" and not record.enrolled and 0 < record.epoch >= step.epoch:
        return Refused("stale_epoch_command", f"protection was ended here in epoch {record.epoch}")
    if step.name != "enrol" and not record.enrolled:
        return Refused("not_enrolled", "this side has no record; it takes nothing but enrolment")
    if step.epoch < record.epoch:
        return Refused("stale_epoch_command", f"epoch {step.epoch} is older than {record.epoch}")
    if step.name == "promote":
        return _promotable(record, step)
    if step.name == "seed":
        return _seedable(record, order)
    if step.name == "prove":
        return _provable(record, step)
    if step.name in STANDBY_STEPS and record.promoted_epoch > record.fenced_epoch:
        return Refused("wrong_role", "this side was opened and was not fenced since; it follows nobody")
    if step.name == "stream" and record.base != "complete":
        return Refused("wrong_role", "this side holds no complete copy to follow from")
    if step.name == "stream" and not _names(step, None if step.side is None else peer(step.side)):
        return Refused("evidence_missing", "the consent names another side or epoch than this stream's source")
    if step.name == "drain" and not _is_of_peer(step.receipt, step):
        return Refused("evidence_missing", "a drain needs the receipt of the other side's fence")
    return None


def before(record: Record, order: Order) -> Record:
    """Return the record that must be durable before the first effect of an admitted order."""
    step = order.step
    seen = record._replace(token=max(record.token, order.token))
    if step.name in ("prepare", "prove"):
        return seen  # promises nothing: this side stays what it is, so its epoch must not move yet
    if step.name == "enrol":
        # An existing record knows more than the enrolment: it keeps its epochs.
        return seen if record.enrolled else seen._replace(enrolled=True, epoch=max(record.epoch, step.epoch))
    seen = seen._replace(epoch=max(record.epoch, step.epoch))
    if step.name == "fence":
        # Noted first: from here on this side refuses to be promoted in this epoch, and its probe answers 503, even if
        # the database is fenced only a moment later. The receipt is void until the effect was read back.
        return seen._replace(fenced_epoch=max(record.fenced_epoch, step.epoch), receipt=None)
    if step.name == "promote":
        # An opened side is no longer fenced and follows nobody.
        return seen._replace(promoted_epoch=step.epoch, receipt=None, stream_epoch=0)
    if step.name == "seed":
        return seen._replace(base="incomplete", stream_epoch=0)
    if step.name == "stop_acks":
        return seen._replace(stream_epoch=0)  # so that nothing starts the receiver again by itself (R19)
    return seen


def after(record: Record, order: Order, effect: Effect) -> Record:
    """Return the record that must be durable before the order is answered as done.

    `record` is the newest one: where a newer order was admitted meanwhile, what this effect proved is no longer noted.
    """
    step = order.step
    done = record._replace(intents=(*record.intents, order.intent)[-INTENTS_MAX:])
    if step.name == "cleanup":
        # Epochs stay for ever, so that no order of the ended life can take effect in a later one.
        return Record(token=record.token, epoch=record.epoch, fenced_epoch=record.fenced_epoch, intents=done.intents)
    if record.epoch != step.epoch:
        return done
    if step.name == "fence":
        return done._replace(receipt=effect.receipt)
    if step.name == "promote":
        return done._replace(base="complete")  # this is where the data comes from now
    if step.name == "stream":
        # Following settles the operation's wish for a copy: an order to copy that is still under way comes too late.
        settled = order.operation or record.seeded_for
        return done._replace(stream_epoch=step.epoch, seeded_for=settled)
    if step.name == "seed":
        return done._replace(base="complete", stream_epoch=step.epoch, seeded_for=order.operation)
    return done


def serves_primary(record: Record) -> bool:
    """Return whether role probes may call this side the active one, by the durable epoch alone (I10).

    The probe also demands that the database was seen writable within the last second.
    """
    return record.enrolled and record.promoted_epoch == record.epoch > record.fenced_epoch


def awaits_opening(record: Record) -> bool:
    """Return whether a role change is under way that may open this side within moments: it drains, or is promoted.

    A hint for role probes, which then keep the question open for a moment instead of saying no; it decides nothing.
    """
    if not record.enrolled or record.base != "complete":
        return False
    drains = record.epoch > max(record.stream_epoch, record.fenced_epoch) and record.stream_epoch > 0
    return drains or serves_primary(record)


def names_server(consent: Consent | None, *, side: Side, server: str, epoch: int) -> bool:
    """Return whether the consent permits overwriting exactly this server now; an unknown server is never named (R9)."""
    return (
        consent is not None and server != "" and (consent.side, consent.server, consent.epoch) == (side, server, epoch)
    )


def claim(record: Record, *, attested: bool) -> Record | Refused:
    """Return the record of an emergency decision taken at this gateway without the reconciler (R16).

    It takes the next odd epoch above everything durably seen here. Make it durable, then open this side with evidence
    `emergency`. `attested`: a named operator vouches that the other side is isolated from clients.
    """
    if not attested:
        return Refused(
            "evidence_missing", "an emergency decision needs the attestation that the other side is isolated"
        )
    if not record.enrolled or record.base != "complete":
        return Refused("wrong_role", "this side holds no complete copy")
    epoch = next_odd(record.epoch)
    return record._replace(epoch=epoch, promoted_epoch=epoch, receipt=None, stream_epoch=0)


def _promotable(record: Record, step: Step) -> Refused | None:
    if record.fenced_epoch >= step.epoch:
        # An epoch this side was fenced in is the other side's epoch.
        return Refused("wrong_role", f"this side was fenced in epoch {record.fenced_epoch}")
    if record.base == "incomplete":
        return Refused("wrong_role", "this side holds an incomplete copy")
    if step.evidence is None:
        return Refused("evidence_missing", "a promotion needs evidence that the other side cannot commit")
    if not _names(step, step.side):
        return Refused("evidence_missing", "the consent names another side or epoch than this promotion's")
    if step.evidence in RECEIPTS_NEEDED and not _is_of_peer(step.receipt, step):
        return Refused("evidence_missing", "a promotion after a fence needs the receipt of that fence")
    return None


def _provable(record: Record, step: Step) -> Refused | None:
    """Refuse to prove what the durable record contradicts: which side is asked says which part of it is meant."""
    consent = step.consent
    if consent is None or consent.epoch != step.epoch:
        return Refused("evidence_missing", "a proof needs the consent that names the new server in this epoch")
    opened = record.promoted_epoch > record.fenced_epoch
    if opened != (consent.side == step.side):
        return Refused("wrong_role", "the consent names another active side than this side's record")
    if not opened and record.base != "complete":
        return Refused("wrong_role", "this side holds no complete copy that could follow")
    return None


def _names(step: Step, side: Side | None) -> bool:
    """Return whether a consent, where there is one, is for this side in this step's epoch."""
    return step.consent is None or (step.consent.side, step.consent.epoch) == (side, step.epoch)


def _seedable(record: Record, order: Order) -> Refused | None:
    step = order.step
    if record.promoted_epoch > record.fenced_epoch:
        return Refused("wrong_role", "this side was active and was not fenced since; it is never overwritten")
    consent = step.consent
    if consent is None or consent.side != step.side or consent.epoch != step.epoch:
        return Refused("evidence_missing", "a seed needs a consent that names this side and this epoch")
    if order.operation and order.operation == record.seeded_for:
        return Refused("wrong_role", "this operation has its copy already, or follows without one")
    return None


def _is_of_peer(receipt: Receipt | None, step: Step) -> bool:
    return (
        receipt is not None
        and step.side is not None
        and receipt.side == peer(step.side)
        and receipt.epoch <= step.epoch
    )
