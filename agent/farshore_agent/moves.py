"""An engine's moves as the command runner calls them: the present engine, its progress and its cancelling bound."""

from collections.abc import Callable

from farshore_agent.engines import SeedCall
from farshore_agent.holder import EngineHolder
from farshore_schema.observed import SeedProgress
from farshore_schema.roles import Consent, Evidence, Receipt


class BoundMoves:
    """`commands.Moves` of one side."""

    def __init__(
        self, holder: EngineHolder, *, progress: Callable[[SeedProgress], None], cancelled: Callable[[], bool]
    ) -> None:
        self._holder, self._progress, self._cancelled = holder, progress, cancelled

    def seed(self, epoch: int, consent: Consent | None, before_first_write: Callable[[], None]) -> None:
        """Copy the other side here."""
        call = SeedCall(
            epoch=epoch,
            consent=consent,
            before_first_write=before_first_write,
            progress=self._progress,
            cancelled=self._cancelled,
        )
        with self._holder.engine() as engine:
            engine.seed(call)

    def stream(self, epoch: int, consent: Consent | None) -> None:
        """Follow the other side."""
        with self._holder.engine() as engine:
            engine.stream(epoch, consent)

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver ahead."""
        with self._holder.engine() as engine:
            engine.prepare(epoch)

    def prove(self, consent: Consent) -> None:
        """Look whether the replaced server can be rebound."""
        with self._holder.engine() as engine:
            engine.prove(consent)

    def fence(self, epoch: int) -> str:
        """Make this side unable to commit."""
        with self._holder.engine() as engine:
            return engine.fence(epoch)

    def drain(self, receipt: Receipt) -> None:
        """Apply everything up to the receipt."""
        with self._holder.engine() as engine:
            engine.drain(receipt, self._cancelled)

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving."""
        with self._holder.engine() as engine:
            engine.stop_acks(epoch)

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still: Callable[[], None],
        consent: Consent | None,
    ) -> None:
        """Open this side for writes."""
        with self._holder.engine() as engine:
            engine.promote(epoch, evidence, receipt, still, consent)

    def cleanup(self) -> None:
        """End protection here."""
        with self._holder.engine() as engine:
            engine.cleanup()
