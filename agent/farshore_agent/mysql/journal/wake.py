"""One byte from the receiver to the server process whenever more is durable, so that the server need not poll.

Lost bytes only cost time: the server also looks by itself every WAKE_SECONDS_MAX. This module must not know what
changed.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal.control import socket_address

WAKE_SECONDS_MAX: Final = 0.05


class Waker:
    """The receiver's end; never blocks and never fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._connected = False

    def wake(self) -> None:
        try:
            if not self._connected:
                with socket_address(self._path) as address:
                    self._sock.connect(address)
                self._connected = True
            self._sock.send(b"\0")
        except BlockingIOError:
            return  # unread wake-ups are waiting: one more says nothing new
        except OSError:
            self._connected = False  # no server now, or another one than before: look again next time

    def close(self) -> None:
        self._sock.close()


class Sleeper:
    """The server's end: threads wait here for news."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path.unlink(missing_ok=True)
        with socket_address(path) as address:
            self._sock.bind(address)
        self._news = threading.Condition()
        self._count = 0
        threading.Thread(target=self._listen, name="wake", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self._sock.recv(64)
            except OSError:
                return  # closed
            self.rouse()

    @property
    def count(self) -> int:
        """News so far; pass it to `wait` so that nothing between a look and the wait is missed."""
        return self._count

    def rouse(self) -> None:
        """Wake every waiting thread."""
        with self._news:
            self._count += 1
            self._news.notify_all()

    def wait(self, seen: int, seconds: float) -> None:
        """Wait for news after `seen`, at most `seconds` and never longer than WAKE_SECONDS_MAX."""
        with self._news:
            if self._count == seen:
                self._news.wait(min(seconds, WAKE_SECONDS_MAX))

    def close(self) -> None:
        self._sock.close()
        self._path.unlink(missing_ok=True)
