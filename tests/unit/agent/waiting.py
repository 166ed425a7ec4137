"""Waiting for a condition with a bound, instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BOUND_SECONDS = 20.0
POLL_SECONDS = 0.005


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return once `condition()` is true; fail after a bound."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        time.sleep(POLL_SECONDS)


async def soon(condition: Callable[[], object], what: str = "the condition") -> None:
    """The same on an event loop."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        await asyncio.sleep(POLL_SECONDS)
