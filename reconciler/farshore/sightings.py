"""The newest report of every side, in memory: what the loop sees when it looks at the world.

Reports live here and nowhere else: they are facts with an age, not state, and a restart of the reconciler simply waits
for the next ones. A report stays fresh as long as the session that sent it says `alive`; when that stops it becomes
unknown after `STALE_SECONDS`. This module knows sessions as numbers and time as a clock, and no transport.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from farshore.clock import Clock
from farshore_schema.messages import Measure
from farshore_schema.observed import (
    MEASUREMENTS,
    STALE_SECONDS,
    PairObserved,
    SeedProgress,
    SideReport,
    StreamMeasurements,
)
from farshore_schema.roles import SIDES, Side

UNHEARD_SECONDS: Final = 10.0
"""A side that is unknown for less is not yet reported as such: agents restart and are upgraded in a few seconds. What
is decided is decided on `STALE_SECONDS`; this is only about what people are told."""
SAMPLES_MAX: Final = 64  # lag samples kept for one side: about five minutes at one in five seconds
_MEASURED: Final = set(MEASUREMENTS)
_STREAM: Final = tuple(StreamMeasurements.model_fields)
_VALUES: Final[Callable[[StreamMeasurements], tuple[float | int | None, ...]]] = attrgetter(*_STREAM)

Seat = tuple[str, Side]  # one side of one pair


class Sample(NamedTuple):
    """One measured lag."""

    age_seconds: float
    lag_seconds: float


class Changed(NamedTuple):
    """Sides whose freshness an `alive` changed: no longer vouched for, and fresh again after so many seconds."""

    lost: tuple[Seat, ...] = ()
    back: tuple[Seat, ...] = ()
    silent_seconds: float = 0.0  # how long the session had said nothing


@dataclass(slots=True)
class _Sighting:
    report: SideReport
    session: int
    refreshed: float  # clock seconds when the report was last known to hold, without the session's `alive`
    held: bool = True  # whether the session's `alive` vouches for it
    # Newer than the report's own measurements. A tuple of plain values, because ten thousand pairs bring forth twenty
    # thousand of them every few seconds, and the collector of cycles has no work with plain values.
    measured: tuple[str, SeedProgress | None, tuple[float | int | None, ...]] | None = None
    ring: "_Ring | None" = None


@dataclass(slots=True)
class _Session:
    alive: float
    unheld: frozenset[Seat] = frozenset()
    seats: set[Seat] = field(default_factory=set)  # whose newest report is of this session


class Sightings:
    """Every side's newest report and how old it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sides: dict[Seat, _Sighting] = {}
        self._sessions: dict[int, _Session] = {}
        self._last_session = 0

    def now(self) -> float:
        """Return the clock's seconds."""
        return self._clock.monotonic()

    def opened(self) -> int:
        """Begin a session and return its number; numbers grow and are never used again."""
        self._last_session += 1
        self._sessions[self._last_session] = _Session(alive=self._clock.monotonic())
        return self._last_session

    def closed(self, session: int) -> tuple[Seat, ...]:
        """End a session; return the sides it was the last to report. They age from the last time it was alive."""
        seats = self.of(session)
        gone = self._sessions.pop(session, None)
        for seat in seats:
            each = self._sides[seat]
            if gone is not None and each.held:
                each.refreshed = max(each.refreshed, gone.alive)
            each.held = False
        return seats

    def reported(self, session: int, pair: str, side: Side, report: SideReport) -> bool:
        """Take a report; return whether anything but a measurement differs from what was known of the side."""
        now = self._clock.monotonic()
        old = self._sides.get((pair, side))
        new = _Sighting(report=report, session=session, refreshed=now)
        self._sides[pair, side] = new
        if old is not None and old.session != session and old.session in self._sessions:
            self._sessions[old.session].seats.discard((pair, side))
        if session in self._sessions:
            self._sessions[session].seats.add((pair, side))
        self._hold_again(session, (pair, side))
        if old is not None:
            new.ring = old.ring
        self._sample(new, report.stream.lag_seconds, now)
        return old is None or self._is_stale(old, now) or _differ(old.report, report)

    def measured(self, session: int, measure: Measure) -> bool:
        """Take new measurements; False when the session has not reported that side (they are dropped)."""
        each = self._sides.get((measure.pair, measure.side))
        if each is None or each.session != session:
            return False
        each.measured = (measure.position, measure.seed, _VALUES(measure.stream))
        self._sample(each, measure.stream.lag_seconds, self._clock.monotonic())
        return True

    def alive(self, session: int, unheld: frozenset[Seat] = frozenset()) -> Changed:
        """Keep the session's reports fresh, but for the sides it does not vouch for; return whose freshness changed."""
        state = self._sessions.get(session)
        if state is None:
            return Changed()
        now = self._clock.monotonic()
        lost = tuple(seat for seat in unheld - state.unheld if self._is_of(session, seat))
        for seat in lost:
            each = self._sides[seat]
            each.refreshed, each.held = max(each.refreshed, state.alive), False
        for seat in state.unheld - unheld:
            if self._is_of(session, seat):
                self._sides[seat].held = True
        back = state.unheld - unheld
        if now - state.alive > STALE_SECONDS:  # everything was unknown for a moment
            back = frozenset(state.seats) - unheld
        silent, state.alive, state.unheld = now - state.alive, now, unheld
        return Changed(lost=lost, back=tuple(back), silent_seconds=silent)

    def silent_seconds(self, session: int) -> float:
        """Return the seconds since the session last said `alive`."""
        state = self._sessions.get(session)
        return float("inf") if state is None else self._clock.monotonic() - state.alive

    def of(self, session: int) -> tuple[Seat, ...]:
        """Return the sides whose newest report is of this live session."""
        state = self._sessions.get(session)
        return () if state is None else tuple(state.seats)

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports with their ages; a stale one is None and keeps its age."""
        now = self._clock.monotonic()
        values: dict[str, SideReport | float | None] = {}
        for side in SIDES:
            each = self._sides.get((pair, side))
            age = None if each is None else self._age(each, now)
            fresh = each is not None and age is not None and age <= STALE_SECONDS
            values[side] = _whole(each) if each is not None and fresh else None
            values[f"age_{side}"] = age
        return PairObserved.model_construct(None, **values)

    def session(self, pair: str, side: Side) -> int:
        """Return the number of the session that reported this side last, 0 when it is over."""
        each = self._sides.get((pair, side))
        return each.session if each is not None and each.session in self._sessions else 0

    def last(self, pair: str, side: Side) -> SideReport | None:
        """Return the newest report of a side, however old."""
        each = self._sides.get((pair, side))
        return None if each is None else _whole(each)

    def samples(self, pair: str, side: Side) -> tuple[Sample, ...]:
        """Return the lag samples of the last minutes, oldest first."""
        each = self._sides.get((pair, side))
        return () if each is None or each.ring is None else each.ring.samples(self._clock.monotonic())

    def forget(self, pair: str) -> None:
        """Drop everything known of a pair that is no more."""
        for side in SIDES:
            each = self._sides.pop((pair, side), None)
            if each is not None and each.session in self._sessions:
                self._sessions[each.session].seats.discard((pair, side))

    def __len__(self) -> int:
        return len(self._sides)

    def _age(self, each: _Sighting, now: float) -> float:
        refreshed = each.refreshed
        if each.held:
            state = self._sessions.get(each.session)
            if state is not None and state.alive > refreshed:
                refreshed = state.alive
        return max(0.0, now - refreshed)

    def _is_stale(self, each: _Sighting, now: float) -> bool:
        return self._age(each, now) > STALE_SECONDS

    def _is_of(self, session: int, seat: Seat) -> bool:
        each = self._sides.get(seat)
        return each is not None and each.session == session

    def _hold_again(self, session: int, seat: Seat) -> None:
        state = self._sessions.get(session)
        if state is not None and seat in state.unheld:
            state.unheld = state.unheld - {seat}

    @staticmethod
    def _sample(each: _Sighting, lag: float | None, now: float) -> None:
        if lag is None:
            return
        if each.ring is None:
            each.ring = _Ring()
        each.ring.add(now, lag)


class _Ring:
    """The newest samples in 1 KiB, whatever the number of readings."""

    __slots__ = ("_lags", "_next", "_times")

    def __init__(self) -> None:
        self._times, self._lags, self._next = array("d"), array("f"), 0

    def add(self, now: float, lag: float) -> None:
        if len(self._times) < SAMPLES_MAX:
            self._times.append(now)
            self._lags.append(lag)
        else:
            self._times[self._next], self._lags[self._next] = now, lag
            self._next = (self._next + 1) % SAMPLES_MAX

    def samples(self, now: float) -> tuple[Sample, ...]:
        order = [*range(self._next, len(self._times)), *range(self._next)]
        return tuple(Sample(now - self._times[i], self._lags[i]) for i in order)


def _whole(each: _Sighting) -> SideReport:
    """Return the report with its newest measurements; they are put in only when somebody looks."""
    if each.measured is not None:
        position, seed, values = each.measured
        stream = StreamMeasurements.model_construct(None, **dict(zip(_STREAM, values, strict=True)))
        each.report = each.report.model_copy(update={"position": position, "seed": seed, "stream": stream})
        each.measured = None
    return each.report


def _differ(old: SideReport, new: SideReport) -> bool:
    """Whether anything but a measurement differs."""
    if old == new:
        return False
    before, after = old.__dict__, new.__dict__
    return any(before[name] != after[name] for name in before if name not in _MEASURED)
