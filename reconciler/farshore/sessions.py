"""What the loop knows of agents: a contract, kept by the real sessions and by the simulation's."""

from typing import NamedTuple, Protocol

from farshore_schema.messages import Command
from farshore_schema.observed import PairObserved
from farshore_schema.roles import Side


class Standing(NamedTuple):
    """What agents are to be told of a pair now; who serves it follows from its sites."""

    pair: str
    site_a: str
    site_b: str
    incarnation: int
    generation: int
    active: Side | None  # None before the first decision
    epoch: int
    busy: bool  # an operation is open: no side changes hands now

    def site(self, side: Side) -> str:
        """Return the site of a side."""
        return self.site_a if side == "a" else self.site_b


class Sessions(Protocol):
    """The live agents."""

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports and their ages; a stale one is None."""
        ...

    def send(self, command: Command) -> bool:
        """Queue a command for the agent that serves the side; False when none does, or it takes no more."""
        ...

    def session(self, pair: str, side: Side) -> int:
        """Return the number of the live session that serves a side, 0 when none does. Never used twice."""
        ...

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation of the declaration which that session was given, 0 when none serves the side."""
        ...

    def settle(self, standing: Standing) -> None:
        """Bring the assignments of both sides up to date. Idempotent; called on every visit."""
        ...

    def gone(self, pair: str) -> None:
        """Take both sides back: the pair is no more. Idempotent."""
        ...
