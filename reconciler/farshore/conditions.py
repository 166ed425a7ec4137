"""The named truths about a pair: True, False or Unknown, each with a reason for programs and a sentence for people.

Pure: facts in, conditions out. A fact that nobody reports is Unknown, and Unknown is never shown as good.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from farshore.plan.view import Seen, is_fenced, is_open, is_untouched
from farshore.told import Told
from farshore_schema.roles import SIDES, Role, peer
from farshore_schema.status import Condition, ConditionType, Tri

SUPPORTED_SERIES: Final = ("9.7",)  # server series that the tests run on (R2)


class _Truth(NamedTuple):
    status: Tri
    reason: str
    message: str


def conditions(
    told: Told, role: Role | None, seen: Seen, before: Sequence[Condition], now: str
) -> tuple[Condition, ...]:
    """Return every condition; one whose status did not change keeps its `since`."""
    truths: dict[ConditionType, _Truth] = {
        "Protected": _protected(told, role, seen),
        "PeerReady": _peer_ready(told),
        "ConfigInSync": _config_in_sync(told),
        "VersionSupported": _version_supported(told),
        "FenceHolds": _fence_holds(told, role, seen),
        "Verified": _Truth("Unknown", "never_verified", "the two sides were never compared by checksum"),
        "DrillCurrent": _Truth("Unknown", "never_drilled", "no drill was ever run"),
    }
    old = {each.type: each for each in before}
    return tuple(
        Condition(
            type=name,
            status=truth.status,
            reason=truth.reason,
            message=truth.message,
            since=old[name].since if name in old and old[name].status == truth.status else now,
        )
        for name, truth in truths.items()
    )


def _unheard(told: Told) -> str:
    """Return the sites without a fresh report, as words; "" when both are heard."""
    return " and ".join(told.spec.site_of(side) for side in SIDES if told.side(side) is None)


def _protected(told: Told, role: Role | None, seen: Seen) -> _Truth:
    if role is None:
        return _Truth("False", "not_decided", "the pair has no active site yet")
    if _unheard(told):
        return _Truth("Unknown", "unheard", f"nothing fresh is known of {_unheard(told)}")
    active, standby = told.spec.site_of(role.active), told.spec.site_of(peer(role.active))
    facts = seen[peer(role.active)]
    if facts is not None and facts.stopped:
        return _Truth("False", facts.stopped, f"the stream into {standby} stopped")
    if told.rpo_class in ("async", "zero"):
        if not is_open(seen[role.active], role):
            return _Truth("False", "not_open", f"{active} does not accept writes under the present decision")
        return _Truth("True", told.rpo_class, f"{standby} follows {active}")
    if told.rpo_class in ("seeding", "catching_up"):
        return _Truth("False", told.rpo_class, f"{standby} does not hold everything yet")
    return _Truth("False", told.waiting or "not_following", f"{standby} does not follow {active}")


def _peer_ready(told: Told) -> _Truth:
    ready = {side: report.peer_ready for side in SIDES if (report := told.side(side)) is not None}
    refused = [told.spec.site_of(side) for side, value in ready.items() if value is False]
    if refused:
        return _Truth(
            "False", "login_failed", f"the gateway of {' and '.join(refused)} cannot log in at the other site"
        )
    if len(ready) < len(SIDES) or None in ready.values():
        return _Truth("Unknown", "not_tried", "not both gateways have logged in at the other site lately")
    return _Truth("True", "logged_in", "both gateways log in at both sites")


def _config_in_sync(told: Told) -> _Truth:
    waiting = [told.spec.site_of(side) for side, each in zip(SIDES, told.in_sync, strict=True) if each is False]
    missing = [told.spec.site_of(side) for side, each in zip(SIDES, told.in_sync, strict=True) if each is None]
    if waiting:
        return _Truth("False", "being_sent", f"the agent of {' and '.join(waiting)} has an older declaration")
    if missing:
        return _Truth("Unknown", "no_agent", f"no agent serves {' and '.join(missing)}")
    return _Truth("True", "assigned", f"both agents have generation {told.spec.generation}")


def _version_supported(told: Told) -> _Truth:
    versions = {side: report.server_version for side in SIDES if (report := told.side(side)) is not None}
    known = {side: version for side, version in versions.items() if version}
    foreign = [
        f"{version} at {told.spec.site_of(side)}"
        for side, version in known.items()
        if not version.startswith(tuple(f"{series}." for series in SUPPORTED_SERIES))
    ]
    if foreign:
        return _Truth("False", "unverified_version", f"not a tested release series: {', '.join(foreign)}")
    if len(known) < len(SIDES):
        return _Truth("Unknown", "not_seen", "not both servers' versions are known")
    return _Truth("True", "tested", f"both servers are of a tested series ({', '.join(SUPPORTED_SERIES)})")


def _fence_holds(told: Told, role: Role | None, seen: Seen) -> _Truth:
    if role is None:
        return _Truth("Unknown", "not_decided", "the pair has no active site yet")
    side = peer(role.active)
    site, standby = told.spec.site_of(side), seen[side]
    if standby is None or standby.db != "up":
        return _Truth("Unknown", "unheard", f"nothing fresh is known of {site}; the stored evidence is {role.evidence}")
    if is_untouched(standby, role):
        return _Truth("Unknown", "not_ours_yet", f"{site} holds no copy yet and was not touched")
    if standby.writable:
        return _Truth("False", "fence_violated", f"{site} is writable")
    if not is_fenced(standby, role):
        return _Truth("False", "not_fenced", f"{site} is not durably fenced in epoch {role.epoch}")
    return _Truth("True", "fenced", f"{site} is durably read-only since epoch {standby.fenced_epoch}")
