"""Routes of the service itself: health, metrics, its own description."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from farshore.api.access import Given, Neighbour, Viewer
from farshore.api.errors import documented
from farshore.api.metrics import CONTENT_TYPE
from farshore_schema import __version__

router = APIRouter(tags=["service"])


@router.get("/healthz", responses=documented("store_failed"))
async def healthz(given: Given) -> dict[str, Any]:
    """Answer 200 while the reconciler serves and its store can be read. Needs no token."""
    revision = given.desk.records.store.list("/settings/", limit=1).rev
    return {"status": "ok", "version": __version__, "revision": revision}


@router.get("/metrics", response_class=Response, responses=documented())
async def metrics(given: Given, _caller: Neighbour) -> Response:
    """Return everything Prometheus reads. Needs no token from this machine."""
    return Response(await given.metrics.scrape(), media_type=CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request, _caller: Viewer) -> JSONResponse:
    """Return this API's OpenAPI description."""
    return JSONResponse(request.app.openapi())
