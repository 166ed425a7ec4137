"""What a PUT of a pair does: one guarded transaction that accepts the declaration and at most one operation.

`judge` looks at everything and changes nothing; the dry run shows its judgement, `put_pair` commits it. So a preview
and the request after it can only differ when the world moved in between.
"""

from dataclasses import dataclass, field
from typing import Literal

from farshore import operations
from farshore.admission import looks, moves, refusals
from farshore.admission.binding import claim
from farshore.admission.closing import counting
from farshore.admission.desk import Decided, Desk, first, policy_of, preferred_side, settle, site_of
from farshore.admission.endpoints import changed_paths, identity_changes
from farshore.admission.looks import NOT_LOOKED, Look
from farshore.admission.views import view_of
from farshore.plan import operation_epoch, why_not
from farshore.store import Change, Delete, Guard, keys, mod_rev
from farshore.store.records import PairRecord, PairRecords, ServersRecord, Undo, put, unchanged
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import Bug, FarshoreError, Refused
from farshore_schema.roles import Consent, Side, next_even, peer
from farshore_schema.status import OperationView, Owner, PairPut, PairPutResult, PairStatus

Action = Literal["create", "update", "unchanged"]


@dataclass(kw_only=True)
class Judgement:
    """What a PUT would do, and every reason why it would not. Filled step by step by `judge`, then only read."""

    now: PairRecords
    action: Action
    changed: tuple[str, ...] = ()
    failures: list[FarshoreError] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    move: moves.Move = "stay"
    spec: PairRecord | None = None  # valid when there are no failures
    operation: OperationView | None = None  # the one that the PUT creates
    caused: str | None = None  # id of the operation that it creates, or of the switchover that it asked for before
    guards: list[Guard] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def put_pair(desk: Desk, name: str, request: PairPut, *, by: str, look: Look = NOT_LOOKED) -> PairPutResult:
    """Accept a declaration. Idempotent: the same document again changes nothing and names the same operation.

    Raises Refused or Conflict with nothing changed; further reasons travel in the error's `current.also`.
    """

    def consider() -> tuple[Decided, PairPutResult]:
        judgement = judge(desk, name, request, by=by, look=look)
        first(judgement.failures)
        if judgement.spec is None:
            raise Bug(f"the declaration of {name} was neither accepted nor refused")
        role = judgement.now.role.value if judgement.now.role else None
        operation = judgement.operation or (judgement.now.operation.value if judgement.now.operation else None)
        report = judgement.now.status.value if judgement.now.status else PairStatus()
        view = view_of(judgement.spec, role, operation, report)
        return Decided(judgement.guards, judgement.changes), PairPutResult(view=view, operation=judgement.caused)

    return settle(desk, consider)


def judge(desk: Desk, name: str, request: PairPut, *, by: str, look: Look = NOT_LOOKED) -> Judgement:
    """Return what the PUT would do now."""
    now = desk.records.pair(name)
    if now.spec is None:
        judgement = Judgement(now=now, action="create")
        _name_and_sites(desk, judgement, name, request.document)
        _birth(desk, judgement, request, by, look)
        return judgement
    old = now.spec.value.document
    changed = changed_paths(old, request.document)
    judgement = Judgement(now=now, action="update" if changed else "unchanged", changed=changed)
    if now.operation is not None and now.operation.value.verb == "remove":
        judgement.failures.append(refusals.operation_open(now.operation.value))
        return judgement
    if now.spec.value.owner not in (Owner(), request.owner):
        judgement.failures.append(refusals.owned_elsewhere(name, now.spec.value.owner))
        return judgement
    _name_and_sites(desk, judgement, name, request.document)
    _change(desk, judgement, now.spec.value, request, by, look)
    return judgement


def _name_and_sites(desk: Desk, judgement: Judgement, name: str, document: MySQLPair) -> None:
    if document.name != name:
        judgement.failures.append(
            Refused("invalid_request", f'the document names "{document.name}", the address "{name}"', field="name")
        )
    for path, site in (("site_a.site", document.site_a.site), ("site_b.site", document.site_b.site)):
        found = desk.records.site(site)
        if found is None:
            judgement.failures.append(
                Refused(
                    "unknown_site",
                    f'there is no site "{site}"',
                    hint="declare it first (`farshore apply FILE`), or correct the name",
                    field=path,
                )
            )
        else:
            judgement.guards.append(mod_rev(found.key, found.mod_rev))


