"""What a DELETE of a pair does: a `remove` operation, carried out by the loop; data is always kept (R20, R24)."""

from collections.abc import Mapping
from typing import Final

from farshore import operations
from farshore.admission import refusals
from farshore.admission.closing import burial, ending
from farshore.admission.desk import Decided, Desk, policy_of, settle, site_of
from farshore.plan import operation_epoch, why_not
from farshore.plan.changes import undo
from farshore.plan.steady import FOLLOWS_BY_ITSELF
from farshore.plan.view import ROLE_CHANGES
from farshore.store import Change, Guard, keys
from farshore.store.records import PairRecord, PairRecords, RoleRecord, decided, put, unchanged
from farshore_schema.errors import ErrorBody, FarshoreError, Refused
from farshore_schema.roles import SIDES, Facts, Side, peer
from farshore_schema.status import OperationView, PairDeleteResult

CLEANUP_SQL: Final = "STOP REPLICA FOR CHANNEL 'farshore'; RESET REPLICA ALL FOR CHANNEL 'farshore'"
"""What ends our part on a standby that no gateway can reach; its data stays, and it stays read-only."""


def delete_pair(
    desk: Desk,
    name: str,
    *,
    by: str,
    incarnation: int | None = None,
    force: bool = False,
    delete_journal: bool = False,
    reason: str = "",
) -> PairDeleteResult:
    """End protection of a pair. A repeat, a pair that is no more and an older incarnation are successes.

    Raises Refused with nothing changed: operation_open, failed_over, site_unreachable (with the SQL to run). `force`
    overrides them: the open operation is ended as aborted, and what cannot be reached is recorded and left as it is.
    """

    def consider() -> tuple[Decided, PairDeleteResult]:
        now = desk.records.pair(name)
        if now.spec is None:
            return Decided((), ()), PairDeleteResult(pair=name, note="there is no such pair; nothing to do")
        spec, role = now.spec.value, now.role.value if now.role else None
        if incarnation is not None and incarnation < spec.incarnation:
            note = f"incarnation {incarnation} was replaced by {spec.incarnation}; protection goes on"
            return Decided((), ()), PairDeleteResult(pair=name, note=note)
        open_operation = now.operation.value if now.operation else None
        if open_operation is not None and open_operation.verb == "remove" and not force:
            return Decided((), ()), PairDeleteResult(pair=name, operation=open_operation.id)
        seen = desk.seen(name)
        if role is None:
            return _never_protected(desk, now, open_operation, by)
        if not force:
            refusal = _refusal(desk, now, spec, role, seen)
            if refusal is not None:
                raise refusal
        operation = operations.birth(
            id=desk.new_operation_id(),
            pair=name,
            verb="remove",
            to=peer(role.active) if role else "b",
            to_site=site_of(spec.document, peer(role.active) if role else "b"),
            epoch=operation_epoch("remove", role.role() if role else None),
            created=desk.clock.now(),
            by=by,
            reason=reason,
            generation=spec.generation,
        ).model_copy(update={"delete_journal": delete_journal, "forced": force})
        guards: list[Guard] = [now.spec.unchanged(), unchanged(keys.role(name), now.role)]
        left = [side for side in SIDES if _cannot_end(seen[side])]
        if force and left:
            return _buried_now(desk, now, spec, operation, left, guards)
        return _asked(desk, now, role, operation, guards)

    return settle(desk, consider)


def _never_protected(
    desk: Desk, now: PairRecords, open_operation: OperationView | None, by: str
) -> tuple[Decided, PairDeleteResult]:
    """Bury a pair without a first decision at once: no agent was ever told anything, so nothing is left anywhere."""
    buried = burial(desk.records, now)
    name = now.spec.value.document.name if now.spec else ""
    guards: list[Guard] = [*buried.guards, unchanged(keys.role(name), None)]
    changes = list(buried.changes)
    guards.append(unchanged(keys.operation(name), now.operation))
    if open_operation is not None:
        error = ErrorBody(code="operation_failed", message=f"the pair was deleted by {by} before it was protected")
        ended = operations.ended(open_operation, outcome="aborted", at=desk.clock.now(), error=error)
        changes.append(put(keys.ended_operation(name, ended.id), ended))
    return Decided(guards, changes), PairDeleteResult(pair=name, note="it was not protected yet; nothing to end")


def is_failed_over(desk: Desk, spec: PairRecord, role: RoleRecord | None) -> bool:
    """Say whether the role is not the declared one, or the old side was not protected again (R20)."""
    if role is None:
        return False
    declared = spec.document.primary_site or spec.document.site_a.site
    return site_of(spec.document, role.active) != declared or not _is_reprotected(desk, spec.document.name, role)


