"""The API of sites, pairs, plans and operations, as its clients meet it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from farshore.admission import put_pair
from farshore.store import keys
from farshore.store.records import put
from farshore_schema.documents import MySQLPair
from farshore_schema.messages import Inspected
from farshore_schema.observed import Finding
from farshore_schema.status import PairPut, PairStatus, ReplicationStatus
from tests.unit.api.service import Service
from tests.unit.api.world import World, document

pytestmark = pytest.mark.asyncio

OWNER = {"organization": "acme", "project": "dr", "stack": "prod"}
SITE = {"version": "farshore/v1", "kind": "Site", "name": "kyoto"}


def plain(pair: MySQLPair | None = None, **changes: Any) -> dict[str, Any]:
    """Return a document as JSON."""
    return (pair or document(**changes)).model_dump(mode="json")


def body(**changes: Any) -> dict[str, Any]:
    """Return the body of a PUT."""
    return {"document": plain(**changes), "owner": OWNER}


@pytest.fixture
def service(world: World) -> Service:
    """The API over the small world."""
    return Service(world)


def protected(service: Service) -> None:
    """Make `orders` a healthy pair, active at tokyo in epoch 2, with a stored report."""
    world = service.world
    put_pair(world.desk, "orders", PairPut(document=document()), by="ann")
    world.decide("orders", "a", 2)
    world.end("orders")
    world.see_protected("orders", "a", 2)
    report = PairStatus(replication=ReplicationStatus(rpo_class="async"), phase="protected", observed_generation=1)
    world.store.txn((), (put(keys.status("orders"), report),))


async def test_sites_are_declared_listed_and_forgotten(service: Service) -> None:
    """PUT, GET, LIST and DELETE of a site, each repeatable."""
    async with service.client("operator") as client:
        for _ in range(2):
            made = await client.ok("PUT", "/v1/sites/kyoto", json=SITE)
            assert (made["document"]["name"], made["generation"], made["incarnation"]) == ("kyoto", 1, 1)
        assert (await client.ok("PUT", "/v1/sites/kyoto?create=true", json=SITE))["incarnation"] == 2
        assert (await client.ok("GET", "/v1/sites/kyoto"))["document"] == SITE | {"description": ""}
        names = [each["document"]["name"] for each in (await client.ok("GET", "/v1/sites"))["items"]]
        assert names == ["kyoto", "osaka", "tokyo"]
        assert (await client.ok("DELETE", "/v1/sites/kyoto?incarnation=1"))["deleted"] is False
        assert (await client.ok("DELETE", "/v1/sites/kyoto"))["deleted"] is True
        assert (await client.ok("DELETE", "/v1/sites/kyoto"))["deleted"] is False
        await client.refused(404, "not_found", "GET", "/v1/sites/kyoto")


async def test_a_pair_is_declared_seen_and_deleted(service: Service) -> None:
    """The whole life of a declaration over the API, with the answers the provider relies on."""
    async with service.client("operator") as client:
        made = await client.ok("PUT", "/v1/pairs/orders", json=body() | {"create": True})
        assert made["operation"].startswith("op-")
        assert made["view"]["owner"] == OWNER
        assert made["view"]["status"]["operation"]["id"] == made["operation"]
        seen = await client.ok("GET", "/v1/pairs/orders")
        assert (seen["generation"], seen["incarnation"], seen["document"]) == (1, 1, plain())
        service.world.decide("orders", "a", 2)
        error = await client.refused(409, "operation_open", "DELETE", "/v1/pairs/orders?incarnation=1")
        assert error["hint"]
        service.world.end("orders")
        service.world.see_protected("orders", "a", 2)
        gone = await client.ok("DELETE", "/v1/pairs/orders?incarnation=1&delete_journal=true")
        assert gone["operation"].startswith("op-")
        assert (await client.ok("GET", "/v1/pairs/orders"))["status"]["phase"] == "removing"
        service.world.end("orders")
        await client.refused(404, "not_found", "GET", "/v1/pairs/orders")
        assert (await client.ok("DELETE", "/v1/pairs/orders"))["operation"] is None
        trail = (await client.ok("GET", "/v1/pairs/orders/operations"))["items"]
        assert [each["verb"] for each in trail] == ["remove", "protect"]


async def test_present_measurements_are_laid_over_the_report(service: Service) -> None:
    """Lag never enters the store; it is in the answer, with its age."""
    protected(service)
    async with service.client("viewer") as client:
        for view in (await client.ok("GET", "/v1/pairs/orders"), (await client.ok("GET", "/v1/pairs"))["items"][0]):
            assert view["status"]["replication"]["lag_seconds"] == 0.4
            assert view["status"]["replication"]["measured_age_seconds"] == 0.1
            assert view["status"]["phase"] == "protected"
        observed = await client.ok("GET", "/v1/pairs/orders/observed")
        assert observed["a"]["writable"] is True
        await client.refused(404, "not_found", "GET", "/v1/pairs/nothing/observed")


async def test_a_declared_switchover_is_followed_to_its_end(service: Service) -> None:
    """PUT names the operation; the long poll answers when it goes on and when it ends."""
    protected(service)
    async with service.client("operator") as client:
        made = await client.ok("PUT", "/v1/pairs/orders", json=body(primary_site="osaka") | {"if_epoch": 2})
        path = f"/v1/pairs/orders/operations/{made['operation']}"
        waiting = asyncio.create_task(client.ok("GET", f"{path}?wait_seconds=20&after_step=0"))
        await asyncio.sleep(0.05)
        found = service.world.records.operation("orders")
        assert found is not None
        stepped = found.value.model_copy(update={"step": 2, "steps": 7, "label": "attach ahead"})
        assert service.world.store.txn((found.unchanged(),), (put(found.key, stepped),)).ok
        assert (await waiting)["step"] == 2
        waiting = asyncio.create_task(client.ok("GET", f"{path}?wait_seconds=20&after_step=2"))
        await asyncio.sleep(0.05)
        service.world.decide("orders", "b", 4, "fenced")
        service.world.end("orders")
        assert (await waiting)["state"] == "done"
        assert (await client.ok("GET", f"{path}?wait_seconds=20"))["state"] == "done"
        await client.refused(404, "not_found", "GET", "/v1/pairs/orders/operations/op-20260101t000000000-0000")


async def test_operations_are_asked_for_and_taken_back(service: Service) -> None:
    """POST opens, a second one is refused with the open one, abort is idempotent."""
    protected(service)
    async with service.client("operator") as client:
        ask = {"verb": "switchover", "to_site": "osaka", "if_epoch": 2, "reason": "maintenance"}
        made = await client.ok("POST", "/v1/pairs/orders/operations", json=ask)
        assert (made["by"], made["reason"], made["epoch"]) == ("the operator", "maintenance", 4)
        error = await client.refused(409, "operation_open", "POST", "/v1/pairs/orders/operations", json=ask)
        assert error["current"]["operation"] == made["id"]
        path = f"/v1/pairs/orders/operations/{made['id']}/abort"
        for _ in range(2):
            assert (await client.ok("POST", path, json={"reason": "not now"}))["abort"] is True
        assert (await client.ok("POST", path))["abort_reason"] == "the operator: not now"
        stale = {"verb": "switchover", "if_epoch": 0}
        assert (await client.refused(409, "stale_epoch", "POST", "/v1/pairs/orders/operations", json=stale))["current"]


async def test_a_dry_run_shows_every_mistake_and_changes_nothing(service: Service) -> None:
    """Per-property failures with the document's own paths; a missing gateway is a warning."""
    before = service.world.store.snapshot()
    async with service.client("operator") as client:
        wrong = plain() | {"drain_timeout": "soon", "colour": "red"}
        wrong["site_b"] = wrong["site_b"] | {"admin": {"user": "u", "password": "hunter2"}}
        plan = await client.ok("POST", "/v1/plan", json={"document": wrong})
        assert {each["field"] for each in plan["failures"]} == {"drain_timeout", "colour", "site_b.admin.password"}
        assert {each["code"] for each in plan["failures"]} == {"invalid_document"}
        assert "hunter2" not in str(plan)
        version = await client.ok("POST", "/v1/plan", json={"document": plain() | {"version": "farshore/v9"}})
        assert [each["code"] for each in version["failures"]] == ["unsupported_version"]
        fine = await client.ok("POST", "/v1/plan", json={"document": plain(), "owner": OWNER})
        assert (fine["action"], fine["failures"], len(fine["warnings"])) == ("create", [], 2)
        await client.refused(422, "invalid_request", "POST", "/v1/plan", json={"document": 7})
    assert service.world.store.snapshot() == before


