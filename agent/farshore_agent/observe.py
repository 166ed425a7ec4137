"""Looking at every side about once a second, and more often while an order is under way there.

A look pairs the durable record with what the engine sees, in that order, and is thrown away when an order moved
meanwhile: a report never mixes two states. The watch of the fence (R13) lives here, and so does following again unasked
after a restart (I10). It knows no transport.
"""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from farshore_agent.engines import Seen
from farshore_agent.holder import EngineHolder
from farshore_agent.lane import Lane, fence_violated, follows
from farshore_agent.report import assemble, is_violated
from farshore_schema.errors import FarshoreError
from farshore_schema.observed import REPORT_SECONDS, Finding, SideReport
from farshore_schema.roles import Record, Side

Key = tuple[str, Side]

LOOK_SECONDS: Final = 0.8  # between the beginnings of two looks; below REPORT_SECONDS, so that `alive` can vouch
ACTIVE_LOOK_SECONDS: Final = 0.15  # while orders are under way
OVERDUE_SECONDS: Final = REPORT_SECONDS + 0.5  # a side not looked at for so long is no longer vouched for
MIXED_LOOKS_MAX: Final = 3  # looks in a row that an order may spoil before the next turn is awaited
RESUME_SECONDS: Final = 10.0  # a side that should receive and does not is told again after so long
RESUME_SECONDS_MAX: Final = 60.0

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Watched:
    key: Key
    lane: Lane
    holder: EngineHolder
    heard: Callable[[SideReport], None]
    looked_at: float  # end of the last look that gave a report
    under_way: bool = False
    again: bool = False  # somebody asked for a look while one was under way
    gone: bool = False
    due: float = 0.0
    resume_at: float = 0.0
    resume_pause: float = RESUME_SECONDS


class Observer:
    """Looks at all sides of this agent: one thread that knows when, and borrowed threads that look."""

    def __init__(self, submit: Callable[[Callable[[], None]], None], *, clock: Callable[[], float] = time.monotonic):
        self._submit, self._clock = submit, clock
        self._condition = threading.Condition()
        self._watched: dict[Key, _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._numbers = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Begin no further look."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def watch(self, key: Key, lane: Lane, holder: EngineHolder, heard: Callable[[SideReport], None]) -> None:
        """Look at a side from now on; `heard` takes every report, on a borrowed thread. Replaces an earlier watch."""
        self.forget(key)
        with self._condition:
            watched = _Watched(key, lane, holder, heard, looked_at=self._clock())
            self._watched[key] = watched
            self._schedule(watched, self._clock())

    def forget(self, key: Key) -> None:
        """Stop looking at a side. Idempotent."""
        with self._condition:
            watched = self._watched.pop(key, None)
            if watched is not None:
                watched.gone = True

    def poke(self, key: Key) -> None:
        """Look at a side at once."""
        with self._condition:
            watched = self._watched.get(key)
            if watched is None:
                return
            if watched.under_way:
                watched.again = True
            else:
                self._schedule(watched, self._clock())

    def overdue(self) -> tuple[Key, ...]:
        """Return the sides whose newest look is too old to vouch for: an engine hangs, or the machine is too slow."""
        now = self._clock()
        with self._condition:
            return tuple(key for key, each in self._watched.items() if now - each.looked_at > OVERDUE_SECONDS)

    def _schedule(self, watched: _Watched, at: float) -> None:
        self._numbers += 1
        watched.due = at
        heapq.heappush(self._due, (at, self._numbers, watched))
        self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._closed:
                    return
                now = self._clock()
                if not self._due or self._due[0][0] > now:
                    self._condition.wait(self._due[0][0] - now if self._due else None)
                    continue
                due, _, watched = heapq.heappop(self._due)
                if watched.gone or watched.under_way or due != watched.due:
                    continue  # a poke moved it; the newer entry counts
                watched.under_way, watched.again = True, False
            self._submit(partial(self._look, watched))

    def _look(self, watched: _Watched) -> None:
        began = self._clock()
        report: SideReport | None = None
        try:
            for _ in range(MIXED_LOOKS_MAX):
                report = self._look_once(watched)
                if report is not None or watched.gone:
                    break
            if report is not None and not watched.gone:
                watched.heard(report)
        except Exception:  # noqa: BLE001 - the boundary: an engine that breaks its contract must not end the watch
            report = None
            _log.exception("defect while looking at a side", pair=watched.key[0], side=watched.key[1])
        with self._condition:
            watched.under_way = False
            if report is not None:
                watched.looked_at = self._clock()
            if not watched.gone:
                pause = ACTIVE_LOOK_SECONDS if watched.lane.is_active() else LOOK_SECONDS
                self._schedule(watched, self._clock() if watched.again else max(self._clock(), began + pause))

    def _look_once(self, watched: _Watched) -> SideReport | None:
        """Return a report, None when an order moved while the engine looked."""
        lane = watched.lane
        _, before = lane.work()
        try:
            record = lane.record()
        except FarshoreError as error:
            return _distrusted(error)
        with watched.holder.engine() as engine:
            seen = engine.observe()
        work, after = lane.work()
        if before != after:
            return None
        if is_violated(record, seen, work):
            found = work.violation or fence_violated(lane.pair, record.receipt)
            if work.violation is None:
                _log.error("fence violated", pair=lane.pair, side=lane.side, epoch=record.fenced_epoch)
            lane.refence(found)
            work, _ = lane.work()
            record = record._replace(receipt=None)  # revoked, whether that is on disk already or not
        self._resume(watched, record, seen)
        return assemble(record, seen, work)

    def _resume(self, watched: _Watched, record: Record, seen: Seen) -> None:
        """Follow again unasked where the record says so and nothing is received, for example after a power cut."""
        silent = seen.db == "up" and not seen.receiving and not seen.stopped and not seen.writable
        if not (silent and follows(record)):
            watched.resume_at, watched.resume_pause = self._clock() + RESUME_SECONDS, RESUME_SECONDS
            return
        if self._clock() >= watched.resume_at and watched.lane.is_idle():
            watched.resume_at = self._clock() + watched.resume_pause
            watched.resume_pause = min(2 * watched.resume_pause, RESUME_SECONDS_MAX)
            watched.lane.resume()


def _distrusted(error: FarshoreError) -> SideReport:
    """Return the report of a side whose record cannot be trusted: nothing is known, and why."""
    finding = Finding(code=error.code, severity="error", message=error.message, hint=error.hint)
    return SideReport(findings=(finding,))
