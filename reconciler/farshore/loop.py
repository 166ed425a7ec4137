"""The visit: look at one pair once, take at most one step towards what was declared and decided, and report.

Synchronous and without I/O of its own: store, clock and sessions are injected, so the simulation drives exactly this
code. Level-triggered: a visit knows only the pair's name, and may come at any moment, any number of times, from a fresh
process. It never sleeps and never waits for an agent; long work shows up in later reports.

One visit either commits one guarded transaction (every write names the owner's token and the revisions it was decided
on) or sends one command and then keeps the operation's journal and the report up to date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

from farshore import bindings, journal, limits, operations
from farshore.admission.closing import ending
from farshore.admission.desk import Desk
from farshore.clock import seconds_between
from farshore.gaps import reseed
from farshore.orders import Answer, Orders
from farshore.ownership import Owner
from farshore.plan import plan
from farshore.report import Told, explained, rpo_class, without_measurements
from farshore.reporting import Reporter
from farshore.sessions import Sessions, Standing
from farshore.sightings import UNHEARD_SECONDS
from farshore.snapshot import Snapshot, read
from farshore.store import Change, Delete, Guard, Txn, keys
from farshore.store.records import RoleRecord, decided, put, unchanged
from farshore_schema.errors import Permanent
from farshore_schema.messages import Command, Result
from farshore_schema.observed import Finding
from farshore_schema.roles import SIDES, Role, Side, Step
from farshore_schema.status import OperationView

IDLE_SECONDS: Final = 60.0  # a pair at rest is looked at this often, beside every change
OPEN_SECONDS: Final = 5.0  # and one with an open operation
AT_ONCE: Final = 0.0
START_SECONDS: Final = 15.0  # after a start agents have so long to be heard before the old report is overwritten

STORE_STEPS: Final = frozenset({"decide", "record_fence", "record_prepared", "abort", "finish"})

_log = structlog.get_logger(__name__)


@dataclass
class Counters:
    """What the loop did so far, for metrics."""

    visits: int = 0
    commands: int = 0
    transactions: int = 0
    conflicts: int = 0  # transactions that lost a race and are considered afresh
    lost: int = 0  # of these: because the shard has another owner
    failures: dict[str, int] = field(default_factory=dict)  # of commands, by error code


class _Visit(NamedTuple):
    """One look at the world, and everything that was derived from it."""

    snapshot: Snapshot
    owner: Owner
    now: str
    problem: Finding | None = None  # why everything that touches the servers is held
    waiting: str = ""  # reason code of what the plan waits for
    answer: Answer | None = None  # how the planned command stands

    @property
    def op(self) -> OperationView | None:
        """The open operation."""
        return self.snapshot.operation.value if self.snapshot.operation else None

    @property
    def work(self) -> str:
        """What commands belong to: the operation, else steady work under this ownership."""
        return self.op.id if self.op else f"steady-{self.owner.token}"


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
        self._sessions, self._owner, self._on_lost = sessions, owner, on_lost
        self._orders = Orders()
        self._began = self._clock.monotonic()
        self._reporter = Reporter(desk.records)

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
            self._reporter.forget(pair)
            return None
        owner = self._owner(pair)
        if owner is None:
            return OPEN_SECONDS
        self._sessions.settle(_standing(snapshot))
        visit = _Visit(snapshot, owner, self._clock.now())
        try:
            if bindings.bound(self._desk, snapshot):
                return AT_ONCE
        except Permanent as error:
            visit = visit._replace(problem=bindings.problem_of(error))
        done = self._by_itself(visit)
        return self._follow(visit) if done is None else done

    # ---- what to do

    def _by_itself(self, visit: _Visit) -> float | None:
        """Change what only the loop knows to be due: a binding, a consented copy, a drain that took too long."""
        snapshot, op = visit.snapshot, visit.op
        for side in bindings.replaced(snapshot):
            if bindings.consented(snapshot, side):
                guards, changes = bindings.rebound(self._desk, snapshot, side)
                return self._write(visit, op, guards=guards, changes=changes)
        if op is None:
            born = reseed(self._desk, snapshot)
            return None if born is None else self._write(visit, born)
        drain_timeout = snapshot.spec.value.document.drain_timeout
        if limits.is_overdue(op, snapshot.decided(), drain_timeout, visit.now):
            return self._write(visit, journal.overdue(op, visit.now, drain_timeout))
        return None

    def _follow(self, visit: _Visit) -> float:
        """Do what the plan says, within the limits that time and failures set."""
        snapshot = visit.snapshot
        step = plan(snapshot.decided(), snapshot.core(), snapshot.seen, snapshot.policy)
        answer = self._orders.answer(snapshot.pair, step, operation=visit.work)
        step = limits.limited(step, visit.op, snapshot.decided(), answer, visit.now)
        visit = visit._replace(answer=answer)
        reason, problem = bindings.held(snapshot, step, visit.problem)
        if reason:
            step = Step("wait", reason=reason)
        visit = visit._replace(problem=problem, waiting=step.reason if step.name == "wait" else "")
        if step.name == "wait":
            return self._rest(visit, step.reason)
        if step.name in STORE_STEPS:
            return self._store(visit, step)
        return self._command(visit, step)

    def _rest(self, visit: _Visit, reason: str, again_seconds: float | None = None) -> float:
        """Send nothing; keep journal and report true."""
        view = visit.op
        if view is not None:
            told = explained(visit.snapshot.spec.value, visit.snapshot.decided(), reason)
            view = self._placed(visit, journal.held(view, reason, told, visit.answer))
        self._keep(visit, view)
        if again_seconds is None:
            again_seconds = IDLE_SECONDS if view is None else OPEN_SECONDS
        return self._until_deadline(visit, view, again_seconds)

    def _command(self, visit: _Visit, step: Step) -> float:
        """Send a command unless it is under way; the agent works while the journal is written."""
        snapshot, view, side = visit.snapshot, visit.op, step.side
        if side is None:
            raise ValueError(f"{step.name} is no command")
        site, session = snapshot.site(side), self._sessions.session(snapshot.pair, side)
        if view is not None and visit.answer is not None:
            view = journal.answered(view, step.name, site, visit.now, visit.answer)
        sending = self._orders.sending(
            snapshot.pair,
            step,
            operation=visit.work,
            journaled=journal.attempt(view, step.name, site) if view is not None else 0,
            session=session,
            now=self._clock.monotonic(),
        )
        if isinstance(sending, float):
            if view is not None:
                told = explained(snapshot.spec.value, snapshot.decided(), "")
                view = self._placed(visit, journal.held(view, "", told, visit.answer))
            self._keep(visit, view)
            return self._until_deadline(visit, view, sending)
        if session == 0 or not self._sessions.send(_message(visit, step, side, sending.intent)):
            return self._rest(visit, _unreachable(snapshot, side))
        self.counters.commands += 1
        self._orders.sent(
            snapshot.pair,
            step,
            sending,
            operation=visit.work,
            session=session,
            now=self._clock.monotonic(),
        )
        _log.info("step sent", pair=snapshot.pair, step=step.name, site=site, epoch=step.epoch, intent=sending.intent)
        if view is not None:
            view = journal.commanded(view, step.name, site, visit.now, attempt=sending.attempt)
            view = self._placed(visit, view)
        self._keep(visit, view)
        return self._until_deadline(visit, view, OPEN_SECONDS)

    def _store(self, visit: _Visit, step: Step) -> float:
        """Carry out a step that is one transaction on the store."""
        snapshot, view = visit.snapshot, visit.op
        _log.info("step stored", pair=snapshot.pair, step=step.name, epoch=step.epoch, reason=step.reason)
        answer = visit.answer
        error = answer.error if answer is not None else None
        role = snapshot.role.value if snapshot.role else None
        changes: list[Change] = []
        site = ""
        if view is not None and answer is not None:
            view = journal.answered(view, answer.step, snapshot.site(answer.side), visit.now, answer)
        if step.name == "decide" and step.role is not None:
            role, site = _decision(visit, step.role), snapshot.site(step.role.active)
            changes.append(put(keys.role(snapshot.pair), role))
        if step.name == "finish" and view is not None:
            return self._finish(visit, view, step)
        if view is not None:
            view = journal.stored(view, step, visit.now, site=site, error=error)
        return self._write(visit, view, role=role, changes=changes)

    def _finish(self, visit: _Visit, view: OperationView, step: Step) -> float:
        """End the operation: its journal becomes history, and a finished removal ends the pair."""
        snapshot = visit.snapshot
        told = explained(snapshot.spec.value, snapshot.decided(), step.reason)
        error = visit.answer.error if visit.answer is not None else None
        ended = journal.ended(view, step, visit.now, told, error)
        if snapshot.operation is None:
            raise ValueError("nothing is open")
        end = ending(self._records, snapshot.operation, ended)
        _log.info("operation ended", pair=snapshot.pair, operation=ended.id, verb=ended.verb, state=ended.state)
        return self._write(visit, ended, guards=end.guards, changes=end.changes)

    # ---- writing it down

    def _placed(self, visit: _Visit, view: OperationView) -> OperationView:
        return journal.placed(view, visit.snapshot.decided(), visit.snapshot.seen)

    def _keep(self, visit: _Visit, view: OperationView | None) -> None:
        """Write journal and report where they changed; a lost race is mended by the next visit."""
        self._commit(visit, view, visit.snapshot.role.value if visit.snapshot.role else None)

    def _write(
        self,
        visit: _Visit,
        view: OperationView | None,
        *,
        role: RoleRecord | None = None,
        guards: Sequence[Guard] = (),
        changes: Sequence[Change] = (),
    ) -> float:
        """Commit a step; the next visit follows at once, on the new truth."""
        role = role or (visit.snapshot.role.value if visit.snapshot.role else None)
        if view is not None and view.is_open:
            view = journal.placed(operations.waiting(view, "", ""), role.role() if role else None, visit.snapshot.seen)
        return AT_ONCE if self._commit(visit, view, role, guards=guards, changes=changes) else OPEN_SECONDS

    def _commit(
        self,
        visit: _Visit,
        view: OperationView | None,
        role: RoleRecord | None,
        *,
        guards: Sequence[Guard] = (),
        changes: Sequence[Change] = (),
    ) -> bool:
        """Commit journal, report and `changes` in one guarded transaction; False when the shard has another owner.

        A report that changes alone can wait a moment for others like it: when a site is lost, thousands change at once.
        """
        snapshot, all_changes = visit.snapshot, list(changes)
        if view is not None and view.is_open and view != visit.op:
            all_changes.append(put(keys.operation(snapshot.pair), view))
        told = None
        if Delete(keys.spec(snapshot.pair)) not in changes and self._unheard_seconds(snapshot) <= 0:
            told = self._told(visit, view, role)
        report = self._reporter.due(snapshot.pair, told, now=visit.now, policy=snapshot.policy)
        if report is not None and not all_changes:
            self._reporter.put_off(snapshot.pair, report, _guards(visit))
            if self._reporter.is_full:
                self.flush()
            return True
        if report is not None:
            all_changes.append(report)
        if not all_changes:
            return True
        done = self._txn((snapshot.pair,), (*_guards(visit), *guards), all_changes)
        return done.ok or self._raced(visit, done.current.get(visit.owner.key))

    @property
    def reports_waiting(self) -> int:
        """How many reports were put off: call `flush` soon."""
        return self._reporter.waiting

    def flush(self) -> None:
        """Write the reports that were put off. One that lost a race is made anew by its pair's next visit."""
        while self._reporter.waiting:
            batch = self._reporter.take()
            if self._txn(batch.pairs, batch.guards, batch.changes).ok:
                continue
            self.counters.conflicts += 1
            for each in batch.apart():
                self._txn(each.pairs, each.guards, each.changes)

    def _txn(self, pairs: tuple[str, ...], guards: Sequence[Guard], changes: Sequence[Change]) -> Txn:
        """Commit; what was not written is said anew by the next visits of these pairs."""
        self.counters.transactions += 1
        done = None
        try:
            done = self._records.store.txn(guards, changes)
        finally:
            if done is None or not done.ok:
                for pair in pairs:
                    self._reporter.forget(pair)
        return done

    def _unheard_seconds(self, snapshot: Snapshot) -> float:
        """Return for how long the stored report stays as it is although a side is unknown by now.

        A young process has not heard of most pairs yet, and agents are restarted: neither must make ten thousand pairs
        unknown for the moment that it takes to dial again.
        """
        if snapshot.status_rev == 0 or snapshot.operation is not None:
            return 0.0
        observed, pauses = snapshot.observed, [0.0]
        for report, age in ((observed.a, observed.age_a), (observed.b, observed.age_b)):
            if report is None and age is not None:
                pauses.append(UNHEARD_SECONDS - age)
            elif report is None:
                pauses.append(self._began + START_SECONDS - self._clock.monotonic())
        return max(pauses)

    def _raced(self, visit: _Visit, owner: object) -> bool:
        self.counters.conflicts += 1
        if owner is not None and getattr(owner, "create_rev", 0) == visit.owner.token:
            return True
        self.counters.lost += 1
        self._on_lost(visit.snapshot.pair)
        return False

    def _told(self, visit: _Visit, view: OperationView | None, role: RoleRecord | None) -> Told:
        snapshot, answer = visit.snapshot, visit.answer
        failing = None
        if answer is not None and answer.error is not None:
            failing = answer._replace(state="failed", failures=min(answer.failures, journal.SHOWN_AFTER_FAILURES))
        now = role.role() if role else None
        core = operations.core(view) if view is not None and view.is_open else None
        spec = snapshot.spec.value
        given = [self._sessions.generation(snapshot.pair, side) for side in SIDES]
        return Told(
            spec=spec,
            role=role,
            operation=view,
            a=without_measurements(snapshot.observed.a),
            b=without_measurements(snapshot.observed.b),
            rpo_class=rpo_class(now, core, snapshot.observed),
            waiting=visit.waiting,
            failing=failing,
            problem=visit.problem,
            in_sync=(_same(given[0], spec.generation), _same(given[1], spec.generation)),
        )

    def _until_deadline(self, visit: _Visit, view: OperationView | None, seconds: float) -> float:
        """Return when to come back: not later than the moment at which the operation runs out of time."""
        unheard = self._unheard_seconds(visit.snapshot)
        seconds = min(seconds, unheard) if unheard > 0 else seconds
        if view is None:
            return seconds
        deadlines = []
        drain = limits.drain_deadline(view, visit.snapshot.spec.value.document.drain_timeout)
        if drain is not None and not (view.overdue or view.abort):
            deadlines.append(drain)
        if not view.prepared:
            deadlines += [(line.started, limits.PREPARE_SECONDS) for line in view.log if line.name == "prepare"]
        left = [limit - seconds_between(since, visit.now) for since, limit in deadlines]
        return min([seconds, *(max(each, 0.01) for each in left)])


