"""Real reconciler, wire, agent and probe processes over fake databases: a pair's life as its users see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farshore_agent import processes, stop
from tests.testbed.places import CHECKOUT
from tests.unit.agent.declared import document
from tests.unit.agent.waiting import eventually

Plain = dict[str, Any]


class Stack:
    """One `farshore serve` with its embedded agent."""

    def __init__(self, root: Path) -> None:
        self.directory, self.log = root / "farshore", root / "serve.log"
        self.sight = self.directory / "sight"
        self.directory.mkdir()
        self.sight.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "FARSHORE_TEST_PASSWORD": "pa55-w0rd"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.agent.fake_serve", str(self.directory)],
                cwd=CHECKOUT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self.endpoint, "the reconciler's endpoint")

    def endpoint(self) -> str:
        try:
            return str(json.loads((self.directory / "endpoint.json").read_text())["url"])
        except (OSError, ValueError):
            return ""

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        (self.directory / "endpoint.json").unlink(missing_ok=True)

    def agent(self) -> processes.Process:
        pid = int((self.directory / "agent" / "agent.lock").read_text())
        return processes.Process(pid=pid, started=processes.identity(pid) or "", what="agent")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        eventually(lambda: not self.agent().alive, "the agent's end")
        stop.stop_all(self.directory / "agent")

    # ---- the API

    def call(self, method: str, path: str, body: object = None) -> Plain:
        token = (self.directory / "admin.token").read_text().strip()
        request = urllib.request.Request(
            self.endpoint() + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: Plain = json.loads(answer.read() or b"{}")
                return found
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def declare(self) -> None:
        for site in ("tokyo", "osaka"):
            self.call("PUT", f"/v1/sites/{site}", {"name": site})

        def accepted() -> bool:
            body = {"document": document(on_existing_data="overwrite").model_dump(mode="json"), "create": True}
            try:
                self.call("PUT", "/v1/pairs/orders", body)
            except AssertionError as error:
                if "agent_unreachable" in str(error):
                    return False
                raise
            return True

        eventually(accepted, "the declaration")

    def status(self) -> Plain:
        found: Plain = self.call("GET", "/v1/pairs/orders")["status"]
        return found

    def comes(self, condition: Callable[[Plain], object], what: str) -> Plain:
        newest: list[Plain] = []

        def holds() -> bool:
            newest[:] = [self.status()]
            return bool(condition(newest[0]))

        try:
            eventually(holds, what)
        except AssertionError:
            print(json.dumps(newest[0], indent=1))
            print(self.log.read_text()[-6000:])
            raise
        return newest[0]

    # ---- probes

    def sees(self, active: str) -> None:
        """Make the databases look as the fake engine left them, to the probe process that asks files."""
        for site in ("tokyo", "osaka"):
            (self.sight / f"farshore_{site}").write_text("1" if site == active else "0")

    def probes(self) -> dict[str, int]:
        ports = json.loads((self.directory / "agent" / "probes" / "ports.json").read_text())["content"]["ports"]
        return {site: self.probe(port) for site, port in ports.items()}

    def probe(self, port: int) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/primary/orders", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    made.start()
    yield made
    made.close()


def test_a_pair_is_protected_moved_and_survives_the_death_of_everything_but_its_databases(stack: Stack) -> None:
    """Protected, moved by an operation, probes flipped; reconciler killed and agent gone: probes stay; both come back
    and agree; moved home."""
    stack.declare()
    stack.sees("tokyo")
    protected = stack.comes(lambda status: status["phase"] == "protected", "protection")
    assert protected["role"]["active_site"] == "tokyo"
    eventually(lambda: stack.probes() == {"tokyo": 200, "osaka": 503}, "the probes")

    stack.call("POST", "/v1/pairs/orders/operations", {"verb": "switchover"})
    stack.sees("osaka")
    moved = stack.comes(
        lambda status: status["role"]["active_site"] == "osaka" and status["operation"]["state"] == "done", "the move"
    )
    epoch = moved["role"]["epoch"]
    eventually(lambda: stack.probes() == {"tokyo": 503, "osaka": 200}, "the flipped probes")

    agent = stack.agent()
    stack.kill()
    eventually(lambda: not agent.alive, "the embedded agent's end")
    assert stack.probes() == {"tokyo": 503, "osaka": 200}
    # The fake databases lived in the agent's process: a new agent finds them as new as on the first day, so only what
    # is durable in the agent and the reconciler can be compared.
    stack.start()
    again = stack.comes(lambda status: status["role"] is not None, "the role after a restart")
    assert (again["role"]["active_site"], again["role"]["epoch"]) == ("osaka", epoch)
    eventually(lambda: stack.probes() == {"tokyo": 503, "osaka": 200}, "the adopted probes")


def test_a_killed_embedded_agent_is_started_again_and_takes_up_its_sides(stack: Stack) -> None:
    """The reconciler starts it anew; its records are still there, and both sides are reported again."""
    stack.declare()
    stack.comes(lambda status: status["phase"] == "protected", "protection")
    first = stack.agent()
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: stack.agent().alive and stack.agent() != first, "the next agent")
    records = list((stack.directory / "agent" / "sides").rglob("record"))
    assert len(records) == 2
    eventually(lambda: all(stack.call("GET", "/v1/pairs/orders/observed")[side] for side in ("a", "b")), "both reports")
