"""How a step changes the operation that it belongs to: pure, one function for each kind of step.

The journal is written for people, and for the little that must survive a restart: when the drain began, which attempt
of a command is under way, and why the last one failed.
"""

from collections.abc import Callable
from typing import Final

from farshore import operations
from farshore.orders import Answer
from farshore.plan import Reason, progress
from farshore.plan.view import Seen
from farshore_schema.errors import TABLE, ErrorBody
from farshore_schema.roles import Role, Step
from farshore_schema.status import OperationView

WORKING: Final = frozenset({"", "seeding", "draining", "following"})
"""What a plan awaits while work is simply going on: nothing that a person should act on."""

SHOWN_AFTER_FAILURES: Final = 3  # attempts of a step that may heal by itself, before people are told

Site = Callable[[str], str]


def attempt(view: OperationView, name: str, site: str) -> int:
    """Return the number of the attempt that is under way or next."""
    line = operations.newest(view, name, site)
    if line is None:
        return 1
    return line.attempt if line.state == "running" else line.attempt + 1


def commanded(view: OperationView, name: str, site: str, at: str, *, attempt: int) -> OperationView:
    """Return the operation with a command sent; whatever ran before it has done its work."""
    for line in tuple(operations.running(view)):
        if (line.name, line.site) != (name, site):
            view = operations.closed(view, name=line.name, site=line.site, at=at)
    view = operations.begun(view, name=name, site=site, at=at, attempt=attempt)
    return operations.waiting(view, "", "")


def answered(view: OperationView, step: str, site: str, at: str, answer: Answer) -> OperationView:
    """Return the operation with the agent's answer noted at the step's line, as long as it is not noted yet."""
    if answer.state == "done":
        return operations.closed(view, name=step, site=site, at=at)
    if answer.state == "failed":
        return operations.closed(view, name=step, site=site, at=at, state="failed", error=answer.error)
    return view


def stored(
    view: OperationView, step: Step, at: str, *, site: str = "", error: ErrorBody | None = None
) -> OperationView:
    """Return the open operation after a transaction on the store; `finish` is `ended`."""
    if step.name == "decide" and step.role is not None:
        back = step.role.evidence == "aborted"
        view = _all_closed(view, at, failed=back)
        return operations.noted(
            view, name="decide", site=site, at=at, detail=f"epoch {step.role.epoch}, {step.role.evidence}"
        )
    if step.name == "record_fence" and step.receipt is not None:
        return operations.fenced(_all_closed(view, at, name="fence"), step.receipt)
    if step.name == "record_prepared":
        view = _all_closed(view, at, name="prepare", failed=step.reason != "", error=error)
        return operations.prepared(view)
    if step.name == "abort":
        view = operations.aborting(view, f"{step.reason}: {error.message}" if error else step.reason)
        return operations.noted(view, name="abort", at=at, detail=view.abort_reason)
    return view


def overdue(view: OperationView, at: str, drain_timeout: str) -> OperationView:
    """Return the switchover whose drain took too long (R15)."""
    return operations.noted(
        operations.overdue(view), name="overdue", at=at, detail=f"not drained within {drain_timeout}"
    )


def ended(view: OperationView, step: Step, at: str, reason: Reason, error: ErrorBody | None) -> OperationView:
    """Return the operation at its end, with the reason why it did not do what was asked."""
    outcome = step.outcome or "done"
    if outcome != "done" and error is None:
        code = step.reason if step.reason in TABLE else "operation_failed"
        error = ErrorBody(code=code, message=_because(view) or reason.sentence, hint=reason.go_on)
    view = _all_closed(view, at, failed=outcome != "done")
    return operations.ended(view, outcome=outcome, at=at, error=error if outcome != "done" else None)


def held(view: OperationView, code: str, reason: Reason, answer: Answer | None) -> OperationView:
    """Return the operation with what it waits for, and the commands that lead on and back (R15)."""
    error = answer.error if answer is not None else None
    if answer is not None and error is not None and (answer.permanent or answer.failures >= SHOWN_AFTER_FAILURES):
        return operations.waiting(view, error.code, f"{error.message}; {error.hint}" if error.hint else error.message)
    if code in WORKING:
        return operations.waiting(view, "", "")
    return operations.waiting(view, code, f"{reason.sentence}; go on: {reason.go_on}; back: {reason.go_back}")


def placed(view: OperationView, role: Role | None, seen: Seen) -> OperationView:
    """Return the operation at its present step k of n. An unknown side hides what was done: k never goes back."""
    k, n, label = progress(operations.core(view), role, seen)
    if n == view.steps and k < view.step:
        return view
    return operations.at_step(view, k, n, label)


def _all_closed(
    view: OperationView, at: str, *, name: str = "", failed: bool = False, error: ErrorBody | None = None
) -> OperationView:
    for line in tuple(operations.running(view)):
        if name in ("", line.name):
            view = operations.closed(
                view, name=line.name, site=line.site, at=at, state="failed" if failed else "done", error=error
            )
    return view


def _because(view: OperationView) -> str:
    if view.abort_reason:
        return f"taken back: {view.abort_reason}"
    overdue_line = operations.newest(view, "overdue", "")
    return f"taken back: {overdue_line.detail}" if overdue_line is not None else ""
