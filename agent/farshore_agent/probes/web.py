"""A small HTTP/1.1 server for probes: two routes, no body, nothing that a client can make large, slow or many.

HAProxy's httpchk, DNS health checks and load balancers are its clients (RFC 9112, the part that they use). It knows
nothing of what is answered.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 4096  # request line and headers
HEAD_SECONDS: Final = 5.0  # from the first byte wanted to the end of the headers
WRITE_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 512  # of one listener; further ones are closed at once
REASON_CHARS_MAX: Final = 300
_TOKENS: Final = frozenset({"GET", "HEAD"})


class Page(NamedTuple):
    """A status and one line of text."""

    status: int
    line: str


Respond = Callable[[str], Awaitable[Page]]


class Listener:
    """One listening socket and its connections."""

    def __init__(self, sock: socket.socket, respond: Respond) -> None:
        self.socket = sock
        self._respond = respond
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._ending = False

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self.socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._converse, sock=self.socket, limit=HEAD_BYTES_MAX)

    async def end(self, seconds: float) -> None:
        """Accept no more, finish the answers under way, then close. Connections not accepted yet stay in the queue."""
        self._ending = True
        if self._server is not None:
            self._server.close()
        if self._open:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            while await self._exchange(reader, writer) and not self._ending:
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that goes away, says nothing or says too much is owed no answer
        finally:
            self._open.discard(writer)
            if not self._open:
                self._idle.set()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays open for another."""
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            await self._write(writer, Page(400, "this is no request"), keep=False)
            return False
        method, path, version = words
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        keep = headers.get("connection", "") != "close" and version == "HTTP/1.1" and not self._ending
        if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            await self._write(writer, Page(400, "a probe has no body"), keep=False)
            return False
        page = await self._respond(path) if method in _TOKENS else Page(405, "probes are asked with GET")
        await self._write(writer, page, keep=keep, body=method != "HEAD")
        return keep

    async def _write(self, writer: asyncio.StreamWriter, page: Page, *, keep: bool, body: bool = True) -> None:
        line = page.line.replace("\r", " ").replace("\n", " ")[:REASON_CHARS_MAX]
        text = f"{line}\n".encode()
        head = (
            f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(text)}\r\n"
            "Cache-Control: no-store\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        writer.write(head.encode() + (text if body else b""))
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()
