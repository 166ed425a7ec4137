"""The life of an operation as a value: birth, journal of its steps, end; and its two shapes.

`OperationView` is the stored, human shape and `roles.Operation` the shape that decides; `core` is the only place where
one becomes the other. Everything here is pure: no store, no clock (times come in as RFC 3339 texts), no transport. The
admission of requests gives birth to operations; the loop alone writes their life and their end.
"""

from collections.abc import Iterable
from typing import Final, Literal

from farshore.clock import seconds_between
from farshore_schema.errors import ErrorBody
from farshore_schema.roles import Consent, Operation, Outcome, Receipt, Role, Side, Verb
from farshore_schema.status import OperationView, StepLog

LOG_MAX: Final = 200  # journal lines kept in one operation; the schema refuses more
LOG_HEAD: Final = 40  # of which the first ones are never dropped: they say how it began
HISTORY_MAX: Final = 200  # ended operations kept for one pair

StepState = Literal["running", "done", "failed"]


def birth(
    *,
    id: str,
    pair: str,
    verb: Verb,
    to: Side,
    to_site: str,
    epoch: int,
    created: str,
    by: str = "",
    reason: str = "",
    generation: int = 0,
    consent: Consent | None = None,
    attested: bool = False,
) -> OperationView:
    """Return a new open operation with an empty journal.

    `epoch` is the one it burns (`roles.next_even` of the present one), `generation` the declaration that asked for it
    (0: a person). The caller stores it in one transaction guarded by the absence of an open operation and by the
    revision of the role it looked at.
    """
    return OperationView(
        id=id,
        pair=pair,
        verb=verb,
        to=to,
        to_site=to_site,
        epoch=epoch,
        by=by,
        reason=reason,
        created=created,
        generation=generation,
        consent=consent,
        attested=attested,
    )


def core(view: OperationView) -> Operation:
    """Return the part of an operation that decides."""
    return Operation(
        id=view.id,
        verb=view.verb,
        to=view.to,
        epoch=view.epoch,
        consent=view.consent,
        receipt=view.receipt,
        attested=view.attested,
        prepared=view.prepared,
        overdue=view.overdue,
        abort=view.abort,
    )


def is_decided(view: OperationView, role: Role | None) -> bool:
    """Whether the store has already decided for this operation: from then on it is finished, not undone."""
    return role is not None and role.epoch >= view.epoch


def newest(view: OperationView, name: str, site: str) -> StepLog | None:
    """Return the newest journal line of a step at a site, or None."""
    return next((line for line in reversed(view.log) if line.name == name and line.site == site), None)


def running(view: OperationView) -> Iterable[StepLog]:
    """Return the journal lines that have not ended."""
    return (line for line in view.log if line.state == "running")


def begun(view: OperationView, *, name: str, site: str, at: str, attempt: int = 1, detail: str = "") -> OperationView:
    """Return the operation with a step under way. A new attempt replaces the line of the failed one: the journal is
    bounded by the number of steps, not by the number of attempts, and the line keeps its first `started` and the last
    `error`."""
    old = newest(view, name, site)
    if old is None or old.state == "done":
        return _appended(
            view, StepLog(name=name, site=site, state="running", started=at, attempt=attempt, detail=detail)
        )
    if old.state == "running" and old.attempt == attempt:
        return view
    return _replaced(view, old, state="running", attempt=attempt, ended=None, seconds=None, detail=detail or old.detail)


def closed(
    view: OperationView,
    *,
    name: str,
    site: str,
    at: str,
    state: Literal["done", "failed"] = "done",
    error: ErrorBody | None = None,
    detail: str = "",
) -> OperationView:
    """Return the operation with the newest line of a step ended; unchanged when no such line is running."""
    old = newest(view, name, site)
    if old is None or old.state != "running":
        return view
    return _replaced(
        view,
        old,
        state=state,
        ended=at,
        seconds=seconds_between(old.started, at),
        error=error if error is not None else old.error,
        detail=detail or old.detail,
    )


def noted(view: OperationView, *, name: str, at: str, site: str = "", detail: str = "") -> OperationView:
    """Return the operation with a step that began and ended at once: a transaction on the store."""
    line = StepLog(name=name, site=site, state="done", started=at, ended=at, seconds=0.0, detail=detail)
    return _appended(view, line)


def fenced(view: OperationView, receipt: Receipt) -> OperationView:
    """Return the operation with the receipt of the old active side's fence kept (R13: evidence lives in the store)."""
    return view.model_copy(update={"receipt": receipt})


def prepared(view: OperationView) -> OperationView:
    """Return the operation with the reverse stream attached ahead, or with the attempt given up."""
    return view.model_copy(update={"prepared": True})


def overdue(view: OperationView) -> OperationView:
    """Return the operation whose drain outlived the pair's `drain_timeout` (R15)."""
    return view.model_copy(update={"overdue": True})


def aborting(view: OperationView, reason: str) -> OperationView:
    """Return the operation as to be undone. The first reason stays: a second abort changes nothing."""
    if view.abort:
        return view
    return view.model_copy(update={"abort": True, "abort_reason": reason})


def waiting(view: OperationView, code: str, hint: str) -> OperationView:
    """Return the operation with what it waits for ("" : it does not wait)."""
    return view.model_copy(update={"waiting_for": code, "waiting_hint": hint, "state": "waiting" if code else "open"})


def at_step(view: OperationView, step: int, steps: int, label: str) -> OperationView:
    """Return the operation at step k of n, for the progress bar."""
    if (view.step, view.steps, view.label) == (step, steps, label):
        return view
    return view.model_copy(update={"step": step, "steps": steps, "label": label})


def ended(view: OperationView, *, outcome: Outcome, at: str, error: ErrorBody | None = None) -> OperationView:
    """Return the operation at its end; lines still running end with it."""
    for line in tuple(running(view)):
        view = closed(view, name=line.name, site=line.site, at=at)
    return view.model_copy(
        update={
            "state": outcome or "done",
            "ended": at,
            "error": error,
            "waiting_for": "",
            "waiting_hint": "",
            "step": view.steps,
        }
    )


def encode(view: OperationView) -> str:
    """Return the operation as it is stored."""
    return view.model_dump_json()


def decode(text: str | bytes) -> OperationView:
    """Return a stored operation."""
    return OperationView.model_validate_json(text)


def _appended(view: OperationView, line: StepLog) -> OperationView:
    log = (*view.log, line)
    if len(log) > LOG_MAX:
        log = (*log[:LOG_HEAD], *log[len(log) - (LOG_MAX - LOG_HEAD) :])
    return view.model_copy(update={"log": log})


def _replaced(view: OperationView, old: StepLog, **changes: object) -> OperationView:
    line = old.model_copy(update=changes)
    return view.model_copy(update={"log": tuple(line if each is old else each for each in view.log)})