async def test_the_gateways_look_where_it_is_worth_it(service: Service) -> None:
    """A new pair and a changed endpoint are looked at by both sides; an unchanged pair and a viewer's plan are not."""
    service.agents.sees = {
        "a": Inspected(request="1", findings=(), servers={"a": "server-a", "b": "server-b"}, empty={"a": False}),
        "b": Inspected(request="2", findings=(), servers={"b": "server-b"}, empty={"b": True}),
    }
    async with service.client("viewer") as client:
        plan = await client.ok("POST", "/v1/plan", json={"document": plain()})
        assert service.agents.asked == []
        assert "operator" in plan["warnings"][0]
    async with service.client("operator") as client:
        await client.ok("POST", "/v1/plan", json={"document": plain()})
        assert service.agents.asked == [("orders", "a", False), ("orders", "b", False)]
        service.agents.asked.clear()
        await client.ok("POST", "/v1/plan", json={"document": plain(), "inspect": False})
        assert service.agents.asked == []
        await client.ok("PUT", "/v1/pairs/orders", json=body())
        operation = service.world.records.operation("orders")
        assert operation is not None
        assert operation.value.consent is not None
        assert operation.value.consent.server == "server-b"
        service.world.decide("orders", "a", 2)
        service.world.end("orders")
        service.agents.asked.clear()
        await client.ok("PUT", "/v1/pairs/orders", json=body(drain_timeout="1m"))
        assert service.agents.asked == []
        changed = body(drain_timeout="1m")
        changed["document"]["site_a"]["admin"]["password"] = "env:OTHER"
        await client.ok("PUT", "/v1/pairs/orders", json=changed)
        assert [each[2] for each in service.agents.asked] == [True, True]


