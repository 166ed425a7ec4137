"""Commands under way: when one is sent, sent again, or held back after a failure.

The plan says what should happen now, over and over; this keeps the loop from saying it to an agent more than once per
sending. Everything here is in memory: after a restart a command is simply sent again, with the same intent where an
operation's journal remembers the attempt, and agents are idempotent. It knows neither store nor transport.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from farshore.sightings import Seat
from farshore_schema.errors import ErrorBody
from farshore_schema.messages import Result
from farshore_schema.roles import SIDES, Side, Step

RESEND_SECONDS: Final = 5.0  # no word of a command: it is sent again with the same intent
RUNNING_RESEND_SECONDS: Final = 60.0  # accepted, but no end heard of for so long
SETTLE_SECONDS: Final = 2.0  # after `done` the reports need a moment to show it
BACKOFF_FIRST_SECONDS: Final = 0.5  # doubles with every failure in a row
BACKOFF_MAX_SECONDS: Final = 30.0

OVERTAKEN: Final = frozenset({"stale_token", "stale_epoch_command", "not_enrolled"})
"""Refusals that say that the reports are older than the agent: newer ones lead on, nothing is wrong with the step."""

State = Literal["sent", "running", "done", "failed"]


class Sending(NamedTuple):
    """One command as it should go out now."""

    intent: str
    attempt: int


class Answer(NamedTuple):
    """How the newest command of a side stands. `error` is that of the last failure until an attempt succeeds."""

    side: Side
    step: str
    state: State
    error: ErrorBody | None
    failures: int  # in a row

    @property
    def permanent(self) -> bool:
        """Whether the last failure will not heal by trying again."""
        error = self.error
        return error is not None and error.retry_seconds is None and error.code not in OVERTAKEN


@dataclass(slots=True)
class _Order:
    work: tuple[str, int, str]  # (step name, epoch, operation): what is being asked
    intent: str
    attempt: int
    session: int
    at: float  # clock seconds of the last change of state
    state: State = "sent"
    failures: int = 0  # in a row
    retry_at: float = 0.0
    error: ErrorBody | None = None


def intent_of(pair: str, step: Step, operation: str, attempt: int) -> str:
    """Return the name of one sending: the same for the same attempt of the same step, also after a restart."""
    return f"{pair}/{step.side}/{step.name}/{step.epoch}/{operation}/{attempt}"


class Orders:
    """The newest command of every side."""

    def __init__(self) -> None:
        self._orders: dict[Seat, _Order] = {}

    def sending(
        self, pair: str, step: Step, *, operation: str, journaled: int, session: int, now: float
    ) -> Sending | float:
        """Return the command to send now, or the seconds to hold it back.

        `operation` is its id, or a name unique to this process's ownership for steady work; `journaled` is the attempt
        that the operation's journal says is under way or next (0: steady work, which has no journal).
        """
        if step.side is None:
            raise ValueError(f"{step.name} is no command")
        work = (step.name, step.epoch, operation)
        order = self._orders.get((pair, step.side))
        if order is None or order.work != work:
            attempt = journaled or (1 if order is None else order.attempt + 1)
            return Sending(intent_of(pair, step, operation, attempt), attempt)
        if order.state in ("sent", "running"):
            patience = RESEND_SECONDS if order.state == "sent" else RUNNING_RESEND_SECONDS
            if order.session == session and now - order.at < patience:
                return patience - (now - order.at)
            return Sending(order.intent, order.attempt)
        ready = order.at + SETTLE_SECONDS if order.state == "done" else order.retry_at
        if now < ready:
            return ready - now
        return Sending(intent_of(pair, step, operation, order.attempt + 1), order.attempt + 1)

    def sent(self, pair: str, step: Step, sending: Sending, *, operation: str, session: int, now: float) -> None:
        """Note that a command went out."""
        if step.side is None:
            return
        work = (step.name, step.epoch, operation)
        old = self._orders.get((pair, step.side))
        again = old is not None and old.work == work
        self._orders[pair, step.side] = _Order(
            work=work,
            intent=sending.intent,
            attempt=sending.attempt,
            session=session,
            at=now,
            failures=old.failures if again and old is not None else 0,
            error=old.error if again and old is not None else None,
        )

    def heard(self, result: Result, now: float) -> bool:
        """Take an agent's answer; False when it is not about the newest command of the side (late or foreign)."""
        order = self._orders.get((result.pair, result.side))
        if order is None or order.intent != result.intent or order.state in ("done", "failed"):
            return False
        order.at = now
        if result.state == "running":
            order.state = "running"
            return True
        if result.state == "done":
            order.state, order.failures, order.error = "done", 0, None
            return True
        order.state, order.failures = "failed", order.failures + 1
        order.error = result.error or ErrorBody(code="bug", message="the agent gave no reason")
        backoff = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(order.failures - 1, 10))
        order.retry_at = now + max(backoff, min(order.error.retry_seconds or 0.0, BACKOFF_MAX_SECONDS))
        return True

    def answer(self, pair: str, step: Step, *, operation: str) -> Answer | None:
        """Return how this very step stands at its side, None when the newest command there is another one."""
        order = self._orders.get((pair, step.side)) if step.side is not None else None
        if order is None or step.side is None or order.work != (step.name, step.epoch, operation):
            return None
        return Answer(step.side, step.name, order.state, order.error, order.failures)

    def forget(self, pair: str) -> None:
        """Drop what is known of a pair that is no more."""
        for side in SIDES:
            self._orders.pop((pair, side), None)
