"""The probe process: listens on one port per site, answers from disk and database, and takes orders from its agent.

Started apart from the agent and adopted again by the next one. It holds passwords in memory only; it writes nothing but
its pid file, its control socket and its log.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from farshore_agent import logs, processes
from farshore_agent.engines.probing import CheckFactory, ProbeTarget, WritableCheck
from farshore_agent.probes.answers import KEEP_SECONDS, ProbedSide
from farshore_agent.probes.control import (
    PROTOCOL,
    SOCKET_NAME,
    Message,
    ProbeSpec,
    is_same_user,
    reachable_path,
    receive,
    send,
    spec_of,
)
from farshore_agent.probes.web import Listener, Page
from farshore_agent.secrets import Redactor
from farshore_schema import __version__
from farshore_schema.roles import Side

PID_NAME: Final = "probe" + processes.PID_SUFFIX
WHAT: Final = "role probes"
CHECK_THREADS: Final = 32
FINISH_SECONDS: Final = 1.0
CONTROL_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


class ProbeProcess:
    """Everything the process holds; lives on one event loop, orders arrive on the control thread."""

    def __init__(self, directory: Path, factories: Mapping[str, CheckFactory]) -> None:
        self._directory, self._factories = directory, factories
        self._threads = ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check")
        self._sides: dict[tuple[str, Side], ProbedSide] = {}
        self._by_name: dict[tuple[str, str], ProbedSide] = {}
        self._listeners: dict[str, Listener] = {}
        self._redactor = Redactor()
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        control = _listen_for_orders(self._directory)
        thread = threading.Thread(target=self._take_orders, args=(control, loop), name="control", daemon=True)
        thread.start()
        keeping = asyncio.create_task(self._keep_connections())
        _log.info("probe process ready", version=__version__)
        await self._end.wait()
        keeping.cancel()
        await asyncio.gather(*(each.end(FINISH_SECONDS) for each in self._listeners.values()))
        _log.info("probe process ended")

    # ---- answers

    async def _respond(self, site: str, path: str) -> Page:
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["healthz"]:
            return Page(200, "the probe process runs")
        if len(parts) != 2 or parts[0] not in ("primary", "standby"):
            return Page(404, "ask /primary/PAIR or /standby/PAIR")
        side = self._by_name.get((site, parts[1]))
        if side is None:
            return Page(503, f"{site} serves no pair of that name")
        answer = await side.answer("primary" if parts[0] == "primary" else "standby")
        return Page(answer.status, self._redactor.text(answer.reason))  # drivers quote what they were given

    async def _keep_connections(self) -> None:
        while True:
            sides = tuple(self._sides.values())
            for side in sides:
                await side.keep()
                await asyncio.sleep(0)
            await asyncio.sleep(KEEP_SECONDS / 2)

    # ---- orders

    def _take_orders(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            link, _ = control.accept()
            with link:
                link.settimeout(CONTROL_SECONDS)
                try:
                    if not is_same_user(link):
                        continue
                    request = receive(link)
                    answer = asyncio.run_coroutine_threadsafe(self._obey(request), loop).result(CONTROL_SECONDS)
                    send(link, answer)
                except (OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
                    _log.warning("order not understood", error=type(error).__name__)

    async def _obey(self, request: Message) -> Message:
        what = request.body.get("do")
        if what == "configure":
            self._configure(request.body)
        elif what == "listen":
            await self._listen(str(request.body["site"]), request.descriptors)
        elif what == "end":
            self._end.set()
        elif what not in ("hello", "listeners"):
            raise ValueError(f"unknown order {what!r}")
        sites = sorted(self._listeners)
        answer: dict[str, object] = {
            "protocol": PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "ports": {site: self._listeners[site].port for site in sites},
        }
        handles = [self._listeners[site].socket.fileno() for site in sites] if what == "listeners" else []
        return Message(answer, handles)

    def _configure(self, body: dict[str, object]) -> None:
        plain = body["sides"]
        if not isinstance(plain, list):
            raise ValueError("no list of sides")
        specs = [spec_of(each) for each in plain]
        kept: dict[tuple[str, Side], ProbedSide] = {}
        for spec in specs:
            old = self._sides.get((spec.pair, spec.side))
            # The same target keeps its connection: on a full server there would be no other.
            kept[spec.pair, spec.side] = old if old is not None and old.spec == spec else self._probed(spec)
        for key, side in self._sides.items():
            if kept.get(key) is not side:
                side.close()
        self._sides = kept
        self._by_name = {(side.spec.site, side.spec.pair): side for side in kept.values()}
        _log.info("probe process configured", sides=len(kept))

    def _probed(self, spec: ProbeSpec) -> ProbedSide:
        if spec.target is not None:
            self._redactor.learn(spec.target.password)
        return ProbedSide(spec, factories=self._factories, threads=self._threads)

    async def _listen(self, site: str, descriptors: list[int]) -> None:
        (descriptor,) = descriptors
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)

        async def respond(path: str) -> Page:
            return await self._respond(site, path)

        listener = Listener(sock, respond)
        await listener.start()
        old, self._listeners[site] = self._listeners.get(site), listener
        if old is not None:
            await old.end(0)
        _log.info("probe port open", site=site, port=listener.port)

    @property
    def redactor(self) -> Redactor:
        """Return what keeps passwords out of the log."""
        return self._redactor


def _listen_for_orders(directory: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        (directory / SOCKET_NAME).unlink()  # of a dead predecessor: the agent made sure that it is dead or ending
    with reachable_path(directory) as path:
        control.bind(path)
    (directory / SOCKET_NAME).chmod(0o600)
    control.listen(16)
    return control


def _mysql_check(target: ProbeTarget) -> WritableCheck:
    from farshore_agent.mysql.probe import MySQLWritable  # only a process that asks a MySQL loads its driver

    return MySQLWritable(target)


CHECKS: Final[Mapping[str, CheckFactory]] = {"mysql": _mysql_check}


def main(arguments: list[str] | None = None, *, factories: Mapping[str, CheckFactory] = CHECKS) -> None:
    """Run the process until it is told to end."""
    parser = argparse.ArgumentParser(description="Answers role probes; started by farshore-agent.")
    parser.add_argument("--directory", type=Path, required=True)
    directory: Path = parser.parse_args(arguments).directory
    processes.ensure_own_pid_file(directory / PID_NAME, WHAT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.run(_serve(directory, factories))
    os._exit(0)  # a check that hangs on a dead server must not keep the process


async def _serve(directory: Path, factories: Mapping[str, CheckFactory]) -> None:
    process = ProbeProcess(directory, factories)
    logs.configure(process.redactor)
    await process.run()


if __name__ == "__main__":
    main()
