"""Operations that copy data or end protection: protect, reprotect, remove. None of them changes who is active.

A seed is emitted here and nowhere else, and only with a consent that names the server that is seen now (R9).
"""

from farshore.plan.steady import steady
from farshore.plan.view import (
    Seen,
    command,
    is_fenced,
    is_following,
    is_open,
    is_recorded,
    is_untouched,
    is_up,
    stopped_reason,
    wait,
)
from farshore_schema.roles import SIDES, Evidence, Facts, Operation, Role, Side, Step, next_even, peer


def copy(role: Role, op: Operation, seen: Seen) -> Step:
    """Bring the other side to follow, for `protect` and `reprotect`: copied with consent where that is needed.

    A role that moved meanwhile ends it: the request was about other roles.
    """
    if op.abort:
        return _take_back(role, op, seen)
    first = op.verb == "protect" and role.evidence == "initial"  # its epoch may have been decided above the request's
    if role.epoch != op.epoch and not first:
        return _close(role, op, seen, Step("finish", outcome="failed", reason="role_moved"))
    return _copy(role, op, seen)


def _take_back(role: Role, op: Operation, seen: Seen) -> Step:
    """Withdraw the consent for good: burn the epoch that every order to copy was given in, then end.

    An order that is still under way must not overwrite anything after the operation was reported as aborted.
    """
    if role.epoch == op.epoch or role.evidence == "initial":
        evidence: Evidence = "aborted" if role.evidence == "initial" else role.evidence
        decided = Role(role.active, next_even(role.epoch), evidence, role.receipt)
        return Step("decide", role=decided, reason="aborted")
    return _close(role, op, seen, Step("finish", outcome="aborted", reason="aborted"))


def _close(role: Role, op: Operation, seen: Seen, finish: Step) -> Step:
    """End without a copy, once the side that was to be overwritten has durably seen the newer epoch."""
    if not is_open(seen[role.active], role):
        return steady(role, op, seen)
    side = peer(role.active)
    standby = seen[side]
    if standby is None:
        return wait("standby_unreachable")
    if is_recorded(standby) and standby.epoch >= role.epoch:
        return finish
    if standby.promoted_epoch > standby.fenced_epoch:
        return command(Step("fence", side, role.epoch), role, op, seen)
    return command(Step("stop_acks", side, role.epoch), role, op, seen)


def remove(role: Role, op: Operation, seen: Seen) -> Step:
    """End protection on the active side first, then on the standby; data is kept, the standby stays read-only (R20)."""
    if op.abort and not any(_is_ended(seen[side], role) for side in SIDES):
        return Step("finish", outcome="aborted", reason="aborted")
    if role.epoch != op.epoch:
        return Step("finish", outcome="failed", reason="role_moved")
    active = seen[role.active]
    if active is not None and is_recorded(active) and is_up(active) and active.fenced_epoch > active.promoted_epoch:
        # Closed by a role change that was cut short: whoever ends protection must not be left with two closed sides.
        return steady(role, op, seen)
    for side, code in ((role.active, "active_unreachable"), (peer(role.active), "standby_unreachable")):
        facts = seen[side]
        if facts is None:
            return wait(code)
        if _is_ended(facts, role):
            continue
        if is_recorded(facts) and not is_up(facts):
            return wait(code.replace("unreachable", "db_down"))
        return command(Step("cleanup", side, role.epoch), role, op, seen)
    return Step("finish", outcome="done")


def _is_ended(facts: Facts | None, role: Role) -> bool:
    """Return whether protection was ended on this side: its record was taken back, its epoch stays."""
    return facts is not None and not facts.enrolled and facts.epoch >= role.epoch


def _copy(role: Role, op: Operation, seen: Seen) -> Step:
    active, standby = seen[role.active], seen[peer(role.active)]
    if not is_open(active, role):
        return steady(role, op, seen)
    if standby is None:
        return wait("standby_unreachable")
    if not is_recorded(standby):
        return command(Step("seed", peer(role.active), role.epoch), role, op, seen)  # enrolment comes first
    if not is_up(standby):
        return wait("standby_db_down")
    if standby.seeding:
        return wait("seeding")
    if is_untouched(standby, role):
        return _seed(role, op, seen, standby)
    if standby.base == "complete" and not is_fenced(standby, role):
        return steady(role, op, seen)
    if standby.base != "complete" or standby.stopped:
        return _seed(role, op, seen, standby)
    if is_following(standby, role) and (op.consent is None or standby.seeded_for == op.id):
        return Step("finish", outcome="done")
    return _follow(role, op, seen)


def _follow(role: Role, op: Operation, seen: Seen) -> Step:
    """Let the copy follow, even where it does already: the side then notes that the operation needs no copy any more.

    Here also after a failover, where it does not by itself (R12).
    """
    step = steady(role, op, seen)
    if step.name != "wait":
        return step
    return command(Step("stream", peer(role.active), role.epoch), role, op, seen)


def _seed(role: Role, op: Operation, seen: Seen, standby: Facts) -> Step:
    """Copy anew onto exactly the server that the consent names, else say what is missing."""
    side: Side = peer(role.active)
    consent = op.consent
    if consent is None or consent.side != side or consent.epoch != op.epoch:
        return wait(stopped_reason(standby) if standby.stopped else "no_consent")
    if standby.base == "complete" and standby.seeded_for == op.id:
        return wait(stopped_reason(standby))  # this consent was used: another copy needs another one
    if not standby.server:
        return wait("unknown_server")
    if consent.server != standby.server:
        return wait("other_server")
    if standby.promoted_epoch > standby.fenced_epoch or (standby.writable and not is_untouched(standby, role)):
        return command(Step("fence", side, role.epoch), role, op, seen)
    # A first role may have been decided above the epoch of the request; the consent is for that first role.
    return command(Step("seed", side, role.epoch, consent=consent._replace(epoch=role.epoch)), role, op, seen)
