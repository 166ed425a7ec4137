"""A TCP gate in front of a server, which can be closed to one process: what a broken network is to a journal. It can be
led to another server: what a failover inside a site is to everybody.

Whose connection it is, is read from /proc: the receiver's are cut and refused, everybody else's go on. Loopback only.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.testbed.ports import LOOPBACK, release_port, reserve_port

CHUNK_BYTES: Final = 1 << 16
POLL_SECONDS: Final = 0.1
CONNECT_SECONDS: Final = 5.0
JOIN_SECONDS: Final = 10.0
BACKLOG: Final = 64


class Gate:
    """Forwards a port of its own to a server's; a context manager."""

    def __init__(self, target: int) -> None:
        self.port = reserve_port()
        self._target = target
        self._closed_to: Callable[[], int | None] | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, socket.socket] = {}  # a client's end and ours to the server
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=BACKLOG)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(JOIN_SECONDS)
        self._listener.close()
        self._cut(lambda _client: True)
        release_port(self.port)

    def close_to(self, pid: Callable[[], int | None]) -> None:
        """Cut every connection of the process that `pid` names now or later, and let it make no new one."""
        self._closed_to = pid
        self._cut(self._is_closed_to)

    def lead_to(self, target: int) -> None:
        """Lead to another server's port from now on, and cut every connection to the old one."""
        self._target = target
        self._cut(lambda _client: True)

    def reopen(self) -> None:
        """Let everybody through again."""
        self._closed_to = None

    def _is_closed_to(self, client: socket.socket) -> bool:
        pid = self._closed_to() if self._closed_to is not None else None
        return pid is not None and owner_of(client.getpeername()[1], self.port) == pid

    def _cut(self, wanted: Callable[[socket.socket], bool]) -> None:
        with self._lock:
            ends = list(self._open.items())
        for client, server in ends:
            with contextlib.suppress(OSError):
                if wanted(client):
                    for end in (client, server):
                        end.shutdown(socket.SHUT_RDWR)  # the pump closes them

    def _accept(self) -> None:
        self._listener.settimeout(POLL_SECONDS)
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._is_closed_to(client):
                client.close()
                continue
            try:
                server = socket.create_connection((LOOPBACK, self._target), CONNECT_SECONDS)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open[client] = server
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other = {client: server, server: client}
        with selectors.DefaultSelector() as ready, contextlib.suppress(OSError), client, server:
            for end in other:
                ready.register(end, selectors.EVENT_READ, data=end)
            while True:
                for key, _ in ready.select():
                    end = key.data
                    piece = end.recv(CHUNK_BYTES)
                    if not piece:
                        raise ConnectionError("one end closed")
                    other[end].sendall(piece)
        with self._lock:
            self._open.pop(client, None)


def owner_of(port: int, to: int) -> int | None:
    """Return the pid of the process that holds the loopback connection from one port to another (proc(5), net/tcp).

    Both ends are compared: a connection in TIME_WAIT elsewhere may have the same local port.
    """
    wanted = [f"0100007F:{port:04X}", f"0100007F:{to:04X}"]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return _holder(f"socket:[{fields[9]}]")
    return None


def _holder(name: str) -> int | None:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for handle in _handles(process):
                with contextlib.suppress(OSError):  # closed meanwhile
                    if str(handle.readlink()) == name:
                        return int(process.name)
    return None


def _handles(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:  # gone, or another user's
        return []