def _birth(desk: Desk, judgement: Judgement, request: PairPut, by: str, look: Look) -> None:
    """A new pair: its first record, and the operation that protects it."""
    document, name = request.document, request.document.name
    judgement.failures += looks.failures(document, look, new=True, changed=())
    judgement.warnings = looks.warnings(look, new=True, changed=())
    if request.if_generation:
        judgement.failures.insert(0, refusals.stale_generation(name, request.if_generation, judgement.now))
    grave = desk.records.grave(name)
    judgement.guards += [unchanged(keys.spec(name), None), unchanged(keys.grave(name), grave)]
    _bind(desk, judgement, name, ServersRecord(), look)
    judgement.spec = PairRecord(
        document=document,
        generation=1,
        incarnation=(grave.value.incarnation if grave else 0) + 1,
        owner=request.owner,
        created=desk.clock.now(),
    )
    counted = counting(desk.records, (document.site_a.site, document.site_b.site), by=1)
    judgement.guards += counted.guards
    judgement.changes += [*counted.changes, put(keys.spec(name), judgement.spec)]
    epoch = next_even(grave.value.epoch if grave else 0)
    server = look.servers.get(peer(preferred_side(document)), "")
    _ask(judgement, _protect(desk, request, by=by, server=server, epoch=epoch, generation=1))


def _change(desk: Desk, judgement: Judgement, old: PairRecord, request: PairPut, by: str, look: Look) -> None:
    """An existing pair: what the declaration changes, what it asks for, and whether both may be."""
    now, document = judgement.now, request.document
    bound = now.servers.value if now.servers else ServersRecord()
    decided = now.role is not None
    if judgement.changed and request.if_generation not in (None, old.generation):
        judgement.failures.append(refusals.stale_generation(document.name, request.if_generation or 0, now))
    judgement.failures += identity_changes(old.document, document, bound, look, decided=decided)
    judgement.failures += looks.failures(document, look, new=not decided, changed=judgement.changed)
    judgement.warnings = looks.warnings(look, new=not decided, changed=judgement.changed)
    _roles(desk, judgement, old, request, by, look)
    _bind(desk, judgement, document.name, bound, look)
    judgement.spec = _next_spec(judgement, old, request)
    if now.spec is not None:
        judgement.guards += [now.spec.unchanged(), unchanged(keys.role(document.name), now.role)]
        if judgement.spec != old:
            judgement.changes.append(put(now.spec.key, judgement.spec))


def _roles(desk: Desk, judgement: Judgement, old: PairRecord, request: PairPut, by: str, look: Look) -> None:
    now, document = judgement.now, request.document
    open_operation = now.operation.value if now.operation else None
    judgement.caused = _asked_before(old, open_operation)
    if open_operation is not None and document.primary_site != old.document.primary_site:
        judgement.failures.append(refusals.operation_open(open_operation, field="primary_site"))
        return
    if now.role is None:
        _undecided(desk, judgement, old, request, by, look)
        return
    role = now.role.value
    wish = moves.Wish(
        declared=document.primary_site,
        before=old.document.primary_site,
        acknowledged=document.acknowledge_epoch,
        active=site_of(document, role.active),
        epoch=role.epoch,
    )
    judgement.move = moves.wanted(wish)
    if open_operation is not None and judgement.caused == open_operation.id:
        judgement.move = "stay"  # what it asks for is under way
    if judgement.move == "moved_elsewhere":
        judgement.failures.append(refusals.role_moved(old, role, now))
        return
    if judgement.move != "switchover":
        return
    knows = request.if_epoch is None or role.knows(request.if_epoch) or document.acknowledge_epoch == role.epoch
    if not knows:
        judgement.failures.append(refusals.stale_epoch(document.name, request.if_epoch or 0, now))
        return
    _switchover(desk, judgement, old, request, by)


def _switchover(desk: Desk, judgement: Judgement, old: PairRecord, request: PairPut, by: str) -> None:
    """The declared, planned change of roles: lossless or refused now."""
    now, document = judgement.now, request.document
    role = now.role.value if now.role else None
    open_operation = operations.core(now.operation.value) if now.operation else None
    seen = desk.seen(document.name)
    refused = why_not("switchover", role.role() if role else None, open_operation, seen, policy_of(document))
    if refused is not None and now.operation is not None and refused == "operation_open":
        judgement.failures.append(refusals.operation_open(now.operation.value, field="primary_site"))
    elif refused is not None:
        judgement.failures.append(refusals.not_possible(refused, old, role, field="primary_site"))
    to: Side = "a" if document.primary_site == document.site_a.site else "b"
    _ask(
        judgement,
        operations.birth(
            id=desk.new_operation_id(),
            pair=document.name,
            verb="switchover",
            to=to,
            to_site=site_of(document, to),
            epoch=operation_epoch("switchover", role.role() if role else None),
            created=desk.clock.now(),
            by=by,
            reason=request.reason,
            generation=old.generation + 1,
        ),
    )


