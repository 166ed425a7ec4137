"""Hand out free loopback ports that stay free for this process, also while no one listens on them.

A server under test is stopped and started again on the same port. Ports come from below the kernel's own ephemeral
range, so no outgoing connection takes them meanwhile, and each is reserved against other test runs by a file lock.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

from tests.testbed.places import TestBedError

LOOPBACK = "127.0.0.1"
FIRST_PORT = 15000
"""Above the well-known ports of databases and proxies."""
FALLBACK_END = 32768
TRIES = 2000

_held: dict[int, IO[bytes]] = {}


def _ephemeral_start() -> int:
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    try:
        return int(path.read_text().split()[0])
    except OSError:
        return FALLBACK_END


def reserve_port() -> int:
    """Reserve a free loopback port for the life of this process, or until `release_port`."""
    end = max(_ephemeral_start(), FIRST_PORT + 1000)
    for _ in range(TRIES):
        port = random.randrange(FIRST_PORT, end)
        if port not in _held and _take(_path(port), port):
            return port
    raise TestBedError(f"no free loopback port in {FIRST_PORT}..{end}")


def _path(port: int) -> Path:
    """Return the lock file of a port; all checkouts of a user share them."""
    folder = Path(tempfile.gettempdir()) / f"farshore-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / str(port)


def _take(path: Path, port: int) -> bool:
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
    except OSError:
        handle.close()
        return False
    _held[port] = handle
    return True


def release_port(port: int) -> None:
    """Give a reserved port back; unknown ports are ignored."""
    handle = _held.pop(port, None)
    if handle is not None:
        handle.close()
