"""Routes of bearer tokens."""

from typing import Annotated

from fastapi import APIRouter, Body, Path
from fastapi.responses import Response

from farshore.api import examples, tokens
from farshore.api.access import Admin, Given, Viewer, name_of
from farshore.api.answers import Listed, answered
from farshore.api.errors import documented
from farshore.store.records import TokenRecord
from farshore_schema.access import Revoked, TokenMade, TokenRequest, TokenView

router = APIRouter(prefix="/v1", tags=["access"])


@router.post("/tokens", response_model=TokenMade, responses=documented())
async def create_token(
    request: Annotated[TokenRequest, Body(openapi_examples=examples.TOKENS)], given: Given, caller: Admin
) -> Response:
    """Make a token. It is shown this once; only its hash is kept."""
    made = tokens.create(given.desk.records, given.desk.clock, request.role, note=request.note, by=name_of(caller))
    return answered(TokenMade(token=made.token, **shown(made.record).model_dump()))


@router.get("/tokens", response_model=Listed[TokenView], responses=documented())
async def list_tokens(given: Given, _caller: Admin) -> Response:
    """List tokens by id; their secrets cannot be shown again."""
    found = tuple(shown(each.value) for each in tokens.every(given.desk.records))
    return answered(Listed[TokenView](items=found))


@router.delete("/tokens/{id}", response_model=Revoked, responses=documented("not_found"))
async def revoke_token(id: Annotated[str, Path(pattern="^[0-9a-f]{12}$")], given: Given, _caller: Admin) -> Response:
    """Make a token useless at once."""
    tokens.revoke(given.desk.records, id)
    return answered(Revoked(revoked=id))


@router.get("/whoami", response_model=TokenView, responses=documented())
async def whoami(_given: Given, caller: Viewer) -> Response:
    """Return who asks, by the token of this request."""
    return answered(shown(caller))


def shown(record: TokenRecord) -> TokenView:
    """Return a token's record as people see it."""
    return TokenView(
        id=record.id, role=record.role, note=record.note, sites=record.sites, created=record.created, by=record.by
    )
