"""One look at a pair, and what follows from it alone: pure, used by the loop."""

from typing import NamedTuple

from farshore.clock import seconds_between
from farshore.limits import PREPARE_SECONDS, drain_deadline
from farshore.orders import Answer
from farshore.ownership import Owner
from farshore.sessions import Standing
from farshore.snapshot import Snapshot
from farshore.store import Guard, keys
from farshore.store.records import RoleRecord, decided, unchanged
from farshore_schema.messages import Command
from farshore_schema.observed import Finding
from farshore_schema.roles import Role, Side, Step
from farshore_schema.status import OperationView

SOONEST_SECONDS = 0.01  # a deadline that has passed is looked at so soon


class Visit(NamedTuple):
    """What one visit sees, and what it found out so far."""

    snapshot: Snapshot
    owner: Owner
    now: str
    problem: Finding | None = None  # why everything that touches the servers is held
    waiting: str = ""  # reason code of what the plan waits for
    answer: Answer | None = None  # how the planned command stands

    @property
    def pair(self) -> str:
        """The pair's name."""
        return self.snapshot.pair

    @property
    def op(self) -> OperationView | None:
        """The open operation."""
        return self.snapshot.operation.value if self.snapshot.operation else None

    @property
    def role(self) -> RoleRecord | None:
        """The decision in the store."""
        return self.snapshot.role.value if self.snapshot.role else None

    @property
    def work(self) -> str:
        """What commands belong to: the operation, else steady work under this ownership."""
        return self.op.id if self.op else f"steady-{self.owner.token}"

    def guards(self) -> tuple[Guard, ...]:
        """Return what must still be true when anything is written: who acts, and everything it was decided on."""
        return (
            self.owner.guard(),
            self.snapshot.spec.unchanged(),
            unchanged(keys.role(self.pair), self.snapshot.role),
            unchanged(keys.operation(self.pair), self.snapshot.operation),
        )

    def standing(self) -> Standing:
        """Return what agents are to be told."""
        spec, role = self.snapshot.spec.value, self.role
        return Standing(
            pair=self.pair,
            site_a=spec.document.site_a.site,
            site_b=spec.document.site_b.site,
            incarnation=spec.incarnation,
            generation=spec.generation,
            active=role.active if role else None,
            epoch=role.epoch if role else 0,
            busy=self.op is not None,
        )

    def command(self, step: Step, side: Side, intent: str) -> Command:
        """Return the step as its agent hears it."""
        return Command.model_validate(
            {
                "intent": intent,
                "pair": self.pair,
                "side": side,
                "incarnation": self.snapshot.spec.value.incarnation,
                "token": self.owner.token,
                "epoch": step.epoch,
                "step": step.name,
                "receipt": step.receipt,
                "consent": step.consent,
                "evidence": step.evidence,
                "operation": self.op.id if self.op else "",
                "delete_journal": step.name == "cleanup" and self.op is not None and self.op.delete_journal,
            }
        )

    def decision(self, role: Role) -> RoleRecord:
        """Return the record of a decision: of the open operation, or of a gateway whose decision is adopted (R16)."""
        op = self.op
        if role.evidence == "emergency" or op is None:
            return decided(self.role, role, at=self.now, by="gateway", reason="emergency decision at the gateway")
        reason = op.abort_reason or op.reason
        return decided(self.role, role, at=self.now, by=op.by, reason=reason, operation=op.id)

    def unreachable(self, side: Side) -> str:
        """Return the reason code of a side that nobody serves."""
        active = self.role.active if self.role is not None else self.snapshot.policy.preferred
        return "active_unreachable" if side == active else "standby_unreachable"

    def until_deadline(self, view: OperationView | None, seconds: float) -> float:
        """Return when to come back: not later than the moment at which the operation runs out of time."""
        if view is None:
            return seconds
        deadlines = []
        drain = drain_deadline(view, self.snapshot.spec.value.document.drain_timeout)
        if drain is not None and not (view.overdue or view.abort):
            deadlines.append(drain)
        if not view.prepared:
            deadlines += [(line.started, PREPARE_SECONDS) for line in view.log if line.name == "prepare"]
        left = [limit - seconds_between(since, self.now) for since, limit in deadlines]
        return min([seconds, *(max(each, SOONEST_SECONDS) for each in left)])
