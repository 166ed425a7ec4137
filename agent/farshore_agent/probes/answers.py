"""One side's answer to "are you the active one": the durable record says so, and the database was just seen writable.

Both must agree, and unknown is no (R14, R23). The record is read anew for every question, so that a fence or a
promotion shows with the next one; the database is asked at most every `FRESH_SECONDS`, over one kept connection.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog

from farshore_agent import durable
from farshore_agent.admission import awaits_opening, serves_primary
from farshore_agent.engines.probing import CheckFactory, WritableCheck
from farshore_agent.probes.control import ProbeSpec
from farshore_agent.records import parse_record, read_record
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import Record

FRESH_SECONDS: Final = 0.02
SEEN_SECONDS: Final = 1.0  # an older sight of the database is none
PATIENCE_SECONDS: Final = 0.3
"""A question waits so long for the database; a sight younger than `SEEN_SECONDS` is used then. Proxies ask often and
give up soon."""
HOLD_SECONDS: Final = 0.4
"""While this side is about to be opened, a question for the active side is kept open so long: clients then wait for the
opening only, and not for the next question of their proxy as well. One that gives up sooner has seen a no."""
HOLD_TICK_SECONDS: Final = 0.005
KEEP_SECONDS: Final = 5.0  # a connection nobody asked through is used so often, so that it stays open

Verb = Literal["primary", "standby"]

_log = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """What a client of the probe gets."""

    status: Literal[200, 503, 404]
    reason: str  # one line


@dataclass(frozen=True)
class _Sight:
    """What the database said of itself, and when."""

    writable: bool | None  # None: it could not be asked
    reason: str
    at: float


_NEVER: Final = _Sight(None, "the database was not asked yet", float("-inf"))


class ProbedSide:
    """One side in the probe process; used on the event loop, checks run on borrowed threads."""

    def __init__(
        self,
        spec: ProbeSpec,
        *,
        factories: Mapping[str, CheckFactory],
        threads: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._factories, self._threads, self._clock = factories, threads, clock
        self._check: WritableCheck | None = None
        self._sight = _NEVER
        self._looking: asyncio.Future[None] | None = None
        self._raw, self._record = b"", Record()
        self._said: dict[Verb, int] = {}
        self._closed = False

    async def answer(self, verb: Verb) -> Answer:
        """Return the answer; never raises, and takes at most `PATIENCE_SECONDS` beyond `HOLD_SECONDS`."""
        answer = await self._answer(verb)
        if verb == "primary" and answer.status != 200:
            answer = await self._held(answer)
        if self._said.get(verb) != answer.status:
            self._said[verb] = answer.status
            _log.info(
                "probe answers",
                pair=self.spec.pair,
                site=self.spec.site,
                verb=verb,
                status=answer.status,
                reason=answer.reason,
            )
        return answer

    async def keep(self) -> None:
        """Ask the database when nobody did for a while: its connection is there when the server has no more to give."""
        if self._clock() - self._sight.at >= KEEP_SECONDS:
            await self._look()

    def close(self) -> None:
        """Let go of the connection once no thread uses it."""
        self._closed = True
        if self._looking is None and self._check is not None:
            self._threads.submit(self._check.close)
            self._check = None

    async def _held(self, answer: Answer) -> Answer:
        """Ask again and again while this side is about to be opened; return the last answer."""
        for _ in range(round(HOLD_SECONDS / HOLD_TICK_SECONDS)):
            if answer.status == 200 or not self._opens_soon():
                break
            await asyncio.sleep(HOLD_TICK_SECONDS)
            answer = await self._answer("primary", fresh_seconds=HOLD_TICK_SECONDS)
        return answer

    def _opens_soon(self) -> bool:
        """Whether a role change is under way here; a database that does not answer is not about to be opened."""
        promoted = serves_primary(self._record)
        return awaits_opening(self._record) and not (promoted and self._sight.writable is None)

    async def _answer(self, verb: Verb, *, fresh_seconds: float = FRESH_SECONDS) -> Answer:
        try:
            record = self._read()
        except FarshoreError as error:
            return Answer(503, f"the durable record is not usable ({error.code})")
        refusal = _not_by_record(record, verb, self.spec.site)
        if refusal:
            return Answer(503, refusal)
        if self._clock() - self._sight.at > fresh_seconds:
            await self._look()
        sight = self._sight
        if self._clock() - sight.at > SEEN_SECONDS:
            return Answer(503, "the database did not answer within the last second")
        if sight.writable is None:
            return Answer(503, sight.reason)
        if sight.writable != (verb == "primary"):
            return Answer(503, f"the database at {self.spec.site} is {'' if sight.writable else 'not '}writable")
        return Answer(200, f"{self.spec.site} is the {verb} of {self.spec.pair} in epoch {record.epoch}")

    def _read(self) -> Record:
        path = Path(self.spec.record)
        try:
            raw = path.read_bytes()  # a few pages from the page cache: cheaper than being wrong once
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise durable.corrupt(path, f"cannot be read ({error.strerror})") from error
        if raw != self._raw:
            try:
                self._record = parse_record(raw, path, self.spec.pair, self.spec.side)
            except FarshoreError:  # perhaps the agent was writing: look again, as often as it takes to be sure
                self._raw = b""
                return read_record(path, self.spec.pair, self.spec.side) or Record()
            self._raw = raw
        return self._record

    async def _look(self) -> None:
        """Ask the database, or wait for the question that is under way; at most `PATIENCE_SECONDS`."""
        if self._looking is None and not self._closed:
            self._looking = asyncio.ensure_future(self._ask())
            self._looking.add_done_callback(self._looked)
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE_SECONDS)

    async def _ask(self) -> None:
        began = self._clock()
        writable, reason = await asyncio.get_running_loop().run_in_executor(self._threads, self._question)
        self._sight = _Sight(writable, reason, began)

    def _looked(self, _done: asyncio.Future[None]) -> None:
        self._looking = None
        if self._closed:
            self.close()

    def _question(self) -> tuple[bool | None, str]:
        """Ask on a borrowed thread; the one net under everything that a driver can throw."""
        target = self.spec.target
        if target is None:
            return None, self.spec.problem or "the database cannot be asked"
        try:
            if self._check is None:
                factory = self._factories.get(target.kind)
                if factory is None:
                    return None, f"this release cannot ask a {target.kind}"
                self._check = factory(target)
            return self._check.writable(), ""
        except FarshoreError as error:
            return None, f"{error.code}: {error.message}"
        except Exception as error:  # noqa: BLE001 - the boundary: a defect of a check must not end the probe
            _log.exception("defect while asking a database", pair=self.spec.pair, site=self.spec.site)
            return None, f"bug: {type(error).__name__}"


def _not_by_record(record: Record, verb: Verb, site: str) -> str:
    """Return why the durable record alone says no, "" when it does not."""
    if not record.enrolled:
        return f"{site} has no record of this pair"
    if verb == "primary" and not serves_primary(record):
        return f"{site} is not the active site in epoch {record.epoch}"
    if verb == "standby" and serves_primary(record):
        return f"{site} is the active site in epoch {record.epoch}"
    if verb == "standby" and record.base != "complete":
        return f"{site} holds no complete copy"
    if verb == "standby" and record.stream_epoch == 0:
        return (
            f"{site} does not follow the active site"  # for example after a failover: it may hold what nobody else does
        )
    return ""
