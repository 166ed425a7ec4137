"""A real `farshore serve` in a directory of its own, and the command line against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from tests.testbed.processes import end, spawn
from tests.testbed.waiting import wait_until

START_SECONDS = 60.0
COMMAND_SECONDS = 300.0
CALL_SECONDS = 30.0


class Reconciler:
    """One `farshore serve`. `secrets` go into its environment, where the embedded agent resolves `env:` references."""

    def __init__(
        self, directory: Path, *, secrets: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        self.directory = directory
        self.arguments = arguments
        self.secrets = dict(secrets or {})
        self.log = directory.with_name(directory.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where its API listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The admin token that it wrote on its first start."""
        return (self.directory / "admin.token").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        return {"FARSHORE_ENDPOINT": self.url, "FARSHORE_TOKEN": self.token}

    def start(self) -> None:
        """Start and wait until it answers. A restart keeps its port, so that clients find it again."""
        written = self.directory / "endpoint.json"
        written.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = self._spawn(log)
        wait_until(
            lambda: self._answers(written), f"farshore serve answers; its log: {self.log}", seconds=START_SECONDS
        )

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            "-m",
            "farshore",
            "serve",
            "--directory",
            str(self.directory),
            "--port",
            str(self.port),
        ]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
        return spawn([*words, *self.arguments], environment=inherited | self.secrets, stdout=log, stderr=log)

    def _answers(self, written: Path) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(
                f"farshore serve ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
            )
        try:
            self.port = int(json.loads(written.read_text())["url"].rsplit(":", 1)[1])
            return httpx.get(f"{self.url}/healthz", timeout=2, trust_env=False).is_success
        except (OSError, ValueError, KeyError, httpx.TransportError):
            return False

    def stop(self) -> int:
        """End it as a service manager does. Data-path and probe processes stay, on purpose."""
        return end(self.process) if self.process is not None else 0

    def kill(self) -> None:
        """Kill it at once."""
        if self.process is not None:
            end(self.process, kill=True)

    def close(self) -> None:
        """End it and everything that it would leave running."""
        self.kill()
        self.cli("stop", "--all", "--directory", str(self.directory))

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command line against it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
        found = self.environment if (self.directory / "admin.token").exists() else {}
        return subprocess.run(
            [sys.executable, "-m", "farshore", *arguments],
            env=inherited | found | {"NO_COLOR": "1", "COLUMNS": "200"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def cli_live(self, *arguments: str) -> int:
        """Run a command on this terminal, for people to watch; return its exit code."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
        command = [sys.executable, "-m", "farshore", *arguments]
        done = subprocess.run(command, env=inherited | self.environment, timeout=COMMAND_SECONDS * 2, check=False)
        return done.returncode

    def cli_json(self, *arguments: str) -> Any:
        """Run a command with --json and return what it printed; raise AssertionError when it failed."""
        done = self.cli(*arguments, "--json")
        if done.returncode:
            raise AssertionError(f"farshore {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def api(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Make one API call."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=CALL_SECONDS, trust_env=False, **options)

    def answer(self, method: str, path: str, **options: Any) -> Any:
        """Make one API call and return its JSON; raise AssertionError with the error it answered."""
        done = self.api(method, path, **options)
        if not done.is_success:
            raise AssertionError(f"{method} {path} answered {done.status_code}: {done.text[:2000]}")
        return done.json() if done.content else {}

    def declare_site(self, name: str) -> None:
        """Declare a site."""
        self.answer("PUT", f"/v1/sites/{name}", json={"kind": "Site", "version": "farshore/v1", "name": name})

    def declare(self, document: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Declare a pair; return what was accepted."""
        body = {"document": dict(document), **more}
        found: dict[str, Any] = self.answer("PUT", f"/v1/pairs/{document['name']}", json=body)
        return found

    def switchover(self, pair: str, site: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """Move the active side and wait for the end; return the operation. Raises AssertionError unless it is done."""
        body = {"verb": "switchover", "to_site": site}
        operation = self.answer("POST", f"/v1/pairs/{pair}/operations", json=body)
        ended = self.wait_for_operation(pair, operation["id"], seconds=seconds)
        if ended["state"] != "done":
            raise AssertionError(f"the switchover ended {ended['state']}: {json.dumps(ended)[:4000]}")
        return ended

    def wait_for_operation(self, pair: str, operation: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for an operation's end and return it."""
        deadline = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.answer("GET", f"/v1/pairs/{pair}/operations/{operation}?wait_seconds=5")
            if found["state"] not in ("open", "waiting"):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{operation} has not ended after {seconds:.0f} s: {json.dumps(found)[:4000]}")

    def status(self, pair: str) -> dict[str, Any]:
        """Return the status of a pair."""
        found: dict[str, Any] = self.api("GET", f"/v1/pairs/{pair}").raise_for_status().json()["status"]
        return found

    def wait_for_phase(self, pair: str, phase: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until the pair is in a phase; return its status."""
        last: dict[str, Any] = {}

        def reached() -> bool:
            last.clear()
            last.update(self.status(pair))
            return bool(last["phase"] == phase)

        try:
            wait_until(reached, f"{pair} is {phase}", seconds=seconds, poll_seconds=0.1)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; status: {json.dumps(last)[:4000]}\nlog: {self.log.read_text()[-3000:]}"
            ) from None
        return last
