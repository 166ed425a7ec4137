"""Input that is wrong, and callers who may not: each has a code, a status, a field, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from farshore.store.records import TokenRole
from tests.unit.api.service import Service
from tests.unit.api.world import World, document

pytestmark = pytest.mark.asyncio


@pytest.fixture
def service(world: World) -> Service:
    """The API over the small world."""
    return Service(world)


def plain(**changes: Any) -> dict[str, Any]:
    """Return a document as JSON, with raw changes."""
    return document().model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"colour": "red"}, "invalid_document", "colour"),
        ({"version": "farshore/v2"}, "unsupported_version", "version"),
        ({"kind": "PostgresPair"}, "invalid_document", "kind"),
        ({"drain_timeout": "soon"}, "invalid_document", "drain_timeout"),
        ({"drain_timeout": "2d"}, "invalid_document", "drain_timeout"),
        ({"journal": {"keep": "7 days"}}, "invalid_document", "journal.keep"),
        ({"journal": {"keep": "7d", "keep_bytes": "lots"}}, "invalid_document", "journal.keep_bytes"),
        ({"site_a": None}, "invalid_document", "site_a"),
        ({"seed_workers": 0}, "invalid_document", "seed_workers"),
        ({"name": "Has Spaces"}, "invalid_document", "name"),
        ({"primary_site": "kyoto"}, "invalid_document", None),
    ],
)
async def test_a_wrong_document_is_refused_with_its_field(
    service: Service, changes: dict[str, Any], code: str, field: str | None
) -> None:
    """The code says what kind of mistake, the field is the document's own path."""
    before = service.world.store.snapshot()
    async with service.client("operator") as client:
        error = await client.refused(422, code, "PUT", "/v1/pairs/orders", json={"document": plain(**changes)})
        assert error["field"] == field
        assert error["hint"]
    assert service.world.store.snapshot() == before


async def test_a_secret_in_the_wrong_place_is_never_repeated(service: Service) -> None:
    """A password where its reference belongs is refused without being shown, in the answer or beside it."""
    wrong = plain()
    wrong["site_a"]["admin"]["password"] = "hunter2"
    async with service.client("operator") as client:
        error = await client.refused(422, "invalid_document", "PUT", "/v1/pairs/orders", json={"document": wrong})
    assert error["field"] == "site_a.admin.password"
    assert "hunter2" not in json.dumps(error)
    assert "reference" in error["message"]


