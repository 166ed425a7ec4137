"""The agent's conversation with the reconciler: dial, say hello, report, obey; dial again when it ends.

One WebSocket, one task that speaks and one that hears. Losing it stops nothing here (I10). It knows messages and
times, never what a command means; the same code serves the embedded and the stand-alone agent.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import structlog
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from farshore_agent.incoming import Unknown, understand
from farshore_agent.observe import Key
from farshore_agent.reporter import Reporter
from farshore_schema import __version__
from farshore_schema.errors import FarshoreError, Permanent, Transient
from farshore_schema.messages import (
    PROTOCOL,
    PROTOCOLS_SPOKEN,
    Assign,
    Command,
    Goodbye,
    Hello,
    Inspect,
    Inspected,
    Result,
    Unassign,
    Welcome,
)
from farshore_schema.observed import Finding, SideReport

WELCOME_SECONDS: Final = 10.0
SEND_SECONDS: Final = 15.0
RESULTS_MAX: Final = 4096  # outcomes kept while nobody listens; the facts say the same, so the oldest may go
REPEAT_SECONDS: Final = 15.0  # outcomes said so shortly before a session was lost are said again in the next one
REPEATED_MAX: Final = 256
REPORTS_AT_ONCE: Final = 64  # between two looks at results: outcomes are what clients wait for
BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 15.0
STEADY_SECONDS: Final = 10.0  # a session that lasted so long begins the backoff anew
REDIAL_NOW: Final = 0.0

_log = structlog.get_logger(__name__)


class Ears(Protocol):
    """Who obeys; called on the event loop, must return at once."""

    def assign(self, message: Assign) -> None: ...

    def unassign(self, message: Unassign) -> None: ...

    def command(self, message: Command) -> None: ...

    def inspect(self, message: Inspect) -> None: ...

    def welcomed(self, sites: tuple[str, ...]) -> bool:
        """Serve these sites; True when the hello must be said again, because it says more now."""
        ...


class Introduction(NamedTuple):
    """What the hello says that can change between sessions."""

    sites: tuple[str, ...]
    probe_ports: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who dials."""

    agent: str
    embedded: bool
    introduce: Callable[[], Introduction] = field(repr=False)


