"""Routes of sites."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from farshore.admission import delete_site, put_site, site_view
from farshore.api import examples
from farshore.api.access import Given, Operator, Viewer
from farshore.api.answers import Listed, answered
from farshore.api.errors import documented
from farshore.api.params import Incarnation, SiteName
from farshore.store import keys
from farshore.store.records import SiteRecord
from farshore_schema.documents import Site
from farshore_schema.errors import Refused
from farshore_schema.status import Deleted, SiteView

router = APIRouter(prefix="/v1/sites", tags=["sites"])


@router.get("", response_model=Listed[SiteView], responses=documented())
async def list_sites(given: Given, _caller: Viewer) -> Response:
    """List every site."""
    items = given.desk.records.store.list(keys.SITES).items
    return answered(
        Listed[SiteView](items=tuple(site_view(given.desk.records.parsed(each, SiteRecord).value) for each in items))
    )


@router.put("/{name}", response_model=SiteView, responses=documented("unsupported_version"))
async def put_one_site(
    name: SiteName,
    document: Annotated[Site, Body(openapi_examples=examples.SITES)],
    given: Given,
    _caller: Operator,
    create: Annotated[bool, Query(description="Adopt an existing site and raise its incarnation (R24).")] = False,
) -> Response:
    """Declare a site. Idempotent."""
    return answered(put_site(given.desk, name, document, create=create))


@router.get("/{name}", response_model=SiteView, responses=documented("not_found"))
async def get_site(name: SiteName, given: Given, _caller: Viewer) -> Response:
    """Return a site."""
    found = given.desk.records.site(name)
    if found is None:
        raise Refused("not_found", f'there is no site "{name}"', hint="declare it first: farshore apply FILE")
    return answered(site_view(found.value))


@router.delete("/{name}", response_model=Deleted, responses=documented("site_in_use"))
async def delete_one_site(name: SiteName, given: Given, _caller: Operator, incarnation: Incarnation = None) -> Response:
    """Forget a site without pairs. A repeat is a success."""
    return answered(Deleted(name=name, deleted=delete_site(given.desk, name, incarnation=incarnation)))
