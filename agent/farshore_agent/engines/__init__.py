"""The engine contract: what an agent can do for one side of one pair, whatever the workload.

An engine moves its side towards a named end. Every method is blocking, idempotent, callable in any order after any
crash, and either returns with the end reached or raises `Transient` or `Permanent`. Engines know nothing of tokens,
epoch fencing, transports or the reconciler: admission has already decided that the move may happen. An engine touches
only its own side (R4); of the other side it only reads, with the replication account.

Differences between engines are declared in `Capabilities`, never probed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from farshore_schema.documents import MySQLPair
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import Finding, SeedProgress, StreamMeasurements
from farshore_schema.roles import Consent, Db, Evidence, Receipt, Side


class Capabilities(NamedTuple):
    """What this kind of engine offers at all."""

    kind: str
    prepare: bool  # the reverse stream can be attached before the roles change
    zero_rpo: bool
    points: bool  # any transaction can be restored


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where an engine sits: one side of one declared pair, and where it may keep what must last."""

    pair: str
    side: Side
    incarnation: int
    document: MySQLPair
    directory: Path  # private (0700), survives restarts; journals and processes' state live below it
    secret: Callable[[str], str]  # resolves a reference; raises Permanent("secret_missing")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an engine sees of its side right now. Unknown is None, "unknown" or "", and never looks good."""

    db: Db = "unknown"
    server: str = ""
    server_version: str = ""
    writable: bool = False
    fence_holds: bool = False  # the fence is durable and was just read back (R13)
    receiving: bool = False
    applying: bool = False
    position: str = ""  # opaque: everything committed or applied here
    zero: bool = False
    durability: str = "unknown"
    peer_ready: bool | None = None
    stream: StreamMeasurements = field(default_factory=StreamMeasurements)
    findings: tuple[Finding, ...] = ()
    stopped: str = ""  # error code, while the stream cannot go on by itself
    stopped_error: ErrorBody | None = None


@dataclass(frozen=True, kw_only=True)
class SeedCall:
    """What a seed needs beside the seat: its permission, and its two ways back to the caller."""

    epoch: int
    consent: Consent | None  # None: only an empty target may be written
    before_first_write: Callable[
        [], None
    ]  # makes "base incomplete" durable; called once, before anything changes (R10)
    progress: Callable[[SeedProgress], None]
    cancelled: Callable[[], bool]


class Engine(Protocol):
    """One side of one pair."""

    capabilities: Capabilities

    def observe(self) -> Seen:
        """Return what is seen now, within about a second; never raises for a database that is down or strange."""
        ...

    def seed(self, call: SeedCall) -> None:
        """Copy the active side here in full and follow it. Idempotent: starts over what it cannot resume."""
        ...

    def stream(self, epoch: int, consent: Consent | None = None) -> None:
        """Receive from the other side and apply, under this role epoch. Idempotent.

        Another server there than the one this side is bound to is never followed (R3), but for the one that the consent
        of a rebind names: then all of `prove` is proved again before this side is bound to it.
        """
        ...

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver to the other side ahead of a switchover into `epoch`. Idempotent."""
        ...

    def prove(self, consent: Consent) -> None:
        """Return when the server that the consent names can be rebound, as far as this side can tell; change nothing.

        At the consent's side: that server answers, is open for clients and suitable. At the other one: that server has
        all that was received here, and still has what is needed next. Raises Permanent: "source_replaced" when another
        server answers, "diverged" with both histories, "source_purged", "unsuitable_server".
        """
        ...

    def fence(self, epoch: int) -> str:
        """Make this side durably unable to complete a commit; return its final position. Idempotent (R13)."""
        ...

    def drain(self, receipt: Receipt, cancelled: Callable[[], bool]) -> None:
        """Return once everything up to `receipt.position` is received and applied here. Idempotent."""
        ...

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving and acknowledging; what was received stays and goes on being applied. Idempotent."""
        ...

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still_holds: Callable[[], None],
        consent: Consent | None = None,
    ) -> None:
        """Open this side for writes: stop receiving, check that all received is applied, make it durable, open.

        `still_holds` raises when the order is no longer the newest one; it is called right before the side opens. On a
        side that is writable already (a new pair) it only records the role. Idempotent.

        With the consent of a rebind this side is bound to exactly the server that it names, which must be open already.
        """
        ...

    def cleanup(self) -> None:
        """End protection here (R20): streams off, recorded settings restored, data kept. Idempotent."""
        ...

    def close(self) -> None:
        """Let go of connections; data-path processes go on (I10)."""
        ...


class Looker(Protocol):
    """Looks at the endpoints of a declaration without changing anything."""

    def __call__(self, document: MySQLPair, own: Side, existing: bool, secret: Callable[[str], str]) -> "Look": ...


@dataclass(frozen=True, kw_only=True)
class Look:
    """What `inspect` saw: findings with their mends, who the servers are, which of them hold no user data."""

    findings: tuple[Finding, ...]
    servers: dict[Side, str]
    empty: dict[Side, bool]
