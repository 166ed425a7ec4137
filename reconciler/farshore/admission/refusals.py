"""The refusals that several requests share, each with the present truth and the ways on."""

from collections.abc import Mapping
from typing import Final

from farshore.admission.desk import site_of
from farshore.plan import explain
from farshore.store.records import PairRecord, PairRecords, RoleRecord
from farshore_schema.errors import Conflict, FarshoreError, Refused, Transient
from farshore_schema.roles import peer
from farshore_schema.status import OperationView, Owner

_CODES: Final[Mapping[str, str]] = {
    "operation_open": "operation_open",
    "active_unreachable": "site_unreachable",
    "standby_unreachable": "site_unreachable",
}

# An agent that was just started answers these by itself: how long until then.
_SETTLES_SECONDS: Final[Mapping[str, float]] = {"peer_unknown": 1.0}


def current(now: PairRecords) -> dict[str, object]:
    """Return the present truth about a pair, as it travels with a conflict."""
    truth: dict[str, object] = {}
    if now.spec is not None:
        spec = now.spec.value
        truth |= {
            "generation": spec.generation,
            "incarnation": spec.incarnation,
            "owner": str(spec.owner),
            "primary_site": spec.document.primary_site,
        }
        if now.role is not None:
            role = now.role.value
            truth |= {
                "epoch": role.epoch,
                "active_site": site_of(spec.document, role.active),
                "since": role.since,
                "by": role.by,
                "reason": role.reason,
            }
    if now.operation is not None:
        truth["operation"] = now.operation.value.id
    return truth


def owned_elsewhere(name: str, owner: Owner) -> FarshoreError:
    """Another stack declares the pair."""
    return Refused(
        "owned_elsewhere",
        f'pair "{name}" is declared by {owner}',
        hint=f"change it there, or delete it there first; `farshore describe {name}` shows it",
        field="name",
    )


def stale_generation(name: str, seen: int, now: PairRecords) -> FarshoreError:
    """The caller read an older declaration."""
    generation = now.spec.value.generation if now.spec else 0
    return Conflict(
        "stale_generation",
        f'pair "{name}" is at generation {generation}, the request was made on {seen}',
        hint=f"read it again (`farshore describe {name}`, `pulumi refresh`) and decide anew",
        current=current(now),
    )


def stale_epoch(name: str, seen: int, now: PairRecords) -> FarshoreError:
    """The caller decided on an older role."""
    truth = current(now)
    where = f"active at {truth['active_site']} since epoch {truth['epoch']}" if "epoch" in truth else "not decided yet"
    return Conflict(
        "stale_epoch",
        f'pair "{name}" is {where}, the request was made on epoch {seen}',
        hint=f"read it again (`farshore describe {name}`, `pulumi refresh`) and decide anew",
        current=truth,
    )


def role_moved(spec: PairRecord, role: RoleRecord, now: PairRecords) -> FarshoreError:
    """The role was moved outside this declaration: who, when, why, and the two ways on (R11)."""
    active, declared = site_of(spec.document, role.active), site_of(spec.document, peer(role.active))
    why = f": {role.reason}" if role.reason else ""
    return Conflict(
        "role_moved",
        f'{role.by or "somebody"} moved pair "{spec.document.name}" to {active} at {role.since}'
        f" (epoch {role.epoch}{why}); the declaration still says {declared}",
        hint=(
            f'to adopt the move set primary_site = "{active}"; to go back to {declared} by a planned switchover set '
            f"acknowledge_epoch = {role.epoch}"
        ),
        current=current(now),
        field="primary_site",
    )


def operation_open(operation: OperationView, *, field: str | None = None) -> FarshoreError:
    """Another operation of the pair is still open."""
    error = Refused(
        "operation_open",
        f'{operation.verb} {operation.id} of pair "{operation.pair}" is still open',
        hint=f"wait for it (`farshore describe {operation.pair}`) or take it back (`farshore abort {operation.pair}`)",
        field=field,
    )
    error.current = {"operation": operation.id, "verb": operation.verb, "state": operation.state}
    return error


def not_possible(code: str, spec: PairRecord, role: RoleRecord | None, *, field: str | None = None) -> FarshoreError:
    """The plan's `why_not`, in words."""
    active = role.active if role else "a"
    reason = explain(
        code,
        pair=spec.document.name,
        active=site_of(spec.document, active),
        standby=site_of(spec.document, peer(active)),
    )
    settles, shown = _SETTLES_SECONDS.get(code), _CODES.get(code, "not_possible_now")
    error: FarshoreError = Refused(shown, reason.sentence, hint=reason.go_on, field=field)
    if settles is not None:
        error = Transient(shown, reason.sentence, hint=reason.go_on, field=field, retry_seconds=settles)
    error.current = {"why_not": code}
    return error
