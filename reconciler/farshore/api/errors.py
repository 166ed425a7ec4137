"""Every refusal leaves the API in one shape: `{"error": {code, message, hint, field, current}}`."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from farshore_schema.errors import TABLE, Bug, ErrorBody, FarshoreError, Permanent, Transient
from farshore_schema.validate import message_of

_CODES: Final[Mapping[int, str]] = {404: "not_found", 405: "invalid_request", 413: "body_too_large"}
_PLACES: Final = frozenset({"body", "query", "path", "header"})
_ALSO_MAX: Final = 50  # further mistakes that one answer names

_log = structlog.get_logger(__name__)


class ErrorAnswer(BaseModel):
    """What every refusal looks like."""

    error: ErrorBody


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that may refuse with these codes, beside those that every route has."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, "unauthenticated", "forbidden", "invalid_request", "body_too_large", "bug", "disk_full"):
        by_status.setdefault(TABLE[code].status, []).append(code)
    return {status: described(*found) for status, found in by_status.items()}


def described(*codes: str) -> dict[str, Any]:
    """Return one OpenAPI response with an example for each code."""
    examples = {
        code: {
            "summary": TABLE[code].meaning,
            "value": {"error": ErrorBody(code=code, message=TABLE[code].meaning).model_dump()},
        }
        for code in codes
    }
    return {
        "model": ErrorAnswer,
        "description": "; ".join(f"`{code}`: {TABLE[code].meaning}" for code in codes),
        "content": {"application/json": {"examples": examples}},
    }


def install(app: FastAPI) -> None:
    """Make the app answer every error in our shape."""
    app.add_exception_handler(FarshoreError, _ours)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def answer(error: FarshoreError, status: int | None = None) -> JSONResponse:
    """Return the answer of an error."""
    headers: dict[str, str] = {}
    if isinstance(error, Transient):
        headers["Retry-After"] = str(max(1, round(error.retry_seconds)))
    if error.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    body = ErrorAnswer(error=error.body()).model_dump(mode="json")
    return JSONResponse(body, status_code=status or error.status, headers=headers)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FarshoreError)  # noqa: S101 (by registration)
    return answer(error)


async def _malformed(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (by registration)
    return answer(validation_error(error.errors()))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 (by registration)
    code = _CODES.get(error.status_code, "invalid_request")
    # A body that is no text is refused by the framework as 400; for us it is one more way to be malformed.
    status = TABLE[code].status if error.status_code == HTTPStatus.BAD_REQUEST else error.status_code
    ours = Permanent(code, str(error.detail) or HTTPStatus(status).phrase, hint="see /openapi.json")
    response = answer(ours, status)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Return every method of the address; a route knows only its own."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
        for method in route.methods or ()
    }


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request broke", path=request.url.path, method=request.method, error=type(error).__name__)
    return answer(Bug(f"the request met an unexpected {type(error).__name__}"))


def validation_error(items: Sequence[Mapping[str, Any]]) -> FarshoreError:
    """Return one error for everything pydantic found: the first mistake, and the others in `current.also`.

    Fields are paths of the document (site_b.admin.password), or of the request around it. Values are never repeated:
    somebody may have put a secret in the wrong place.
    """
    mistakes = [_mistake(item) for item in items[:_ALSO_MAX]]
    first = mistakes[0]
    error = Permanent(first.code, first.message, field=first.field, hint=first.hint)
    if len(mistakes) > 1:
        error.current = {"also": [each._asdict() for each in mistakes[1:]]}
    return error


class _Mistake(NamedTuple):
    code: str
    message: str
    hint: str
    field: str | None


def _mistake(item: Mapping[str, Any]) -> _Mistake:
    place = [str(part) for part in item.get("loc", ())]
    if place and place[0] in _PLACES:
        place = place[1:]
    in_document = place[:1] == ["document"] and (len(place) > 1 or item["type"] == "value_error")
    field = ".".join(place[1:] if in_document else place)  # "": a rule between several fields of the document
    said = message_of(str(item["type"]), field, str(item["msg"]))
    code = "invalid_document" if in_document else "invalid_request"
    hint = "`farshore validate FILE` checks a document; /openapi.json describes the request"
    if field == "version" and item["type"] == "literal_error":
        code, hint = "unsupported_version", "use a version that this release knows, or upgrade the reconciler"
    return _Mistake(code, f"{field}: {said}" if field else said, hint, field or None)
