"""What a report on a pair is made of: one visit's facts, and the class that they prove."""

from typing import Final, NamedTuple

from farshore.orders import Answer
from farshore.plan.view import Bound, Seen, is_following
from farshore.store.records import PairRecord, RoleRecord, ServersRecord
from farshore_schema.observed import Finding, PairObserved, SideReport
from farshore_schema.roles import SIDES, Operation, Role, Side
from farshore_schema.status import OperationView, RpoClass

CATCHING_UP_SECONDS: Final = 60.0  # a standby further behind than this is catching up, whatever it once was


class Told(NamedTuple):
    """Everything that a report is made of, but for the moment and what was reported before.

    Two equal values make equal reports; numbers that change by themselves are left out on purpose.
    """

    spec: PairRecord
    role: RoleRecord | None
    operation: OperationView | None  # the open one, or the one that ends now
    a: SideReport | None  # without its measurements
    b: SideReport | None
    rpo_class: RpoClass
    waiting: str  # reason code of what the plan waits for, "" when it does not
    failing: Answer | None = None  # the step that is tried on and on
    problem: Finding | None = None  # why the loop holds everything
    servers: ServersRecord = ServersRecord()  # which servers the pair is bound to
    in_sync: tuple[bool | None, bool | None] = (None, None)  # has the agent this declaration; None: no agent

    def side(self, side: Side) -> SideReport | None:
        """Return one side's report."""
        return self.a if side == "a" else self.b

    def seen(self) -> Seen:
        """Return the deciding facts of both sides."""
        return {"a": self.a.facts() if self.a else None, "b": self.b.facts() if self.b else None}

    def bound(self) -> Bound:
        """Return which server each side is bound to."""
        return {side: self.servers.of(side) for side in SIDES}


def without_measurements(report: SideReport | None) -> SideReport | None:
    """Return the part of a report that does not change by itself."""
    if report is None:
        return None
    return report.model_copy(update={"position": "", "seed": None, "stream": _NO_STREAM})


_NO_STREAM = SideReport().stream


def rpo_class(role: Role | None, op: Operation | None, observed: PairObserved) -> RpoClass:
    """Return how well the standby follows by what was measured, never by what is configured (I4).

    Never above `catching_up` before the copy is complete and its first tail applied (R10).
    """
    if role is None:
        return "none"
    standby = observed.b if role.active == "a" else observed.a
    if standby is None:
        return "none"
    if standby.seeding or standby.base == "incomplete":
        return "seeding"
    if not is_following(standby.facts(), role):
        return "none"
    lag = standby.stream.lag_seconds
    behind = op is not None and op.verb in ("protect", "reprotect")
    return "catching_up" if behind or (lag is not None and lag > CATCHING_UP_SECONDS) else "async"
