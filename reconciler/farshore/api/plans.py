"""The dry run."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import Response
from pydantic import ValidationError

from farshore.admission import NOT_LOOKED, Look, plan_pair
from farshore.api import examples, looking
from farshore.api.access import Given, Viewer, name_of
from farshore.api.answers import answered
from farshore.api.errors import documented, validation_error
from farshore_schema.documents import MySQLPair
from farshore_schema.status import PlanFailure, PlanRequest, PlanResult

router = APIRouter(prefix="/v1/plan", tags=["plan"])


@router.post("", response_model=PlanResult, responses=documented())
async def plan(
    request: Annotated[PlanRequest, Body(openapi_examples=examples.PLANS)], given: Given, caller: Viewer
) -> Response:
    """Say what declaring this document would do: each failure with its field, the role change, warnings.

    Nothing is changed and nothing is refused: what would be refused is in `failures`. The gateways look at the
    endpoints of a new or changed pair; for a viewer they do not, because a look logs in at addresses the caller chose.
    """
    try:
        document = MySQLPair.model_validate(request.document)
    except ValidationError as error:
        return answered(PlanResult(action="create", failures=mistakes(error), summary="refused: the document is wrong"))
    now = given.desk.records.pair(document.name)
    look = NOT_LOOKED
    if request.inspect and looking.is_due(now, document):
        if caller.role == "viewer":
            look = Look(unseen=("the endpoints were not checked: that needs a token with the role operator",))
        else:
            look = await looking.look(given, document, existing=now.role is not None)
    return answered(
        plan_pair(given.desk, document, owner=request.owner, if_epoch=request.if_epoch, by=name_of(caller), look=look)
    )


def mistakes(error: ValidationError) -> tuple[PlanFailure, ...]:
    """Return every mistake of a document as a failure of the plan."""
    found: list[PlanFailure] = []
    for item in error.errors(include_input=False, include_url=False):
        place: dict[str, Any] = {**item, "loc": ("body", "document", *item["loc"])}
        ours = validation_error([place])
        found.append(PlanFailure(code=ours.code, field=ours.field, message=ours.message, hint=ours.hint))
    return tuple(found)
