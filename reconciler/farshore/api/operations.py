"""Routes of operations: ask, follow, take back."""

from collections.abc import Iterator
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from farshore.admission import abort_operation, find_operation, request_operation
from farshore.api import examples
from farshore.api.access import Given, Operator, Viewer, name_of
from farshore.api.answers import Listed, answered
from farshore.api.errors import documented
from farshore.api.pairs import declared
from farshore.api.params import OperationId, PairName
from farshore.api.ports import Services
from farshore.api.waiting import waiting
from farshore.store import keys
from farshore_schema.status import AbortRequest, OperationRequest, OperationView

NEWEST = 50
LOOK_SECONDS = 1.0  # a long poll looks again at least this often, for a shutdown that begins meanwhile

router = APIRouter(prefix="/v1/pairs/{name}/operations", tags=["operations"])


@router.get("", response_model=Listed[OperationView], responses=documented("not_found"))
async def list_operations(
    name: PairName,
    given: Given,
    _caller: Viewer,
    limit: Annotated[int, Query(ge=1, le=200, description="How many of the newest.")] = NEWEST,
) -> Response:
    """List the operations of a pair, newest first: the audit trail. It outlives the pair."""
    found = list(_newest_first(given, name))
    return answered(Listed[OperationView](items=tuple(found[:limit])))


@router.post(
    "",
    response_model=OperationView,
    responses=documented(
        "not_found", "stale_epoch", "operation_open", "not_possible_now", "site_unreachable", "timeout"
    ),
)
async def request(
    name: PairName,
    request: Annotated[OperationRequest, Body(openapi_examples=examples.OPERATIONS)],
    given: Given,
    caller: Operator,
) -> Response:
    """Ask for a planned switchover (no transaction is lost, or it is refused), a reprotect or a rebind."""
    return answered(request_operation(given.desk, name, request, by=name_of(caller)))


@router.get("/{id}", response_model=OperationView, responses=documented("not_found"))
async def get_operation(
    name: PairName,
    id: OperationId,
    given: Given,
    _caller: Viewer,
    wait_seconds: Annotated[
        float, Query(ge=0, le=30, description="Wait so long for the operation to end, or to go beyond `after_step`.")
    ] = 0,
    after_step: Annotated[int | None, Query(ge=0, le=1000, description="The step that the caller knows.")] = None,
) -> Response:
    """Return an operation with every step it took; with `wait_seconds`, once it ended or went on."""
    return answered(await _awaited(given, name, id, min(wait_seconds, given.settings.wait_seconds_max), after_step))


@router.post(
    "/{id}/abort", response_model=OperationView, responses=documented("not_found", "not_possible_now", "timeout")
)
async def abort(
    name: PairName,
    id: OperationId,
    given: Given,
    caller: Operator,
    request: Annotated[AbortRequest | None, Body()] = None,
) -> Response:
    """Ask for an open operation to be undone. Idempotent; refused once the new active side is decided."""
    reason = request.reason if request is not None else ""
    return answered(abort_operation(given.desk, name, id, by=name_of(caller), reason=reason))


def _newest_first(given: Services, name: str) -> Iterator[OperationView]:
    current = given.desk.records.operation(name)
    if current is not None:
        yield current.value
    ended = given.desk.records.store.list(keys.operations(name)).items
    if current is None and not ended:
        declared(given, name)  # a pair that never was has no trail
    for item in reversed(ended):
        yield given.desk.records.parsed(item, OperationView).value


async def _awaited(given: Services, name: str, id: str, seconds: float, after_step: int | None) -> OperationView:
    deadline = monotonic() + seconds
    store = given.desk.records.store
    with waiting(store, keys.pair(name), store.list(keys.pair(name), limit=1).rev) as waiter:
        while True:
            found = find_operation(given.desk, name, id)
            left = deadline - monotonic()
            went_on = after_step is not None and found.step != after_step
            if not found.is_open or went_on or left <= 0 or given.ending.begun:
                return found
            await waiter.wait(min(left, LOOK_SECONDS))
