"""The running agent: its parts put together, from the first lock to the last file closed.

Order of a start: hold the directory, serve again what was served, look, answer probes, and only then dial: nothing that
protects data waits for the reconciler (I10).
"""

import asyncio
import functools
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from websockets.asyncio.client import ClientConnection, connect

from farshore_agent import lock, logs
from farshore_agent.engines import Looker
from farshore_agent.inspection import Inspections
from farshore_agent.lane import Hands
from farshore_agent.observe import Observer
from farshore_agent.probes.keeper import PROBE_COMMAND, Probes
from farshore_agent.probes.specs import probe_specs
from farshore_agent.secrets import Secrets
from farshore_agent.session import Identity, Introduction, Session
from farshore_agent.settings import Settings, is_loopback, session_url, tls_context
from farshore_agent.sides import EngineFactory, Sides
from farshore_schema.errors import FarshoreError
from farshore_schema.messages import MESSAGE_BYTES_MAX, Assign, Command, Inspect, Unassign

QUICK_THREADS: Final = 64
SLOW_THREADS: Final = 32  # copies and drains under way at once
LOOK_THREADS: Final = 64
LOCK_SECONDS: Final = 10.0  # the agent before this one may still be going down
PARENT_POLL_SECONDS: Final = 0.5
PROBE_TICK_SECONDS: Final = 1.0
FINISH_SECONDS: Final = 1.5  # the embedded agent's parent kills after 2
PING_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class Agent:
    """One run of the agent on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        engines: Mapping[str, EngineFactory],
        look: Looker,
        secrets: Secrets,
        probe_command: Sequence[str] = PROBE_COMMAND,
    ) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._pools = {
            name: ThreadPoolExecutor(threads, thread_name_prefix=name)
            for name, threads in (("quick", QUICK_THREADS), ("slow", SLOW_THREADS), ("look", LOOK_THREADS))
        }
        self._probe_turn = ThreadPoolExecutor(1, thread_name_prefix="probes")
        self._probes_due = asyncio.Event()
        self.observer = Observer(self._submit("look"))
        identity = Identity(agent=settings.agent, embedded=settings.embedded, introduce=self._introduce)
        self.session = Session(identity=identity, dial=self._dialer(), ears=self, overdue=self.observer.overdue)
        self.sides = Sides(
            root=settings.directory,
            engines=engines,
            secrets=secrets,
            hands=Hands(self._submit("quick"), self._submit("slow")),
            observer=self.observer,
            outlet=self.session,
            on_served=self._want_probes,
        )
        self.probes = Probes(
            settings.directory,
            specs=functools.partial(probe_specs, settings.directory, self.sides.assignments, secrets),
            host=settings.probe_host,
            chosen=settings.probe_ports,
            command=probe_command,
        )
        self._inspections = Inspections(look, secrets, self.session.inspected)
        self._told_sites: tuple[str, ...] = settings.sites

    async def run(self, ended: asyncio.Event) -> None:
        """Work until `ended` is set."""
        self.sides.restore()
        self.observer.start()
        self.probes.open_sites(self._settings.sites)
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(self.session.run(), name="session"),
            asyncio.create_task(self._keep_probes(), name="probes"),
            asyncio.create_task(ended.wait(), name="ended"),
        ]
        if self._settings.embedded:
            tasks.append(asyncio.create_task(_parent_gone(os.getppid()), name="parent"))
        try:
            await self._until_ended(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._finish()

    # ---- what the session hears

    def assign(self, message: Assign) -> None:
        """Serve a side."""
        self.sides.assign(message)

    def unassign(self, message: Unassign) -> None:
        """Serve a side no more."""
        self.sides.unassign(message)

    def command(self, message: Command) -> None:
        """Carry out an order."""
        self.sides.command(message)

    def inspect(self, message: Inspect) -> None:
        """Look at a declaration's endpoints."""
        self._inspections.ask(message)

    def welcomed(self, sites: tuple[str, ...]) -> bool:
        """Open a probe port for every site; True when there was a new one, which the hello must name."""
        self._told_sites = sites
        try:
            new = self.probes.open_sites(sites)
        except FarshoreError as error:
            _log.error("no probe port", code=error.code, reason=error.message, hint=error.hint)
            return False
        if new:
            self._probes_due.set()
        return new

    # ---- parts

    def _introduce(self) -> Introduction:
        return Introduction(self._settings.sites, self.probes.ports())

    def _submit(self, name: str) -> Callable[[Callable[[], None]], None]:
        pool = self._pools[name]

        def submit(work: Callable[[], None]) -> None:
            try:
                pool.submit(work)
            except RuntimeError:  # the pool is shut down: the agent is going down, and orders are asked for again
                _log.debug("work dropped at the end")

        return submit

    def _dialer(self) -> Callable[[], Awaitable[ClientConnection]]:
        settings = self._settings
        url, context = session_url(settings), tls_context(settings)
        near = is_loopback(url.split("://", 1)[1].split("/", 1)[0].rsplit(":", 1)[0].strip("[]"))

        async def dial() -> ClientConnection:
            return await connect(
                url,
                additional_headers={"Authorization": f"Bearer {settings.credential}"},
                max_size=MESSAGE_BYTES_MAX,
                ssl=context,
                compression=None,  # messages are small, and secrets must not meet chosen text under compression
                ping_interval=PING_SECONDS,
                ping_timeout=2 * PING_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=None if near else True,
            )

        return dial

    def _want_probes(self) -> None:
        self._loop.call_soon_threadsafe(self._probes_due.set)

    async def _keep_probes(self) -> None:
        while True:
            self._probes_due.clear()
            try:
                await self._loop.run_in_executor(self._probe_turn, self.probes.tick)
            except FarshoreError as error:
                _log.warning("probes not as they should be", code=error.code, reason=error.message, hint=error.hint)
            except Exception:  # noqa: BLE001 - the boundary: without probes, protection goes on all the same
                _log.exception("defect while keeping probes")
            try:
                async with asyncio.timeout(PROBE_TICK_SECONDS):
                    await self._probes_due.wait()
            except TimeoutError:
                continue

    async def _until_ended(self, tasks: "list[asyncio.Task[object]]") -> None:
        """Return when the run is to end; the session may end for good before that, protection goes on then."""
        waiting = set(tasks)
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
                if task.get_name() != "session":
                    _log.info("agent ends", why=task.get_name())
                    return

    async def _finish(self) -> None:
        """Cancel what can be cancelled; whatever does not listen ends with the process, and is asked for again."""
        self.observer.close()
        closing = self._loop.run_in_executor(self._probe_turn, self.sides.close)
        await asyncio.wait({closing}, timeout=FINISH_SECONDS)
        for pool in (*self._pools.values(), self._probe_turn):
            pool.shutdown(wait=False, cancel_futures=True)


async def _parent_gone(parent: int) -> None:
    """Return when the process that started this one is gone (also when it was pid 1 of a container)."""
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel offers no event for it that a thread's end cannot forge
        await asyncio.sleep(PARENT_POLL_SECONDS)


def run(
    settings: Settings,
    *,
    engines: Mapping[str, EngineFactory],
    look: Looker,
    probe_command: Sequence[str] = PROBE_COMMAND,
) -> None:
    """Run the agent until it is told to end, or its parent is gone; data-path processes go on (I10).

    Raises Permanent("directory_in_use") when another agent runs on the directory.
    """
    secrets = Secrets()
    secrets.redactor.learn(settings.credential)
    logs.configure(secrets.redactor)

    async def work() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        agent = Agent(settings, engines=engines, look=look, secrets=secrets, probe_command=probe_command)
        _log.info("agent started", directory=str(settings.directory), agent=settings.agent, embedded=settings.embedded)
        await agent.run(ended)

    with lock.only_agent(settings.directory, wait_seconds=LOCK_SECONDS):
        asyncio.run(work())
