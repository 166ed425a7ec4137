"""Questions about roles and facts that several parts of the plan ask in the same words."""

from collections.abc import Mapping

from farshore.plan.reasons import REASONS
from farshore_schema.roles import Facts, Operation, Receipt, Role, Side, Step, Verb, next_even, peer

Seen = Mapping[Side, Facts | None]
Bound = Mapping[Side, str | None]  # the server that each side of the pair is bound to (R3); None: not yet

ROLE_CHANGES: frozenset[Verb] = frozenset({"switchover", "failover"})
DECIDES: frozenset[Verb] = ROLE_CHANGES | {"rebind"}
"""Operations with a decision of their own. A rebind spends its epoch only with that decision: it fences nobody."""


def wait(reason: str = "") -> Step:
    """Return the step that sends nothing; an empty reason means that nothing is left to do."""
    return Step("wait", reason=reason)


def is_recorded(facts: Facts | None) -> bool:
    """Return whether the side's agent has a durable record, so that it takes commands (R5)."""
    return facts is not None and facts.enrolled and facts.epoch > 0


def is_up(facts: Facts | None) -> bool:
    """Return whether the side's database is known to be up; unknown is not up."""
    return facts is not None and facts.db == "up"


def highest_epoch(role: Role, op: Operation | None) -> int:
    """Return the newest epoch that the store has spent: the role's, or the one an open role change burns."""
    return max(role.epoch, op.epoch) if op is not None and op.verb in ROLE_CHANGES else role.epoch


def operation_epoch(verb: Verb, role: Role | None) -> int:
    """Return the epoch of an operation born now: one that decides takes the next even one, everything else keeps it."""
    epoch = 0 if role is None else role.epoch
    return next_even(epoch) if role is None or verb in DECIDES else epoch


def is_replaced(seen: Seen, bound: Bound, side: Side) -> bool:
    """Return whether another server answers at a side than the one the pair is bound to."""
    facts = seen[side]
    return facts is not None and facts.server != "" and bound.get(side) not in (None, facts.server)


def is_open(active: Facts | None, role: Role) -> bool:
    """Return whether the decided side accepts writes under exactly this decision.

    Writable from an older decision is not enough: the agent must hold this epoch before it is told to clients.
    """
    return (
        active is not None
        and active.db == "up"
        and active.writable
        and active.epoch == role.epoch
        and active.promoted_epoch == role.epoch
    )


def is_fenced(standby: Facts | None, role: Role) -> bool:
    """Return whether the side that is not active is durably unable to commit in this epoch, and seen to be."""
    return (
        standby is not None
        and standby.enrolled
        and standby.epoch >= role.epoch
        and standby.fenced_epoch >= role.epoch
        and not standby.writable
    )


def is_following(standby: Facts | None, role: Role) -> bool:
    """Return whether the side receives and applies what the active side commits under this decision."""
    return (
        standby is not None
        and standby.base == "complete"
        and standby.stream_epoch == role.epoch
        and standby.receiving
        and standby.applying
        and not standby.stopped
    )


def is_untouched(standby: Facts, role: Role) -> bool:
    """Return whether the other server of a new pair is not ours yet: it may be in use, so nothing may be done to it.

    Records of an earlier life of the pair do not make it ours: their epochs lie below the first role's. And it stays
    so when the first copy was taken back before it was complete, and when the active side was rebound without it.
    """
    if role.evidence == "initial":
        return standby.base != "complete" or max(standby.stream_epoch, standby.fenced_epoch) < role.epoch
    never_ours = standby.base != "complete" and standby.promoted_epoch == standby.fenced_epoch == 0
    return never_ours and role.evidence in ("aborted", "rebound")


def claims(role: Role, seen: Seen, side: Side) -> bool:
    """Return whether the side's gateway reports an emergency decision that the store does not know (R16).

    Emergency epochs are odd. A claim is settled by adoption, which makes the side the store's choice, or by a fence of
    the side in a newer epoch.
    """
    facts = seen[side]
    if facts is None or facts.promoted_epoch % 2 == 0 or facts.fenced_epoch >= facts.promoted_epoch:
        return False
    return side != role.active or facts.promoted_epoch > role.epoch


def command(step: Step, role: Role, op: Operation | None, seen: Seen) -> Step:
    """Return the command, or the enrolment that its agent needs first."""
    if step.side is not None and not is_recorded(seen[step.side]):
        return Step("enrol", step.side, highest_epoch(role, op))
    return step


def receipt_in_hand(op: Operation, source: Facts | None, target: Facts | None) -> Receipt | None:
    """Return the receipt of the fence that this operation asked for, by the best witness there is.

    A source that is seen speaks for itself: without a receipt its fence does not hold, whatever was stored before
    (R13). Of a source that cannot be seen the store remembers the receipt, and so does a target that drained to it.
    """
    side = peer(op.to)
    if source is not None and source.db == "up":
        own = source.receipt
        return own if own is not None and own.epoch == op.epoch and not source.writable else None
    drained = target.drained if target is not None else None
    for witness in (op.receipt, drained):
        if witness is not None and witness.side == side and witness.epoch == op.epoch:
            return witness
    return None


def cannot_join(standby: Facts | None) -> bool:
    """Return whether no other source could let the side go on: what stands in its way is its own."""
    return standby is not None and standby.stopped in ("applier_stopped", "diverged")


def stopped_reason(facts: Facts) -> str:
    """Return the reason code of a stream that cannot go on by itself."""
    return facts.stopped if facts.stopped in REASONS else "standby_stopped"
