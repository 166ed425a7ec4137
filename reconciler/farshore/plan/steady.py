"""Keep what was decided true: the active side open, the other one fenced, and following where that is allowed.

This is also what carries a decision through: promoting after a switchover, reopening after an abort.
"""

from typing import Final

from farshore.plan.view import Seen, command, is_fenced, is_following, is_open, is_recorded, is_untouched, is_up, wait
from farshore_schema.roles import Evidence, Facts, Operation, Role, Step, peer

FOLLOWS_BY_ITSELF: Final[frozenset[Evidence]] = frozenset({"initial", "fenced", "aborted", "rebound"})
"""After these decisions the standby is known to hold nothing that the active side lacks.

After a failover nothing on the old side is changed but the fence, until a reprotect exists (R12).
"""


def steady(role: Role, op: Operation | None, seen: Seen) -> Step:
    """Return the one step that brings the sides nearer to the decision, or a wait."""
    active, standby = seen[role.active], seen[peer(role.active)]
    if standby is not None and is_up(standby) and standby.writable and not is_untouched(standby, role):
        # A fence that does not hold is no evidence (R13): before anything else, and before the other side is opened.
        return command(Step("fence", peer(role.active), role.epoch), role, op, seen)
    if not is_open(active, role):
        return _open(role, op, seen)
    if standby is None:
        return wait("standby_unreachable" if op is not None else "")
    return _keep_standby(role, op, seen, standby)


def _open(role: Role, op: Operation | None, seen: Seen) -> Step:
    """Open the decided side, with the evidence that the store keeps: the other side may stay unknown for days."""
    active = seen[role.active]
    if active is None:
        return wait("active_unreachable")
    if not is_up(active):
        return wait("active_db_down")
    step = Step("promote", role.active, role.epoch, receipt=role.receipt, evidence=role.evidence)
    return command(step, role, op, seen)


def _keep_standby(role: Role, op: Operation | None, seen: Seen, standby: Facts) -> Step:
    side = peer(role.active)
    if not is_recorded(standby):
        return command(Step("stream", side, role.epoch), role, op, seen)  # enrolment comes first
    if not is_up(standby):
        return wait("standby_db_down" if op is not None else "")
    if standby.base != "complete" or standby.seeding or is_untouched(standby, role):
        return wait()
    if not is_fenced(standby, role):
        return command(Step("fence", side, role.epoch), role, op, seen)
    # Once it was told to follow under this decision it may be told again: the stream's process may have died.
    may_follow = role.evidence in FOLLOWS_BY_ITSELF or standby.stream_epoch == role.epoch
    if may_follow and not standby.stopped and not is_following(standby, role):
        return command(Step("stream", side, role.epoch), role, op, seen)
    return wait()
