"""The report on a pair, from facts alone: pure, and read back by nobody to decide anything.

Numbers that only inform (lag, backlog, seed progress) are not part of the stored report: samples never enter the store.
`overlay` lays the present ones over it when it is read. Unknown facts are reported as Unknown.
"""

from typing import Final

from farshore.conditions import conditions
from farshore.orders import Answer
from farshore.plan import Policy, Reason, explain, why_not
from farshore.plan.view import Seen, is_open
from farshore.store.records import PairRecord
from farshore.told import Told
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import Finding, PairObserved
from farshore_schema.roles import Operation, Role, Side, Verb, peer
from farshore_schema.status import (
    AllowedOperation,
    PairStatus,
    Phase,
    ReplicationStatus,
    RoleStatus,
)

FINDINGS_MAX: Final = 50
VERBS: Final[tuple[Verb, ...]] = ("switchover", "failover", "reprotect", "rebind", "remove")


def report(told: Told, *, before: PairStatus | None, now: str, policy: Policy) -> PairStatus:
    """Return the report; what did not change keeps its `since` and the last ended operation stays in view."""
    role = told.role.role() if told.role else None
    seen = told.seen()
    last = told.operation or (before.operation if before else None)
    if told.operation is not None and not told.operation.is_open:
        told = told._replace(operation=None)
    return PairStatus(
        role=_role(told),
        replication=_replication(told, role, before, now),
        operation=last,
        conditions=conditions(told, role, seen, before.conditions if before else (), now),
        allowed_operations=_allowed(told, role, seen, policy),
        findings=_findings(told, role),
        observed_generation=told.spec.generation,
        phase=_phase(told, role, seen),
    )


def overlay(status: PairStatus, observed: PairObserved) -> PairStatus:
    """Return the report with the present measurements and their age. Without a fresh report they are None: unknown."""
    if status.role is None:
        return status
    side = peer(status.role.active_side)
    standby, age = (observed.a, observed.age_a) if side == "a" else (observed.b, observed.age_b)
    if standby is None:
        return status
    stream = standby.stream
    measured = {
        "lag_seconds": stream.lag_seconds,
        "behind_transactions": stream.behind_transactions,
        "backlog_seconds": stream.backlog_seconds,
        "journal_bytes": stream.journal_bytes,
        "measured_age_seconds": None if age is None else round(age, 1),
        "seed": standby.seed,
    }
    return status.model_copy(update={"replication": status.replication.model_copy(update=measured)})


def _role(told: Told) -> RoleStatus | None:
    if told.role is None:
        return None
    active = told.role.active
    return RoleStatus(
        active_site=told.spec.site_of(active),
        standby_site=told.spec.site_of(peer(active)),
        active_side=active,
        epoch=told.role.epoch,
        evidence=told.role.evidence,
        since=told.role.since,
        by=told.role.by,
        operation=told.role.operation,
    )


def _replication(told: Told, role: Role | None, before: PairStatus | None, now: str) -> ReplicationStatus:
    old = before.replication if before else None
    same = old is not None and old.rpo_class == told.rpo_class
    standby = told.side(peer(role.active)) if role is not None else None
    how = ""
    if role is not None and told.rpo_class in ("catching_up", "async"):
        active, other = told.spec.site_of(role.active), told.spec.site_of(peer(role.active))
        how = (
            f"lag: from the commit at {active} to the end of its apply at {other}, of the newest applied transaction; "
            f"time to fail over now: what {other} received and has not applied, at its measured apply rate"
        )
    return ReplicationStatus(
        rpo_class=told.rpo_class,
        since=old.since if same and old is not None else now,
        how=how,
        stopped=standby.stopped_error if standby is not None and standby.stopped else None,
    )


def _allowed(told: Told, role: Role | None, seen: Seen, policy: Policy) -> tuple[AllowedOperation, ...]:
    open_operation = None
    if told.operation is not None:
        open_operation = Operation(told.operation.id, told.operation.verb, told.operation.to, told.operation.epoch)
    active = "" if role is None else told.spec.site_of(role.active)
    target = "" if role is None else told.spec.site_of(peer(role.active))
    allowed = []
    for verb in VERBS:
        code = why_not(verb, role, open_operation, seen, policy, told.bound())
        sentence = None if code is None else f"{code}: {explained(told.spec, role, code).sentence}"
        site = {"remove": "", "rebind": active}.get(verb, target)
        allowed.append(AllowedOperation(verb=verb, to_site=site, allowed=code is None, why_not=sentence))
    return tuple(allowed)


def explained(spec: PairRecord, role: Role | None, code: str) -> Reason:
    """Return a reason with this pair's names filled in."""
    active: Side = role.active if role is not None else "a"
    return explain(code, pair=spec.document.name, active=spec.site_of(active), standby=spec.site_of(peer(active)))


def _findings(told: Told, role: Role | None) -> tuple[Finding, ...]:
    found = [] if told.problem is None else [told.problem]
    if role is not None:
        standby = told.side(peer(role.active))
        if standby is not None and standby.writable and standby.fenced_epoch > standby.promoted_epoch:
            site = told.spec.site_of(peer(role.active))
            found.append(
                Finding(
                    code="fence_violated",
                    severity="error",
                    message=f"{site} was fenced and was found writable; it is being fenced again",
                    hint=f"find out who opened {site}; what was committed there meanwhile is not at the other site",
                    side=peer(role.active),
                )
            )
    if told.failing is not None and told.failing.error is not None:
        found.append(_finding_of(told.failing, told.failing.error, told.spec))
    for side, each in (("a", told.a), ("b", told.b)):
        if each is not None:
            found += [f if f.side else f.model_copy(update={"side": side}) for f in each.findings]
    return tuple(found[:FINDINGS_MAX])


def _finding_of(answer: Answer, error: ErrorBody, spec: PairRecord) -> Finding:
    return Finding(
        code=error.code,
        severity="error" if answer.permanent else "warning",
        message=f"{answer.step} at {spec.site_of(answer.side)} fails: {error.message}",
        hint=error.hint,
        field=error.field,
        side=answer.side,
    )


def _phase(told: Told, role: Role | None, seen: Seen) -> Phase:
    operation = told.operation
    if operation is not None and operation.verb == "remove":
        return "removing"
    if operation is not None and operation.state == "waiting":
        return "waiting"
    if operation is not None and operation.verb in ("switchover", "failover"):
        return "switching"
    if role is None:
        return "accepted"
    return _steady_phase(told, role, seen)


def _steady_phase(told: Told, role: Role, seen: Seen) -> Phase:
    active, standby = seen[role.active], seen[peer(role.active)]
    if told.rpo_class == "seeding":
        return "seeding"
    if active is None or standby is None:
        return "unknown"
    if standby.stopped or told.problem is not None:
        return "stopped"
    if told.rpo_class == "catching_up":
        return "catching_up"
    if told.operation is not None:
        return "seeding" if standby.base != "complete" else "catching_up"
    if told.rpo_class in ("async", "zero", "degraded") and is_open(active, role):
        return "protected"
    return "unknown" if "unknown" in (active.db, standby.db) else "stopped"
