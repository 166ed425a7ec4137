"""The oracle of the simulation: what people declared, what clients were told, and whether every promise holds.

It keeps its own copies and looks at databases, records and the store directly; it never asks the product what to
expect. Findings are collected, not raised: the product's own nets must not catch them.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from farshore.store import Change, Put, keys
from farshore.store.records import RoleRecord
from farshore_agent.admission import serves_primary
from farshore_agent.engines.fake_world import FakeWorld
from farshore_schema.roles import SIDES, Record, Side, peer
from farshore_schema.status import OperationView

PAIR: Final = "orders"


class Asked(NamedTuple):
    """What somebody asked for, as the witness heard it."""

    verb: str
    to: Side
    consents: bool


class Witness:
    """Everything that was promised to people and clients of one pair."""

    def __init__(self, world: FakeWorld, show: Callable[[str], None]) -> None:
        self.world, self.show = world, show
        self.wrong: list[str] = []
        self.preferred: Side = "a"
        self.overwrite = False
        self.on_gap_reseed = False
        self.asked: dict[str, Asked] = {}  # operations that people caused, by id
        self.acknowledged: set[str] = set()
        self.records: dict[Side, Record] = {side: Record() for side in SIDES}
        self.tampered: set[Side] = set()  # opened by somebody's hand and not fenced since
        self.role: RoleRecord | None = None
        self.operation: OperationView | None = None
        self.removed = False
        self.decisions = 0
        self.moved = 0
        self._followed: tuple[int, Side] | None = None

    def blame(self, what: str) -> None:
        """Note a broken promise."""
        if what not in self.wrong and len(self.wrong) < 10:
            self.show(f"WRONG {what}")
            self.wrong.append(what)

    # ---- what the product makes durable

    def committed(self, changes: Sequence[Change], *, by_loop: bool) -> None:
        """Look at one transaction that went through."""
        for change in changes:
            if change.key == keys.operation(PAIR):
                self._operation(change, by_loop)
        for change in changes:
            if change.key == keys.role(PAIR):
                self._role(change)
            if change.key == keys.spec(PAIR) and not isinstance(change, Put):
                self.removed = True

    def saved(self, side: Side, record: Record) -> None:
        """Look at a record that an agent made durable (I6)."""
        old = self.records[side]
        if record.token < old.token or record.epoch < old.epoch or record.fenced_epoch < old.fenced_epoch:
            self.blame(f"I6: the durable record of {side} went back from {old} to {record}")
        self.records[side] = record
        self.show(f"record of {side}: {record._replace(intents=())}")

    def _operation(self, change: Change, by_loop: bool) -> None:
        if not isinstance(change, Put):
            self.operation = None
            self.show("the operation ended")
            return
        view = OperationView.model_validate_json(change.value)
        new = self.operation is None or self.operation.id != view.id
        if new and by_loop and not (self.on_gap_reseed and view.verb == "reprotect" and view.consent is not None):
            self.blame(f"R11: the loop opened {view.verb} {view.id} by itself")
        if new and self.operation is not None:
            self.blame(f"two operations at once: {self.operation.id} and {view.id}")
        if not new and self.operation is not None and by_loop and self.operation.consent != view.consent:
            self._completed_consent(self.operation, view)
        self.operation = view
        self.show(f"{view.verb} {view.id} {view.state} {view.label} {view.waiting_for}")

    def _completed_consent(self, old: OperationView, new: OperationView) -> None:
        """A consent may be completed with the first server that is seen, and never change otherwise (R9)."""
        before, after = old.consent, new.consent
        if before is None or after is None or before.server or after._replace(server="") != before:
            self.blame(f"I5: a consent became another one: {before} became {after}")

    def _role(self, change: Change) -> None:
        if not isinstance(change, Put):
            self.role = None
            return
        old, new = self.role, RoleRecord.model_validate_json(change.value)
        self.role = new
        self.decisions += 1
        self.show(f"decided {new.active} {new.epoch} {new.evidence}")
        if new.epoch % 2 or (old is not None and new.epoch <= old.epoch):
            self.blame(f"the store decided epoch {new.epoch} after {old.epoch if old else 0}")
        if old is None:
            if new.active != self.preferred:
                self.blame(f"R8: {new.active} became active; {self.preferred} was declared")
        elif new.active != old.active:
            self._moved(old, new)

    def _moved(self, old: RoleRecord, new: RoleRecord) -> None:
        """The active side moved: only because somebody asked, and only without loss (I7, R11)."""
        self.moved += 1
        operation = self.operation
        asked = self.asked.get(operation.id) if operation is not None else None
        if asked is None or asked.verb != "switchover" or asked.to != new.active:
            self.blame(f"I7: the active side moved to {new.active} in {new.epoch} and nobody asked for it")
        source, target = self.world.databases[old.active], self.world.databases[new.active]
        if source.writable and old.active not in self.tampered:
            self.blame(f"decided for {new.active} while {old.active} accepts writes")
        if not source.persisted_read_only and old.active not in self.tampered:
            self.blame(f"R13: decided for {new.active} on a fence of {old.active} that a restart undoes")
        if self.acknowledged - target.executed:
            self.blame(f"decided for {new.active}, which lacks {sorted(self.acknowledged - target.executed)}")

    # ---- what happens at the databases

    def overwriting(self, side: Side) -> None:
        """A copy is about to wipe a side: is that what somebody consented to (I5)?"""
        operation, database = self.operation, self.world.databases[side]
        if self.role is None or self.role.active == side:
            self.blame(f"I5: the active side {side} is overwritten")
        asked = self.asked.get(operation.id) if operation is not None else None
        by_gap = operation is not None and self.on_gap_reseed and operation.verb == "reprotect"
        ours = self.records[side].base != "none" and not database.writable
        if asked is None and not by_gap and not ours:
            self.blame(f"I5: {side} is overwritten and nobody asked for a copy")
        elif asked is not None and database.committed and not asked.consents and self.records[side].base == "none":
            self.blame(f"I5: {side} holds data, is overwritten, and nobody consented")

    def opened(self, side: Side) -> None:
        """A side was opened for writes: its own durable record must say that it may."""
        record = self.records[side]
        if record.promoted_epoch <= record.fenced_epoch or record.promoted_epoch < record.epoch:
            self.blame(f"I6: {side} was opened against its own record {record}")

    def look(self) -> None:
        """Judge the present moment; called after every event."""
        databases, role = self.world.databases, self.role
        self.tampered = {side for side in self.tampered if not databases[side].read_only}
        both = all(databases[side].writable and side not in self.tampered for side in SIDES)
        if both and not any(self._is_spare(side) for side in SIDES):
            self.blame("I1: two sides can complete a commit")
        if both and all(serves_primary(self.records[side]) for side in SIDES):
            self.blame("I1: two role probes answer that theirs is the active side")
        if role is not None and not self.removed:
            active, record = databases[role.active], self.records[role.active]
            if active.writable and record.promoted_epoch == role.epoch and not self.acknowledged <= active.executed:
                self.blame(f"acknowledged and lost: {sorted(self.acknowledged - active.executed)}")
            self._still_protected(role)

    def _still_protected(self, role: RoleRecord) -> None:
        """Nothing but an operation or a stop with a reason ends a stream that was running (I10)."""
        side = peer(role.active)
        stream, now = self.world.streams[side], (role.epoch, side)
        follows = stream.receiving and self.records[side].stream_epoch == role.epoch
        if follows:
            self._followed = now
        elif self._followed == now and self.operation is None and not stream.stopped:
            self.blame(f"I10: {side} stopped following although nobody asked")
        if self.operation is not None:
            self._followed = None

    def _is_spare(self, side: Side) -> bool:
        record = self.records[side]
        return self.removed or (record.base != "complete" and record.promoted_epoch == 0 and side != self.preferred)
