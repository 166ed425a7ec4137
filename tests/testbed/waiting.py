"""Wait for a condition, bounded: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
WAIT_SECONDS = 60.0
"""Generous on purpose: it bounds a test that hangs, and is no expectation of speed."""
POLL_SECONDS = 0.02


def wait_until(
    condition: Callable[[], Found], what: str, *, seconds: float = WAIT_SECONDS, poll_seconds: float = POLL_SECONDS
) -> Found:
    """Call `condition` until it returns something true, and return that.

    Raises AssertionError with `what` and the last answer after `seconds`. An exception of `condition` passes through.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what} (last answer: {found!r})")
        time.sleep(poll_seconds)
