"""A reconciler by script: a real WebSocket server that remembers what it heard and says what a test tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from farshore_schema.messages import PROTOCOL, Welcome
from tests.unit.agent.waiting import soon

Plain = dict[str, Any]


class ScriptedReconciler:
    """Welcomes every session (unless told otherwise) and keeps everything it heard, per session."""

    def __init__(self) -> None:
        self.sessions: list[list[Plain]] = []
        self.headers: list[str | None] = []
        self.links: list[ServerConnection] = []
        self.paths: list[str] = []
        self.first: Callable[[int], BaseModel | str | None] = lambda session: Welcome(
            protocol=PROTOCOL, sites=("tokyo",)
        )
        self.status: int | None = None  # refuse the handshake with it
        self._server: Server | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedReconciler]:
        async with serve(self._session, "127.0.0.1", 0, process_request=self._request) as server:
            self._server = server
            yield self

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    def heard(self, kind: str) -> list[Plain]:
        """Return every message of a type, over all sessions."""
        return [message for session in self.sessions for message in session if message["type"] == kind]

    async def hears(self, condition: Callable[[], object], what: str) -> None:
        await soon(condition, what)

    async def say(self, message: BaseModel | str) -> None:
        """Send a message in the newest session."""
        await self.links[-1].send(message if isinstance(message, str) else message.model_dump_json())

    async def _request(self, link: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.headers.append(request.headers.get("Authorization"))
        return link.respond(self.status, "no\n") if self.status else None

    async def _session(self, link: ServerConnection) -> None:
        number = len(self.sessions)
        self.sessions.append([])
        self.links.append(link)
        try:
            async for text in link:
                message = json.loads(text)
                self.sessions[number].append(message)
                if message["type"] == "hello":
                    first = self.first(number)
                    if first is not None:
                        await link.send(first if isinstance(first, str) else first.model_dump_json())
        except ConnectionClosed:
            pass
        await asyncio.sleep(0)
