"""Which reports, measurements and signs of life are due in one session (the rules at the top of `messages`).

Pure over the given time; used by the event loop alone. It keeps the newest report of every side across sessions and
what the present session was told.
"""

from dataclasses import dataclass
from typing import Final

from farshore_agent.observe import Key
from farshore_schema.messages import MEASURED_SECONDS, MEASURES_MAX, Alive, Measure, Measured, Report
from farshore_schema.observed import MEASUREMENTS, REPORT_SECONDS, SideReport

UNASSIGNED_SECONDS: Final = 3.0
"""A side that the reconciler did not assign within so long of a session is reported anyway: it may be a leftover."""

_NOTHING_MEASURED: Final = {name: SideReport.model_fields[name].get_default() for name in MEASUREMENTS}


@dataclass(slots=True)
class _Told:
    """What is known of one side, and what this session was told of it."""

    incarnation: int = 0
    newest: SideReport | None = None
    due: bool = False  # a report must go out, whatever it says
    assigned: bool = False
    sent: SideReport | None = None  # the newest facts and measurements that were sent
    measured_at: float = 0.0


class Reporter:
    """The reports of one agent."""

    def __init__(self) -> None:
        self._sides: dict[Key, _Told] = {}
        self._sequence = 0
        self._began = 0.0
        self._alive_at = float("-inf")
        self._urgent: dict[Key, None] = {}

    def begin(self, now: float) -> None:
        """Begin a session: nothing was told yet."""
        self._sequence, self._began, self._alive_at = 0, now, float("-inf")
        self._urgent.clear()
        for told in self._sides.values():
            told.sent, told.assigned, told.due = None, False, False

    def assigned(self, key: Key) -> None:
        """Report the side once more, as soon as something is known of it."""
        told = self._sides.setdefault(key, _Told())
        told.assigned = told.due = True
        self._mark(key, told)

    def released(self, key: Key) -> None:
        """Forget a side."""
        self._sides.pop(key, None)
        self._urgent.pop(key, None)

    def seen(self, key: Key, incarnation: int, report: SideReport) -> bool:
        """Take a new look at a side; True when a report is due now."""
        told = self._sides.setdefault(key, _Told())
        if incarnation != told.incarnation:
            told.incarnation, told.due = incarnation, told.assigned
        told.newest = report
        return self._mark(key, told)

    def urgent(self, limit: int) -> list[Report]:
        """Return the reports that are due now, at most `limit`, each counted as sent."""
        reports: list[Report] = []
        while self._urgent and len(reports) < limit:
            key = next(iter(self._urgent))
            del self._urgent[key]
            reports.append(self._report(key))
        return reports

    def tick(self, now: float, overdue: tuple[Key, ...]) -> list[Report | Measured | Alive]:
        """Return what is due by time; call it once `alive_in` is zero.

        `urgent` must be empty then: `alive` vouches for every report that was sent before it.
        """
        messages: list[Report | Measured | Alive] = []
        if now - self._began >= UNASSIGNED_SECONDS:
            messages += [self._report(key) for key, told in self._sides.items() if _unheard(told)]
        measures = [measure for key, told in self._sides.items() if (measure := _measure(key, told, now))]
        for start in range(0, len(measures), MEASURES_MAX):
            part = tuple(measures[start : start + MEASURES_MAX])
            messages.append(Measured(sequence=self._next(), measures=part))
        self._alive_at = now
        messages.append(Alive(sequence=self._next(), unheld=overdue))
        return messages

    def alive_in(self, now: float) -> float:
        """Return the seconds until the next sign of life is due."""
        return max(0.0, self._alive_at + REPORT_SECONDS - now)

    def _mark(self, key: Key, told: _Told) -> bool:
        if told.newest is None or not told.assigned:
            return False
        if told.due or told.sent is None or _facts(told.newest) != _facts(told.sent):
            self._urgent[key] = None
            return True
        return False

    def _report(self, key: Key) -> Report:
        told = self._sides[key]
        report = told.newest or SideReport()
        told.sent, told.due = report, False
        return Report(pair=key[0], side=key[1], incarnation=told.incarnation, sequence=self._next(), report=report)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _unheard(told: _Told) -> bool:
    return not told.assigned and told.sent is None and told.newest is not None


def _facts(report: SideReport) -> SideReport:
    return report.model_copy(update=_NOTHING_MEASURED)


def _measure(key: Key, told: _Told, now: float) -> Measure | None:
    """Return the new measurements of a side when they are due, and count them as sent."""
    newest, sent = told.newest, told.sent
    if newest is None or sent is None or newest is sent:
        return None
    pause = REPORT_SECONDS if newest.seeding else MEASURED_SECONDS
    if now - told.measured_at < pause:
        return None
    values = {name: getattr(newest, name) for name in MEASUREMENTS}
    if all(getattr(sent, name) == value for name, value in values.items()):
        return None
    told.measured_at = now
    told.sent = sent.model_copy(update=values)
    return Measure(pair=key[0], side=key[1], incarnation=told.incarnation, **values)
