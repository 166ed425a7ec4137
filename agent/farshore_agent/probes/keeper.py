"""The agent's hand on its probe process: start it, adopt it, tell it what to answer for, replace it by a newer one.

Nothing here is needed for an answer: when the agent dies, the process goes on (R23). It knows no engine and no session.
"""

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from farshore_agent import durable, processes
from farshore_agent.probes.control import Message, ProbeSpec, ask
from farshore_agent.probes.process import PID_NAME, WHAT
from farshore_schema import __version__
from farshore_schema.errors import Permanent, Transient

PROBE_COMMAND: Final = (sys.executable, "-m", "farshore_agent.probes.process")
DIRECTORY: Final = "probes"
PORTS_FILE: Final = "ports.json"
FORMER_PID_NAME: Final = "probe-former" + processes.PID_SUFFIX
LOG_FILE: Final = "probe.log"
LOG_BYTES_MAX: Final = 4 * 1024 * 1024  # the log begins anew at a start of the process when it is longer
FIRST_PORT: Final = 8610  # of a site for which none was chosen
PORTS_TRIED_MAX: Final = 1000
START_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05
SILENT_TICKS_MAX: Final = 3  # a process that lives and does not answer so often is ended
BACKLOG: Final = 256

_log = structlog.get_logger(__name__)


class Probes:
    """The probe process of one agent directory. `tick` does the work; call it from one thread."""

    def __init__(
        self,
        root: Path,
        *,
        specs: Callable[[], Iterable[ProbeSpec]],
        host: str = "127.0.0.1",
        chosen: Mapping[str, int] | None = None,
        command: Sequence[str] = PROBE_COMMAND,
    ) -> None:
        """`specs` gives what to answer for now; `chosen` are the ports a person named."""
        self._directory = root / DIRECTORY
        self._specs, self._host, self._chosen = specs, host, dict(chosen or {})
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._ports = self._kept_ports() | self._chosen
        self._told = ""  # digest of what the process was told last
        self._silent = 0

    def ports(self) -> dict[str, int]:
        """Return the port of every site."""
        with self._lock:
            return dict(self._ports)

    def open_sites(self, sites: Iterable[str]) -> bool:
        """Choose a port for every site that has none; True when there was one. `tick` opens it."""
        with self._lock:
            new = [site for site in sites if site not in self._ports]
            for site in new:
                self._ports[site] = self._free_port()
            if new:
                self._keep_ports()
            return bool(new)

    def tick(self) -> None:
        """Bring the process to what it should be; raises when that does not work now. Idempotent."""
        ports = self.ports()
        if not ports:
            return
        self._end_former()
        hello = self._living() or self._start()
        if hello.get("version") != __version__:
            hello = self._take_over()
        listening = hello.get("ports")
        have = listening if isinstance(listening, dict) else {}
        self._configure()
        for site, port in ports.items():
            if have.get(site) != port:
                with self._listen_on(port) as sock:
                    ask(self._directory, {"do": "listen", "site": site}, [sock.fileno()])

    # ---- the process

    def _living(self) -> dict[str, object] | None:
        """Return what the present process says of itself, None when there is none to talk to any more."""
        processes.reap()
        process = processes.read_pid_file(self._pid_file)
        if process is None or not process.alive:
            return None
        try:
            answer = ask(self._directory, {"do": "hello"}).body
        except Transient:
            self._silent += 1
            if self._silent < SILENT_TICKS_MAX:
                raise
            _log.error("probe process does not answer", pid=process.pid)
            processes.end(process)
            return None
        self._silent = 0
        return answer

    def _start(self) -> dict[str, object]:
        durable.make_directory(self._directory)
        log = self._directory / LOG_FILE
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.unlink()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, durable.PRIVATE_FILE)
        with os.fdopen(handle, "ab") as output:
            process = processes.spawn(
                [*self._command, "--directory", str(self._directory)],
                pid_file=self._pid_file,
                what=WHAT,
                environment=processes.child_environment(),
                output=output,
            )
        self._told = ""
        answer = self._await_answer(process)
        _log.info("probe process started", pid=process.pid)
        return answer

    def _await_answer(self, process: processes.Process) -> dict[str, object]:
        deadline = time.monotonic() + START_SECONDS
        while process.alive and time.monotonic() < deadline:
            try:
                answer = ask(self._directory, {"do": "hello"}).body
            except Transient:
                time.sleep(POLL_SECONDS)
                continue
            if answer.get("pid") == process.pid:
                return answer
            time.sleep(POLL_SECONDS)  # the one before it has not let go of the socket yet
        raise Permanent(
            "agent_unreachable", "the probe process did not start", hint=f"see {self._directory / LOG_FILE}"
        )

    def _take_over(self) -> dict[str, object]:
        """Start a process of this release on the old one's own listeners: no connection is refused meanwhile."""
        given = ask(self._directory, {"do": "listeners"})
        sites = sorted(_ports_of(given))
        try:
            former = processes.read_pid_file(self._pid_file)
            if former is not None:
                processes.write_pid_file(self._former_pid_file, former)  # found and ended even if this agent dies now
            answer = self._start()
            self._configure()
            for site, descriptor in zip(sites, given.descriptors, strict=True):
                answer = ask(self._directory, {"do": "listen", "site": site}, [descriptor]).body
        finally:
            for descriptor in given.descriptors:
                os.close(descriptor)
        self._end_former()
        _log.info("probe process replaced", version=__version__)
        return answer

    def _end_former(self) -> None:
        """End the process that a newer one replaced; it finishes the answers under way."""
        former = processes.read_pid_file(self._former_pid_file)
        if former is not None:
            present = processes.read_pid_file(self._pid_file)
            if present is not None and present.pid != former.pid and present.alive:
                processes.end(former)
            self._former_pid_file.unlink()

    def _configure(self) -> None:
        sides = [spec.plain() for spec in self._specs()]
        digest = hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()
        if digest != self._told:
            ask(self._directory, {"do": "configure", "sides": sides})
            self._told = digest

    # ---- ports

    def _listen_on(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise Transient(
                "unreachable",
                f"the probe port {port} cannot be opened ({error.strerror})",
                hint="end what listens there, or choose another one with --probe-port SITE=PORT",
            ) from error
        return sock

    def _free_port(self) -> int:
        taken = set(self._ports.values())
        for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED_MAX):
            if port in taken:
                continue
            try:
                self._listen_on(port).close()
            except Transient:
                continue
            return port
        raise Permanent("agent_unreachable", "no free port for role probes", hint="choose one: --probe-port SITE=PORT")

    def _kept_ports(self) -> dict[str, int]:
        content = durable.read(self._directory / PORTS_FILE)
        return {} if content is None else _ports_of(Message(content))

    def _keep_ports(self) -> None:
        durable.make_directory(self._directory)
        durable.write(self._directory / PORTS_FILE, {"ports": dict(self._ports)})

    @property
    def _former_pid_file(self) -> Path:
        return self._directory / FORMER_PID_NAME

    @property
    def _pid_file(self) -> Path:
        return self._directory / PID_NAME


def _ports_of(message: Message) -> dict[str, int]:
    ports = message.body.get("ports")
    if not isinstance(ports, dict):
        return {}
    return {site: port for site, port in ports.items() if isinstance(site, str) and isinstance(port, int)}
