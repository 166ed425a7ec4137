"""What time and failures change about a plan: pure, over the operation's journal and what agents answered.

The plan knows neither clocks nor errors (R25). Here a drain becomes overdue, a preparation is given up so that it never
blocks a switchover, and a step that fails for good takes a switchover back while that is still possible (R15). After
the decision, and in every other operation, a failing step is tried on and on and its reason is shown; only a rebind
ends with the proof that failed.
"""

from typing import Final

from farshore import operations
from farshore.clock import seconds_between
from farshore.orders import Answer
from farshore_schema.quantities import seconds
from farshore_schema.roles import Role, Step
from farshore_schema.status import OperationView, StepLog

PREPARE_SECONDS: Final = 5.0  # a reverse stream that is not attached ahead by then is attached after the switchover
PREPARE_FAILURES_MAX: Final = 2
FENCE_SECONDS: Final = 30.0  # a fence may take so long before the drain's own time begins (R13: it is bounded itself)


def drain_deadline(op: OperationView, drain_timeout: str) -> tuple[str, float] | None:
    """Return from when, and how many seconds later, an undecided switchover is taken back; None while nothing stops
    clients.

    The time is counted from the journal, so that a restart of the reconciler does not prolong it: from the end of the
    fence, or from the first order to drain; a fence that does not come to an end has `FENCE_SECONDS` more.
    """
    if op.verb != "switchover":
        return None
    limit = seconds(drain_timeout)
    starts = [line.ended for line in _lines(op, "fence") if line.state == "done" and line.ended]
    starts += [line.started for line in _lines(op, "drain")]
    if starts:
        return min(starts), limit
    fences = [line.started for line in _lines(op, "fence")]
    return (min(fences), limit + FENCE_SECONDS) if fences else None


def is_overdue(op: OperationView, role: Role | None, drain_timeout: str, now: str) -> bool:
    """Return whether the switchover must be marked as overdue now (R15)."""
    if op.overdue or op.abort or operations.is_decided(op, role):
        return False
    deadline = drain_deadline(op, drain_timeout)
    return deadline is not None and seconds_between(deadline[0], now) >= deadline[1]


def limited(step: Step, op: OperationView | None, role: Role | None, answer: Answer | None, now: str) -> Step:
    """Return what is done instead of a planned command that took too long or fails for good; else the step itself.

    `answer` is how this very step stands at its side, None when it was not sent.
    """
    failed = answer.error if answer is not None and answer.permanent else None
    if op is not None and op.verb == "rebind" and step.name in ("prove", "stream") and failed is not None:
        return Step("finish", outcome="failed", reason=failed.code)
    if op is None or op.verb != "switchover" or operations.is_decided(op, role) or step.side is None:
        return step
    if step.name == "prepare":
        begun = next(iter(_lines(op, "prepare")), None)
        slow = begun is not None and seconds_between(begun.started, now) >= PREPARE_SECONDS
        failing = answer is not None and (answer.permanent or answer.failures >= PREPARE_FAILURES_MAX)
        return Step("record_prepared", reason="given_up") if slow or failing else step
    if failed is not None:
        return Step("abort", reason=failed.code)
    return step


def _lines(op: OperationView, name: str) -> list[StepLog]:
    return [line for line in op.log if line.name == name]
