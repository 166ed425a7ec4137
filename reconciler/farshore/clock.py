"""The one door through which time enters the reconciler, so that tests and the simulation can own it.

`monotonic` measures (ages, timeouts, backoff); `now` only labels things for people and is never subtracted to decide
anything but an operation's journaled waits, which must survive a restart.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time as the reconciler sees it."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards within this process."""
        ...

    def now(self) -> str:
        """Return the present moment as RFC 3339 in UTC, with milliseconds."""
        ...


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment of this boot."""
        return time.monotonic()

    def now(self) -> str:
        """Return the machine's date and time."""
        return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    """Return a moment as text: 2026-01-31T12:00:00.123Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds between two RFC 3339 texts, never below zero (a clock may be set back)."""
    return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
