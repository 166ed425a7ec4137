"""The one next step of a pair: who is asked first, and what overrides what."""

from farshore.plan.changes import failover, switchover
from farshore.plan.copies import copy, remove
from farshore.plan.policy import Policy
from farshore.plan.rebinding import rebind
from farshore.plan.steady import steady
from farshore.plan.view import (
    Seen,
    claims,
    highest_epoch,
    is_following,
    is_open,
    is_recorded,
    is_untouched,
    is_up,
    wait,
)
from farshore_schema.roles import SIDES, Facts, Operation, Role, Side, Step, next_even, peer


def plan(role: Role | None, op: Operation | None, seen: Seen, policy: Policy) -> Step:
    """Return the one next step. Total: every combination of arguments has an answer.

    `role` is the decision in the store (None: a new pair), `op` the open operation, `seen` the newest facts of both
    sides (None: unknown or stale, which is never treated as good).
    """
    if role is None:
        return _new_pair(op, seen, policy)
    claimants = [side for side in SIDES if claims(role, seen, side)]
    if claimants:
        return _emergency(role, op, seen, claimants)
    if op is None:
        return steady(role, None, seen)
    if op.verb == "remove":
        return remove(role, op, seen)
    if op.verb in ("protect", "reprotect"):
        return copy(role, op, seen)
    if op.verb == "rebind":
        return rebind(role, op, seen)
    if role.epoch >= op.epoch:
        return _decided(role, op, seen)
    if op.verb == "switchover":
        return switchover(role, op, seen)
    return failover(role, op, seen, policy)


def _new_pair(op: Operation | None, seen: Seen, policy: Policy) -> Step:
    """Decide the first role, once both sides were seen: a pair is not started half blind (R8)."""
    if op is None:
        return wait("no_operation")
    if op.verb != "protect" or op.abort:
        return Step("finish", outcome="done" if op.verb == "remove" else "aborted", reason="not_decided")
    active, standby = seen[policy.preferred], seen[peer(policy.preferred)]
    if active is None:
        return wait("active_unreachable")
    if standby is None:
        return wait("standby_unreachable")
    if not is_up(active):
        return wait("active_db_down")
    if not is_up(standby):
        return wait("standby_db_down")
    # Above every epoch an agent may remember from an earlier life of the pair, so that no order of that life counts.
    epoch = max(op.epoch, next_even(max(active.epoch, standby.epoch)))
    return Step("decide", role=Role(policy.preferred, epoch, "initial"))


def _decided(role: Role, op: Operation, seen: Seen) -> Step:
    """Bring a role change to its end after the decision: open the side, then close the operation.

    There is no abort from here on. The reverse stream belongs to a switchover (R12), but an old side that cannot follow
    now does not keep the operation open: it is steady work then.
    """
    if not is_open(seen[role.active], role):
        return steady(role, op, seen)
    if role.epoch > op.epoch:
        return Step("finish", outcome="aborted", reason="aborted" if role.evidence == "aborted" else "role_moved")
    standby = seen[peer(role.active)]
    if op.verb == "switchover" and not op.abort and _can_follow(standby) and not is_following(standby, role):
        step = steady(role, op, seen)
        return wait("following") if step.name == "wait" else step
    return Step("finish", outcome="done")


def _can_follow(standby: Facts | None) -> bool:
    return standby is not None and standby.db == "up" and standby.base == "complete" and not standby.stopped


def _emergency(role: Role, op: Operation | None, seen: Seen, claimants: list[Side]) -> Step:
    """Adopt what a gateway decided without us: fence the other side, then make it the store's decision (R16).

    No other command is sent, and the open operation is cancelled by the newer epoch. Two claims, or a claim that the
    store has already decided against, are a person's matter: neither side is touched.
    """
    side = claimants[0]
    facts, other = seen[side], seen[peer(side)]
    if facts is None or len(claimants) > 1 or facts.promoted_epoch <= role.epoch:
        return wait("two_claims")
    claimed = facts.promoted_epoch
    spent = max(highest_epoch(role, op), facts.epoch, other.epoch if other is not None else 0)
    if spent > claimed:
        # The open operation has burned an epoch for the other direction: the adoption takes the next one of its own.
        return Step("decide", role=Role(side, next_even(spent), "emergency"))
    if _must_be_fenced(other, role, peer(side), claimed):
        return Step("fence" if is_recorded(other) else "enrol", peer(side), claimed)
    return Step("decide", role=Role(side, claimed, "emergency"))


def _must_be_fenced(other: Facts | None, role: Role, side: Side, epoch: int) -> bool:
    """Return whether the side that lost to an emergency decision can be fenced for it, and is not yet."""
    if other is None or other.db != "up" or (side != role.active and is_untouched(other, role)):
        return False
    return other.writable or other.fenced_epoch < epoch
