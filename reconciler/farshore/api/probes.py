"""Role probes for both sites, as a convenience: the ones to route clients by are the gateways' own (I10)."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from farshore.api.access import Given, Neighbour
from farshore.api.errors import documented
from farshore.api.pairs import declared
from farshore.api.params import PairName
from farshore.plan.view import is_fenced, is_open
from farshore_schema.documents import Name
from farshore_schema.errors import Refused
from farshore_schema.roles import Side

SEEN_SECONDS: Final = 1.0  # an older fact does not route clients

Site = Annotated[Name, Query(description="The site that is asked about.", examples=["tokyo"])]

router = APIRouter(tags=["probes"])


@router.get(
    "/primary/{name}", responses={503: {"description": "not active there, or not seen so"}, **documented("not_found")}
)
async def primary(name: PairName, site: Site, given: Given, _caller: Neighbour) -> JSONResponse:
    """Answer 200 when the site is the active one by the decided epoch and was seen writable within the last second."""
    return _answer(given, name, site, "primary")


@router.get(
    "/standby/{name}", responses={503: {"description": "not standby there, or not seen so"}, **documented("not_found")}
)
async def standby(name: PairName, site: Site, given: Given, _caller: Neighbour) -> JSONResponse:
    """Answer 200 when the site is the standby by the decided epoch and was seen fenced within the last second."""
    return _answer(given, name, site, "standby")


def _answer(given: Given, name: str, site: str, wanted: str) -> JSONResponse:
    now = declared(given, name)
    if now.spec is None or site not in (now.spec.value.document.site_a.site, now.spec.value.document.site_b.site):
        raise Refused("not_found", f'pair "{name}" has no endpoint at "{site}"', field="site")
    side: Side = now.spec.value.side_of(site)
    observed = given.desk.observed(name)
    report, age = (observed.a, observed.age_a) if side == "a" else (observed.b, observed.age_b)
    facts = report.facts() if report is not None and age is not None and age <= SEEN_SECONDS else None
    role = now.role.value.role() if now.role else None
    if role is None:
        is_so = False
    elif wanted == "primary":
        is_so = role.active == side and is_open(facts, role)
    else:
        is_so = role.active != side and is_fenced(facts, role)
    body = {"pair": name, "site": site, wanted: is_so, "epoch": role.epoch if role else None}
    return JSONResponse(body, status_code=200 if is_so else 503)
