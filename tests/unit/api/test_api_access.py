"""Tokens, enrolment of agents, health and metrics."""

from __future__ import annotations

import hashlib
import json

import pytest

from farshore.admission import put_pair
from farshore.agents import LiveAgent
from farshore.store import keys
from farshore.store.records import put
from farshore_schema.status import PairPut, PairStatus
from tests.unit.api.service import Service
from tests.unit.api.world import World, document

pytestmark = pytest.mark.asyncio


@pytest.fixture
def service(world: World) -> Service:
    """The API over the small world."""
    return Service(world)


async def test_a_token_is_shown_once_and_stored_as_a_hash_only(service: Service) -> None:
    """What is in the store does not let anybody in; listing shows no secret; revoking works at once."""
    async with service.client("admin") as client:
        made = await client.ok("POST", "/v1/tokens", json={"role": "viewer", "note": "wallboard"})
        token = made["token"]
        stored = b"".join(item.value + item.key.encode() for item in service.world.store.snapshot().values())
        assert token.encode() not in stored
        assert hashlib.sha256(token.encode()).hexdigest().encode() in stored
        mine = {"Authorization": f"Bearer {token}"}
        assert (await client.ok("GET", "/v1/whoami", headers=mine))["note"] == "wallboard"
        listed = (await client.ok("GET", "/v1/tokens"))["items"]
        assert token not in json.dumps(listed)
        assert (made["id"], "viewer", "the admin") in {(each["id"], each["role"], each["by"]) for each in listed}
        assert await client.ok("DELETE", f"/v1/tokens/{made['id']}") == {"revoked": made["id"]}
        await client.refused(401, "unauthenticated", "GET", "/v1/whoami", headers=mine)
        await client.refused(404, "not_found", "DELETE", f"/v1/tokens/{made['id']}")
        await client.refused(422, "invalid_request", "POST", "/v1/tokens", json={"role": "agent"})


