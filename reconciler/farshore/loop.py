"""The visit: look at one pair once, take at most one step towards what was declared and decided, and report.

Synchronous and without I/O of its own: store, clock and sessions are injected, so the simulation drives exactly this
code. Level-triggered: a visit knows only the pair's name, and may come at any moment, any number of times, from a fresh
process. It never sleeps and never waits for an agent; long work shows up in later reports.

One visit either commits one guarded transaction (every write names the owner's token and the revisions it was decided
on) or sends one command and then keeps the operation's journal and the report up to date.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from farshore import bindings, journal, limits, operations
from farshore.admission.closing import ending
from farshore.admission.desk import Desk
from farshore.gaps import reseed
from farshore.ledger import START_SECONDS, Counters, Ledger
from farshore.orders import Orders
from farshore.ownership import Owner
from farshore.plan import Reason, plan
from farshore.report import explained
from farshore.sessions import Sessions
from farshore.snapshot import read
from farshore.store import Change, Guard, keys
from farshore.store.records import RoleRecord, put
from farshore.visit import Visit
from farshore_schema.errors import Permanent
from farshore_schema.messages import Result
from farshore_schema.roles import Step
from farshore_schema.status import OperationView

__all__ = ["AT_ONCE", "START_SECONDS", "Counters", "Loop"]

IDLE_SECONDS: Final = 60.0  # a pair at rest is looked at this often, beside every change
OPEN_SECONDS: Final = 5.0  # and one with an open operation
AT_ONCE: Final = 0.0

STORE_STEPS: Final = frozenset({"decide", "record_fence", "record_prepared", "abort", "finish"})

_log = structlog.get_logger(__name__)


class Loop:
    """Visits pairs. `owner` returns the present right to act for a pair, None while this process has none."""

    def __init__(
        self,
        *,
        desk: Desk,
        sessions: Sessions,
        owner: Callable[[str], Owner | None],
        on_lost: Callable[[str], None] = lambda _pair: None,
    ) -> None:
        """`on_lost` hears of a pair whose shard turned out to have another owner."""
        self.counters = Counters()
        self._desk, self._records, self._clock = desk, desk.records, desk.clock
        self._sessions, self._owner = sessions, owner
        self._orders = Orders()
        self._ledger = Ledger(
            records=desk.records, sessions=sessions, clock=desk.clock, counters=self.counters, on_lost=on_lost
        )

    def heard(self, result: Result) -> None:
        """Take an agent's answer to a command; the pair is to be visited at once afterwards."""
        if self._orders.heard(result, self._clock.monotonic()) and result.error is not None:
            code, message = result.error.code, result.error.message
            self.counters.failures[code] = self.counters.failures.get(code, 0) + 1
            _log.warning("step failed", pair=result.pair, intent=result.intent, code=code, reason=message)

    def visit(self, pair: str) -> float | None:
        """Take one step for a pair; return in how many seconds to come back (0: at once), None when it is no more.

        Raises FarshoreError when the store fails; nothing was changed then, and the visit may be repeated.
        """
        self.counters.visits += 1
        snapshot = read(self._records, pair, self._sessions.observed(pair))
        if snapshot is None:
            self._sessions.gone(pair)
            self._orders.forget(pair)
            self._ledger.forget(pair)
            return None
        owner = self._owner(pair)
        if owner is None:
            return OPEN_SECONDS
        visit = Visit(snapshot, owner, self._clock.now())
        self._sessions.settle(visit.standing())
        try:
            done = self._by_itself(visit)
        except Permanent as error:  # a server that cannot be this pair's: held, and said
            visit, done = visit._replace(problem=bindings.problem_of(error)), None
        return self._follow(visit) if done is None else done

    @property
    def reports_waiting(self) -> int:
        """How many reports were put off: call `flush` soon."""
        return self._ledger.waiting

    def flush(self) -> None:
        """Write the reports that were put off."""
        self._ledger.flush()

    # ---- what to do

    def _by_itself(self, visit: Visit) -> float | None:
        """Change what only the loop knows to be due: a binding, a consented copy, a drain that took too long."""
        snapshot, op = visit.snapshot, visit.op
        if bindings.bound(self._desk, snapshot, visit.owner.guard()):
            return AT_ONCE
        for side in bindings.replaced(snapshot):
            if bindings.consented(snapshot, side):
                guards, changes = bindings.rebound(self._desk, snapshot, side)
                return self._again(self._ledger.commit(visit, op, guards=guards, changes=changes))
        if op is None:
            born = reseed(self._desk, snapshot)
            return None if born is None else self._write(visit, born)
        drain_timeout = snapshot.spec.value.document.drain_timeout
        if limits.is_overdue(op, snapshot.decided(), drain_timeout, visit.now):
            return self._write(visit, journal.overdue(op, visit.now, drain_timeout))
        return None

    def _follow(self, visit: Visit) -> float:
        """Do what the plan says, within the limits that time and failures set."""
        snapshot = visit.snapshot
        step = plan(snapshot.decided(), snapshot.core(), snapshot.seen, snapshot.policy)
        answer = self._orders.answer(snapshot.pair, step, operation=visit.work)
        step = limits.limited(step, visit.op, snapshot.decided(), answer, visit.now)
        reason, problem = bindings.held(snapshot, step, visit.problem)
        if reason:
            step = Step("wait", reason=reason)
        visit = visit._replace(answer=answer, problem=problem, waiting=step.reason if step.name == "wait" else "")
        if step.name == "wait":
            return self._rest(visit, step.reason)
        if step.name not in STORE_STEPS:
            return self._command(visit, step)
        try:
            binding = bindings.with_decision(self._desk, snapshot, step)
        except Permanent as error:  # the server became another pair's since it was asked for
            problem = bindings.problem_of(error)
            return self._rest(visit._replace(problem=problem, waiting=problem.code), problem.code)
        return self._store(visit, step, *binding)

    def _rest(self, visit: Visit, reason: str, again_seconds: float | None = None) -> float:
        """Send nothing; keep journal and report true."""
        view = visit.op
        if view is not None:
            view = self._placed(visit, journal.held(view, reason, self._explained(visit, reason), visit.answer))
            if visit.problem is not None and visit.problem.code == reason:
                view = operations.waiting(view, reason, f"{visit.problem.message}; {visit.problem.hint}")
        self._ledger.commit(visit, view)
        if again_seconds is None:
            again_seconds = IDLE_SECONDS if view is None else OPEN_SECONDS
        quiet = self._ledger.quiet_seconds(visit.snapshot)
        return visit.until_deadline(view, min(again_seconds, quiet) if quiet > 0 else again_seconds)

    def _command(self, visit: Visit, step: Step) -> float:
        """Send a command unless it is under way; the agent works while the journal is written."""
        pair, view, side = visit.pair, visit.op, step.side
        if side is None:
            raise ValueError(f"{step.name} is no command")
        site, session, work = visit.snapshot.site(side), self._sessions.session(pair, side), visit.work
        if view is not None and visit.answer is not None:
            view = journal.answered(view, step.name, site, visit.now, visit.answer)
        journaled = journal.attempt(view, step.name, site) if view is not None else 0
        now = self._clock.monotonic()
        sending = self._orders.sending(pair, step, operation=work, journaled=journaled, session=session, now=now)
        if isinstance(sending, float):
            again_seconds = sending
        elif session == 0 or not self._sessions.send(visit.command(step, side, sending.intent)):
            return self._rest(visit, visit.unreachable(side))
        else:
            again_seconds = OPEN_SECONDS
            self.counters.commands += 1
            self._orders.sent(pair, step, sending, operation=work, session=session, now=now)
            _log.info("step sent", pair=pair, step=step.name, site=site, epoch=step.epoch, intent=sending.intent)
            if view is not None:
                view = journal.commanded(view, step.name, site, visit.now, attempt=sending.attempt)
        if view is not None:
            view = self._placed(visit, journal.held(view, "", self._explained(visit, ""), visit.answer))
        self._ledger.commit(visit, view)
        return visit.until_deadline(view, again_seconds)

    def _store(self, visit: Visit, step: Step, guards: Sequence[Guard], changes: Sequence[Change]) -> float:
        """Carry out a step that is one transaction on the store, together with `changes`."""
        view, answer = visit.op, visit.answer
        _log.info("step stored", pair=visit.pair, step=step.name, reason=step.reason, role=step.role)
        if view is not None and answer is not None:
            view = journal.answered(view, answer.step, visit.snapshot.site(answer.side), visit.now, answer)
        if step.name == "finish" and view is not None:
            return self._finish(visit, view, step)
        error = answer.error if answer is not None else None
        if step.role is None:
            return self._write(visit, view and journal.stored(view, step, visit.now, error=error))
        site = visit.snapshot.site(step.role.active)
        view = view and journal.stored(view, step, visit.now, site=site, error=error)
        return self._write(visit, view, role=visit.decision(step.role), guards=guards, changes=changes)

    def _finish(self, visit: Visit, view: OperationView, step: Step) -> float:
        """End the operation: its journal becomes history, and a finished removal ends the pair."""
        if visit.snapshot.operation is None:
            raise ValueError("nothing is open")
        error = visit.answer.error if visit.answer is not None else None
        ended = journal.ended(view, step, visit.now, self._explained(visit, step.reason), error)
        end = ending(self._records, visit.snapshot.operation, ended)
        _log.info("operation ended", pair=visit.pair, operation=ended.id, verb=ended.verb, state=ended.state)
        return self._again(self._ledger.commit(visit, ended, guards=end.guards, changes=end.changes))

    # ---- small things

    def _write(
        self,
        visit: Visit,
        view: OperationView | None,
        *,
        role: RoleRecord | None = None,
        guards: Sequence[Guard] = (),
        changes: Sequence[Change] = (),
    ) -> float:
        """Commit a step of the store; the next visit follows at once, on the new truth."""
        changes = [*changes, put(keys.role(visit.pair), role)] if role is not None else changes
        if view is not None:
            now = role.role() if role is not None else visit.snapshot.decided()
            view = journal.placed(operations.waiting(view, "", ""), now, visit.snapshot.seen)
        return self._again(self._ledger.commit(visit, view, role=role, guards=guards, changes=changes))

    @staticmethod
    def _again(is_owner: bool) -> float:
        return AT_ONCE if is_owner else OPEN_SECONDS

    @staticmethod
    def _placed(visit: Visit, view: OperationView) -> OperationView:
        return journal.placed(view, visit.snapshot.decided(), visit.snapshot.seen)

    @staticmethod
    def _explained(visit: Visit, code: str) -> Reason:
        return explained(visit.snapshot.spec.value, visit.snapshot.decided(), code)
