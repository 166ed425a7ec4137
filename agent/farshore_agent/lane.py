"""One side's orders, one after the other: admitted at once, performed in turn, answered when they ended.

Admission happens on arrival, also while an older effect is still under way: the newer decision is durable before it
waits for its turn, so that the older effect stops at its next check (I6). Copies and drains are cancelled by whatever
overtakes them. It knows neither sockets nor databases; threads come from outside.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from farshore_agent.commands import CommandRunner, Keeper, Outcome
from farshore_agent.holder import EngineHolder
from farshore_agent.moves import BoundMoves
from farshore_agent.report import Work
from farshore_schema.errors import Bug, ErrorBody, FarshoreError
from farshore_schema.messages import Command, Result
from farshore_schema.observed import Finding, SeedProgress
from farshore_schema.roles import Order, Receipt, Record, Side, Step

LONG_STEPS: Final = frozenset({"seed", "drain"})
"""May take from seconds to hours: answered `running` at once, on threads of their own, and can be cancelled."""
INTERRUPTING_STEPS: Final = frozenset({"fence", "promote", "stop_acks", "cleanup"})
ACTIVE_SECONDS: Final = 5.0  # so long after an order the side is looked at more often

_log = structlog.get_logger(__name__)


class Hands(NamedTuple):
    """Where work is done: each call returns at once."""

    quick: Callable[[Callable[[], None]], None]
    slow: Callable[[Callable[[], None]], None]  # for `LONG_STEPS`


class Listener(Protocol):
    """Who hears of a side's orders; called on worker threads."""

    def answered(self, result: Result) -> None:
        """Take the outcome of an order, or that it is running."""
        ...

    def stirred(self, pair: str, side: Side) -> None:
        """Know that something happened at the side, so that it is worth a look now."""
        ...


@dataclass(eq=False)
class _Job:
    """One effect that waits for its turn, or is under way."""

    name: str
    run: Callable[[], Outcome | None]
    order: Order | None = None  # None: the agent's own work
    intents: list[str] = field(default_factory=list)  # every sending that waits for this one effect
    cancelled: threading.Event = field(default_factory=threading.Event)


