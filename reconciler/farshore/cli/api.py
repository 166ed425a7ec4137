"""The command line's HTTP client: one request, one answer, errors as ours."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from farshore_schema import connection
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Transient, from_body

CONNECT_SECONDS = 3.0
READ_SECONDS = 45.0


@contextmanager
def _session(read_seconds: float | None = READ_SECONDS) -> Iterator[httpx.Client]:
    at = connection.find()
    client = httpx.Client(
        base_url=at.endpoint,
        headers={"Authorization": f"Bearer {at.token}"},
        timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
        verify=at.ca_file or True,
        trust_env=False,
    )
    try:
        with client:
            yield client
    except httpx.TransportError as error:
        raise Transient(
            "reconciler_unreachable",
            f"the reconciler at {at.endpoint} does not answer ({type(error).__name__})",
            hint="start it with `farshore serve`, or set FARSHORE_ENDPOINT",
        ) from error


def call(method: str, path: str, *, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
    """Make one call and return its JSON. Raises the API's own error, or Transient("reconciler_unreachable")."""
    params = {key: value for key, value in query.items() if value is not None}
    with _session() as client:
        answer = client.request(method, path, json=body, params=params)
    if answer.is_success:
        return answer.json() if answer.content else {}
    raise error_of(answer.status_code, answer.content)


def error_of(status: int, content: bytes) -> FarshoreError:
    """Return the error that an answer carries."""
    try:
        return from_body(ErrorBody.model_validate(json.loads(content)["error"]))
    except (ValueError, KeyError, TypeError):
        return Permanent("bug", f"the reconciler answered {status} without an error document")


def stream(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield server-sent events as (kind, data) until the connection ends."""
    with _session(read_seconds=None) as client, client.stream("GET", path) as answer:
        if not answer.is_success:
            raise error_of(answer.status_code, answer.read())
        kind = "message"
        for line in answer.iter_lines():
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                yield kind, json.loads(line[5:])


def pairs() -> list[dict[str, Any]]:
    """Return every pair, following the pages."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = call("GET", "/v1/pairs", after=after, limit=500)
        found += page["items"]
        after = page.get("next")
        if not after:
            return found
