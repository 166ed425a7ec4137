"""The provider's way to the reconciler: short, idempotent HTTP calls over one shared client per process.

Four threads of the Pulumi host serve a whole program (all resources), so nothing here keeps state of a request, and
every call is bounded in time. It knows the API; it knows nothing of Pulumi.
"""

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from farshore_schema import connection
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Transient, from_body

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 3.0
READ_SECONDS = 40.0  # above the longest long-poll we ask for
LONG_POLL_SECONDS = 20.0
ROLES_SECONDS = 5.0
ROLES_PAGE = 1000
CREATE_TRIES = 3  # a connection cut in the middle: repeating an idempotent PUT is safe

_lock = threading.Lock()
_configured: dict[str, str | None] = {"endpoint": None, "token": None}
_client: "httpx.Client | None" = None
_roles: tuple[float, Mapping[str, str | None]] = (float("-inf"), {})


def configure(endpoint: str | None, token: str | None) -> None:
    """Take the stack's configuration; empty values leave the choice to the environment."""
    global _client, _roles
    with _lock:
        new = {"endpoint": endpoint or None, "token": token or None}
        if new != _configured:
            _configured.update(new)
            _client = None
            _roles = (float("-inf"), {})


def _shared() -> "httpx.Client":
    global _client
    with _lock:
        if _client is None:
            import httpx

            at = connection.find(_configured["endpoint"], _configured["token"])
            _client = httpx.Client(
                base_url=at.endpoint,
                headers={"Authorization": f"Bearer {at.token}"},
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                verify=at.ca_file or True,
                trust_env=False,
            )
        return _client


def call(method: str, path: str, *, body: Mapping[str, Any] | None = None, **query: Any) -> dict[str, Any]:
    """Make one API call and return its JSON.

    Raises Transient("reconciler_unreachable") when nothing answers, and the API's own error otherwise.
    """
    import httpx

    params = {key: value for key, value in query.items() if value is not None}
    client = _shared()
    for attempt in range(1, CREATE_TRIES + 1):
        try:
            answer = client.request(method, path, json=body, params=params)
            break
        except httpx.ConnectError as error:
            raise unreachable(client, error) from error
        except httpx.TransportError as error:
            # Every call of ours is idempotent, so a cut connection is simply asked again.
            if attempt == CREATE_TRIES:
                raise unreachable(client, error) from error
            time.sleep(0.1 * attempt)
    if answer.is_success:
        return dict(answer.json()) if answer.content else {}
    raise _error(answer)


def active_sites() -> Mapping[str, str | None]:
    """Return the active site of every pair, at most `ROLES_SECONDS` old: one question for a program of a thousand.

    Raises what `call` raises.
    """
    global _roles
    with _lock:
        asked, found = _roles
        if time.monotonic() - asked < ROLES_SECONDS:
            return found
    fresh: dict[str, str | None] = {}
    after: str | None = ""
    while after is not None:
        page = call("GET", "/v1/roles", limit=ROLES_PAGE, after=after or None)
        fresh |= {item["name"]: item["active_site"] for item in page["items"]}
        after = page["next"]
    with _lock:
        _roles = (time.monotonic(), fresh)
    return fresh


def unreachable(client: "httpx.Client", error: Exception) -> Transient:
    """Say that the reconciler does not answer, and what to do."""
    return Transient(
        "reconciler_unreachable",
        f"the reconciler at {client.base_url} does not answer ({type(error).__name__})",
        hint="start it with `farshore serve`, or set FARSHORE_ENDPOINT to where it runs; then run the command again",
    )


def _error(answer: "httpx.Response") -> FarshoreError:
    try:
        return from_body(ErrorBody.model_validate(answer.json()["error"]))
    except (ValueError, KeyError, TypeError):
        return Permanent("bug", f"the reconciler answered {answer.status_code} without an error document")


def path(kind: str, name: str, *rest: str) -> str:
    """Return the API path of a site or pair."""
    return "/".join(["/v1", kind, quote(name, safe=""), *rest])


def wait_for_operation(pair: str, operation: str, limit_seconds: float) -> dict[str, Any]:
    """Return the operation once it ended; after the limit, return it as it is. Long polls, never a busy wait."""
    deadline = time.monotonic() + limit_seconds
    while True:
        left = deadline - time.monotonic()
        view = call(
            "GET", path("pairs", pair, "operations", operation), wait_seconds=max(0, min(left, LONG_POLL_SECONDS))
        )
        if view["state"] not in ("open", "waiting") or left <= 0:
            return view
