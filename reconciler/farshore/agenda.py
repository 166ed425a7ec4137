"""Names of pairs to visit: two lanes and a clockwork, each name at most once in a lane.

It carries names, not data. What just changed goes before what is only looked at again, but never starves it. It knows
no event loop: whoever turns the crank asks for the next name, and for when there will be one.
"""

import heapq
from collections import OrderedDict
from itertools import count
from typing import Final

PATIENCE: Final = 16  # urgent names taken in a row while others wait


class Agenda:
    """What to visit next, and when."""

    def __init__(self) -> None:
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._other: OrderedDict[str, None] = OrderedDict()
        self._timers: list[tuple[float, int, str, bool]] = []  # (due, order, name, replaceable)
        self._again: dict[str, float] = {}  # the one moment each name was last put off to
        self._order = count()
        self._row = 0

    def __len__(self) -> int:
        return len(self._urgent) + len(self._other)

    def put(self, name: str, *, urgent: bool = True) -> None:
        """Visit soon. A name that waits already keeps its place, or moves up to the urgent lane."""
        if urgent:
            self._other.pop(name, None)
            self._urgent.setdefault(name)
        elif name not in self._urgent:
            self._other.setdefault(name)

    def first(self, name: str) -> None:
        """Visit before anything else: the next step of a change that is under way."""
        self.put(name)
        self._urgent.move_to_end(name, last=False)

    def at(self, name: str, due: float) -> None:
        """Visit at a moment, beside whatever else was asked for."""
        heapq.heappush(self._timers, (due, next(self._order), name, False))

    def put_off(self, name: str, due: float) -> None:
        """Visit at a moment; replaces the moment that the name was put off to before."""
        self._again[name] = due
        heapq.heappush(self._timers, (due, next(self._order), name, True))

    def forget(self, name: str) -> None:
        """The name is no more: do not come back to it by itself."""
        self._again.pop(name, None)

    def take(self, now: float) -> str | None:
        """Return the next name, None when nothing is due."""
        while self._timers and self._timers[0][0] <= now:
            due, _, name, replaceable = heapq.heappop(self._timers)
            if not replaceable or self._again.get(name) == due:
                self.put(name, urgent=not replaceable)
        rested = self._other and self._row >= PATIENCE
        if self._urgent and not rested:
            self._row += 1
            return self._urgent.popitem(last=False)[0]
        self._row = 0
        return self._other.popitem(last=False)[0] if self._other else None

    def next_due(self) -> float | None:
        """Return the moment of the next timer, None when there is none."""
        return self._timers[0][0] if self._timers else None
