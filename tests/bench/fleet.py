"""Ten thousand protected pairs that exist only on paper: their store, and the agents that speak for them."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Final

import websockets

from farshore.api.tokens import hashed, new_record, random_token
from farshore.clock import Clock, SystemClock
from farshore.store import keys
from farshore.store.records import (
    AgentRecord,
    PairRecord,
    RoleRecord,
    ServerRecord,
    ServersRecord,
    SiteRecord,
    put,
)
from farshore.store.sqlite import SqliteStore
from farshore.supervisor import Supervisor
from farshore_schema.documents import MySQLPair, Site
from farshore_schema.messages import (
    MEASURED_SECONDS,
    MEASURES_MAX,
    TO_AGENT,
    Alive,
    Assign,
    Hello,
    Measure,
    Measured,
    Report,
)
from farshore_schema.observed import REPORT_SECONDS, SideReport, StreamMeasurements
from farshore_schema.roles import SIDES, Receipt, Side

CREATED: Final = "2026-01-01T00:00:00.000Z"
EPOCH: Final = 2
CHANGES_PER_SECOND: Final = 10.0  # facts that change, in the whole fleet: each costs a visit and a written report
BATCH: Final = 12  # pairs written in one transaction


def pair_names(count: int) -> list[str]:
    """Return the names of the fleet's pairs."""
    return [f"pair-{number:05d}" for number in range(count)]


def sites_of(number: int, sites: int) -> tuple[str, str]:
    """Return the two sites of a pair; every two neighbouring sites protect each other's share."""
    half = sites // 2
    return f"site-{number % half}-a", f"site-{number % half}-b"


def document(name: str, site_a: str, site_b: str) -> MySQLPair:
    """Return a pair's declaration."""
    body: dict[str, object] = {"name": name}
    for side, site in (("a", site_a), ("b", site_b)):
        body[f"site_{side}"] = {
            "site": site,
            "host": f"{name}.{site}.example",
            "admin": {"user": f"farshore_{side}", "password": f"env:ADMIN_{side.upper()}"},
            "replication": {"user": f"farshore_{side}_r", "password": f"env:REPLICATION_{side.upper()}"},
        }
    return MySQLPair.model_validate(body)


def fill(directory: Path, pairs: int, sites: int) -> dict[str, str]:
    """Write a store with so many pairs that have been protected for long; return each site's agent's credential."""
    clock = SystemClock()
    store = SqliteStore(directory, clock)
    credentials = {}
    for site in sorted({site for number in range(sites) for site in sites_of(number, sites)}):
        record = SiteRecord(document=Site(name=site), created=CREATED)
        credential = credentials[site] = random_token("agent")
        token = new_record(credential, "agent", clock, sites=(site,))
        agent = AgentRecord(agent=f"agent-{site}", site=site, token_hash=hashed(credential), enrolled=CREATED)
        key = keys.token(hashed(credential))
        store.txn([], [put(keys.site(site), record), put(keys.agent(site), agent), put(key, token)])
    changes = []
    for number, name in enumerate(pair_names(pairs)):
        declared = document(name, *sites_of(number, sites))
        spec = PairRecord(document=declared, generation=1, incarnation=1, created=CREATED)
        role = RoleRecord(active="a", epoch=EPOCH, evidence="initial", since=CREATED)
        servers = ServersRecord(a=f"{name}-a", b=f"{name}-b")
        changes += [
            put(keys.spec(name), spec),
            put(keys.role(name), role),
            put(keys.pair_servers(name), servers),
            put(keys.server(f"{name}-a"), ServerRecord(pair=name, side="a")),
            put(keys.server(f"{name}-b"), ServerRecord(pair=name, side="b")),
        ]
        if len(changes) >= BATCH * 5:
            store.txn([], changes)
            changes = []
    store.txn([], changes)
    _report(store, clock, pairs)
    store.close()
    return credentials


def _report(store: SqliteStore, clock: Clock, pairs: int) -> None:
    """Let the loop look at every pair once, so that the store holds the reports of a fleet at rest."""
    supervisor = Supervisor(store=store, clock=clock)
    supervisor.ownership.keep()
    session = supervisor.sightings.opened()
    for name in pair_names(pairs):
        for side in SIDES:
            supervisor.sightings.reported(session, name, side, report_of(name, side))
        supervisor.sightings.alive(session)
        supervisor.loop.visit(name)
        supervisor.ownership.keep()
    supervisor.loop.flush()
    supervisor.ownership.release()


