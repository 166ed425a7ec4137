"""`farshore serve`: puts the parts of one reconciler together, runs them, and ends them within seconds.

Store, loop, agents, API and the embedded agent meet here and nowhere else. Ending it ends this process and the embedded
agent; data-path and probe processes go on (R7, I10).
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from random import SystemRandom
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from farshore import bootstrap, logs
from farshore.api import tokens
from farshore.api.app import create_app
from farshore.api.metrics import LoopCounts, Metrics, Sources
from farshore.api.ports import Ending, Services
from farshore.clock import Clock, SystemClock
from farshore.embedded import EmbeddedAgent
from farshore.settings import Settings
from farshore.store.sqlite import SqliteStore
from farshore.store.timed import TimedStore
from farshore.supervisor import Supervisor
from farshore_schema.errors import FarshoreError, Permanent
from farshore_schema.messages import MESSAGE_BYTES_MAX

AGENT_FOLDER: Final = "agent"  # of the embedded agent, below the directory
BACKLOG: Final = 1024  # connections that wait to be accepted: a Pulumi program and a thousand probes at once
KEEP_ALIVE_SECONDS: Final = 65  # above the idle timeout of common proxies, so that they close first
LOOPBACK: Final = "127.0.0.1"

_log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises FarshoreError when it cannot start, or its store fails."""
    settings = settings.checked()
    logs.configure()
    clock = SystemClock()
    metrics = Metrics()
    with contextlib.closing(SqliteStore(settings.directory, clock)) as embedded:
        store = TimedStore(embedded, clock, metrics.txn_took)
        try:
            asyncio.run(_serve(settings, clock, store, metrics))
        except* FarshoreError as errors:
            raise _first(errors) from None


def _first(group: BaseExceptionGroup[FarshoreError]) -> FarshoreError:
    """Return the first error of ours in a group of groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _serve(settings: Settings, clock: Clock, store: TimedStore, metrics: Metrics) -> None:
    supervisor = Supervisor(store=store, clock=clock, random=SystemRandom())
    bootstrap.ensure_admin_token(settings.directory, supervisor.desk.records, clock)
    metrics.serve(store, _sources(supervisor))
    credential = tokens.random_token("agent")
    services = Services(
        settings=settings,
        desk=supervisor.desk,
        agents=supervisor.agents,
        metrics=metrics,
        live=supervisor.live,
        embedded_hash=tokens.hashed(credential) if settings.embedded_agent else "",
    )
    app = create_app(services)
    with contextlib.ExitStack() as sockets:
        doors = [Door(app, settings, sockets.enter_context(listening(settings.host, settings.port)))]
        if settings.tls_cert is not None:
            # A certificate names the machine, not its loopback address: what runs here comes in by a door of its own.
            doors.append(Door(app, settings, sockets.enter_context(listening(LOOPBACK, 0)), tls=False))
        url = f"http://{LOOPBACK}:{doors[-1].port}" if settings.tls_cert else settings.url(doors[0].port)
        agent = EmbeddedAgent(url=url, directory=settings.directory / AGENT_FOLDER, credential=credential, clock=clock)
        await _run(settings, supervisor, doors, agent, url, services.ending)


async def _run(
    settings: Settings, supervisor: Supervisor, doors: "list[Door]", agent: EmbeddedAgent, url: str, ending: Ending
) -> None:
    """Run every part until a signal, then end them: requests first, so that nothing asked for is cut off."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as parts:
        running = [parts.create_task(supervisor.run(), name="loop")]
        serving = [parts.create_task(door.serve(), name="api") for door in doors]
        try:
            for door in doors:
                await door.opened()
            bootstrap.write_endpoint(settings.directory, url)
            _log.info("serving", url=settings.url(doors[0].port), directory=str(settings.directory))
            if settings.embedded_agent:
                running.append(parts.create_task(agent.run(), name="embedded-agent"))
            await stop.wait()
        finally:
            _log.info("stopping", directory=str(settings.directory))
            bootstrap.remove_endpoint(settings.directory)
            ending.begin()
            for door in doors:
                door.close()
            for task in running:
                task.cancel()
        await asyncio.wait(serving)


def _sources(supervisor: Supervisor) -> Sources:
    def loop() -> LoopCounts:
        counters = supervisor.loop.counters
        return LoopCounts(
            visits=counters.visits,
            visits_failed=supervisor.visits_failed,
            visit_seconds=supervisor.visit_seconds,
            commands=counters.commands,
            transactions=counters.transactions,
            conflicts=counters.conflicts,
        )

    return Sources(observed=supervisor.sightings.observed, sessions=lambda: len(supervisor.agents.agents()), loop=loop)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket; raise Permanent("invalid_request") when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Permanent(
            "invalid_request",
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="another program may use it; choose one with --port, or 0 for any",
        ) from error
    # asyncio switches Nagle's algorithm off only for sockets that name their protocol; create_server names none, and
    # every small answer and agent message would wait up to 40 ms for the other end's delayed acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=bound.detach()) as named:
        yield named


class Door(uvicorn.Server):
    """One listening socket of the API. Signals are the process's business, not the server's."""

    def __init__(self, app: FastAPI, settings: Settings, bound: socket.socket, *, tls: bool = True) -> None:
        cert, key = (settings.tls_cert, settings.tls_key) if tls else (None, None)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws_max_size=MESSAGE_BYTES_MAX,
                ws_ping_interval=None,  # agents say `alive` every second; a ping behind a long queue proves nothing
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(settings.stop_seconds),
                ssl_certfile=str(cert) if cert else None,
                ssl_keyfile=str(key) if key else None,
                proxy_headers=False,  # "who asks from this machine" must not be claimed by a header
            )
        )
        self._bound = bound
        self.port: int = bound.getsockname()[1]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until `close`."""
        await super().serve(sockets or [self._bound])

    async def opened(self) -> None:
        """Return once requests are answered."""
        while not self.started:  # noqa: ASYNC110 (uvicorn has a flag, no event)
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """End: no new requests, and the open ones have their time."""
        self.should_exit = True
