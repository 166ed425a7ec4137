"""Where the test bed keeps what it downloads and builds, and how two processes share it.

It knows folders, locks and progress lines; it must not know what any of the installed programs is.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK_WAIT_SECONDS = 1200.0
"""The longest install (a cold build of the Pulumi engine) takes about five minutes on two busy cores."""
LOCK_POLL_SECONDS = 0.2


class TestBedError(Exception):
    """A program the tests need cannot be had here; the message says why and what to install."""

    __test__ = False  # pytest collects names that start with Test


def bed_directory() -> Path:
    """Return the folder of everything downloaded or built: `FARSHORE_TESTBED`, else `.testbed` of the checkout."""
    chosen = os.environ.get("FARSHORE_TESTBED")
    directory = Path(chosen).expanduser().resolve() if chosen else CHECKOUT / ".testbed"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def say(message: str) -> None:
    """Print one progress line at once, on standard error."""
    print(f"testbed: {message}", file=sys.stderr, flush=True)


@contextmanager
def exclusive(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock file `path` against other processes; the kernel frees it when its holder dies.

    Raises TestBedError when another process keeps it longer than `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    told = False
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TestBedError(f"another process has held {path} for {wait_seconds:.0f} s") from None
                if not told:
                    say(f"waiting for another process that installs into {path.parent}")
                    told = True
                time.sleep(LOCK_POLL_SECONDS)
        yield


def once(done: Path, install: Callable[[], None]) -> None:
    """Run `install` unless the file `done`, which it writes last, is there; one process at a time."""
    if done.exists():
        return
    with exclusive(done.parent / "lock"):
        if not done.exists():
            install()