class Session:
    """The conversation, over and over. Lives on one event loop; the methods of `Outlet` may come from any thread."""

    def __init__(
        self,
        *,
        identity: Identity,
        dial: Callable[[], Awaitable[ClientConnection]],
        ears: Ears,
        overdue: Callable[[], tuple[Key, ...]],
        chance: random.Random | None = None,
    ) -> None:
        """`dial` opens a connection with the credential in its header; `overdue` names the sides nobody looked at."""
        self._identity, self._dial, self._ears, self._overdue = identity, dial, ears, overdue
        self._chance = chance or random.Random()  # noqa: S311 - spreads the redials, no secret depends on it
        self._loop = asyncio.get_running_loop()
        self._reporter = Reporter()
        self._answers: deque[Result | Inspected] = deque(maxlen=RESULTS_MAX)
        self._said: deque[tuple[float, Result | Inspected]] = deque(maxlen=REPEATED_MAX)
        self._ready = asyncio.Event()
        self._welcomed = False

    # ---- outlet, from any thread

    def result(self, result: Result) -> None:
        """Send an outcome."""
        self._call(self._answers.append, result)

    def inspected(self, answer: Inspected) -> None:
        """Send what a look at a declaration's endpoints showed."""
        self._call(self._answers.append, answer)

    def report(self, key: Key, incarnation: int, report: SideReport) -> None:
        """Send what was seen of a side, when it is due."""
        self._call(self._reporter.seen, key, incarnation, report)

    def assigned(self, key: Key) -> None:
        """Report a side anew."""
        self._call(self._reporter.assigned, key)

    def released(self, key: Key) -> None:
        """Report a side no more."""
        self._call(self._reporter.released, key)

    def _call(self, act: Callable[..., object], *arguments: object) -> None:
        def do() -> None:
            if act(*arguments) is not False:  # False: nothing became due
                self._ready.set()

        try:
            self._loop.call_soon_threadsafe(do)
        except RuntimeError:  # the loop is closed: the agent is going down and nobody listens any more
            _log.debug("said after the end")

    # ---- the conversation

    async def run(self) -> None:
        """Converse for ever; returns only when the reconciler said never to come back."""
        failures = 0
        while True:
            began = self._loop.time()
            pause = await self._once()
            if pause is None:
                _log.error("reconciler wants no further session", agent=self._identity.agent)
                return
            failures = 0 if self._welcomed and self._loop.time() - began > STEADY_SECONDS else failures + 1
            backoff = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(failures - 1, 10)) if failures else 0.0
            wait = max(pause, backoff)
            await asyncio.sleep(wait * (0.5 + self._chance.random() / 2) if pause != REDIAL_NOW or failures else 0)

    async def _once(self) -> float | None:
        """Hold one session; return the least pause before the next one, None for never."""
        self._welcomed = False
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                link = await self._dial()
        except InvalidStatus as error:
            status = error.response.status_code
            _log.error("reconciler refused the agent", status=status, hint=_hint_of(status))
            return BACKOFF_MAX_SECONDS if status in (401, 403) else BACKOFF_FIRST_SECONDS
        except (OSError, WebSocketException, TimeoutError) as error:
            _log.warning("reconciler not reached", error=type(error).__name__, reason=str(error))
            return BACKOFF_FIRST_SECONDS
        try:
            return await self._converse(link)
        except (ConnectionClosed, OSError, TimeoutError) as error:
            _log.warning("session lost", error=type(error).__name__, reason=str(error))
            return BACKOFF_FIRST_SECONDS
        except FarshoreError as error:
            _log.error("session ended", code=error.code, reason=error.message, hint=error.hint)
            return error.retry_seconds if isinstance(error, Transient) else BACKOFF_MAX_SECONDS
        except Exception:  # noqa: BLE001 - the boundary: a defect in a session must not end protection
            _log.exception("defect in a session")
            return BACKOFF_MAX_SECONDS
        finally:
            await link.close()

    async def _converse(self, link: ClientConnection) -> float | None:
        told = self._identity.introduce()
        hello = Hello(
            agent=self._identity.agent,
            agent_version=__version__,
            sites=told.sites,
            embedded=self._identity.embedded,
            probe_ports=told.probe_ports,
        )
        await _send(link, hello)
        async with asyncio.timeout(WELCOME_SECONDS):
            first = understand(await link.recv())
        if isinstance(first, Goodbye):
            return _goodbye(first)
        if not isinstance(first, Welcome) or first.protocol not in PROTOCOLS_SPOKEN:
            raise Permanent(
                "protocol_mismatch",
                f"the reconciler does not speak protocol {PROTOCOL}",
                hint="bring `farshore` and `farshore-agent` to releases that are at most one apart",
            )
        self._reporter.begin(self._loop.time())
        self._welcomed = True
        _log.info("session begun", sites=list(first.sites))
        if self._ears.welcomed(first.sites):
            return REDIAL_NOW
        self._repeat_recent()
        speaking = asyncio.create_task(self._speak(link), name="speak")
        hearing = asyncio.create_task(self._hear(link), name="hear")
        try:
            await asyncio.wait({speaking, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            speaking.cancel()
            hearing.cancel()
            said, heard = await asyncio.gather(speaking, hearing, return_exceptions=True)
        if isinstance(heard, BaseException) and not isinstance(heard, asyncio.CancelledError):
            raise heard
        if isinstance(said, BaseException) and not isinstance(said, asyncio.CancelledError):
            raise said
        return heard if isinstance(heard, float) or heard is None else BACKOFF_FIRST_SECONDS

    def _repeat_recent(self) -> None:
        """Say outcomes again that went into a connection shortly before it was lost: nobody knows who heard them."""
        now = self._loop.time()
        self._answers.extendleft(answer for at, answer in reversed(self._said) if now - at < REPEAT_SECONDS)
        self._said.clear()

    async def _hear(self, link: ClientConnection) -> float | None:
        """Obey until the reconciler ends the session; return the least pause before the next one, None for never."""
        while True:
            message = understand(await link.recv())
            match message:
                case Assign():
                    self._ears.assign(message)
                case Unassign():
                    self._ears.unassign(message)
                case Command():
                    self._ears.command(message)
                case Inspect():
                    self._ears.inspect(message)
                case Welcome():
                    if self._ears.welcomed(message.sites):
                        return REDIAL_NOW
                case Goodbye():
                    return _goodbye(message)
                case Unknown():
                    self._refuse(message)

    def _refuse(self, unknown: Unknown) -> None:
        """Say that a message was not understood, to whoever waits for its answer; end the session where nobody does."""
        _log.error("message not understood", type=unknown.type, reason=unknown.reason)
        error = Permanent(
            "protocol_mismatch",
            f"this agent does not understand {unknown.type or 'the message'}: {unknown.reason}",
            hint="bring `farshore` and `farshore-agent` to releases that are at most one apart",
        )
        if unknown.intent and unknown.pair and unknown.side is not None:
            self._answers.append(
                Result(intent=unknown.intent, pair=unknown.pair, side=unknown.side, state="refused", error=error.body())
            )
        elif unknown.request:
            finding = Finding(code=error.code, severity="error", message=error.message, hint=error.hint)
            self._answers.append(Inspected(request=unknown.request, findings=(finding,)))
        else:
            raise error
        self._ready.set()

    async def _speak(self, link: ClientConnection) -> None:
        while True:
            self._ready.clear()
            while self._answers:
                answer = self._answers[0]
                await _send(link, answer)
                if self._answers and self._answers[0] is answer:
                    self._answers.popleft()  # only now: an outcome that was not sent is sent in the next session
                    self._said.append((self._loop.time(), answer))
            reports = self._reporter.urgent(REPORTS_AT_ONCE)
            for report in reports:
                await _send(link, report)
            if len(reports) == REPORTS_AT_ONCE or self._answers:
                continue
            if self._reporter.alive_in(self._loop.time()) == 0:
                for message in self._reporter.tick(self._loop.time(), self._overdue()):
                    await _send(link, message)
            try:
                async with asyncio.timeout(self._reporter.alive_in(self._loop.time())):
                    await self._ready.wait()
            except TimeoutError:
                continue


async def _send(link: ClientConnection, message: BaseModel) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await link.send(message.model_dump_json())


def _goodbye(message: Goodbye) -> float | None:
    error = message.error
    _log.warning("reconciler said goodbye", code=error.code, reason=error.message, hint=error.hint)
    return None if message.retry_seconds <= 0 else message.retry_seconds


def _hint_of(status: int) -> str:
    return "enrol the agent again: farshore agents enrol --site SITE" if status in (401, 403) else ""
