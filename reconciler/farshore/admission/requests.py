"""What a person's request to change roles, or to take such a change back, does to the store."""

from typing import Final

from farshore import operations
from farshore.admission import refusals
from farshore.admission.binding import claim
from farshore.admission.desk import Decided, Desk, policy_of, settle, site_of
from farshore.plan import operation_epoch, why_not
from farshore.plan.view import Seen
from farshore.store import keys
from farshore.store.records import PairRecord, PairRecords, RoleRecord, ServersRecord, put, unchanged
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.roles import SIDES, Consent, Side, peer
from farshore_schema.status import OperationRequest, OperationView

_ELSEWHERE: Final = {"switchover": "already_active", "reprotect": "not_following", "rebind": "not_replaced"}
"""Why a verb is refused for the other site than the one it is about."""


def request_operation(desk: Desk, name: str, request: OperationRequest, *, by: str) -> OperationView:
    """Open a switchover, a reprotect or a rebind, or refuse with the plan's reason and the command that leads on.

    Raises Refused or Conflict with nothing changed: not_found, stale_epoch, operation_open, not_possible_now,
    site_unreachable, server_in_other_pair.
    """

    def consider() -> tuple[Decided, OperationView]:
        now = desk.records.pair(name)
        spec, role = _pair_with_role(name, now)
        if request.if_epoch not in (None, role.epoch):
            raise refusals.stale_epoch(name, request.if_epoch or 0, now)
        to = _target(request, now, role)
        open_operation = now.operation.value if now.operation else None
        if open_operation is not None:
            raise refusals.operation_open(open_operation)
        seen, policy = desk.seen(name), policy_of(spec.document)
        servers = now.servers.value if now.servers else ServersRecord()
        bound = {side: servers.of(side) for side in SIDES}
        alone = request.without_standby
        code = why_not(request.verb, role.role(), None, seen, policy, bound, without_standby=alone)
        if code is not None:
            raise refusals.not_possible(code, spec, role)
        epoch = operation_epoch(request.verb, role.role())
        consent = _consent(request, seen, Consent(to, "", epoch, by))
        if request.verb == "rebind" and consent is not None:
            problem, _, _ = claim(desk.records, name, {to: consent.server})
            if problem is not None:
                raise problem
        operation = operations.birth(
            id=desk.new_operation_id(),
            pair=name,
            verb=request.verb,
            to=to,
            to_site=site_of(spec.document, to),
            epoch=epoch,
            created=desk.clock.now(),
            by=by,
            reason=request.reason,
            consent=consent,
        )
        guards = (
            *((now.spec.unchanged(),) if now.spec else ()),
            unchanged(keys.role(name), now.role),
            unchanged(keys.operation(name), None),
        )
        return Decided(guards, (put(keys.operation(name), operation),)), operation

    return settle(desk, consider)


def abort_operation(desk: Desk, name: str, operation_id: str, *, by: str, reason: str = "") -> OperationView:
    """Ask for an open operation to be undone. Idempotent; the loop undoes it and ends it (R15).

    Raises Refused: not_found; not_possible_now when it has ended, when the store has decided for it, or when it is a
    removal (parts of it cannot be taken back).
    """

    def consider() -> tuple[Decided, OperationView]:
        now = desk.records.pair(name)
        found = now.operation
        if found is None or found.value.id != operation_id:
            raise _not_open(desk, name, operation_id)
        operation = found.value
        if operation.abort:
            return Decided((), ()), operation
        if operation.verb == "remove":
            raise _too_late(operation, "a removal is not taken back", f"farshore describe {name}")
        role = now.role.value.role() if now.role else None
        if operation.verb in ("switchover", "failover") and operations.is_decided(operation, role):
            raise _too_late(
                operation,
                f"{operation.to_site} is decided to be the active site; there is no way back but a switchover",
                f"farshore switchover {name}",
            )
        asked = operations.aborting(operation, f"{by}: {reason}" if reason else by)
        return Decided((found.unchanged(), unchanged(keys.role(name), now.role)), (put(found.key, asked),)), asked

    return settle(desk, consider)


def find_operation(desk: Desk, name: str, operation_id: str) -> OperationView:
    """Return an operation, open or ended; raise Refused("not_found")."""
    current = desk.records.operation(name)
    if current is not None and current.value.id == operation_id:
        return current.value
    ended = desk.records.ended_operation(name, operation_id)
    if ended is None:
        raise Refused("not_found", f'pair "{name}" has no operation {operation_id}', hint=f"farshore describe {name}")
    return ended.value


def _pair_with_role(name: str, now: PairRecords) -> tuple[PairRecord, RoleRecord]:
    if now.spec is None:
        raise not_found(name)
    if now.role is None:
        raise refusals.not_possible("not_decided", now.spec.value, None)
    return now.spec.value, now.role.value


def not_found(name: str) -> FarshoreError:
    """There is no such pair."""
    return Refused("not_found", f'there is no pair "{name}"', hint="`farshore status` lists what exists")


def _consent(request: OperationRequest, seen: Seen, given: Consent) -> Consent | None:
    """Return what a person consents to by asking, for exactly the server that is seen there now.

    A reprotect: a new copy onto it (R9). A rebind: to follow it from now on (R3).
    """
    facts = seen[given.side]
    if request.verb == "switchover" or facts is None:
        return None
    return given._replace(server=facts.server, overwrite=request.verb == "reprotect" or request.without_standby)


def _target(request: OperationRequest, now: PairRecords, role: RoleRecord) -> Side:
    """Return the side the operation is about: the new active side of a switchover, the new standby of a reprotect, the
    active side whose server a rebind takes over."""
    if request.without_standby and request.verb != "rebind":
        raise Refused("invalid_request", "only a rebind can go without the standby", field="without_standby")
    to: Side = role.active if request.verb == "rebind" else peer(role.active)
    if request.to_site is None or now.spec is None:
        return to
    document = now.spec.value.document
    if request.to_site not in (document.site_a.site, document.site_b.site):
        raise Refused(
            "invalid_request",
            f'"{request.to_site}" is neither "{document.site_a.site}" nor "{document.site_b.site}"',
            field="to_site",
        )
    if request.to_site != site_of(document, to):
        code = _ELSEWHERE[request.verb]
        raise refusals.not_possible(code, now.spec.value, role, field="to_site")
    return to


def _not_open(desk: Desk, name: str, operation_id: str) -> FarshoreError:
    ended = find_operation(desk, name, operation_id)
    return _too_late(ended, f"it ended as {ended.state} at {ended.ended}", f"farshore describe {name}")


def _too_late(operation: OperationView, why: str, hint: str) -> FarshoreError:
    error = Refused("not_possible_now", f"{operation.verb} {operation.id} cannot be aborted: {why}", hint=hint)
    error.current = {"operation": operation.id, "state": operation.state}
    return error
