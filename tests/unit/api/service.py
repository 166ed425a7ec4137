"""The API over a small world, reached in process, with agents that answer what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from farshore.agents import Identity, LiveAgent
from farshore.api import tokens
from farshore.api.app import create_app
from farshore.api.metrics import LoopCounts, Metrics, Sources
from farshore.api.ports import Services
from farshore.conversation import Wire
from farshore.report import overlay
from farshore.settings import Settings
from farshore.store.records import TokenRole
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import Transient
from farshore_schema.messages import Inspected
from farshore_schema.roles import Side
from farshore_schema.status import PairStatus
from tests.unit.api.world import World


class FewAgents:
    """Agents that look when a test says what they see, and echo what a socket says."""

    def __init__(self) -> None:
        self.sees: dict[Side, Inspected] = {}
        self.asked: list[tuple[str, Side, bool]] = []
        self.live: list[LiveAgent] = []
        self.identities: list[Identity] = []

    def agents(self) -> tuple[LiveAgent, ...]:
        """Return the live sessions."""
        return tuple(self.live)

    async def inspect(
        self, document: MySQLPair, own: Side, existing: bool, *, timeout_seconds: float = 1.0
    ) -> Inspected:
        """Return what this side's gateway sees."""
        self.asked.append((document.name, own, existing))
        if own not in self.sees:
            site = (document.site_a if own == "a" else document.site_b).site
            raise Transient("agent_unreachable", f"no agent serves {site}")
        return self.sees[own]

    async def handle(self, wire: Wire, identity: Identity) -> None:
        """Answer one message with itself."""
        self.identities.append(identity)
        await wire.accept()
        await wire.send_text(await wire.receive_text())
        await wire.close()


class Service:
    """An app, its world, and a client with a token of each role."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.world = world
        self.agents = FewAgents()
        chosen = Settings(directory=Path("/nonexistent"), **settings)
        metrics = Metrics(world.store, Sources(observed=world.observed, loop=lambda: LoopCounts(visits=3)))
        self.services = Services(
            settings=chosen,
            desk=world.desk,
            agents=self.agents,
            metrics=metrics,
            live=lambda pair, stored: self._live(pair, stored),
            embedded_hash=tokens.hashed("embedded-credential"),
        )
        self.app: FastAPI = create_app(self.services)
        self.tokens: dict[TokenRole, str] = {}
        for role in ("viewer", "operator", "admin", "agent"):
            token = tokens.random_token(role)
            record = tokens.new_record(token, role, world.clock, note=f"the {role}", sites=("osaka",))
            self._store_token(token, record)
            self.tokens[role] = token

    def _store_token(self, token: str, record: Any) -> None:
        from farshore.store import keys
        from farshore.store.records import put

        assert self.world.store.txn((), (put(keys.token(tokens.hashed(token)), record),)).ok

    def _live(self, pair: str, stored: PairStatus) -> PairStatus:
        return overlay(stored, self.world.observed(pair))

    @asynccontextmanager
    async def client(self, role: TokenRole | None = "admin", host: str = "127.0.0.1") -> AsyncIterator[Client]:
        """Yield a client that calls the app in process."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(host, 40000))
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://farshore", headers=headers) as http:
            yield Client(http)


class Client:
    """Calls that are expected to succeed, and calls that are expected to be refused."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """Make a call that must succeed; return its JSON."""
        answer = await self.http.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def refused(self, status: int, code: str, method: str, path: str, **options: Any) -> Mapping[str, Any]:
        """Make a call that must be refused in our shape; return the error."""
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        body = answer.json()
        assert set(body) == {"error"}
        error: Mapping[str, Any] = body["error"]
        assert error["code"] == code, error
        assert error["message"]
        return error
