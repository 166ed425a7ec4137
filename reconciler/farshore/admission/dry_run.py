"""The dry run: what an apply of a document would do, by the very judgement that the apply would be given."""

from statistics import median
from typing import Final

from farshore import operations
from farshore.admission.desk import Desk, site_of
from farshore.admission.looks import NOT_LOOKED, Look
from farshore.admission.pairs import Judgement, judge
from farshore.clock import seconds_between
from farshore.plan.progress import LABELS
from farshore.store import keys
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import SIDES, peer
from farshore_schema.status import (
    OperationView,
    Owner,
    PairPut,
    PlanFailure,
    PlanResult,
    RoleChange,
    Tri,
)

_HISTORY_READ: Final = 50  # newest ended operations that an estimate is made of


def plan_pair(
    desk: Desk,
    document: MySQLPair,
    *,
    owner: Owner,
    if_epoch: int | None = None,
    by: str = "",
    look: Look = NOT_LOOKED,
) -> PlanResult:
    """Return what a PUT of the document would do now. Changes nothing and refuses nothing: failures are an answer."""
    request = PairPut(document=document, owner=owner, if_epoch=if_epoch)
    judgement = judge(desk, document.name, request, by=by, look=look)
    role = judgement.now.role.value if judgement.now.role else None
    change = _role_change(desk, document, judgement)
    return PlanResult(
        action=judgement.action,
        changed=judgement.changed,
        failures=tuple(failure(error) for error in judgement.failures),
        warnings=judgement.warnings,
        role_change=change,
        summary=_summary(document, judgement, change),
        current_epoch=role.epoch if role else None,
        active_site=site_of(document, role.active) if role else None,
    )


def failure(error: FarshoreError) -> PlanFailure:
    """Return one reason as the dry run tells it."""
    return PlanFailure(code=error.code, field=error.field, message=error.message, hint=error.hint)


def _role_change(desk: Desk, document: MySQLPair, judgement: Judgement) -> RoleChange | None:
    if judgement.move != "switchover" or judgement.now.role is None:
        return None
    active = judgement.now.role.value.active
    observed = desk.observed(document.name)
    standby = observed.a if peer(active) == "a" else observed.b
    return RoleChange(
        from_site=site_of(document, active),
        to_site=site_of(document, peer(active)),
        lag_seconds=standby.stream.lag_seconds if standby else None,
        peer_ready=_peer_ready([getattr(getattr(observed, side), "peer_ready", None) for side in SIDES]),
        estimate_seconds=_estimate(desk, document.name),
        steps=LABELS["switchover"],
    )


def _peer_ready(answers: list[bool | None]) -> Tri:
    if False in answers:
        return "False"
    return "Unknown" if None in answers else "True"


def _estimate(desk: Desk, pair: str) -> float | None:
    """Return the median write outage of the pair's earlier switchovers, fence to open; unknown before the first."""
    took: list[float] = []
    page = desk.records.store.list(keys.operations(pair)).items
    for item in page[-_HISTORY_READ:]:
        past = desk.records.parsed(item, OperationView).value
        if past.verb == "switchover" and past.state == "done":
            fence = next((line for line in past.log if line.name == "fence"), None)
            opened = operations.newest(past, "promote", past.to_site)
            if fence is not None and opened is not None and opened.ended is not None:
                took.append(seconds_between(fence.started, opened.ended))
    return round(median(took), 3) if took else None


def _summary(document: MySQLPair, judgement: Judgement, change: RoleChange | None) -> str:
    if judgement.failures:
        return f"refused: {judgement.failures[0].message}"
    if judgement.action == "create":
        operation = judgement.operation
        source = site_of(document, peer(operation.to)) if operation else document.site_a.site
        return f"protect {document.name}: full copy from {source}, then follow"
    if change is not None:
        lag = "unknown lag" if change.lag_seconds is None else f"lag {change.lag_seconds:.1f} s"
        estimate = "" if change.estimate_seconds is None else f"; about {change.estimate_seconds:.0f} s"
        ready = {"True": "peer ready", "False": "peer not ready", "Unknown": "peer not known to be ready"}
        return (
            f"planned switchover from {change.from_site} to {change.to_site} "
            f"({lag}{estimate}; {ready[change.peer_ready]})"
        )
    if judgement.move == "adopt":
        return f"adopt {document.primary_site}, which is active already"
    return "nothing to do" if judgement.action == "unchanged" else f"change {', '.join(judgement.changed)}"
