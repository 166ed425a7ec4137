"""End everything a test run started, when the run itself ends in any way, even by kill -9.

`python watchdog.py TOKEN PARENT_PID` waits until its standard input is closed or its parent is gone, then kills
every process that carries TOKEN in its environment. Stand-alone on purpose: it must not import anything of ours,
so that it starts in a moment and works in a broken checkout.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

MARK = "TESTBED_RUN"
"""The environment variable that every process of a run inherits: the tokens of the run and of the runs around it.

Not named FARSHORE_...: tests start the product with those variables removed."""
PARENT_POLL_SECONDS = 1.0
KILL_DEADLINE_SECONDS = 20.0


def marked(token: str) -> list[int]:
    """Return the pids of running processes (no zombies) that were started with `token` in their environment."""
    wanted = token.encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A process that has ended but was not waited for has an empty environment here.
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        prefix = f"{MARK}=".encode()
        for setting in environment.split(b"\0"):
            if setting.startswith(prefix) and wanted in setting[len(prefix) :].split(b":"):
                found.append(int(entry.name))
    return found


def end_all(token: str) -> None:
    """Kill every marked process; bounded, since one in an uninterruptible wait cannot be killed."""
    deadline = time.monotonic() + KILL_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        left = marked(token)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def main() -> None:
    """Wait for the end of the run, then end what it left."""
    token, parent = sys.argv[1], int(sys.argv[2])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the run dies of these; we must outlive it for a moment
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], PARENT_POLL_SECONDS)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    end_all(token)


if __name__ == "__main__":
    main()
