"""A real HAProxy in front of a pair, following its role probes as the documented recipe does.

The configuration is the recipe that users are given in docs/routing.md; a test compares the two.
"""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.debian import Unpacked, unpack
from tests.testbed.places import TestBedError, bed_directory, once, say
from tests.testbed.ports import LOOPBACK, release_port, reserve_port
from tests.testbed.processes import end, spawn

START_SECONDS = 20.0
POLL_SECONDS = 0.01
STATISTICS_BYTES_MAX = 1 << 20


def haproxy_program() -> tuple[str, ...]:
    """Return the argv prefix of haproxy: on PATH, else Debian's package unpacked into the test bed (seconds, once).

    Raises TestBedError when it cannot be had.
    """
    path = shutil.which("haproxy") or next((p for p in ("/usr/sbin/haproxy",) if Path(p).exists()), None)
    if path is not None:
        return (path,)
    home = bed_directory() / "haproxy"
    done = home / "installed"
    once(done, lambda: _install(home, done))
    return Unpacked(root=home / "root").run("usr/sbin/haproxy")


def _install(home: Path, done: Path) -> None:
    try:
        unpacked = unpack(["haproxy"], home)
    except TestBedError as error:
        raise TestBedError(f"{error}\nInstall haproxy so that it is on PATH, then repeat.") from error
    version = _version(unpacked.run("usr/sbin/haproxy"))
    done.write_text(version)
    say(f"HAProxy {version} is ready")


def _version(program: tuple[str, ...]) -> str:
    done = subprocess.run(
        [*program, "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    words = done.stdout.split()
    if done.returncode != 0 or len(words) < 3:
        raise TestBedError(f"haproxy -v failed: {done.stderr.strip()[-500:]}")
    return words[2]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One side of the pair as HAProxy sees it."""

    name: str
    port: int
    probe_port: int
    """Where `GET /primary/<pair>` answers 200 on the active side and 503 on the other."""
    host: str = LOOPBACK


class HAProxy:
    """One HAProxy process with one frontend, for two sides; a context manager that ends it."""

    def __init__(self, directory: Path, *, pair: str, first: Backend, second: Backend) -> None:
        self.pair = pair
        self.first = first
        self.second = second
        self.host = LOOPBACK
        self.port = reserve_port()
        self._statistics_port = reserve_port()
        self.home = directory / f"haproxy-{pair}"
        self.log = self.home / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    def configuration(self) -> str:
        """Return the recipe for this pair."""
        sides = [(self.first, ""), (self.second, " backup")]  # backup: never balance over two sides
        servers = "\n".join(
            f"    server {side.name} {side.host}:{side.port} check port {side.probe_port}{more}" for side, more in sides
        )
        return f"""\
global
    stats socket ipv4@{self.host}:{self._statistics_port}
defaults
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 1s
listen {self.pair}
    bind {self.host}:{self.port}
    mode tcp
    option httpchk GET /primary/{self.pair}
    http-check expect status 200
    default-server inter 100ms fastinter 50ms downinter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
{servers}
"""

    def start(self) -> None:
        """Start and wait until the frontend accepts connections; the sides may still be down.

        Raises TestBedError with HAProxy's own words when it does not come up.
        """
        if self._process is not None:
            return
        program = haproxy_program()
        self.home.mkdir(parents=True, exist_ok=True)
        configuration = self.home / "haproxy.cfg"
        configuration.write_text(self.configuration())
        with self.log.open("ab") as log:
            self._process = spawn([*program, "-db", "-f", str(configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
                return
            time.sleep(POLL_SECONDS)
        self.stop()
        raise TestBedError(f"HAProxy did not start: {self.log.read_text(errors='replace')[-1500:]}")

    def stop(self) -> None:
        """End it at once, with all its sessions."""
        if self._process is not None:
            end(self._process, kill=True)
            self._process = None

    def release(self) -> None:
        """End it for good and give its ports back."""
        self.stop()
        for port in (self.port, self._statistics_port):
            release_port(port)

    def up(self) -> dict[str, bool]:
        """Return which sides HAProxy holds for active now: `{"tokyo": True, "osaka": False}`."""
        table = csv.DictReader(io.StringIO(self._ask("show stat").removeprefix("# ")))
        names = (self.first.name, self.second.name)
        return {row["svname"]: row["status"].startswith("UP") for row in table if row["svname"] in names}

    def _ask(self, command: str) -> str:
        with socket.create_connection((self.host, self._statistics_port), START_SECONDS) as link:
            link.sendall(command.encode() + b"\n")
            answer = b""
            while (chunk := link.recv(65536)) and len(answer) < STATISTICS_BYTES_MAX:
                answer += chunk
        return answer.decode()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