class Lane:
    """The orders of one (pair, side)."""

    def __init__(
        self, *, pair: str, side: Side, keeper: Keeper, holder: EngineHolder, hands: Hands, listener: Listener
    ) -> None:
        self.pair, self.side = pair, side
        self._keeper, self._hands, self._listener = keeper, hands, listener
        self._turn = threading.Lock()  # of the record
        self._lock = threading.Lock()  # of everything below
        self._jobs: deque[_Job] = deque()
        self._running: _Job | None = None
        self._work = Work()
        self._pulse = 0
        self._active_at = float("-inf")
        self._paused = False
        self._moves = BoundMoves(holder, progress=self._progress, cancelled=self._is_cancelled)
        self._runner = CommandRunner(side=side, keeper=keeper, moves=self._moves, turn=self._turn)
        self._log = _log.bind(pair=pair, side=side)

    # ---- what others may ask

    def record(self) -> Record:
        """Return the durable record; raises when it cannot be trusted."""
        with self._turn:
            return self._keeper.load()

    def work(self) -> tuple[Work, int]:
        """Return what is under way, and a number that changes whenever an order begins, is noted or ends."""
        with self._lock:
            return self._work, self._pulse

    def is_active(self) -> bool:
        """Return whether an order is under way (a seed does not count) or one ended within `ACTIVE_SECONDS`."""
        with self._lock:
            busy = self._running is not None and self._running.name != "seed"
            return busy or time.monotonic() - self._active_at < ACTIVE_SECONDS

    def is_idle(self) -> bool:
        """Return whether nothing waits and nothing is under way."""
        with self._lock:
            return self._running is None and not self._jobs

    def pause(self) -> None:
        """Cancel what can be cancelled and begin nothing more: the side is given away, or the agent is going down."""
        with self._lock:
            self._paused = True
            self._jobs.clear()

    def reopen(self) -> None:
        """Take orders again after a pause, with nothing remembered of the time before."""
        with self._lock:
            if self._paused:
                self._paused, self._work = False, Work()

    # ---- orders from outside

    def admit(self, command: Command) -> None:
        """Judge one command, make that durable, and have its effect performed in turn; never raises.

        Blocks for a write to disk. Calls of one lane do not overlap.
        """
        with self._lock:
            if self._paused:
                return
        _, ending = self._attempt(partial(self._admit, order_of(command)))
        if ending is not None:
            self._answer([command.intent], ending)
        self._begin_next()

    def _admit(self, order: Order) -> Outcome | None:
        with self._lock:
            known = any(order.intent in job.intents for job in self._all_jobs())
        if known:
            self._answer([order.intent], _RUNNING)
            return None
        outcome = self._runner.accept(order)
        with self._lock:
            self._touch()
            if outcome is not None:
                return outcome
            self._interrupt(order)
            twin = self._twin(order)
            if twin is not None:
                twin.intents.append(order.intent)
            else:
                self._jobs.append(_Job(order.step.name, partial(self._runner.perform, order), order, [order.intent]))
                self._note_begun(order)
        if order.step.name in LONG_STEPS:
            self._answer([order.intent], _RUNNING)
            self._listener.stirred(self.pair, self.side)
        return None

    # ---- the agent's own work

    def refence(self, found: Finding) -> None:
        """Fence again by itself: the side was found writable after its receipt (R13). Idempotent while it waits."""
        with self._lock:
            self._work = replace(self._work, violation=found)
            self._enqueue_own("refence", self._runner.refence)
        self._begin_next()

    def resume(self) -> None:
        """Follow the other side again as the record says, with nobody to order it (I10). Idempotent while it waits."""
        with self._lock:
            self._enqueue_own("resume", self._follow_again)
        self._begin_next()

    def _follow_again(self) -> bool:
        record = self.record()
        if not follows(record):
            return False
        self._moves.stream(record.stream_epoch, None)
        return True

    def _enqueue_own(self, name: str, act: Callable[[], bool]) -> None:
        def run() -> None:
            if act():
                self._log.info("own work done", work=name)

        if not self._paused and not any(job.name == name for job in self._all_jobs()):
            self._jobs.append(_Job(name, run))

    # ---- carrying out

    def _begin_next(self) -> None:
        with self._lock:
            if self._running is not None or not self._jobs or self._paused:
                return
            job = self._running = self._jobs.popleft()
            self._touch()
        hand = self._hands.slow if job.name in LONG_STEPS else self._hands.quick
        hand(partial(self._carry_out, job))

    def _carry_out(self, job: _Job) -> None:
        outcome, ending = self._attempt(job.run)
        with self._lock:
            self._running = None
            self._touch()
            self._note_ended(job, outcome)
            intents = list(job.intents)  # complete only now: a repeated order may have joined until here
        if ending is not None:
            self._answer(intents, ending)
        self._listener.stirred(self.pair, self.side)
        self._begin_next()

    def _attempt(self, act: Callable[[], Outcome | None]) -> tuple[Outcome | None, "_Ending | None"]:
        """Run one piece of work; the one net under everything that an engine can throw."""
        try:
            outcome = act()
        except FarshoreError as error:
            self._log.warning("order failed", code=error.code, reason=error.message)
            return None, _Ending("failed", error.body())
        except Exception:  # noqa: BLE001 - the boundary: a defect of an engine must not end the agent
            self._log.exception("defect while carrying out an order")
            return None, _Ending("failed", Bug("the agent met an error it does not know; its log has it").body())
        if outcome is None:
            return None, None
        if outcome.state == "done":
            return outcome, _Ending("done", None, outcome.receipt)
        hint = f"farshore describe {self.pair}"
        return outcome, _Ending("refused", ErrorBody(code=outcome.code, message=outcome.message, hint=hint))

    def _answer(self, intents: list[str], ending: "_Ending") -> None:
        for intent in intents:
            self._listener.answered(
                Result(
                    intent=intent,
                    pair=self.pair,
                    side=self.side,
                    state=ending.state,
                    error=ending.error,
                    receipt=ending.receipt,
                )
            )

    # ---- state, under the lock

    def _touch(self) -> None:
        self._pulse += 1
        self._active_at = time.monotonic()

    def _all_jobs(self) -> list[_Job]:
        return [*([self._running] if self._running is not None else []), *self._jobs]

    def _twin(self, order: Order) -> _Job | None:
        """Return the copy or drain that does what is asked already; everything else is simply done again."""
        if order.step.name not in LONG_STEPS:
            return None
        for job in self._all_jobs():
            same = job.order is not None and (job.order.step, job.order.operation) == (order.step, order.operation)
            if same and not job.cancelled.is_set():
                return job
        return None

    def _interrupt(self, order: Order) -> None:
        """Cancel the copies and drains that this order overtakes."""
        step = order.step
        for job in self._all_jobs():
            if job.name not in LONG_STEPS or job.order is None:
                continue
            newer = step.epoch > job.order.step.epoch and step.name != "prepare"
            if step.name in INTERRUPTING_STEPS or newer:
                job.cancelled.set()

    def _is_cancelled(self) -> bool:
        with self._lock:
            return self._paused or (self._running is not None and self._running.cancelled.is_set())

    def _progress(self, progress: SeedProgress) -> None:
        with self._lock:
            self._work = replace(self._work, seed=progress)

    def _note_begun(self, order: Order) -> None:
        step, work = order.step, self._work
        if step.name == "seed":
            work = Work(seeding=True, seed=SeedProgress(phase="starting"))
        elif step.name == "drain":
            work = replace(work, draining=step.receipt, drained=None)
        elif step.name in ("fence", "promote"):
            work = replace(work, violation=None)
        self._work = work

    def _note_ended(self, job: _Job, outcome: Outcome | None) -> None:
        done = outcome is not None and outcome.state == "done"
        step = job.order.step if job.order is not None else None
        work = self._work
        if job.name == "seed":
            work = replace(work, seeding=any(each.name == "seed" for each in self._jobs))
        elif job.name == "drain" and step is not None:
            work = replace(work, draining=None, drained=step.receipt if done else work.drained)
        elif job.name == "prepare" and step is not None and done:
            work = replace(work, prepared_epoch=step.epoch)
        elif job.name == "prove" and job.order is not None and done:
            work = replace(work, proved_for=job.order.operation)
        elif job.name in ("promote", "cleanup") and done:
            work = replace(Work(), seed=work.seed)
        self._work = work


class _Ending(NamedTuple):
    """A result before it is addressed."""

    state: Literal["running", "done", "refused", "failed"]
    error: ErrorBody | None = None
    receipt: Receipt | None = None


_RUNNING: Final = _Ending("running")


def follows(record: Record) -> bool:
    """Return whether the record says that this side follows the other one, so that it may do so unasked."""
    return (
        record.enrolled
        and record.stream_epoch > 0
        and record.base == "complete"
        and record.promoted_epoch <= record.fenced_epoch
    )


def order_of(command: Command) -> Order:
    """Return the command as admission sees it."""
    step = Step(
        command.step,
        command.side,
        command.epoch,
        receipt=command.receipt,
        consent=command.consent,
        evidence=command.evidence,
    )
    return Order(command.intent, command.token, step, command.operation)


def fence_violated(pair: str, receipt: Receipt | None) -> Finding:
    """Return the finding of a fence that did not hold."""
    since = f" of epoch {receipt.epoch}" if receipt is not None else ""
    return Finding(
        code="fence_violated",
        severity="error",
        message=f"the side was found writable after its fence{since}; its receipt is revoked and it was fenced again",
        hint=f"find out who opened it (read_only was switched off by hand?), then: farshore describe {pair}",
    )