def _undecided(desk: Desk, judgement: Judgement, old: PairRecord, request: PairPut, by: str, look: Look) -> None:
    """A pair whose first role was never decided: its protection is asked for again, or its consent corrected."""
    now, document = judgement.now, request.document
    if now.operation is None:
        target = peer(preferred_side(document))
        server = look.servers.get(target) or (now.servers.value.of(target) if now.servers else None) or ""
        grave = desk.records.grave(document.name)
        epoch = next_even(grave.value.epoch if grave else 0)
        _ask(
            judgement,
            _protect(desk, request, by=by, server=server, epoch=epoch, generation=old.generation + 1),
        )
        return
    operation, consent = now.operation.value, now.operation.value.consent
    overwrite = document.on_existing_data == "overwrite"
    if operation.verb == "protect" and consent is not None and consent.overwrite != overwrite:
        judgement.guards.append(now.operation.unchanged())
        corrected = operation.model_copy(update={"consent": consent._replace(overwrite=overwrite, by=by)})
        judgement.changes.append(put(now.operation.key, corrected))


def _protect(desk: Desk, request: PairPut, *, by: str, server: str, epoch: int, generation: int) -> OperationView:
    """The first copy, with its consent: for the server seen now, or ("") for the first one that will be seen (R9)."""
    document = request.document
    target = peer(preferred_side(document))
    overwrite = document.on_existing_data == "overwrite"
    return operations.birth(
        id=desk.new_operation_id(),
        pair=document.name,
        verb="protect",
        to=target,
        to_site=site_of(document, target),
        epoch=epoch,
        created=desk.clock.now(),
        by=by,
        reason=request.reason,
        generation=generation,
        consent=Consent(target, server, epoch, by, overwrite),
    )


def _ask(judgement: Judgement, operation: OperationView) -> None:
    key = keys.operation(operation.pair)
    judgement.operation, judgement.caused = operation, operation.id
    judgement.guards.append(unchanged(key, None))
    judgement.changes.append(put(key, operation))


def _asked_before(old: PairRecord, operation: OperationView | None) -> str | None:
    """Return the open switchover that the present declaration asked for: a repeated PUT names it again."""
    asked = operation is not None and old.undo is not None and old.undo.operation == operation.id
    return operation.id if asked and operation else None


def _bind(desk: Desk, judgement: Judgement, name: str, bound: ServersRecord, look: Look) -> None:
    """Bind the endpoints to the servers seen now: where none was bound, or another one before the first decision."""
    undecided = judgement.now.role is None
    fresh: dict[Side, str] = {
        side: uuid
        for side, uuid in look.servers.items()
        if uuid and uuid != bound.of(side) and (undecided or bound.of(side) is None)
    }
    if not fresh or any(error.code == "same_server" for error in judgement.failures):
        return
    problem, guards, changes = claim(desk.records, name, fresh)
    if problem is not None:
        judgement.failures.append(problem)
        return
    released = [Delete(keys.server(old)) for side in fresh if (old := bound.of(side)) is not None]
    judgement.guards += [*guards, unchanged(keys.pair_servers(name), judgement.now.servers)]
    now_bound = ServersRecord(a=fresh.get("a", bound.a), b=fresh.get("b", bound.b))
    judgement.changes += [*changes, *released, put(keys.pair_servers(name), now_bound)]


def _next_spec(judgement: Judgement, old: PairRecord, request: PairPut) -> PairRecord:
    asked = judgement.operation
    undo = old.undo
    if asked is not None and asked.verb == "switchover":
        undo = Undo(
            operation=asked.id,
            primary_site=old.document.primary_site,
            acknowledge_epoch=old.document.acknowledge_epoch,
        )
    bumped = bool(judgement.changed) or asked is not None
    return old.model_copy(
        update={
            "document": request.document,
            "generation": old.generation + 1 if bumped else old.generation,
            "incarnation": old.incarnation + 1 if request.create else old.incarnation,
            "owner": request.owner if request.owner != Owner() else old.owner,
            "undo": undo,
        }
    )
