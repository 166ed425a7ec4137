"""What agents measured: facts about one side of a pair, written by nobody else.

`SideFacts` carries the facts that decide (the role-change core's vocabulary) and the measurements that only inform.
Ages are counted by the reader from arrival; a report older than `STALE_SECONDS` is unknown.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from farshore_schema.errors import ErrorBody
from farshore_schema.roles import Base, Db, Facts, Receipt

STALE_SECONDS = 3.0
REPORT_SECONDS = 1.0  # an agent looks and says `alive` this often, and reports at once when a fact changes
MEASUREMENTS = ("position", "seed", "stream")  # fields of SideReport that inform and never decide


class Value(BaseModel):
    """A frozen value of the wire; unknown fields of a newer release are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SeedProgress(Value):
    """How far a full copy is. Totals are estimates of the source's statistics."""

    phase: Literal["starting", "snapshot", "tables", "keys", "objects", "accounts", "finish", "catching_up"]
    tables_done: int = 0
    tables_total: int = 0
    rows_done: int = 0
    rows_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    current: str = ""
    attempt: int = 1


class StreamMeasurements(Value):
    """The state of the stream into this side, as numbers for people. None means unknown, never zero."""

    lag_seconds: float | None = None  # commit on the source to applied here, of the newest applied transaction
    behind_transactions: int | None = None  # received and not applied
    backlog_seconds: float | None = None  # time to fail over now: backlog at the measured apply rate
    apply_rate: float | None = None  # transactions per second
    received_transactions: int | None = None
    received_bytes: int | None = None
    journal_bytes: int | None = None
    journal_segments: int | None = None
    connected: bool | None = None


class Finding(Value):
    """One thing `doctor` found, or a reason why a pair is not as it should be, with the mend."""

    code: str
    severity: Literal["error", "warning", "note"]
    message: str
    hint: str = ""  # exact command or SQL that mends it
    field: str | None = None  # of the declaration, e.g. "site_b.admin.password"
    side: Literal["a", "b"] | None = None


class SideReport(Value):
    """Everything one gateway says of its side of one pair."""

    token: int = 0
    epoch: int = 0
    fenced_epoch: int = 0
    promoted_epoch: int = 0
    enrolled: bool = False
    db: Db = "unknown"
    server: str = ""
    server_version: str = ""
    writable: bool = False
    receipt: Receipt | None = None
    base: Base = "none"
    receiving: bool = False
    applying: bool = False
    stream_epoch: int = 0
    prepared_epoch: int = 0
    drained: Receipt | None = None
    draining: Receipt | None = None
    seeded_for: str = ""
    proved_for: str = ""
    seeding: bool = False
    zero: bool = False
    stopped: str = ""
    position: str = ""  # opaque; for people and for comparing equality
    durability: Literal["full", "relaxed", "unknown"] = "unknown"
    peer_ready: bool | None = None  # this gateway logged in at the other side within the last minutes (R6)
    seed: SeedProgress | None = None
    stream: StreamMeasurements = StreamMeasurements()
    findings: tuple[Finding, ...] = ()
    stopped_error: ErrorBody | None = None  # the whole story behind `stopped`

    def facts(self) -> Facts:
        """Return the part that decides."""
        return Facts(**{name: getattr(self, name) for name in Facts._fields})


class PairObserved(Value):
    """The newest report of each side and its age in seconds; None where there is none or it is stale."""

    a: SideReport | None = None
    b: SideReport | None = None
    age_a: float | None = Field(default=None, ge=0)
    age_b: float | None = Field(default=None, ge=0)
