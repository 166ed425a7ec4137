"""A protected pair with everything around it, that tests break and find whole again: servers, reconciler, HAProxy.

The oracle of every test is here: what clients were told, what the witness saw, what both servers hold.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from farshore.plan import REASONS
from farshore_agent import durable
from farshore_schema.roles import Side, next_even
from tests.demo.stage import APPLICATION, Site, Stage
from tests.e2e.switchover.parts import PAIR, Parts
from tests.e2e.switchover.witness import Witness, changes, make_table
from tests.testbed.haproxy import HAProxy
from tests.testbed.load import Load, LoadSize, Record, prepare, verify
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_content import table_checksums
from tests.testbed.ports import reserve_port
from tests.testbed.waiting import wait_until

SITES: Final = ("tokyo", "osaka")
SIDE: Final[dict[str, Side]] = {"tokyo": "a", "osaka": "b"}
SIZE: Final = LoadSize(clients=4, rate_per_second=150, answer_seconds=5)
PROTECTED_SECONDS: Final = 90.0
SETTLED_SECONDS: Final = 60.0
REQUESTS_MAX: Final = 10
OWN_SCHEMA: Final = "farshore."
ROWS: Final = 2000
"""Rows before the seed: enough to be copied, few enough to be compared often."""

Plain = dict[str, Any]


class Rig:
    """One stage with a protected pair."""

    def __init__(self, directory: Path) -> None:
        self.stage = Stage(directory / "stage")
        self.directory = directory

    def build(self) -> None:
        """Start everything and protect the pair."""
        self.begin()
        self.stage.declare()
        self.protected()
        self.route()

    def route(self) -> None:
        """Put HAProxy in front."""
        self.proxy: HAProxy = self.stage.haproxy()

    def begin(self) -> None:
        """Start servers and reconciler; nothing is declared yet."""
        stage = self.stage
        tokyo, osaka = stage.servers()
        self.sites: dict[str, Site] = {"tokyo": tokyo, "osaka": osaka}
        prepare(tokyo.server, user=APPLICATION[0], password=APPLICATION[1])
        make_table(tokyo.server)
        tokyo.server.execute(
            f"SET SESSION cte_max_recursion_depth = {ROWS + 1}",
            f"INSERT INTO farshore_load.appended SELECT -n, REPEAT('x', 100) FROM (WITH RECURSIVE s (n) AS"
            f" (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS}) SELECT n FROM s) AS s",
        )
        self.ports = {site: reserve_port() for site in SITES}
        probes = stage.directory / "farshore" / "agent" / "probes"
        durable.make_directory(probes)
        # Ports of this run's own: two runs side by side would both begin at the product's first port.
        durable.write(probes / "ports.json", {"ports": dict(self.ports)})
        self.farshore = stage.reconciler()
        self.parts = Parts(self.farshore.directory)

    # ---- what is

    def note_order(self) -> None:
        """Remember which site is active: while the reconciler is dead there is nobody to ask."""
        self.order = (self.active, self.standby)

    def status(self) -> Plain:
        """Return the pair's status."""
        return self.farshore.status(PAIR)

    @property
    def active(self) -> str:
        """The active site, as decided."""
        return str(self.status()["role"]["active_site"])

    @property
    def standby(self) -> str:
        """The other one."""
        return other(self.active)

    @property
    def epoch(self) -> int:
        """The role's epoch."""
        return int(self.status()["role"]["epoch"])

    @property
    def next_epoch(self) -> int:
        """The epoch that the next switchover burns."""
        return next_even(self.epoch)

    def protected(self) -> Plain:
        """Wait until the pair is seen to be protected, so that it could be switched over; return its status.

        A reconciler that was just started shows the report of its predecessor until agents are heard: a report with a
        measurement is not that one.
        """
        last: Plain = {}

        def seen() -> bool:
            last.update(self.status())
            allowed = {each["verb"]: each["allowed"] for each in last["allowed_operations"]}
            measured = last["replication"]["measured_age_seconds"] is not None
            return bool(last["phase"] == "protected" and measured and allowed["switchover"])

        self.eventually(seen, "the pair is protected", seconds=PROTECTED_SECONDS)
        return last

    def server(self, site: str) -> MySQLServer:
        """The server of a site."""
        return self.sites[site].server

    def operations(self) -> list[str]:
        """The ids of all operations that there ever were."""
        return [each["id"] for each in self.farshore.answer("GET", f"/v1/pairs/{PAIR}/operations")["items"]]

    # ---- what is done

    def request(self, to: str) -> str:
        """Ask for a switchover; return the operation's id."""
        body = {"verb": "switchover", "to_site": to}
        answered = self.insisted(lambda: self.farshore.api("POST", f"/v1/pairs/{PAIR}/operations", json=body))
        assert answered.is_success, answered.text
        return str(answered.json()["id"])

    def insisted(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """Make a request, again where the refusal says that it settles by itself; return the last answer."""
        answered = request()
        for _ in range(REQUESTS_MAX):
            if answered.is_success or not answered.json()["error"]["retry_seconds"]:
                break
            time.sleep(answered.json()["error"]["retry_seconds"])
            answered = request()
        return answered

    def operation(self, id: str, *, wait_seconds: float = 0, after_step: int | None = None) -> Plain:
        """Return an operation; with `wait_seconds`, once it ended or went beyond the step."""
        after = "" if after_step is None else f"&after_step={after_step}"
        path = f"/v1/pairs/{PAIR}/operations/{id}?wait_seconds={wait_seconds}{after}"
        found: Plain = self.farshore.answer("GET", path)
        return found

    def ended(self, id: str, *, seconds: float = 120.0) -> Plain:
        """Wait for an operation's end over restarts of the reconciler; return it."""
        last: Plain = {}

        def over() -> bool:
            try:
                last.update(self.operation(id, wait_seconds=2))
            except httpx.TransportError:
                return False
            return last["state"] not in ("open", "waiting")

        try:
            wait_until(over, f"{id} ends", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.told(last)}") from None
        return last

    def settled(self, id: str) -> Plain:
        """Wait until an operation has ended or waits for a reason that is named; return it."""
        last: Plain = {}

        def told() -> bool:
            try:
                last.update(self.operation(id))
            except httpx.TransportError:
                return False
            return str(last["state"]) != "open"

        try:
            wait_until(told, f"{id} ends, or says what it waits for", seconds=SETTLED_SECONDS, poll_seconds=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.told(last)}") from None
        if last["state"] == "waiting":
            assert last["waiting_for"] in REASONS, self.told(last)
            assert last["waiting_hint"], self.told(last)
        return last

    def eventually(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """Wait for a condition; a failure shows status and log."""
        try:
            wait_until(condition, what, seconds=seconds, poll_seconds=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.told(self.status())}") from None

    def told(self, operation: Plain) -> str:
        """Return an operation with the end of the log, for a failing test."""
        return f"{json.dumps(operation)[:6000]}\nlog: {self.log()[-6000:]}"

    def log(self) -> str:
        """Return what reconciler and agent have logged."""
        return self.farshore.log.read_text(errors="replace")

    def heal(self) -> None:
        """Start and resume whatever a test broke. Idempotent."""
        for site in self.sites.values():
            site.server.resume()
            site.server.start()
        agent = self.parts.agent()
        if agent is not None:
            os.kill(agent, signal.SIGCONT)
        if self.farshore.process is None or self.farshore.process.poll() is not None:
            self.farshore.start()

    # ---- clients

    @contextmanager
    def clients(self, *, size: LoadSize = SIZE) -> Iterator[Clients]:
        """Have clients write through HAProxy, and the witness watch, inside the block."""
        wait_until(lambda: self.proxy.up() == {self.active: True, self.standby: False}, "HAProxy follows the probes")
        user, password = APPLICATION
        servers = {name: site.server for name, site in self.sites.items()}
        load = Load(self.directory, host=self.proxy.host, port=self.proxy.port, user=user, password=password, size=size)
        with Witness(servers, self.ports, login=APPLICATION) as witness, load:
            yield Clients(self, load, witness)

    def compare(self) -> None:
        """Require that both sides hold the same at one GTID set, and that only the active one takes writes."""
        active, standby = self.server(self.active), self.server(self.standby)
        wait_until(
            lambda: active.gtid_executed() == standby.gtid_executed(), "both sides are at one GTID set", seconds=60
        )
        one, two = (
            {name: value for name, value in table_checksums(each).items() if not name.startswith(OWN_SCHEMA)}
            for each in (active, standby)
        )
        assert one == two
        closed = "SELECT @@GLOBAL.super_read_only, @@GLOBAL.read_only"
        assert standby.query(closed) == [(1, 1)]
        assert active.query(closed) == [(0, 0)]


class Clients:
    """What writes while a test breaks things, and the judgement of it."""

    def __init__(self, rig: Rig, load: Load, witness: Witness) -> None:
        self._rig, self.load, self.witness = rig, load, witness

    def wait_for_writes(self, site: str, since: float) -> None:
        """Wait until clients got an OK through HAProxy, and the witness directly, begun after `since`."""
        wait_until(
            lambda: any(each.outcome == "ok" and each.start > since for each in self.load.records()),
            f"clients write through HAProxy again; HAProxy: {self._rig.proxy.up()}",
            poll_seconds=0.1,
        )
        wait_until(lambda: self.witness.committed_at(site, since), f"the witness commits at {site}")

    def judge(self, *, decided: int) -> list[Record]:
        """Stop the clients and require: nothing acknowledged is lost, both sides equal, never two that commit.

        `decided` is how many times the active site changed meanwhile.
        """
        records = self.load.stop()
        self.witness.stop()
        rig = self._rig
        rig.compare()
        for site in rig.sites.values():
            verdict = verify(site.server, records)
            assert verdict.lost == 0, f"{site.name}: {verdict}"
            assert verdict.exact, f"{site.name}: {verdict}"
            assert not self.witness.lost(site.server), site.name
        for name, sights in (("commits", self.witness.commits), ("answers 200", self.witness.primaries)):
            chain = changes(sights)
            assert len(chain) - 1 <= decided, f"{name} at two sides: {chain[:8]}"
        return records


def other(site: str) -> str:
    """Return the site that is not `site`."""
    return SITES[1 - SITES.index(site)]


def now() -> float:
    """Return CLOCK_MONOTONIC, which all processes of a machine share."""
    return time.monotonic()
