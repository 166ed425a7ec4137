"""One live agent per directory: a lock that the kernel frees when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from farshore_agent import durable
from farshore_schema.errors import Permanent

LOCK_FILE: Final = "agent.lock"
POLL_SECONDS: Final = 0.1
PID_DIGITS: Final = 20


@contextmanager
def only_agent(root: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the directory; raises Permanent("directory_in_use") when another agent keeps it for `wait_seconds`."""
    durable.make_directory(root)
    handle = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _taken(handle):
            if time.monotonic() >= deadline:
                holder = os.read(handle, 32).decode(errors="replace").strip()
                raise Permanent(
                    "directory_in_use",
                    f"another agent (pid {holder or 'unknown'}) runs on {root}",
                    hint=f"end it first, or use another directory than {root}",
                )
            time.sleep(POLL_SECONDS)
        os.pwrite(handle, f"{os.getpid():<{PID_DIGITS}}\n".encode(), 0)  # in one piece: others read it at any time
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
