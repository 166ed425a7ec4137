"""Virtual time: what happens next, and the clocks that the product reads it from."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from farshore.clock import rfc3339

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Clockwork:
    """The agenda of a simulation: events at moments, each run to its end before the next."""

    def __init__(self, after_event: Callable[[], None]) -> None:
        self.seconds = 1000.0
        self.events = 0
        self._after_event = after_event
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something happen later."""
        heapq.heappush(self._agenda, (self.seconds + seconds, next(self._order), act))

    def run(self, until: float) -> None:
        """Let everything happen up to a moment; may be called again from within, by a process that stands still."""
        while self._agenda and self._agenda[0][0] <= until:
            self.seconds, _, act = heapq.heappop(self._agenda)
            self.events += 1
            act()
            self._after_event()
        self.seconds = max(self.seconds, until)


class ProcessClock:
    """Time as one process sees it; it stands still while the process is suspended (farshore.clock.Clock)."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._lost = 0.0
        self._suspended: float | None = None

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        at = self._clockwork.seconds if self._suspended is None else self._suspended
        return at - self._lost

    def now(self) -> str:
        """Return the present moment for people: nobody's clock stands still on the wall."""
        return rfc3339(BEGINNING + timedelta(seconds=self._clockwork.seconds))

    def suspend(self) -> None:
        """Stand still."""
        self._suspended = self._clockwork.seconds

    def resume(self) -> None:
        """Go on as if no time had passed."""
        if self._suspended is not None:
            self._lost += self._clockwork.seconds - self._suspended
            self._suspended = None