async def test_a_wrong_request_around_the_document_is_told_apart(service: Service) -> None:
    """Unknown members, missing bodies, broken JSON and unknown verbs are `invalid_request`."""
    async with service.client("operator") as client:
        malformed: list[dict[str, Any]] = [
            {"json": {"document": plain(), "colour": "red"}},
            {"json": {}},
            {"content": b"{not json", "headers": {"Content-Type": "application/json"}},
            {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
            {"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}},
            {"content": b""},
            {"json": [1]},
        ]
        for options in malformed:
            error = await client.refused(422, "invalid_request", "PUT", "/v1/pairs/orders", **options)
            assert error["hint"]
        await client.refused(422, "invalid_request", "POST", "/v1/pairs/orders/operations", json={"verb": "explode"})
        for nowhere in ("/v1/nowhere", "/v1/pairs/", "//v1/pairs", "/v1/pairs/a%2Fb", "/docs"):
            await client.refused(404, "not_found", "GET", nowhere)
        await client.refused(405, "invalid_request", "PATCH", "/v1/pairs/orders")
        await client.refused(422, "invalid_request", "GET", "/v1/pairs/Not%20A%20Name")


async def test_a_site_that_does_not_exist(service: Service) -> None:
    """A pair of an undeclared site names the field."""
    wrong = plain()
    wrong["site_b"]["site"] = "kyoto"
    async with service.client("operator") as client:
        error = await client.refused(422, "unknown_site", "PUT", "/v1/pairs/orders", json={"document": wrong})
    assert error["field"] == "site_b.site"


async def test_a_body_over_the_limit_is_refused_however_it_comes(world: World) -> None:
    """With a length or in chunks of unknown number: 413, before anything is parsed or stored."""
    service = Service(world, body_bytes_max=2000)
    before = world.store.snapshot()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 100

    async with service.client("operator") as client:
        await client.refused(413, "body_too_large", "PUT", "/v1/pairs/orders", content=b" " * 2001)
        json_type = {"Content-Type": "application/json"}
        await client.refused(413, "body_too_large", "PUT", "/v1/pairs/orders", content=chunks(), headers=json_type)
        await client.ok("PUT", "/v1/pairs/orders", json={"document": plain()})
    assert len(world.store.snapshot()) > len(before)


NEEDS: list[tuple[str, str, TokenRole]] = [
    ("GET", "/v1/pairs", "viewer"),
    ("GET", "/v1/sites", "viewer"),
    ("GET", "/v1/whoami", "viewer"),
    ("GET", "/v1/agents", "viewer"),
    ("GET", "/v1/events", "viewer"),
    ("GET", "/openapi.json", "viewer"),
    ("POST", "/v1/plan", "viewer"),
    ("PUT", "/v1/sites/kyoto", "operator"),
    ("PUT", "/v1/pairs/orders", "operator"),
    ("DELETE", "/v1/pairs/orders", "operator"),
    ("DELETE", "/v1/sites/tokyo", "operator"),
    ("POST", "/v1/pairs/orders/operations", "operator"),
    ("POST", "/v1/pairs/orders/operations/op-1-0000/abort", "operator"),
    ("POST", "/v1/tokens", "admin"),
    ("GET", "/v1/tokens", "admin"),
    ("DELETE", "/v1/tokens/0123456789ab", "admin"),
    ("POST", "/v1/agents/enrol", "admin"),
    ("DELETE", "/v1/agents/tokyo", "admin"),
]
RANKS: list[TokenRole] = ["agent", "viewer", "operator", "admin"]


@pytest.mark.parametrize(("method", "path", "needed"), NEEDS)
async def test_every_route_demands_its_role(service: Service, method: str, path: str, needed: TokenRole) -> None:
    """No token, an unknown one and one of too low a role are refused, before the request is even read."""
    before = service.world.store.snapshot()
    async with service.client(None) as client:
        error = await client.refused(401, "unauthenticated", method, path)
        assert "FARSHORE_TOKEN" in error["hint"]
        for wrong in ("Bearer nonsense", "Basic YTpi", "Bearer ", f"Bearer {service.tokens['admin']}x"):
            await client.refused(401, "unauthenticated", method, path, headers={"Authorization": wrong})
    for role in RANKS[: RANKS.index(needed)]:
        async with service.client(role) as client:
            error = await client.refused(403, "forbidden", method, path)
            assert needed in error["message"]
    assert service.world.store.snapshot() == before


async def test_every_route_is_in_the_table_above_or_open_on_purpose(service: Service) -> None:
    """A new route cannot be forgotten: what needs no token is this list and no other."""
    open_on_purpose = {("get", "/healthz"), ("get", "/metrics"), ("post", "/v1/agents/redeem")}
    open_on_purpose |= {("get", "/primary/{name}"), ("get", "/standby/{name}")}
    described = service.app.openapi()["paths"]
    without = {
        (method, path)
        for path, methods in described.items()
        for method, route in methods.items()
        if not route.get("security")
    }
    assert without == {("get", "/healthz"), ("post", "/v1/agents/redeem")}
    async with service.client(None) as client:
        for path, methods in described.items():
            for method in methods:
                concrete = path.replace("{name}", "orders").replace("{id}", "op-1-0000")
                answer = await client.http.request(method, concrete)
                assert (answer.status_code == 401) == ((method, path) not in open_on_purpose), (method, path)


async def test_an_unexpected_error_is_a_bug_and_tells_nothing_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last net answers in our shape, without the exception's text."""

    def broken(*_arguments: object) -> object:
        raise RuntimeError("secret detail")

    async with service.client("viewer") as client:
        await client.ok("GET", "/v1/sites")
        monkeypatch.setattr(service.world.store, "list", broken)
        error = await client.refused(500, "bug", "GET", "/v1/sites")
    assert "secret detail" not in json.dumps(error)