async def test_what_a_gateway_sees_refuses_the_put_with_its_field(service: Service) -> None:
    """A wrong password is the answer to the PUT, with the path of the field, and nothing is stored."""
    finding = Finding(
        code="access_denied", severity="error", message="refused", hint="check it", field="site_b.admin.password"
    )
    service.agents.sees = {"b": Inspected(request="1", findings=(finding,))}
    async with service.client("operator") as client:
        error = await client.refused(422, "access_denied", "PUT", "/v1/pairs/orders", json=body())
        assert (error["field"], error["hint"]) == ("site_b.admin.password", "check it")
        await client.refused(404, "not_found", "GET", "/v1/pairs/orders")


async def test_doctor_tells_both_ends_findings_and_who_could_not_look(service: Service) -> None:
    """Findings of the side that looked, and a warning for the one that has no agent."""
    protected(service)
    finding = Finding(code="no_primary_key", severity="warning", message="t has none", side="a")
    service.agents.sees = {"a": Inspected(request="1", findings=(finding,), servers={"a": "server-a"})}
    async with service.client("viewer") as client:
        found = await client.ok("POST", "/v1/pairs/orders/doctor", json={})
        assert [each["code"] for each in found["findings"]] == ["agent_unreachable", "no_primary_key"]
        assert found["servers"] == {"a": "server-a"}
        assert service.agents.asked[-1][2] is True
        await client.refused(404, "not_found", "POST", "/v1/pairs/nothing/doctor", json={})


