"""Writes what visits decided: journal, report and step in one guarded transaction, and only what changed.

It decides nothing. A report that changes alone waits a moment for others like it, because when a site is lost thousands
change at once; and it waits longer where a side is silent only for the moment that an agent needs to dial again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from farshore import journal, operations
from farshore.clock import Clock
from farshore.reporting import Reporter
from farshore.sessions import Sessions
from farshore.sightings import UNHEARD_SECONDS
from farshore.snapshot import Snapshot
from farshore.store import Change, Delete, Guard, Item, Txn, keys
from farshore.store.records import Records, RoleRecord, put
from farshore.told import Told, rpo_class, without_measurements
from farshore.visit import Visit
from farshore_schema.roles import SIDES
from farshore_schema.status import OperationView

START_SECONDS: Final = 30.0  # after a start agents have so long to be heard before the old report is overwritten


@dataclass
class Counters:
    """What the loop did so far, for metrics."""

    visits: int = 0
    commands: int = 0
    transactions: int = 0
    conflicts: int = 0  # transactions that lost a race and are considered afresh
    lost: int = 0  # of these: because the shard has another owner
    failures: dict[str, int] = field(default_factory=dict)  # of commands, by error code


class Ledger:
    """The loop's pen."""

    def __init__(
        self,
        *,
        records: Records,
        sessions: Sessions,
        clock: Clock,
        counters: Counters,
        on_lost: Callable[[str], None],
    ) -> None:
        self._records, self._sessions, self._clock = records, sessions, clock
        self._counters, self._on_lost = counters, on_lost
        self._began = clock.monotonic()
        self._reporter = Reporter(records)

    def commit(
        self,
        visit: Visit,
        view: OperationView | None,
        *,
        role: RoleRecord | None = None,
        guards: Sequence[Guard] = (),
        changes: Sequence[Change] = (),
    ) -> bool:
        """Write the operation as `view` (the open one, or one that ends now), the report, and `changes`.

        `role` is given when it is decided now. Returns False when the shard has another owner; a race that was lost
        otherwise is mended by the next visit. Raises FarshoreError when the store fails, with nothing written.
        """
        snapshot, everything = visit.snapshot, list(changes)
        if view is not None and view.is_open and view != visit.op:
            everything.append(put(keys.operation(visit.pair), view))
        told = None
        if Delete(keys.spec(visit.pair)) not in changes and self.quiet_seconds(snapshot) <= 0:
            told = self._told(visit, view, role or visit.role)
        report = self._reporter.due(visit.pair, told, now=visit.now, policy=snapshot.policy)
        if report is not None and not everything:
            self._reporter.put_off(visit.pair, report, visit.guards())
            if self._reporter.is_full:
                self.flush()
            return True
        if report is not None:
            everything.append(report)
        if not everything:
            return True
        done = self._txn((visit.pair,), (*visit.guards(), *guards), everything)
        return done.ok or self._raced(visit, done.current.get(visit.owner.key))

    @property
    def waiting(self) -> int:
        """How many reports were put off: call `flush` soon."""
        return self._reporter.waiting

    def flush(self) -> None:
        """Write the reports that were put off. One that lost a race is made anew by its pair's next visit."""
        while self._reporter.waiting:
            batch = self._reporter.take()
            if self._txn(batch.pairs, batch.guards, batch.changes).ok:
                continue
            self._counters.conflicts += 1
            for each in batch.apart():
                self._txn(each.pairs, each.guards, each.changes)

    def quiet_seconds(self, snapshot: Snapshot) -> float:
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

    def forget(self, pair: str) -> None:
        """Drop what is known of a pair that is no more."""
        self._reporter.forget(pair)

    def _txn(self, pairs: tuple[str, ...], guards: Sequence[Guard], changes: Sequence[Change]) -> Txn:
        """Commit; what was not written is said anew by the next visits of these pairs."""
        self._counters.transactions += 1
        done = None
        try:
            done = self._records.store.txn(guards, changes)
        finally:
            if done is None or not done.ok:
                for pair in pairs:
                    self._reporter.forget(pair)
        return done

    def _raced(self, visit: Visit, owner: Item | None) -> bool:
        self._counters.conflicts += 1
        if owner is not None and owner.create_rev == visit.owner.token:
            return True
        self._counters.lost += 1
        self._on_lost(visit.pair)
        return False

    def _told(self, visit: Visit, view: OperationView | None, role: RoleRecord | None) -> Told:
        snapshot, answer = visit.snapshot, visit.answer
        failing = None
        if answer is not None and answer.error is not None:
            failing = answer._replace(state="failed", failures=min(answer.failures, journal.SHOWN_AFTER_FAILURES))
        core = operations.core(view) if view is not None and view.is_open else None
        spec = snapshot.spec.value
        given = [self._sessions.generation(visit.pair, side) for side in SIDES]
        return Told(
            spec=spec,
            role=role,
            operation=view,
            a=without_measurements(snapshot.observed.a),
            b=without_measurements(snapshot.observed.b),
            rpo_class=rpo_class(role.role() if role else None, core, snapshot.observed),
            waiting=visit.waiting,
            failing=failing,
            problem=visit.problem,
            servers=snapshot.servers,
            in_sync=(_same(given[0], spec.generation), _same(given[1], spec.generation)),
        )


def _same(given: int, generation: int) -> bool | None:
    return None if given == 0 else given == generation
