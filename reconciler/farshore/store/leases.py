"""Leases of the embedded engines: which are alive, and until when.

They are counted on the monotonic clock and never outlive the process, because an embedded store has one process: when
it is gone, so is every holder. Knows neither keys nor storage.
"""

from farshore.clock import Clock
from farshore.store import LeaseGone


class Leases:
    """The live leases and their deadlines. Not thread-safe by itself: the engine's lock protects it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[int, tuple[float, float]] = {}  # id -> (ttl, deadline on the monotonic clock)
        self._earliest = float("inf")  # no lease runs out before this moment

    def grant(self, lease: int, ttl_seconds: float) -> None:
        """Begin the lease with this id."""
        if not ttl_seconds > 0:
            raise ValueError(f"a lease of {ttl_seconds} seconds")
        self._set(lease, ttl_seconds)

    def keepalive(self, lease: int) -> None:
        """Start its time anew; raise LeaseGone."""
        self.require(lease)
        self._set(lease, self._live[lease][0])

    def require(self, lease: int) -> None:
        """Raise LeaseGone unless the lease is alive."""
        if lease not in self._live:
            raise LeaseGone(f"lease {lease} has run out or never was")

    def drop(self, lease: int) -> None:
        """Forget the lease. Idempotent."""
        self._live.pop(lease, None)

    def overdue(self) -> tuple[int, ...]:
        """Return the leases that have run out; cheap when there are none."""
        now = self._clock.monotonic()
        if now < self._earliest:
            return ()
        gone = tuple(lease for lease, (_, deadline) in self._live.items() if deadline <= now)
        alive = (deadline for lease, (_, deadline) in self._live.items() if deadline > now)
        self._earliest = min(alive, default=float("inf")) if not gone else now
        return gone

    def _set(self, lease: int, ttl_seconds: float) -> None:
        deadline = self._clock.monotonic() + ttl_seconds
        self._live[lease] = (ttl_seconds, deadline)
        self._earliest = min(self._earliest, deadline)
