"""One agent's WebSocket: what waits to be said to it, and saying it within bounds.

Assignments are not queued as data: the conversation keeps the names of the sides whose assignment is due and asks for
the newest one when the socket is ready, so ten thousand pairs cannot fill memory. It knows nothing of roles or stores.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from pydantic import BaseModel

from farshore.sightings import Seat
from farshore_schema.errors import ErrorBody
from farshore_schema.messages import Assign, Command, Goodbye, Inspect, Unassign, Welcome

COMMANDS_MAX: Final = 4096  # commands and questions that may wait for one socket; about 4 MB
SEND_SECONDS: Final = 15.0  # a socket that takes nothing for so long is given up


class Wire(Protocol):
    """The part of a Starlette WebSocket that is used."""

    async def accept(self) -> None:
        """Complete the handshake."""
        ...

    async def receive_text(self) -> str:
        """Return the next message; raises when the socket is closed."""
        ...

    async def send_text(self, data: str) -> None:
        """Send one message; waits while the socket is full."""
        ...

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the socket."""
        ...


class Conversation:
    """Everything the reconciler still has to say to one agent."""

    def __init__(
        self, number: int, *, agent: str, embedded: bool, credential: str, due: Callable[[Seat], Assign | None]
    ) -> None:
        """`credential` is the hash of what it authenticated with."""
        self.number, self.agent, self.embedded, self.credential = number, agent, embedded, credential
        self.sites: frozenset[str] = frozenset()
        self.version = ""  # of the agent, as its hello said
        self.probe_ports: Mapping[str, int] = {}  # site -> port of its role probe
        self.open = True
        self.heard = 0.0  # clock seconds of the newest message, whatever it said
        self.revoked_at: float | None = None  # when its credential was seen to be revoked
        self.missed = False  # its silence was noticed, and is not noticed again
        self._due = due
        self._assignments: dict[Seat, Unassign | None] = {}  # None: ask `due` for the newest assignment
        self._others: deque[Command | Inspect | Welcome] = deque()
        self._goodbye: Goodbye | None = None
        self._ready = asyncio.Event()

    def assign(self, seat: Seat) -> None:
        """Send the side's newest assignment soon."""
        self._assignments[seat] = None
        self._ready.set()

    def unassign(self, message: Unassign) -> None:
        """Take a side back, instead of any assignment of it that still waits."""
        self._assignments[message.pair, message.side] = message
        self._ready.set()

    def say(self, message: Command | Inspect | Welcome) -> bool:
        """Queue a message; False when the conversation is over or too much waits already."""
        if not self.open or len(self._others) >= COMMANDS_MAX:
            return False
        self._others.append(message)
        self._ready.set()
        return True

    def end(self, error: ErrorBody, *, retry_seconds: float) -> None:
        """Say goodbye instead of anything that still waits, and close."""
        if self._goodbye is None:
            self._goodbye = Goodbye(error=error, retry_seconds=retry_seconds)
        self.open = False
        self._ready.set()

    async def speak(self, wire: Wire) -> None:
        """Send what waits until the conversation ends; returns after the goodbye, raises when the socket fails."""
        while True:
            message = self._next()
            if message is None:
                self._ready.clear()
                await self._ready.wait()
                continue
            async with asyncio.timeout(SEND_SECONDS):
                await wire.send_text(message.model_dump_json())
            if isinstance(message, Goodbye):
                return
            if isinstance(message, Assign):
                await asyncio.sleep(0)  # thousands may be due at once, and a socket with room does not wait

    def _next(self) -> BaseModel | None:
        """Return the next message: commands and questions first, but never before the assignment of their side."""
        if self._goodbye is not None:
            return self._goodbye
        while self._others:
            first = self._others[0]
            seat = (first.pair, first.side) if isinstance(first, Command) else None
            if seat is None or seat not in self._assignments:
                return self._others.popleft()
            assignment = self._assignment(seat)
            if assignment is not None:
                return assignment
        while self._assignments:
            assignment = self._assignment(next(iter(self._assignments)))
            if assignment is not None:
                return assignment
        return None

    def _assignment(self, seat: Seat) -> BaseModel | None:
        return self._assignments.pop(seat) or self._due(seat)