async def test_conflicts_carry_the_present_truth(service: Service) -> None:
    """409 answers are enough to decide anew: who owns, which generation, who moved the role and when."""
    protected(service)
    async with service.client("operator") as client:
        await client.ok("PUT", "/v1/pairs/orders", json=body(primary_site="tokyo"))
        stale = body(primary_site="tokyo", description="x") | {"if_generation": 1}
        error = await client.refused(409, "stale_generation", "PUT", "/v1/pairs/orders", json=stale)
        assert error["current"]["generation"] == 2
        service.world.decide("orders", "b", 4, "attested", by="bob")
        service.world.see_protected("orders", "b", 4)
        error = await client.refused(409, "role_moved", "PUT", "/v1/pairs/orders", json=body(primary_site="tokyo"))
        assert error["field"] == "primary_site"
        assert (error["current"]["active_site"], error["current"]["by"], error["current"]["epoch"]) == (
            "osaka",
            "bob",
            4,
        )
        other = body() | {"owner": OWNER | {"stack": "test"}}
        error = await client.refused(409, "owned_elsewhere", "PUT", "/v1/pairs/orders", json=other)
        assert "acme/dr/prod" in error["message"]


async def test_probes_answer_by_the_decided_epoch_and_what_was_just_seen(service: Service) -> None:
    """200 only where the site has the role and was seen so within the last second; else 503; unknown names 404."""
    protected(service)

    async def status(path: str) -> int:
        async with service.client(None) as client:
            return (await client.http.get(path)).status_code

    assert await status("/primary/orders?site=tokyo") == 200
    assert await status("/primary/orders?site=osaka") == 503
    assert await status("/standby/orders?site=osaka") == 200
    assert await status("/standby/orders?site=tokyo") == 503
    assert await status("/primary/orders?site=kyoto") == 404
    assert await status("/primary/nothing?site=tokyo") == 404
    service.world.facts["orders"] = service.world.facts["orders"].model_copy(update={"age_a": 1.5})
    assert await status("/primary/orders?site=tokyo") == 503
    service.world.decide("orders", "b", 4, "attested")
    assert await status("/standby/orders?site=osaka") == 503
    async with service.client(None, host="192.0.2.7") as client:
        await client.refused(401, "unauthenticated", "GET", "/primary/orders?site=tokyo")


async def test_a_thousand_pairs_are_listed_whole_in_pages(world: World) -> None:
    """Every pair comes exactly once, in one order, whatever the size of the page and whatever is stored beside it."""
    service = Service(world)
    names = [f"p-{number}" for number in range(990)] + ["p", "pa", "p-1-a", "q", "a", "a-b", "ab", "z9", "b-", "c"][:8]
    for name in names:
        put_pair(world.desk, name, PairPut(document=document(name)), by="ann")
        if len(name) % 2:
            world.decide(name, "a", 2)
            world.end(name)
            world.store.txn((), (put(keys.status(name), PairStatus(phase="protected")),))
    async with service.client("viewer") as client:
        for limit in (1000, 500, 97):
            listed: list[str] = []
            after: str | None = None
            while True:
                path = f"/v1/pairs?limit={limit}" + (f"&after={after}" if after else "")
                page = await client.ok("GET", path)
                assert len(page["items"]) <= limit
                listed += [each["document"]["name"] for each in page["items"]]
                after = page["next"]
                if after is None:
                    break
                assert len(page["items"]) == limit
            assert sorted(listed) == sorted(names)
        assert (await client.ok("GET", "/v1/pairs?limit=2"))["next"] is not None
        await client.refused(422, "invalid_request", "GET", "/v1/pairs?limit=0")


async def test_roles_are_listed_page_by_page(service: Service) -> None:
    """One line for each pair: who is active, in which epoch, by which declaration; null before a decision."""
    protected(service)
    put_pair(service.world.desk, "invoices", PairPut(document=document("invoices")), by="ann")
    async with service.client("viewer") as client:
        first = await client.ok("GET", "/v1/roles", params={"limit": 1})
        assert len(first["items"]) == 1
        rest = await client.ok("GET", "/v1/roles", params={"after": first["next"]})
    assert rest["next"] is None
    assert {item["name"]: item for item in (*first["items"], *rest["items"])} == {
        "orders": {"name": "orders", "generation": 1, "incarnation": 1, "active_site": "tokyo", "epoch": 2},
        "invoices": {"name": "invoices", "generation": 1, "incarnation": 1, "active_site": None, "epoch": None},
    }
