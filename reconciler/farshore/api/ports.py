"""What the API needs of the running reconciler, as small contracts; the supervisor and the agent sessions keep them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from farshore.admission import Desk
from farshore.agents import Identity, LiveAgent
from farshore.api.metrics import Metrics
from farshore.conversation import Wire
from farshore.settings import Settings
from farshore_schema.documents import MySQLPair
from farshore_schema.messages import Inspected
from farshore_schema.roles import Side
from farshore_schema.status import PairStatus


class Agents(Protocol):
    """The live agents, as far as requests need them."""

    def agents(self) -> tuple[LiveAgent, ...]:
        """Return every live session."""
        ...

    async def inspect(
        self, document: MySQLPair, own: Side, existing: bool, *, timeout_seconds: float = ...
    ) -> Inspected:
        """Ask the gateway of the side `own` to look at both endpoints. Raises Transient: agent_unreachable, timeout."""
        ...

    def handle(self, wire: Wire, identity: Identity) -> Awaitable[None]:
        """Serve one agent's socket until it closes."""
        ...


def as_stored(_pair: str, stored: PairStatus) -> PairStatus:
    """Return a report without live measurements: where nobody measures."""
    return stored


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything a request may use."""

    settings: Settings
    desk: Desk
    agents: Agents
    metrics: Metrics
    live: Callable[[str, PairStatus], PairStatus] = as_stored
    embedded_hash: str = ""  # of the embedded agent's credential, which lives as long as this process
    ending: "Ending" = field(default_factory=lambda: Ending())


class Ending:
    """Whether the process is about to stop: streams and long polls end then."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """End what waits at its next look."""
        self.begun = True
