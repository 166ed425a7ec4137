"""Who asks, and whether they may: bearer tokens with the roles viewer < operator < admin."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from farshore.agents import Identity
from farshore.api import tokens
from farshore.api.ports import Services
from farshore.settings import is_loopback
from farshore.store.records import TokenRecord, TokenRole
from farshore_schema.errors import Permanent

EMBEDDED: Final = "embedded"
_RANK: Final[dict[TokenRole, int]] = {"agent": 0, "viewer": 1, "operator": 2, "admin": 3}

_bearer = HTTPBearer(
    auto_error=False, description="A token of `farshore token create ROLE`, or the content of admin.token."
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def services(request: Request) -> Services:
    """Return what the app was made with."""
    found: Services = request.app.state.services
    return found


Given = Annotated[Services, Depends(services)]


def require(role: TokenRole) -> Callable[[Given, Bearer], Awaitable[TokenRecord]]:
    """Return the dependency that lets a request pass with at least this role, and says who asks."""

    async def check(given: Given, bearer: Bearer) -> TokenRecord:
        if bearer is None or not bearer.credentials:
            raise Permanent(
                "unauthenticated",
                "the request carries no bearer token",
                hint="set FARSHORE_TOKEN, or FARSHORE_DIR to the directory of `farshore serve`",
            )
        found = tokens.find(given.desk.records, bearer.credentials)
        if found is None:
            raise Permanent(
                "unauthenticated",
                "the bearer token is not known here",
                hint="it may be of another reconciler, or revoked; `farshore token create ROLE` makes a new one",
            )
        if _RANK[found.role] < _RANK[role]:
            raise Permanent(
                "forbidden",
                f"this needs the role {role}; the token has {found.role}",
                hint=f"ask an administrator: `farshore token create {role}`",
            )
        return found

    return check


async def require_off_loopback(request: Request, given: Given, bearer: Bearer) -> None:
    """Let anybody on this machine pass; everybody else needs the role viewer. For probes and metrics."""
    if request.client is None or not is_loopback(request.client.host):
        await require("viewer")(given, bearer)


Viewer = Annotated[TokenRecord, Depends(require("viewer"))]
Operator = Annotated[TokenRecord, Depends(require("operator"))]
Admin = Annotated[TokenRecord, Depends(require("admin"))]
Neighbour = Annotated[None, Depends(require_off_loopback)]


def name_of(caller: TokenRecord) -> str:
    """Return how the audit trail names a caller."""
    return caller.note or f"{caller.role} {caller.id}"


def agent_identity(given: Services, socket: WebSocket) -> Identity | None:
    """Return whose credential opens an agent's socket, None when it is not known."""
    scheme, _, credential = socket.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        return None
    if given.embedded_hash and tokens.hashed(credential) == given.embedded_hash:
        return Identity(EMBEDDED, embedded=True)
    found = tokens.find(given.desk.records, credential)
    if found is None or found.role != "agent":
        return None
    return Identity(found.note or found.id, sites=frozenset(found.sites), credential=tokens.hashed(credential))
