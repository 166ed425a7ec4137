"""Keeps every pair visited: when something changed, when its time has come, and never two visits at once.

One asyncio task turns the crank: visits are synchronous and take well under a millisecond, so nothing is gained by
overlapping them, and between two of them the API and the sockets have their turn. Around it: the watch on the store,
the wakes from agents, the lease that makes this process the owner of its shards. A visit that fails is the boundary at
which errors stop: it is logged, counted and tried again, and no other pair suffers.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from random import Random
from typing import Final

import structlog

from farshore.admission.desk import Desk
from farshore.agenda import Agenda
from farshore.agents import AgentSessions
from farshore.clock import Clock
from farshore.directory import StoreDirectory
from farshore.loop import AT_ONCE, Loop
from farshore.ownership import KEEPALIVE_SECONDS, Ownership
from farshore.report import overlay
from farshore.sightings import Sightings
from farshore.store import LIST_MAX, Compacted, Store, Watch, keys
from farshore.store.records import Records
from farshore.tidy import TIDY_SECONDS, Tidy
from farshore_schema.errors import FarshoreError, Transient
from farshore_schema.messages import Result
from farshore_schema.status import PairStatus

CHECK_SECONDS: Final = 1.0  # silent sessions are looked for this often
RETRY_SECONDS: Final = 5.0  # after a visit that failed
AT_ONCE_MAX: Final = 32  # visits of one pair in a row; more is a pair that fights itself, and others wait
REST_SECONDS: Final = 1.0  # what such a pair waits
TURN_SECONDS: Final = 0.005  # of visits, before sockets and requests have their turn; listening has twice as much
FLUSH_SECONDS: Final = 0.1  # reports wait so long for others, to be written in one transaction
SPREAD: Final = 0.1  # of a pause: pairs that were put off together do not come back together
RECORDS_CACHED: Final = 50_000  # parsed values: what visits read of 12,000 pairs; fewer are parsed anew at every visit
STORE_FAILED: Final = "store_failed"  # what was last written is unknown: this process must end
WOKEN_BY: Final = frozenset({"spec", "role", "operation", "servers"})  # keys of a pair that a visit reads

_log = structlog.get_logger(__name__)


class Supervisor:
    """The loop, the agents and their wiring. Make it with a store, serve `agents`, run `run`."""

    def __init__(self, *, store: Store, clock: Clock, random: Random | None = None, node: str = "") -> None:
        """`node` names this process in the store, for people; the host's name and process id by default."""
        self._store, self._clock = store, clock
        self._random = random or Random()  # noqa: S311 (spreads load, guards nothing)
        self.sightings = Sightings(clock)
        self.desk = Desk(
            records=Records(store, cached=RECORDS_CACHED),
            clock=clock,
            random=self._random,
            observed=self.sightings.observed,
        )
        self._directory = StoreDirectory(self.desk.records)
        self.agents = AgentSessions(
            sightings=self.sightings,
            directory=self._directory,
            on_change=self.wake,
            on_result=self._on_result,
        )
        self.ownership = Ownership(store, clock, node or f"{socket.gethostname()}-{os.getpid()}")
        self.loop = Loop(desk=self.desk, sessions=self.agents, owner=self.ownership.owner, on_lost=self.ownership.lost)
        self.agenda = Agenda()
        self.visit_seconds = 0.0  # spent in visits so far, for metrics
        self.visits_failed = 0
        self._pairs: set[str] = set()
        self._in_a_row: tuple[str, int] = ("", 0)
        self._stir = asyncio.Event()
        self._flushed = 0.0  # clock seconds
        self._changed = True  # the store has changed since the watch was polled

    # ---- what others use

    def wake(self, pair: str, seconds: float = AT_ONCE) -> None:
        """Visit a pair soon, or after so many seconds."""
        if seconds <= 0:
            self.agenda.put(pair)
        else:
            self.agenda.at(pair, self._clock.monotonic() + seconds)
        self._stir.set()

    def wake_all(self) -> None:
        """Visit every pair when there is time."""
        for pair in self._pairs:
            self.agenda.put(pair, urgent=False)
        self._stir.set()

    def live(self, pair: str, stored: PairStatus) -> PairStatus:
        """Return a stored report with the present measurements laid over it."""
        return overlay(stored, self.sightings.observed(pair))

    # ---- running

    async def run(self) -> None:
        """Keep going until cancelled; ends with an error only when the store itself fails."""
        self.ownership.keep()
        watch = self._look_at_everything()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every(KEEPALIVE_SECONDS, self._keep), name="keep-ownership")
                tasks.create_task(self._every(CHECK_SECONDS, self.agents.check), name="check-sessions")
                tasks.create_task(self._every(TIDY_SECONDS, Tidy()), name="tidy")
                tasks.create_task(self._turn(watch), name="visit-pairs")
        finally:
            with contextlib.suppress(FarshoreError):  # the lease runs out by itself
                self.ownership.release()

    async def _turn(self, watch: Watch) -> None:
        while True:
            self._stir.clear()
            if self._changed:
                self._changed = False
                watch = self._take_events(watch)
            more = self._visit_for_a_turn()
            if self._clock.monotonic() - self._flushed >= FLUSH_SECONDS:
                self._flush()
            if more:
                await asyncio.sleep(0)
            else:
                await self._rest()

    async def _rest(self) -> None:
        due = self.agenda.next_due()
        if self.loop.reports_waiting:
            flush = self._flushed + FLUSH_SECONDS
            due = flush if due is None else min(due, flush)
        pause = None if due is None else max(0.0, due - self._clock.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stir.wait()

    async def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            act()

    def _keep(self) -> None:
        if self.ownership.keep():
            self.wake_all()

    def _visit_for_a_turn(self) -> bool:
        """Visit what is due until the turn is over; return whether more may be due."""
        ends = self._clock.monotonic() + TURN_SECONDS
        while True:
            now = self._clock.monotonic()
            pair = self.agenda.take(now) if now < ends and not self._changed else None
            if pair is None:
                return now >= ends or self._changed
            self._visit(pair)

    def _flush(self) -> None:
        """Write the reports that were put together for one transaction."""
        self._flushed = self._clock.monotonic()
        try:
            self.loop.flush()
        except FarshoreError as error:
            if error.code == STORE_FAILED:
                raise
            _log.error("reports not written", reason=error.message)

    # ---- one visit

    def _visit(self, pair: str) -> None:
        """Visit a pair and note when to come back. Nothing that goes wrong with one pair reaches another."""
        began = self._clock.monotonic()
        try:
            again = self.loop.visit(pair)
        except FarshoreError as error:
            if error.code == STORE_FAILED:
                raise
            again = self._failed(pair, error.message, error.retry_seconds if isinstance(error, Transient) else 0.0)
        except Exception:  # noqa: BLE001 (the one net: a bug in one pair must not end the protection of the others)
            _log.exception("visit broke", pair=pair)
            again = self._failed(pair, "a promise of the loop is broken", 0.0)
        now = self._clock.monotonic()
        self.visit_seconds += now - began
        if again is None:
            self._pairs.discard(pair)
            self.agenda.forget(pair)
        elif again > 0 or self._is_fighting(pair):
            pause = again or REST_SECONDS
            self.agenda.put_off(pair, now + pause * (1 - SPREAD * self._random.random()))
        else:
            self.agenda.first(pair)

    def _failed(self, pair: str, message: str, retry_seconds: float) -> float:
        self.visits_failed += 1
        _log.error("visit failed", pair=pair, reason=message)
        return max(RETRY_SECONDS, retry_seconds)

    def _is_fighting(self, pair: str) -> bool:
        name, row = self._in_a_row
        row = row + 1 if name == pair else 1
        self._in_a_row = (pair, 0 if row >= AT_ONCE_MAX else row)
        return row >= AT_ONCE_MAX

    def _on_result(self, result: Result) -> None:
        self.loop.heard(result)
        self.wake(result.pair)

    # ---- what changed in the store

    def _look_at_everything(self) -> Watch:
        """List every pair and return a watch that begins at that very revision."""
        rev, after = 0, ""
        while True:
            page = self._store.list(keys.PAIRS, after=after)
            rev = rev or page.rev
            for item in page.items:
                pair = keys.pair_name(item.key)
                if pair is not None:
                    self._pairs.add(pair)
            if len(page.items) < LIST_MAX:
                break
            after = page.items[-1].key
        self._directory.forget()
        self.wake_all()
        watch = self._store.watch("/", rev)
        watch.on_change(self._stirrer())
        return watch

    def _stirrer(self) -> Callable[[], None]:
        """Return what wakes the crank from any thread."""
        running = asyncio.get_running_loop()

        def stir() -> None:
            self._changed = True
            with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody is left to wake
                running.call_soon_threadsafe(self._stir.set)

        return stir

    def _take_events(self, watch: Watch) -> Watch:
        try:
            events = watch.poll()
        except Compacted:
            watch.close()
            return self._look_at_everything()
        for event in events:
            if event.key.startswith((keys.SITES, keys.AGENTS)):
                self._directory.forget()
                self.agents.sites_changed()
            pair = keys.pair_name(event.key) if event.key.startswith(keys.PAIRS) else None
            if pair is not None and event.key.rpartition("/")[2] in WOKEN_BY:
                self._pairs.add(pair)
                self.agenda.put(pair)
        return watch
