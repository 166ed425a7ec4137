"""Routes of pairs: declare, see, delete, look at both ends."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from farshore.admission import NOT_LOOKED, delete_pair, not_found, pair_view, put_pair, site_of
from farshore.api import examples, looking
from farshore.api.access import Given, Operator, Viewer, name_of
from farshore.api.answers import Listed, answered
from farshore.api.errors import documented
from farshore.api.params import After, Incarnation, Limit, PairName
from farshore.api.ports import Services
from farshore.store.records import PairRecord, PairRecords, RoleRecord
from farshore_schema.observed import Finding, PairObserved
from farshore_schema.status import Findings, PairDeleteResult, PairPut, PairPutResult, PairRole, PairView

PAGE = 100

router = APIRouter(prefix="/v1/pairs", tags=["pairs"])
roles = APIRouter(prefix="/v1/roles", tags=["pairs"])


@router.get("", response_model=Listed[PairView], responses=documented())
async def list_pairs(given: Given, _caller: Viewer, limit: Limit = PAGE, after: After = None) -> Response:
    """List pairs, a page at a time, in an order that stays as it is."""
    page, following = given.desk.records.pairs(after=after or "", limit=limit)
    views = tuple(view(given, now, name) for name, now in page)
    return answered(Listed[PairView](items=views, next=following))


@roles.get("", response_model=Listed[PairRole], responses=documented())
async def list_roles(given: Given, _caller: Viewer, limit: Limit = PAGE, after: After = None) -> Response:
    """List who is active in each pair, and by which declaration: a thousand of them are one small answer."""
    page, following = given.desk.records.roles(after=after or "", limit=limit)
    return answered(Listed[PairRole](items=tuple(_role(spec, role) for spec, role in page), next=following))


@router.put(
    "/{name}",
    response_model=PairPutResult,
    responses=documented(
        "invalid_document", "unsupported_version", "unknown_site", "owned_elsewhere", "identity_change",
        "stale_generation", "stale_epoch", "role_moved", "operation_open", "not_possible_now", "site_unreachable",
        "server_in_other_pair", "same_server", "target_has_data", "access_denied", "unreachable", "timeout",
    ),
)  # fmt: skip
async def put_one_pair(
    name: PairName,
    request: Annotated[PairPut, Body(openapi_examples=examples.PAIRS)],
    given: Given,
    caller: Operator,
) -> Response:
    """Declare a pair. Idempotent; a changed `primary_site` causes exactly one planned switchover.

    `operation` in the answer is the one that this declaration asked for: the first copy of a new pair, or the
    switchover. 409 carries the present truth in `error.current`.
    """
    now = given.desk.records.pair(name)
    look = NOT_LOOKED
    if looking.is_due(now, request.document):
        look = await looking.look(given, request.document, existing=now.role is not None)
    result = put_pair(given.desk, name, request, by=name_of(caller), look=look)
    return answered(result)


@router.get("/{name}", response_model=PairView, responses=documented("not_found"))
async def get_pair(name: PairName, given: Given, _caller: Viewer) -> Response:
    """Return a pair: what was declared, and what is."""
    return answered(view(given, declared(given, name), name))


@router.delete(
    "/{name}",
    response_model=PairDeleteResult,
    responses=documented("operation_open", "failed_over", "site_unreachable", "not_possible_now"),
)
async def delete_one_pair(
    name: PairName,
    given: Given,
    caller: Operator,
    incarnation: Incarnation = None,
    force: Annotated[
        bool, Query(description="Also while failed over, an operation is open or a side is away.")
    ] = False,
    delete_journal: Annotated[bool, Query(description="Drop the journal too, and every recovery point in it.")] = False,
) -> Response:
    """End protection; both databases are kept. A repeat, and an older incarnation, are successes."""
    return answered(
        delete_pair(
            given.desk, name, by=name_of(caller), incarnation=incarnation, force=force, delete_journal=delete_journal
        )
    )


@router.get("/{name}/observed", response_model=PairObserved, responses=documented("not_found"))
async def get_observed(name: PairName, given: Given, _caller: Viewer) -> Response:
    """Return the newest facts of both sides with their age in seconds; null is unknown, never good."""
    declared(given, name)
    return answered(given.desk.observed(name))


@router.post("/{name}/doctor", response_model=Findings, responses=documented("not_found"))
async def examine(name: PairName, given: Given, _caller: Viewer) -> Response:
    """Look at both ends now and say what to run to mend each finding. Changes nothing."""
    now = declared(given, name)
    if now.spec is None:
        raise not_found(name)
    look = await looking.look(given, now.spec.value.document, existing=now.role is not None)
    unseen = tuple(
        Finding(code="agent_unreachable", severity="warning", message=told, hint="farshore agents list")
        for told in look.unseen
    )
    return answered(Findings(findings=(*unseen, *look.findings), servers=dict(look.servers)))


def declared(given: Services, name: str) -> PairRecords:
    """Return the records of a pair; raise Refused("not_found")."""
    now = given.desk.records.pair(name)
    if now.spec is None:
        raise not_found(name)
    return now


def _role(spec: PairRecord, role: RoleRecord | None) -> PairRole:
    return PairRole(
        name=spec.document.name,
        generation=spec.generation,
        incarnation=spec.incarnation,
        active_site=site_of(spec.document, role.active) if role is not None else None,
        epoch=role.epoch if role is not None else None,
    )


def view(given: Services, now: PairRecords, name: str) -> PairView:
    """Return the view of a pair with its present measurements."""
    stored = pair_view(now)
    return stored.model_copy(update={"status": given.live(name, stored.status)})
