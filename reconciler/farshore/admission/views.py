"""A pair as people see it: the declaration, with the loop's report brought up to the store's newest truth."""

from typing import Final

from farshore.admission.desk import site_of
from farshore.store.records import PairRecord, PairRecords, RoleRecord
from farshore_schema.roles import Verb, peer
from farshore_schema.status import OperationView, PairStatus, PairView, Phase, RoleStatus

NO_REPORT: Final = PairStatus()
_PHASES: Final[dict[Verb, Phase]] = {"switchover": "switching", "failover": "switching", "remove": "removing"}


def pair_view(now: PairRecords) -> PairView:
    """Return the view of an existing pair, by the loop's stored report.

    Role and open operation always come from the store, so that an answer never shows less than was just accepted.
    """
    if now.spec is None:
        raise ValueError("a pair without a declaration has no view")
    return view_of(
        now.spec.value,
        now.role.value if now.role else None,
        now.operation.value if now.operation else None,
        now.status.value if now.status else NO_REPORT,
    )


def view_of(spec: PairRecord, role: RoleRecord | None, operation: OperationView | None, report: PairStatus) -> PairView:
    """Return the view made of its parts."""
    fresh: dict[str, object] = {"role": role_status(spec, role)}
    if operation is not None:
        fresh["operation"] = operation
        fresh["phase"] = _PHASES.get(operation.verb, report.phase) if operation.state == "open" else report.phase
    return PairView(
        document=spec.document,
        generation=spec.generation,
        incarnation=spec.incarnation,
        owner=spec.owner,
        created=spec.created,
        status=report.model_copy(update=fresh),
    )


def role_status(spec: PairRecord, role: RoleRecord | None) -> RoleStatus | None:
    """Return the decision in the words of sites."""
    if role is None:
        return None
    return RoleStatus(
        active_site=site_of(spec.document, role.active),
        standby_site=site_of(spec.document, peer(role.active)),
        active_side=role.active,
        epoch=role.epoch,
        evidence=role.evidence,
        since=role.since,
        by=role.by,
        operation=role.operation,
    )
