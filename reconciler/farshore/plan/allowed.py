"""Whether an operation could be accepted now, and why not: asked by admission, and shown as `allowed_operations`.

Facts that are unknown refuse, because unknown is never good. A code that is returned here is a key of `REASONS`.
"""

from types import MappingProxyType

from farshore.plan.policy import Policy
from farshore.plan.steady import FOLLOWS_BY_ITSELF
from farshore.plan.view import (
    Bound,
    Seen,
    cannot_join,
    claims,
    is_fenced,
    is_following,
    is_open,
    is_recorded,
    is_replaced,
    is_untouched,
    is_up,
    stopped_reason,
)
from farshore_schema.roles import SIDES, Consent, Facts, Operation, Role, Verb, peer


def why_not(
    verb: Verb,
    role: Role | None,
    op: Operation | None,
    seen: Seen,
    policy: Policy,
    bound: Bound = MappingProxyType({}),
    *,
    without_standby: bool = False,
) -> str | None:
    """Return the reason code why the verb would be refused now, None when it would be accepted.

    `without_standby`: a rebind that gives the standby up, which then may be in any state.
    """
    if op is not None:
        return "operation_open"
    if role is None:
        return None if verb in ("protect", "remove") else "not_decided"
    claimants = [side for side in SIDES if claims(role, seen, side)]
    if claimants:
        return "two_claims" if len(claimants) > 1 else "unadopted_claim"
    active, standby = seen[role.active], seen[peer(role.active)]
    if verb == "rebind":
        return _nothing_to_rebind(role, seen, bound) or (None if without_standby else _cannot_join(role, standby))
    if verb in ("switchover", "reprotect") and is_replaced(seen, bound, role.active):
        return "source_replaced"
    if verb == "switchover":
        return _active_missing(role, active) or _standby_unfit(role, standby) or _peers_missing(active, standby)
    if verb == "failover":
        return _target_missing(standby) or _never_followed(role, standby)
    if verb == "remove":
        return _active_missing(role, active) if not is_open(active, role) else None
    if verb == "protect":
        return "already_protected" if is_following(standby, role) else None
    return _nothing_to_reprotect(role, active, standby)


def gap_consent(role: Role | None, op: Operation | None, seen: Seen, policy: Policy) -> Consent | None:
    """Return the consent of a `reprotect` that the declared `on_gap: reseed` calls for now, None when it does not.

    The plan itself never opens an operation; whoever does so gives it this consent and the role's epoch.
    """
    if role is None or op is not None or not policy.reseed_on_gap or role.evidence not in FOLLOWS_BY_ITSELF:
        return None
    side = peer(role.active)
    standby = seen[side]
    if not is_open(seen[role.active], role) or standby is None or not is_up(standby) or not standby.server:
        return None
    if is_untouched(standby, role) or not is_recorded(standby) or standby.seeding:
        return None
    if standby.stopped not in ("source_purged", "diverged", "history_reset", "corrupt_journal"):
        return None
    return Consent(side, standby.server, role.epoch, "on_gap: reseed", overwrite=True)


def _nothing_to_rebind(role: Role, seen: Seen, bound: Bound) -> str | None:
    """Return why a rebind would be refused, whatever the standby is like.

    With the bound server in its place it is what resumes a standby that was stopped by another one in between, and what
    completes a rebind that was taken back after its decision.
    """
    active, standby = seen[role.active], seen[peer(role.active)]
    if active is None:
        return "active_unreachable"
    if active.db != "up":
        return "active_db_down"
    if not active.server:
        return "unknown_active"
    begun = role.evidence == "rebound" and standby is not None and standby.stream_epoch != role.epoch
    halted = standby is not None and standby.stopped == "source_replaced"
    if not (begun or halted or is_replaced(seen, bound, role.active)):
        return "not_replaced"
    return None if active.writable else "not_open"


def _cannot_join(role: Role, standby: Facts | None) -> str | None:
    missing = _target_missing(standby)
    if missing is not None or standby is None:
        return missing
    return stopped_reason(standby) if cannot_join(standby) else _never_followed(role, standby)


def _active_missing(role: Role, active: Facts | None) -> str | None:
    if active is None:
        return "active_unreachable"
    if active.db != "up":
        return "active_db_down"
    return None if is_open(active, role) else "not_open"


def _target_missing(standby: Facts | None) -> str | None:
    if standby is None:
        return "standby_unreachable"
    if not is_recorded(standby):
        return "not_seeded"
    if standby.db != "up":
        return "standby_db_down"
    if standby.seeding:
        return "seeding"
    return None if standby.base == "complete" else "not_seeded"


def _standby_unfit(role: Role, standby: Facts | None) -> str | None:
    missing = _target_missing(standby)
    if missing is not None or standby is None:
        return missing
    if standby.stopped:
        return stopped_reason(standby)
    if not is_fenced(standby, role):
        return "not_fenced"
    if not is_following(standby, role):
        return _never_followed(role, standby) or "not_following"
    return None


def _never_followed(role: Role, standby: Facts | None) -> str | None:
    """Refuse a side that was failed over from and not reprotected since: it lacks whatever was committed after that."""
    if role.evidence in FOLLOWS_BY_ITSELF or (standby is not None and standby.stream_epoch == role.epoch):
        return None
    return "failed_over"


def _peers_missing(active: Facts | None, standby: Facts | None) -> str | None:
    """PeerReady needs both gateways to have logged in at the other side (R6)."""
    ready = [facts.peer_ready for facts in (active, standby) if facts is not None]
    if False in ready:
        return "peer_not_ready"
    return "peer_unknown" if None in ready else None


def _nothing_to_reprotect(role: Role, active: Facts | None, standby: Facts | None) -> str | None:
    missing = _active_missing(role, active)
    if missing is not None:
        return missing
    if standby is None:
        return "standby_unreachable"
    if standby.db != "up":
        return "standby_db_down"
    if standby.seeding:
        return "seeding"
    return "already_protected" if is_following(standby, role) else None
