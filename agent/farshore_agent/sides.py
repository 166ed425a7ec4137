"""Every (pair, side) that this agent serves: from its assignment to its engine, its lane of orders and its watch.

An agent that serves both sites of a pair keeps two sides that share nothing (R5). What comes from the reconciler is
taken per side in its order; nothing here waits for anything on the caller's thread. It knows no transport.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog

from farshore_agent import assignments
from farshore_agent.assignments import Assignment
from farshore_agent.engines import Engine, Seat
from farshore_agent.holder import BrokenEngine, EngineHolder
from farshore_agent.lane import Hands, Lane
from farshore_agent.observe import Key, Observer
from farshore_agent.records import FileKeeper, side_directory
from farshore_agent.secrets import Secrets
from farshore_agent.strand import Strand
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.messages import Assign, Command, Result, Unassign
from farshore_schema.observed import SideReport
from farshore_schema.roles import Side

ENGINE_DIRECTORY: Final = "engine"
UNSEEN_BY_ENGINES: Final = ("description", "primary_site", "acknowledge_epoch")  # fields that change nothing for them
MEND_SECONDS: Final = 5.0  # between two tries to make an engine that could not be made

EngineFactory = Callable[[Seat], Engine]

_log = structlog.get_logger(__name__)


class Outlet(Protocol):
    """Where results and reports go; called on worker threads."""

    def result(self, result: Result) -> None:
        """Take the outcome of an order."""
        ...

    def report(self, key: Key, incarnation: int, report: SideReport) -> None:
        """Take what was seen of a side."""
        ...

    def assigned(self, key: Key) -> None:
        """Know that the side was (again) assigned: its next report goes out whatever it says."""
        ...

    def released(self, key: Key) -> None:
        """Know that the side is no longer served."""
        ...


class _Side:
    """One side; its fields are changed only on its own strand."""

    def __init__(self, key: Key, lane: Lane, holder: EngineHolder, strand: Strand) -> None:
        self.key, self.lane, self.holder, self.strand = key, lane, holder, strand
        self.assignment: Assignment | None = None
        self.mend_at = 0.0


class Sides:
    """The sides of this agent."""

    def __init__(
        self,
        *,
        root: Path,
        engines: Mapping[str, EngineFactory],
        secrets: Secrets,
        hands: Hands,
        observer: Observer,
        outlet: Outlet,
        on_served: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engines` by document kind. `on_served` hears that the set of assignments changed."""
        self._root, self._engines, self._secrets = root, engines, secrets
        self._hands, self._observer, self._outlet, self._on_served = hands, observer, outlet, on_served
        self._clock = clock
        self._lock = threading.Lock()
        self._sides: dict[Key, _Side] = {}

    # ---- from disk

    def restore(self) -> list[FarshoreError]:
        """Serve again what was served before this process started; return what could not be read."""
        found, errors = assignments.load_all(self._root)
        for assignment in found:
            side = self._side((assignment.assign.pair, assignment.assign.side))
            side.strand.post(partial(self._restore, side, assignment))
        return errors

    # ---- from the reconciler

    def assign(self, message: Assign) -> None:
        """Serve a side as declared. Idempotent; an older incarnation is ignored."""
        side = self._side((message.pair, message.side))
        self._post(side, partial(self._assign, side, message))

    def unassign(self, message: Unassign) -> None:
        """Stop serving a side; its data path goes on unless it was cleaned up. Idempotent."""
        side = self._known((message.pair, message.side))
        if side is not None:
            self._post(side, partial(self._unassign, side, message))

    def command(self, message: Command) -> None:
        """Carry out one order; its outcome goes to the outlet."""
        side = self._known((message.pair, message.side))
        if side is None:
            self._refuse(message, "this agent was never assigned the side")
        elif not side.strand.post(partial(self._command, side, message)):
            _log.warning("order dropped", reason="too many wait", pair=message.pair, side=message.side)

    # ---- for others

    def assignments(self) -> list[Assignment]:
        """Return every present assignment, served or given away."""
        with self._lock:
            return [side.assignment for side in self._sides.values() if side.assignment is not None]

    def answered(self, result: Result) -> None:
        """Pass an outcome on, without secrets (`lane.Listener`)."""
        error = result.error
        if error is not None:
            result = result.model_copy(update={"error": self._secrets.redactor.body(error)})
        self._outlet.result(result)

    def stirred(self, pair: str, side: Side) -> None:
        """Look at a side at once (`lane.Listener`)."""
        self._observer.poke((pair, side))

    def close(self) -> None:
        """Cancel what can be cancelled and let go of every engine; data-path processes go on (I10)."""
        with self._lock:
            sides = list(self._sides.values())
        for side in sides:
            self._observer.forget(side.key)
            side.lane.pause()
        for side in sides:
            side.holder.close()

    # ---- on the side's own strand

    def _restore(self, side: _Side, assignment: Assignment) -> None:
        side.assignment = assignment
        if assignment.served:
            self._serve(side, assignment.assign)
        self._on_served()

    def _assign(self, side: _Side, message: Assign) -> None:
        old = side.assignment
        if old is not None and message.incarnation < old.assign.incarnation:
            _log.warning("older assignment ignored", pair=message.pair, side=message.side)
            return
        assignment = Assignment(message)
        if assignment != old:
            self._remember(assignment)
        side.assignment = assignment
        if old is None or not old.served or not _same_work(old.assign, message):
            self._serve(side, message)
            self._on_served()
        self._outlet.assigned(side.key)
        self._observer.poke(side.key)

    def _unassign(self, side: _Side, message: Unassign) -> None:
        old = side.assignment
        if old is None or message.incarnation < old.assign.incarnation:
            return
        self._observer.forget(side.key)
        side.lane.pause()
        side.holder.close()
        if self._is_protected(side):
            side.assignment = old._replace(served=False)
            self._remember(side.assignment)
        else:
            side.assignment = None
            assignments.forget(self._root, message.pair, message.side)
        self._outlet.released(side.key)
        self._on_served()

    def _command(self, side: _Side, message: Command) -> None:
        assignment = side.assignment
        if assignment is None or not assignment.served:
            self._refuse(message, "this agent no longer serves the side")
        elif message.incarnation != assignment.assign.incarnation:
            self._refuse(message, f"the side is served in incarnation {assignment.assign.incarnation}")
        else:
            side.lane.admit(message)

    def _serve(self, side: _Side, assign: Assign) -> None:
        side.holder.replace(self._engine(assign))
        side.lane.reopen()
        self._observer.watch(side.key, side.lane, side.holder, partial(self._heard, side, assign.incarnation))

    def _heard(self, side: _Side, incarnation: int, report: SideReport) -> None:
        self._outlet.report(side.key, incarnation, self._clean(report))
        if side.holder.broken and self._clock() >= side.mend_at:
            side.mend_at = self._clock() + MEND_SECONDS
            side.strand.post(partial(self._mend, side))

    def _mend(self, side: _Side) -> None:
        """Try again to make an engine: a missing file or secret may be there by now."""
        assignment = side.assignment
        if assignment is not None and assignment.served and side.holder.broken:
            side.holder.replace(self._engine(assignment.assign))

    def _engine(self, assign: Assign) -> Engine:
        factory = self._engines.get(assign.document.kind)
        try:
            if factory is None:
                raise Refused("unsupported_version", f"this agent has no engine for {assign.document.kind}")
            return factory(self._seat(assign))
        except FarshoreError as error:
            _log.error("engine not made", pair=assign.pair, side=assign.side, code=error.code, reason=error.message)
            return BrokenEngine(error)

    def _seat(self, assign: Assign) -> Seat:
        directory = side_directory(self._root, assign.pair, assign.side) / ENGINE_DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Seat(
            pair=assign.pair,
            side=assign.side,
            incarnation=assign.incarnation,
            document=assign.document,
            directory=directory,
            secret=self._secrets.resolve,
        )

    def _remember(self, assignment: Assignment) -> None:
        """Make an assignment durable; without space it is served all the same, until the next restart."""
        try:
            assignments.save(self._root, assignment)
        except FarshoreError as error:
            _log.error("assignment not kept", pair=assignment.assign.pair, code=error.code, reason=error.message)

    def _is_protected(self, side: _Side) -> bool:
        try:
            return side.lane.record().enrolled
        except FarshoreError:
            return True  # a record that cannot be read is not a record that says otherwise

    def _clean(self, report: SideReport) -> SideReport:
        """Return a report without secrets: what servers answer is quoted in findings and errors."""
        redactor = self._secrets.redactor
        if not report.findings and report.stopped_error is None:
            return report
        findings = tuple(
            each.model_copy(update={"message": redactor.text(each.message), "hint": redactor.text(each.hint)})
            for each in report.findings
        )
        error = redactor.body(report.stopped_error) if report.stopped_error is not None else None
        return report.model_copy(update={"findings": findings, "stopped_error": error})

    # ---- the set itself

    def _post(self, side: _Side, work: Callable[[], None]) -> None:
        if not side.strand.post(work):
            _log.warning("message dropped", reason="too many wait", pair=side.key[0], side=side.key[1])

    def _known(self, key: Key) -> _Side | None:
        with self._lock:
            return self._sides.get(key)

    def _side(self, key: Key) -> _Side:
        """Return the side, made once for the life of this process: its record has one keeper only."""
        with self._lock:
            side = self._sides.get(key)
            if side is None:
                holder = EngineHolder(BrokenEngine(Refused("not_enrolled", "the side is not assigned yet")))
                keeper = FileKeeper(self._root, *key)
                lane = Lane(pair=key[0], side=key[1], keeper=keeper, holder=holder, hands=self._hands, listener=self)
                side = self._sides[key] = _Side(key, lane, holder, Strand(self._hands.quick))
            return side

    def _refuse(self, message: Command, why: str) -> None:
        error = Refused("not_enrolled", why, hint="farshore agents list").body()
        self._outlet.result(
            Result(intent=message.intent, pair=message.pair, side=message.side, state="refused", error=error)
        )


def _same_work(old: Assign, new: Assign) -> bool:
    """Return whether an engine made for `old` serves `new` as well: a declared switchover must not cost a new one."""
    nothing = dict.fromkeys(UNSEEN_BY_ENGINES)
    unchanged = old.document.model_copy(update=nothing) == new.document.model_copy(update=nothing)
    return unchanged and old.incarnation == new.incarnation
