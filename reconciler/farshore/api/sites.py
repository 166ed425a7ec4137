"""Routes of sites."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import Response

from farshore.admission import delete_site, put_site, site_view
from farshore.api import examples
from farshore.api.access import Given, Operator, Viewer
from farshore.api.answers import Listed, answered
from farshore.api.errors import documented
from farshore.store import LIST_MAX, keys
from farshore.store.records import SiteRecord
from farshore_schema.documents import NAME_PATTERN, Site
from farshore_schema.errors import Refused
from farshore_schema.status import Deleted, SiteView

router = APIRouter(prefix="/v1/sites", tags=["sites"])
Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["tokyo"])]


@router.get("", response_model=Listed[SiteView], responses=documented())
async def list_sites(given: Given, _caller: Viewer) -> Response:
    """List every site."""
    items = given.desk.records.store.list(keys.SITES, limit=LIST_MAX).items
    views = tuple(site_view(given.desk.records.parsed(item, SiteRecord).value) for item in items)
    return answered(Listed[SiteView](items=views))


@router.put("/{name}", response_model=SiteView, responses=documented("invalid_document", "unsupported_version"))
async def put(
    name: Name,
    document: Annotated[Site, Body(openapi_examples=examples.SITES)],
    given: Given,
    _caller: Operator,
    create: Annotated[bool, Query(description="Adopt an existing site and raise its incarnation.")] = False,
) -> Response:
    """Declare a site. Idempotent."""
    view = put_site(given.desk, name, document, create=create)
    given.agents.sites_changed()
    return answered(view)


@router.get("/{name}", response_model=SiteView, responses=documented("not_found"))
async def get(name: Name, given: Given, _caller: Viewer) -> Response:
    """Return a site."""
    found = given.desk.records.site(name)
    if found is None:
        raise Refused("not_found", f'there is no site "{name}"', hint="declare it first")
    return answered(site_view(found.value))


@router.delete("/{name}", response_model=Deleted, responses=documented("site_in_use"))
async def delete(
    name: Name,
    given: Given,
    _caller: Operator,
    incarnation: Annotated[int | None, Query(ge=1, le=2**31, description="Only if it is not a newer one.")] = None,
) -> Response:
    """Forget a site without pairs. A repeat is a success."""
    deleted = delete_site(given.desk, name, incarnation=incarnation)
    if deleted:
        given.agents.sites_changed()
    return answered(Deleted(name=name, deleted=deleted))