def _standing(snapshot: Snapshot) -> Standing:
    spec, role = snapshot.spec.value, snapshot.role.value if snapshot.role else None
    return Standing(
        pair=snapshot.pair,
        site_a=spec.document.site_a.site,
        site_b=spec.document.site_b.site,
        incarnation=spec.incarnation,
        generation=spec.generation,
        active=role.active if role else None,
        epoch=role.epoch if role else 0,
        busy=snapshot.operation is not None,
    )


def _guards(visit: _Visit) -> tuple[Guard, ...]:
    """Return what must still be true when anything is written: who acts, and everything the step was decided on."""
    snapshot = visit.snapshot
    return (
        visit.owner.guard(),
        snapshot.spec.unchanged(),
        unchanged(keys.role(snapshot.pair), snapshot.role),
        unchanged(keys.operation(snapshot.pair), snapshot.operation),
    )


def _message(visit: _Visit, step: Step, side: Side, intent: str) -> Command:
    return Command.model_validate(
        {
            "intent": intent,
            "pair": visit.snapshot.pair,
            "side": side,
            "incarnation": visit.snapshot.spec.value.incarnation,
            "token": visit.owner.token,
            "epoch": step.epoch,
            "step": step.name,
            "receipt": step.receipt,
            "consent": step.consent,
            "evidence": step.evidence,
            "operation": visit.op.id if visit.op else "",
        }
    )


def _decision(visit: _Visit, role: Role) -> RoleRecord:
    """Return the record of a decision: of the open operation, or of a gateway whose decision is adopted (R16)."""
    op, before = visit.op, visit.snapshot.role.value if visit.snapshot.role else None
    if role.evidence == "emergency" or op is None:
        return decided(before, role, at=visit.now, by="gateway", reason="emergency decision at the gateway")
    return decided(before, role, at=visit.now, by=op.by, reason=op.abort_reason or op.reason, operation=op.id)


def _unreachable(snapshot: Snapshot, side: Side) -> str:
    role = snapshot.decided()
    active = role.active if role is not None else snapshot.policy.preferred
    return "active_unreachable" if side == active else "standby_unreachable"


def _same(given: int, generation: int) -> bool | None:
    return None if given == 0 else given == generation