async def test_a_code_enrols_one_agent_once(service: Service) -> None:
    """The code becomes a credential bound to its site, and is then useless; only hashes are stored."""
    async with service.client("admin") as admin, service.client(None) as agent:
        await admin.refused(422, "unknown_site", "POST", "/v1/agents/enrol", json={"site": "kyoto"})
        code = (await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"}))["code"]
        redeemed = await agent.ok("POST", "/v1/agents/redeem", json={"code": f" {code.lower()} ", "agent": "gw-1"})
        assert (redeemed["agent"], redeemed["sites"]) == ("gw-1", ["osaka"])
        stored = b"".join(item.value + item.key.encode() for item in service.world.store.snapshot().values())
        for secret in (code, redeemed["credential"]):
            assert secret.encode() not in stored
        error = await agent.refused(401, "unauthenticated", "POST", "/v1/agents/redeem", json={"code": code})
        assert "farshore agents enrol" in error["hint"]
        listed = (await admin.ok("GET", "/v1/agents"))["items"]
        assert listed == [
            {
                "agent": "gw-1",
                "sites": ["osaka"],
                "embedded": False,
                "connected": False,
                "version": "",
                "probe_ports": {},
            }
        ]


async def test_a_code_runs_out_after_a_quarter_of_an_hour(service: Service) -> None:
    """A code found later in a terminal's history opens nothing."""
    async with service.client("admin") as admin:
        made = await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"})
        assert made["expires"] == "2026-01-01T00:15:00.000Z"
        service.world.clock.seconds = 901
        await admin.refused(401, "unauthenticated", "POST", "/v1/agents/redeem", json={"code": made["code"]})
        await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"})
        assert len(service.world.store.list(keys.ENROLMENTS).items) == 1, "codes that are over are swept"


async def test_a_new_enrolment_replaces_the_old_credential_and_can_be_taken_back(service: Service) -> None:
    """A site has one credential; revoking it gives the site back to the embedded agent."""
    store = service.world.store
    async with service.client("admin") as admin:
        credentials = []
        for name in ("gw-1", "gw-2"):
            code = (await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"}))["code"]
            redeemed = await admin.ok("POST", "/v1/agents/redeem", json={"code": code, "agent": name})
            credentials.append(hashlib.sha256(redeemed["credential"].encode()).hexdigest())
        assert store.get(keys.token(credentials[0])) is None
        assert store.get(keys.token(credentials[1])) is not None
        assert await admin.ok("DELETE", "/v1/agents/osaka") == {"revoked": "gw-2"}
        assert store.get(keys.token(credentials[1])) is None
        assert store.get(keys.agent("osaka")) is None
        await admin.refused(404, "not_found", "DELETE", "/v1/agents/osaka")


async def test_a_site_that_is_forgotten_takes_its_agents_credential_with_it(service: Service) -> None:
    """A credential without a site opens nothing any more."""
    async with service.client("admin") as admin:
        code = (await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"}))["code"]
        credential = (await admin.ok("POST", "/v1/agents/redeem", json={"code": code}))["credential"]
        mine = {"Authorization": f"Bearer {credential}"}
        await admin.refused(403, "forbidden", "GET", "/v1/whoami", headers=mine)
        await admin.ok("DELETE", "/v1/sites/osaka")
        await admin.refused(401, "unauthenticated", "GET", "/v1/whoami", headers=mine)


async def test_connected_agents_are_listed_before_expected_ones(service: Service) -> None:
    """An enrolled agent that is connected is listed once."""
    async with service.client("admin") as admin:
        code = (await admin.ok("POST", "/v1/agents/enrol", json={"site": "osaka"}))["code"]
        await admin.ok("POST", "/v1/agents/redeem", json={"code": code, "agent": "gw"})
        service.agents.live = [LiveAgent("embedded", frozenset({"tokyo"}), True), LiveAgent("gw", frozenset({"osaka"}))]
        listed = (await admin.ok("GET", "/v1/agents"))["items"]
        assert [(each["agent"], each["sites"], each["connected"]) for each in listed] == [
            ("embedded", ["tokyo"], True),
            ("gw", ["osaka"], True),
        ]


async def test_health_needs_no_token_and_tells_the_truth(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy means that the store can be read."""
    async with service.client(None, host="192.0.2.7") as client:
        assert (await client.ok("GET", "/healthz"))["status"] == "ok"

        def broken(*_arguments: object, **_options: object) -> object:
            raise OSError("gone")

        monkeypatch.setattr(service.world.store, "list", broken)
        await client.refused(500, "bug", "GET", "/healthz")


async def test_metrics_count_what_is(service: Service) -> None:
    """Pairs by phase, lag by pair, open operations, sessions, visits and transactions; kept up with changes."""
    world = service.world
    for name in ("orders", "payments"):
        put_pair(world.desk, name, PairPut(document=document(name)), by="ann")
    world.see_protected("orders", "a", 2, lag=1.5)
    service.services.metrics.txn_took(0.002)
    async with service.client(None) as client:
        text = (await client.http.get("/metrics")).text
        for line in (
            'farshore_pairs{phase="accepted"} 2.0',
            'farshore_pairs{phase="protected"} 0.0',
            'farshore_pair_lag_seconds{pair="orders"} 1.5',
            "farshore_operations_open 2.0",
            "farshore_agent_sessions 0.0",
            "farshore_visits_total 3.0",
            "farshore_store_txn_seconds_count 1.0",
        ):
            assert line in text.splitlines(), line
        assert 'pair="payments"' not in text, "an unknown lag is not a number"
        world.end("orders")
        world.store.txn((), (put(keys.status("orders"), PairStatus(phase="protected")),))
        text = (await client.http.get("/metrics")).text
        for line in ('farshore_pairs{phase="accepted"} 1.0', 'farshore_pairs{phase="protected"} 1.0'):
            assert line in text.splitlines(), line
        assert "farshore_operations_open 1.0" in text.splitlines()
    async with service.client(None, host="192.0.2.7") as stranger:
        await stranger.refused(401, "unauthenticated", "GET", "/metrics")