def report_of(pair: str, side: Side) -> SideReport:
    """Return what the agent of a long protected side reports."""
    common = {"token": 1, "epoch": EPOCH, "enrolled": True, "db": "up", "server": f"{pair}-{side}", "base": "complete"}
    common |= {"server_version": "9.7.0", "peer_ready": True, "durability": "full"}
    if side == "a":
        return SideReport.model_validate(common | {"promoted_epoch": EPOCH, "writable": True})
    receipt = Receipt("b", EPOCH, f"{pair}:1-1000")
    following = {"fenced_epoch": EPOCH, "receipt": receipt, "receiving": True, "applying": True, "stream_epoch": EPOCH}
    return SideReport.model_validate(common | following | {"stream": stream(0.1)})


def stream(lag_seconds: float) -> StreamMeasurements:
    """Return plausible measurements."""
    return StreamMeasurements(
        lag_seconds=lag_seconds,
        behind_transactions=int(lag_seconds * 500),
        backlog_seconds=lag_seconds / 2,
        apply_rate=1000.0,
        received_transactions=int(time.time()),
        received_bytes=int(time.time() * 1000),
        journal_bytes=10**9,
        journal_segments=3,
        connected=True,
    )


class PaperAgent:
    """One site's agent: it serves what it is assigned, and every look finds all well."""

    def __init__(self, url: str, site: str, token: str) -> None:
        self.url, self.site, self.token = url, site, token
        self.reports: dict[tuple[str, Side], SideReport] = {}
        self.sequence = 0
        self.random = random.Random(site)

    async def run(self, changes_per_second: float) -> None:
        """Speak until cancelled; dial again when the line breaks."""
        while True:
            self.sequence = 0
            self.reports.clear()
            try:
                await self._dial(changes_per_second)
            except (OSError, websockets.WebSocketException) as error:
                print(f"{self.site}: {error}", file=sys.stderr)
            await asyncio.sleep(REPORT_SECONDS)

    async def _dial(self, changes_per_second: float) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with websockets.connect(
            self.url, additional_headers=headers, max_size=None, compression=None, ping_interval=None
        ) as socket:
            await socket.send(Hello(agent=self.site, agent_version="0", sites=(self.site,)).model_dump_json())
            hearing = asyncio.create_task(self._hear(socket))
            try:
                await self._speak(socket, changes_per_second)
            finally:
                hearing.cancel()

    async def _hear(self, socket: websockets.ClientConnection) -> None:
        async for text in socket:
            message = TO_AGENT.validate_json(text)
            if isinstance(message, Assign):
                report = report_of(message.pair, message.side)
                self.reports[message.pair, message.side] = report
                await self._report(socket, (message.pair, message.side), report)

    async def _report(self, socket: websockets.ClientConnection, seat: tuple[str, Side], report: SideReport) -> None:
        self.sequence += 1
        message = Report(pair=seat[0], side=seat[1], incarnation=1, sequence=self.sequence, report=report)
        await socket.send(message.model_dump_json())

    async def _speak(self, socket: websockets.ClientConnection, changes_per_second: float) -> None:
        measured_at, owed = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if time.monotonic() - measured_at >= MEASURED_SECONDS:
                measured_at = time.monotonic()
                await self._measure(socket)
            owed += changes_per_second
            while owed >= 1 and self.reports:
                owed -= 1
                seat = self.random.choice(list(self.reports))
                old = self.reports[seat]
                self.reports[seat] = old.model_copy(update={"peer_ready": not old.peer_ready})
                await self._report(socket, seat, self.reports[seat])
            self.sequence += 1
            await socket.send(Alive(sequence=self.sequence).model_dump_json())

    async def _measure(self, socket: websockets.ClientConnection) -> None:
        measures = [
            Measure(pair=pair, side=side, incarnation=1, position=f"{pair}:1-{self.sequence}", stream=stream(0.2))
            for pair, side in self.reports
        ]
        for start in range(0, len(measures), MEASURES_MAX):
            self.sequence += 1
            part = tuple(measures[start : start + MEASURES_MAX])
            await socket.send(Measured(sequence=self.sequence, measures=part).model_dump_json())


async def speak_for(url: str, tokens: dict[str, str]) -> None:
    """Run one agent for every site."""
    async with asyncio.TaskGroup() as tasks:
        for site, token in tokens.items():
            tasks.create_task(PaperAgent(url, site, token).run(CHANGES_PER_SECOND / len(tokens)))


if __name__ == "__main__":
    asyncio.run(speak_for(sys.argv[1], json.loads(sys.stdin.readline())))
