"""The visit: look at one pair once, take at most one step towards what was declared and decided, and report.

Synchronous and without I/O of its own: store, clock and sessions are injected, so the simulation drives exactly this
code. Level-triggered: a visit knows only the pair's name, and may come at any moment, any number of times, from a fresh
process. It never sleeps and never waits for an agent; long work shows up in later reports.

One visit either commits one guarded transaction (every write names the owner's token and the revisions it was decided
on) or sends one command, and then keeps the journal of the operation and the report up to date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import structlog

from farshore import journal, limits, operations
from farshore.admission.binding import bind_server
from farshore.admission.closing import ending
from farshore.admission.desk import Decided, Desk
from farshore.clock import Clock, seconds_between
from farshore.orders import Failure, Orders, Sending
from farshore.plan import gap_consent, operation_epoch, plan
from farshore.reporting import Reporter
from farshore.snapshot import Snapshot, read
from farshore.store import Change, Delete, Guard, absent, create_rev, keys
from farshore.store.records import Records, RoleRecord, put
from farshore_schema.errors import FarshoreError
from farshore_schema.messages import Command, Result
from farshore_schema.observed import Finding, PairObserved
from farshore_schema.roles import SIDES, Role, Side, Step, peer
from farshore_schema.status import OperationView

IDLE_SECONDS: Final = 60.0  # a pair at rest is looked at this often, beside every change
OPEN_SECONDS: Final = 5.0  # and one with an open operation
NOT_SENT_SECONDS: Final = 1.0  # nobody took the command: look again
AT_ONCE: Final = 0.0


class Standing(NamedTuple):
    """What agents are to be told of a pair: who serves it is derived from it."""

    pair: str
    sites: tuple[str, str]
    incarnation: int
    generation: int
    active: Side | None
    epoch: int
    busy: bool  # an operation is open: no side changes hands now


class Sessions(Protocol):
    """The agents, as the loop knows them."""

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports and their ages; a stale one is None."""
        ...

    def send(self, command: Command) -> bool:
        """Queue a command for the agent that serves the side; False when nobody does, or it takes no more."""
        ...

    def session(self, pair: str, side: Side) -> int:
        """Return the number of the live session that serves a side, 0 when none does."""
        ...

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation of the declaration which that session was given, 0 when none serves the side."""
        ...

    def settle(self, standing: Standing) -> None:
        """Bring the assignments of both sides up to date. Idempotent, called on every visit."""
        ...

    def gone(self, pair: str) -> None:
        """Take both sides back: the pair is no more. Idempotent."""
        ...


@dataclass
class Counters:
    """What the loop did so far, for metrics."""

    visits: int = 0
    commands: int = 0
    transactions: int = 0
    conflicts: int = 0
    reports: int = 0
    lost: int = 0  # writes refused because the shard has another owner
    failures: dict[str, int] = field(default_factory=dict)  # by error code


class Owner(NamedTuple):
    """The right to act for a shard: its key and the create revision that the key must have."""

    key: str
    token: int

    def guard(self) -> Guard:
        """Require that this is still the owner (I6)."""
        return create_rev(self.key, self.token)


class Loop:
    """Visits pairs. `owner` returns the present right to act for a pair, None while another process has it."""

    def __init__(
        self, *, desk: Desk, sessions: Sessions, owner: Callable[[str], Owner | None], clock: Clock | None = None
    ) -> None:
        self.counters = Counters()
        self._desk, self._records, self._sessions, self._owner = desk, desk.records, sessions, owner
        self._clock = clock or desk.clock
        self._orders = Orders()
        self._reporter = Reporter(desk.records)

    def heard(self, result: Result) -> None:
        """Take an agent's answer to a command; visit the pair at once afterwards."""
        if self._orders.heard(result, self._clock.monotonic()) and result.error is not None:
            code = result.error.code
            self.counters.failures[code] = self.counters.failures.get(code, 0) + 1

    def visit(self, pair: str) -> float | None:
        """Take one step for the pair; return in how many seconds to come back (0: at once), None: nothing left."""
        self.counters.visits += 1
        snapshot = read(self._records, pair, self._sessions.observed(pair))
        if snapshot is None:
            self._sessions.gone(pair)
            self._orders.forget(pair)
            self._reporter.forget(pair)
            return None
        owner = self._owner(pair)
        if owner is None:
            return IDLE_SECONDS
        self._sessions.settle(_standing(snapshot))
        return _Visit(self, snapshot, owner).run()
