"""What must hold in every state of the small world, and at its end; it judges by the world, never by the plan."""

from farshore.plan import REASONS
from farshore_agent.admission import serves_primary
from farshore_schema.roles import SIDES, Operation, Role, Side, Step, peer
from tests.simulation.world import Site, is_spare, may_write

PEOPLE_MUST_DECIDE = frozenset({"evidence_missing", "no_consent", "two_claims", "diverged", "applier_stopped"})


def unsafe(sites: dict[Side, Site], role: Role | None, *, sync: bool, told: int, lossy: bool) -> str:
    """Return the broken promise, "" while all hold."""
    able = [side for side in SIDES if _can_commit(sites, side, role, sync)]
    if len(able) > 1:
        return "I1: two sides can complete a commit"
    if role is not None and role.evidence not in ("acks_stopped", "attested", "emergency"):
        probes = [side for side in SIDES if may_write(sites[side]) and serves_primary(sites[side].record)]
        if len(probes) > 1:
            return "I1: two role probes answer that theirs is the active side"
    if role is not None and not lossy:
        active = sites[role.active]
        if active.writable and active.record.promoted_epoch == role.epoch and told & ~active.executed:
            return "an acknowledged transaction is lost"
    return ""


def unfinished(sites: dict[Side, Site], role: Role | None, op: Operation | None, step: Step) -> str:
    """Return what is wrong with a world in which nothing moves any more, "" when it is a good end."""
    writable = [side for side in SIDES if sites[side].up and sites[side].writable and not is_spare(sites[side])]
    waits = step.name == "wait" and step.reason in PEOPLE_MUST_DECIDE and step.reason in REASONS
    if step.name == "wait" and step.reason == "two_claims":
        return ""
    if op is not None and not waits:
        return f"an operation never ends: {op}, {step}"
    if op is not None and op.verb in ("switchover", "failover"):
        return "" if len(writable) <= 1 else "two writable sides at the end"
    if role is None:
        enrolled = any(site.record.enrolled for site in sites.values())
        return "" if op is None and not enrolled else "a new pair never starts, or an ended one never ends"
    if writable != [role.active]:
        return f"ends with {writable or 'no side'} writable, decided {role}"
    if sites[role.active].record.promoted_epoch != role.epoch:
        return "the active side does not hold the present decision"
    return _idle_standby(sites[peer(role.active)], role)


def _idle_standby(standby: Site, role: Role) -> str:
    if standby.record.base != "complete":
        return ""  # a copy needs an operation
    if standby.record.fenced_epoch < role.epoch:
        return "the standby is not fenced in the present epoch"
    follows = standby.receiving and standby.record.stream_epoch == role.epoch
    if role.evidence in ("initial", "fenced", "aborted", "rebound") and not follows and not standby.stopped:
        return "the standby does not follow"
    return ""


def _can_commit(sites: dict[Side, Site], side: Side, role: Role | None, sync: bool) -> bool:
    """Return whether a client on that side can get its OK (R14): a blocked source may be writable and still cannot."""
    site = sites[side]
    if not may_write(site) or is_spare(site):
        return False
    return not sync or sites[peer(side)].receiving or (role is not None and role.active == side)