def _is_reprotected(desk: Desk, name: str, role: RoleRecord) -> bool:
    """After a failover the old side follows only once a reprotect of this very role has ended well (R12)."""
    if role.evidence in FOLLOWS_BY_ITSELF:
        return True
    for item in desk.records.store.list(keys.operations(name)).items:
        past = desk.records.parsed(item, OperationView).value
        if past.verb == "reprotect" and past.state == "done" and past.epoch == role.epoch:
            return True
    return False


def _refusal(
    desk: Desk, now: PairRecords, spec: PairRecord, role: RoleRecord | None, seen: Mapping[Side, Facts | None]
) -> FarshoreError | None:
    name = spec.document.name
    if now.operation is not None:
        return refusals.operation_open(now.operation.value)
    if role is None:
        return None
    if is_failed_over(desk, spec, role):
        error = Refused(
            "failed_over",
            f'pair "{name}" is failed over to {site_of(spec.document, role.active)}; deleting it now would leave it so',
            hint=(
                f"adopt the move (primary_site) and protect the other side again (`farshore reprotect {name}`), or go "
                "back; force_destroy deletes it as it is"
            ),
        )
        error.current = refusals.current(now)
        return error
    code = why_not("remove", role.role(), None, seen, policy_of(spec.document))
    if code is None:
        return None
    refused = refusals.not_possible(code, spec, role)
    standby = site_of(spec.document, peer(role.active))
    return Refused(
        refused.code,
        f"{refused.message}, so protection cannot be ended there",
        hint=f"{refused.hint}; or force_destroy, then run at {standby}: {CLEANUP_SQL}",
    )


def _cannot_end(facts: Facts | None) -> bool:
    """A side that is not seen, or whose database is not up, cannot be cleaned up now."""
    return facts is None or (facts.enrolled and facts.db != "up")


def _asked(
    desk: Desk, now: PairRecords, role: RoleRecord, operation: OperationView, guards: list[Guard]
) -> tuple[Decided, PairDeleteResult]:
    """Open the removal; with force, in the place of what was open.

    A role change that is not decided is taken back with it: its source may be fenced already, and is opened again
    before protection ends there.
    """
    changes: list[Change] = []
    if now.operation is not None:
        open_operation = now.operation.value
        if open_operation.verb in ROLE_CHANGES and not operations.is_decided(open_operation, role.role()):
            old_side = undo(role.role(), operations.core(open_operation)).role
            if old_side is not None:
                at, by = desk.clock.now(), operation.by
                taken_back = decided(role, old_side, at=at, by=by, reason=operation.reason, operation=operation.id)
                changes.append(put(keys.role(operation.pair), taken_back))
                operation = operation.model_copy(update={"epoch": old_side.epoch})
        superseded = _superseded(now.operation.value, operation, desk.clock.now())
        closing = ending(desk.records, now.operation, superseded)
        guards += closing.guards
        changes += [change for change in closing.changes if change.key != now.operation.key]
    else:
        guards.append(unchanged(keys.operation(operation.pair), None))
    changes.append(put(keys.operation(operation.pair), operation))
    return Decided(guards, changes), PairDeleteResult(pair=operation.pair, operation=operation.id)


def _buried_now(
    desk: Desk,
    now: PairRecords,
    spec: PairRecord,
    operation: OperationView,
    left: list[Side],
    guards: list[Guard],
) -> tuple[Decided, PairDeleteResult]:
    """Remove the pair from the store at once, and record what was left as it is at the sides out of reach."""
    sites = " and ".join(site_of(spec.document, side) for side in left)
    hint = f"when it answers again, run at the standby: {CLEANUP_SQL}"
    record = ErrorBody(code="site_unreachable", message=f"{sites} could not be reached; left as it is", hint=hint)
    at = desk.clock.now()
    ended = operations.ended(operation, outcome="done", at=at, error=record)
    buried = burial(desk.records, now)
    changes = [*buried.changes, put(keys.ended_operation(ended.pair, ended.id), ended)]
    if now.operation is not None:
        old = _superseded(now.operation.value, operation, at)
        changes.append(put(keys.ended_operation(old.pair, old.id), old))
    result = PairDeleteResult(pair=spec.document.name, note=f"{record.message}; {hint}")
    return Decided((*guards, *buried.guards, unchanged(keys.operation(ended.pair), now.operation)), changes), result


def _superseded(old: OperationView, by: OperationView, at: str) -> OperationView:
    error = ErrorBody(code="operation_failed", message=f"the pair was deleted with force by {by.id}")
    return operations.ended(old, outcome="aborted", at=at, error=error)
