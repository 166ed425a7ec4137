"""The MySQL engine: the contract's methods on one side of one pair, each a few lines that name the modules doing it.

Blocking; safe to call from two threads when one of them only observes. It touches only its own endpoint; at the other
it reads. Data-path processes outlive it (I10).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from farshore_agent.engines import Capabilities, Seat, SeedCall, Seen
from farshore_agent.mysql import channel, durability, fencing, settings_record
from farshore_agent.mysql import draining as _draining
from farshore_agent.mysql import following as _following
from farshore_agent.mysql import promotion as _promotion
from farshore_agent.mysql import rebinding as _rebinding
from farshore_agent.mysql import seeding as _seeding
from farshore_agent.mysql.chores import Chores
from farshore_agent.mysql.clients import Sweep
from farshore_agent.mysql.ground import Ground, facts, own_facts
from farshore_agent.mysql.observing import Observer
from farshore_schema.roles import Consent, Evidence, Receipt

SWEEP_SECONDS: Final = 5.0
"""How long `close` waits for a sweep of client sessions that is under way."""


class MySQLEngine:
    """One side of one MySQL pair."""

    capabilities = Capabilities(kind="mysql", prepare=True, zero_rpo=False, points=False)

    def __init__(self, seat: Seat) -> None:
        """Connect to nothing yet."""
        self._ground = Ground(seat)
        self._observer = Observer(self._ground)
        self._chores = Chores(self._ground)
        self._sweep: Sweep | None = None
        self._looking = threading.Lock()

    def observe(self) -> Seen:
        """Return what is seen now; never raises for a database that is down or strange."""
        with self._looking:
            self._chores.start()
            return self._observer.look(self._chores.sideline)

    def seed(self, call: SeedCall) -> None:
        """Copy the other side here in full and follow it."""
        _seeding.run(self._ground, call)

    def stream(self, epoch: int, consent: Consent | None = None) -> None:
        """Receive from the other side and apply."""
        _following.stream(self._ground, epoch, consent)

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver ahead of a switchover."""
        _following.prepare(self._ground, epoch)

    def prove(self, consent: Consent) -> None:
        """Look whether the replaced server can be rebound; change nothing."""
        _rebinding.prove(self._ground, consent)

    def fence(self, epoch: int) -> str:
        """Make this side durably unable to commit; return its final position. Clients are sent away in the background.

        A channel that still applies here is stopped first: nothing may move the position.
        """
        ground = self._ground
        with ground.own.session() as session:
            own = own_facts(ground, session)
            settings_record.record(session, ground.notes, own.server)
            if channel.status(session) is not None:
                channel.stop(session)
            position = fencing.fence(session, ground.dial_own, ground.ours)
        if self._sweep is None or self._sweep.over:
            self._sweep = Sweep(ground.dial_own, ground.ours).start()
        return position

    def drain(self, receipt: Receipt, cancelled: Callable[[], bool]) -> None:
        """Return once everything up to the receipt's position is received and applied here."""
        _draining.drain(self._ground, receipt.position, cancelled)

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving; what was received goes on being applied."""
        self._ground.journal.detach()

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still_holds: Callable[[], None],
        consent: Consent | None = None,
    ) -> None:
        """Open this side for writes."""
        _promotion.promote(self._ground, epoch, evidence, receipt, still_holds, consent)

    def cleanup(self) -> None:
        """End protection here (R20): channel and processes ended, settings put back, data and read-only kept.

        A server that was replaced meanwhile only loses our channel: its settings were never ours.
        """
        ground = self._ground
        with ground.own.session() as session:
            own = facts(session)
            channel.remove(session)
            ground.journal.end()
            with ground.durability_lock:
                settings_record.restore(session, ground.notes, own.server)
                durability.flush(session)
        ground.notes.forget()

    def close(self) -> None:
        """Let go of connections and threads; data-path processes go on."""
        self._chores.stop()
        if self._sweep is not None:
            self._sweep.join(SWEEP_SECONDS)
        self._ground.close()
