"""Binding the active side to the server that took its place: proved, then decided, then followed (R3).

Both gateways prove their part before anything is decided: the new server can be the active side, and it holds all that
the standby received. So a rebind that cannot be done leaves the pair as it was. The decision burns an epoch of its own,
like an abort's: the side was active all the time, and the standby is still the one that cannot commit.
"""

from farshore.plan.steady import steady
from farshore.plan.view import Seen, cannot_join, command, is_following, is_open, is_up, stopped_reason, wait
from farshore_schema.roles import Consent, Operation, Role, Step, peer


def rebind(role: Role, op: Operation, seen: Seen) -> Step:
    """Return the one next step of a rebind."""
    consent = op.consent
    if role.epoch < op.epoch:
        if op.abort:
            return Step("finish", outcome="aborted", reason="not_rebound")
        if consent is None or consent.side != role.active:
            return Step("finish", outcome="failed", reason="role_moved")
        return _prove(role, op, seen, consent)
    if role.epoch > op.epoch or role.evidence != "rebound" or consent is None:
        return Step("finish", outcome="failed", reason="role_moved")
    if op.abort:
        # The decision stands. Nothing that is still under way could overwrite anything, and a new rebind leads on.
        return Step("finish", outcome="aborted", reason="rebound_alone")
    return _carry_out(role, op, seen, consent)


def _prove(role: Role, op: Operation, seen: Seen, consent: Consent) -> Step:
    """Let both gateways look, which changes nothing; the epoch is burned by the decision alone."""
    active, standby = seen[role.active], seen[peer(role.active)]
    if active is None:
        return wait("active_unreachable")
    if not is_up(active):
        return wait("active_db_down")
    if active.server != consent.server:
        return Step("finish", outcome="failed", reason="other_active")
    if active.proved_for != op.id:
        return command(Step("prove", role.active, op.epoch, consent=consent), role, op, seen)
    if not consent.overwrite:
        if standby is None:
            return wait("standby_unreachable")
        if not is_up(standby):
            return wait("standby_db_down")
        if cannot_join(standby):
            return wait(stopped_reason(standby))
        if standby.proved_for != op.id:
            return command(Step("prove", peer(role.active), op.epoch, consent=consent), role, op, seen)
    return Step("decide", role=Role(role.active, op.epoch, "rebound"))


def _carry_out(role: Role, op: Operation, seen: Seen, consent: Consent) -> Step:
    """Record the new server at both gateways, the active side's first; the orders carry the consent that names it."""
    active, standby = seen[role.active], seen[peer(role.active)]
    if active is not None and is_up(active) and active.server != consent.server:
        return wait("replaced_again")
    step = steady(role, op, seen)
    if step.name in ("promote", "stream"):
        step = step._replace(consent=consent)
    if not is_open(active, role):
        return step
    if consent.overwrite or is_following(standby, role):
        return Step("finish", outcome="done")
    if step.name != "wait" or step.reason or standby is None or standby.base != "complete" or standby.seeding:
        return step
    if cannot_join(standby):
        return wait(stopped_reason(standby))
    # Steady work leaves a stopped stream alone; this one was stopped by the very replacement that was proved.
    return command(Step("stream", peer(role.active), role.epoch, consent=consent), role, op, seen)
