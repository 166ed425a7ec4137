"""What the loop reports to people about a pair, and the operations that change it: the audit trail.

Orthogonal fields instead of one enum. Facts are True, False or Unknown and carry their age; nothing here is read back
by the loop to decide anything.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farshore_schema.documents import MySQLPair, Name, Site
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import Finding, SeedProgress
from farshore_schema.roles import Consent, Evidence, Receipt, Side, Verb

RpoClass = Literal["none", "seeding", "catching_up", "async", "zero", "degraded"]
Tri = Literal["True", "False", "Unknown"]
ConditionType = Literal[
    "Protected", "PeerReady", "Verified", "DrillCurrent", "ConfigInSync", "VersionSupported", "FenceHolds"
]

Phase = Literal[
    "accepted", "seeding", "catching_up", "protected", "switching", "waiting", "stopped", "unknown", "removing"
]  # one word for tables


class Value(BaseModel):
    """A frozen value of the API."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Owner(Value):
    """The Pulumi stack that declares a pair; the constructor of the resource fills it in."""

    organization: str = ""
    project: str = ""
    stack: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.organization, self.project, self.stack) if part) or "nobody"


class RoleStatus(Value):
    """Where the workload is writable now, as decided."""

    active_site: Name
    standby_site: Name
    active_side: Side
    epoch: int
    evidence: Evidence
    since: str  # RFC 3339, UTC
    by: str = ""  # who moved it
    operation: str = ""  # id of the operation that moved it


class ReplicationStatus(Value):
    """How well the standby follows, measured; None is unknown."""

    rpo_class: RpoClass = "none"
    since: str = ""
    lag_seconds: float | None = None
    behind_transactions: int | None = None
    backlog_seconds: float | None = None
    journal_bytes: int | None = None
    measured_age_seconds: float | None = None
    how: str = ""  # in words: how these numbers were measured
    seed: SeedProgress | None = None
    stopped: ErrorBody | None = None


class StepLog(Value):
    """One journaled step of an operation."""

    name: str
    site: str = ""
    state: Literal["running", "done", "failed"]
    started: str
    ended: str | None = None
    seconds: float | None = None
    attempt: int = 1
    detail: str = ""
    error: ErrorBody | None = None


class OperationView(Value):
    """A request to change a pair, journaled step by step. Written by admission (birth) and the loop (life and end)."""

    id: str
    pair: Name
    verb: Verb
    to: Side
    to_site: Name
    epoch: int
    state: Literal["open", "waiting", "done", "aborted", "failed"] = "open"
    by: str = ""
    reason: str = ""
    created: str
    ended: str | None = None
    generation: int = 0  # of the declaration that asked for it, 0 when a person did
    consent: Consent | None = None
    receipt: Receipt | None = None
    attested: bool = False
    prepared: bool = False
    overdue: bool = False
    abort: bool = False
    abort_reason: str = ""
    waiting_for: str = ""  # reason code
    waiting_hint: str = ""
    step: int = 0
    steps: int = 0
    label: str = ""
    delete_journal: bool = False  # remove: the journal files go too
    forced: bool = False  # remove: asked for although it would have been refused
    log: Annotated[tuple[StepLog, ...], Field(max_length=200)] = ()
    error: ErrorBody | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("open", "waiting")


class Condition(Value):
    """One named truth about a pair."""

    type: ConditionType
    status: Tri
    reason: str = ""  # for programs
    message: str = ""  # for people
    since: str = ""


class AllowedOperation(Value):
    """Whether a verb would be accepted now, and if not, why."""

    verb: Verb
    to_site: str = ""
    allowed: bool
    why_not: str | None = None


class PairStatus(Value):
    """The loop's report on a pair."""

    role: RoleStatus | None = None
    replication: ReplicationStatus = ReplicationStatus()
    operation: OperationView | None = None  # the open one, else the last
    conditions: tuple[Condition, ...] = ()
    allowed_operations: tuple[AllowedOperation, ...] = ()
    findings: tuple[Finding, ...] = ()
    observed_generation: int = 0
    phase: Phase = "accepted"


class PairView(Value):
    """A pair as the API shows it: what was declared and what is."""

    document: MySQLPair
    generation: int
    incarnation: int
    owner: Owner
    created: str
    status: PairStatus


class PairRole(Value):
    """Who is active in one pair, and by which declaration."""

    name: str
    generation: int
    incarnation: int
    active_site: str | None  # null: nothing was decided yet
    epoch: int | None


class PairPut(Value):
    """Declare a pair. `if_epoch` and `if_generation` are what the caller last saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: MySQLPair
    owner: Owner = Owner()
    create: bool = False  # a create adopts an existing pair of the same owner and raises the incarnation (R24)
    if_generation: int | None = None
    if_epoch: int | None = None
    reason: str = ""


class PairPutResult(Value):
    """The accepted declaration; `operation` is the id of the one operation it caused, if any (R11)."""

    view: PairView
    operation: str | None = None


class OperationRequest(Value):
    """Ask for a change of roles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verb: Literal["switchover", "reprotect", "rebind"]
    to_site: Name | None = None
    if_epoch: int | None = None
    reason: Annotated[str, Field(max_length=500)] = ""
    without_standby: bool = False  # rebind: go on although the standby cannot follow; only a reprotect copies it anew


class PlanRequest(Value):
    """A dry run of declarations: nothing is changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: dict[str, object]
    owner: Owner = Owner()
    if_epoch: int | None = None
    inspect: bool = True  # ask the gateways to look at the endpoints


class PlanFailure(Value):
    """One reason why the declaration would be refused."""

    code: str
    field: str | None
    message: str
    hint: str = ""


class RoleChange(Value):
    """The planned switchover that a declaration would cause."""

    from_site: str
    to_site: str
    lag_seconds: float | None
    peer_ready: Tri
    estimate_seconds: float | None
    steps: tuple[str, ...]


class PlanResult(Value):
    """What an `apply` of the document would do."""

    action: Literal["create", "update", "unchanged"]
    changed: tuple[str, ...] = ()
    failures: tuple[PlanFailure, ...] = ()
    warnings: tuple[str, ...] = ()
    role_change: RoleChange | None = None
    summary: str = ""
    current_epoch: int | None = None
    active_site: str | None = None


class SiteView(Value):
    """A site as the API shows it."""

    document: Site
    generation: int
    incarnation: int
    created: str


class PairDeleteResult(Value):
    """What a DELETE did: the id of the removal under way, or a note why there was nothing to do."""

    pair: Name
    operation: str | None = None
    note: str = ""


class Deleted(Value):
    """What a DELETE of a site did; False: there was nothing to delete."""

    name: Name
    deleted: bool


class AbortRequest(Value):
    """Ask for an open operation to be undone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Annotated[str, Field(max_length=500)] = ""


class Findings(Value):
    """What `doctor` found at both ends of a pair."""

    findings: tuple[Finding, ...]
    servers: dict[Side, str] = {}  # identity of the server behind each side, where it was seen
