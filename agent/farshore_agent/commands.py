"""One order at one side: persist before, effect, persist after. Pure orchestration over what is injected (R25).

The simulation and the explorer drive exactly this code, synchronously, and stop it at every named point; the agent runs
it on worker threads. It knows no engine, no disk, no transport and no time, and it catches nothing: an effect that
raises leaves the record as it was before the effect, and the order is carried out again when it is asked again.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, NamedTuple, Protocol

from farshore_agent.admission import Effect, Refused, Repeated, admit, after, before, still_holds
from farshore_schema.roles import Consent, Evidence, Order, Receipt, Record, Side

Point = Literal["admitted", "noted", "first_write", "effected", "recorded"]
POINTS: Final[tuple[Point, ...]] = ("admitted", "noted", "first_write", "effected", "recorded")
"""Where an agent can die: before the record is noted; before the effect; before a seed's first write; after the effect
and before it is recorded; after it is recorded and before anybody heard of it."""


class Overtaken(Exception):
    """A newer order was admitted while this one was under way; raised right before an irreversible step."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Keeper(Protocol):
    """The durable record of one (pair, side)."""

    def load(self) -> Record:
        """Return the newest record; an empty one where there has never been any. Raises when it cannot be trusted."""
        ...

    def save(self, record: Record) -> None:
        """Return once `record` is durable. Raises, and then either the old or the new record is there."""
        ...


class Moves(Protocol):
    """The effects of one side, as `engines.Engine` has them; progress and cancelling are bound by whoever passes it."""

    def seed(self, epoch: int, consent: Consent | None, before_first_write: Callable[[], None]) -> None:
        """Copy the other side here."""
        ...

    def stream(self, epoch: int, consent: Consent | None) -> None:
        """Follow the other side."""
        ...

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver ahead."""
        ...

    def prove(self, consent: Consent) -> None:
        """Look whether the replaced server can be rebound; change nothing."""
        ...

    def fence(self, epoch: int) -> str:
        """Make this side unable to commit; return its final position."""
        ...

    def drain(self, receipt: Receipt) -> None:
        """Apply everything up to the receipt."""
        ...

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving."""
        ...

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still: Callable[[], None],
        consent: Consent | None,
    ) -> None:
        """Open this side for writes."""
        ...

    def cleanup(self) -> None:
        """End protection here."""
        ...


class Outcome(NamedTuple):
    """How an order ended. A failed effect is no outcome: its exception passes through."""

    state: Literal["done", "refused"]
    receipt: Receipt | None = None  # done: of a fence
    code: str = ""  # refused: row of the errors table
    message: str = ""


def _alive(_point: Point) -> None:
    """Go on: the default of the crash points."""


class CommandRunner:
    """Carries out the orders of one side, one after the other.

    `accept` may be called while another order's `perform` is under way on another thread, so that a newer decision is
    durable at once and stops the older effect at its next check; `turn` (a lock) then guards the record. Two calls of
    `perform` never overlap.
    """

    def __init__(
        self,
        *,
        side: Side,
        keeper: Keeper,
        moves: Moves,
        crash: Callable[[Point], None] = _alive,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._side: Side = side
        self._keeper = keeper
        self._moves = moves
        self._crash = crash
        self._turn = turn if turn is not None else nullcontext()

    def run(self, order: Order) -> Outcome:
        """Carry out one order from admission to its durable end; idempotent."""
        return self.accept(order) or self.perform(order)

    def accept(self, order: Order) -> Outcome | None:
        """Admit the order and make that durable; None when the effect is still to be performed."""
        with self._turn:
            record = self._keeper.load()
            if order.step.side != self._side:
                return _refusal(Refused("wrong_role", f"this is side {self._side}"))
            verdict = admit(record, order)
            if isinstance(verdict, Repeated):
                return Outcome("done", record.receipt if order.step.name == "fence" else None)
            if isinstance(verdict, Refused):
                return _refusal(verdict)
            self._crash("admitted")
            noted = verdict.record
            if order.step.name == "seed":
                # Nothing was overwritten yet: an engine that refuses the seed must leave a good copy promotable.
                noted = noted._replace(base=record.base, stream_epoch=record.stream_epoch)
            if noted != record:
                self._keeper.save(noted)
            self._crash("noted")
            if order.step.name == "enrol":  # the record is its whole effect
                return self._record(order, Effect())
        return None

    def perform(self, order: Order) -> Outcome:
        """Carry out the effect of an accepted order and make its end durable."""
        with self._turn:
            overtaken = still_holds(self._keeper.load(), order)
        if overtaken is not None:
            return _refusal(overtaken)
        try:
            effect = self._effect(order)
        except Overtaken as newer:
            return _refusal(newer.refusal)
        self._crash("effected")
        with self._turn:
            return self._record(order, effect)

    def refence(self) -> bool:
        """Fence this side again by itself in the epoch it was fenced in; its receipt is void from here on (R13).

        Called when the side was found writable after its fence. Returns False, and does nothing, when the record no
        longer says that this side is fenced. The receipt stays revoked until a fence is ordered again: what was
        committed meanwhile is not in the position that the receipt named.
        """
        with self._turn:
            record = self._keeper.load()
            if not is_fenced(record):
                return False
            if record.receipt is not None:
                self._keeper.save(record._replace(receipt=None))
        self._crash("noted")
        self._moves.fence(record.fenced_epoch)
        self._crash("effected")
        return True

    def _record(self, order: Order, effect: Effect) -> Outcome:
        record = self._keeper.load()
        done = after(record, order, effect)
        if done != record:
            self._keeper.save(done)
        self._crash("recorded")
        return Outcome("done", effect.receipt)

    def _effect(self, order: Order) -> Effect:
        step = order.step
        if step.name == "fence":
            return Effect(Receipt(self._side, step.epoch, self._moves.fence(step.epoch)))
        if step.name == "promote" and step.evidence is not None:
            self._moves.promote(step.epoch, step.evidence, step.receipt, lambda: self._check(order), step.consent)
        elif step.name == "drain" and step.receipt is not None:
            self._moves.drain(step.receipt)
        elif step.name == "seed":
            self._moves.seed(step.epoch, step.consent, lambda: self._first_write(order))
        elif step.name == "stream":
            self._moves.stream(step.epoch, step.consent)
        elif step.name == "prepare":
            self._moves.prepare(step.epoch)
        elif step.name == "prove" and step.consent is not None:
            self._moves.prove(step.consent)
        elif step.name == "stop_acks":
            self._moves.stop_acks(step.epoch)
        elif step.name == "cleanup":
            self._moves.cleanup()
        else:
            raise Overtaken(Refused("invalid_request", f"an agent cannot carry out a step named {step.name}"))
        return Effect()

    def _check(self, order: Order) -> None:
        with self._turn:
            overtaken = still_holds(self._keeper.load(), order)
        if overtaken is not None:
            raise Overtaken(overtaken)

    def _first_write(self, order: Order) -> None:
        """Make it durable that the copy here is no longer whole, before the seed changes anything (R10)."""
        with self._turn:
            record = self._keeper.load()
            overtaken = still_holds(record, order)
            if overtaken is not None:
                raise Overtaken(overtaken)
            marked = before(record, order)
            if marked != record:
                self._keeper.save(marked)
        self._crash("first_write")


def is_fenced(record: Record) -> bool:
    """Return whether the record says that this side was fenced and not opened since."""
    return record.enrolled and record.fenced_epoch > record.promoted_epoch


def _refusal(refused: Refused) -> Outcome:
    return Outcome("refused", None, refused.code, refused.message)
