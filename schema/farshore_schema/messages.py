"""The conversation between an agent and the reconciler: versioned, discriminated by `type`, one JSON text per message.

The agent dials out over a WebSocket, says `hello`, and from then on sends reports and results; the reconciler sends
assignments, commands and questions. No message ever carries a secret: the agent resolves references itself.

How an agent reports, so that one reconciler can carry 10,000 pairs on less than one core:

* `report`: at once when anything but a measurement changed on a side (every field of `SideReport` outside
  `observed.MEASUREMENTS`), once after every `assign`, and never just to repeat itself;
* `measured`: new measurements of sides whose facts did not change, many sides in one message, each side at most once in
  `MEASURED_SECONDS` (once in `REPORT_SECONDS` while it seeds) and only when they differ from the last ones sent;
* `alive`: every `REPORT_SECONDS`, always: one short message that keeps every report of the session fresh. A side that
  the agent could not look at within the last `REPORT_SECONDS` is named in `unheld` and goes stale by itself.

`report`, `measured` and `alive` share one `sequence` that grows by one with each of them within a session.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from farshore_schema.documents import MySQLPair
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import Finding, SeedProgress, SideReport, StreamMeasurements
from farshore_schema.roles import Consent, Evidence, Receipt, Record, Side

PROTOCOL = 1
PROTOCOLS_SPOKEN = (1,)
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
MEASURED_SECONDS = 5.0  # measurements of a side that changed nothing else travel at most this often
MEASURES_MAX = 200  # sides in one `measured` message; more go into a further message


class Message(BaseModel):
    """A frozen message; unknown fields of a newer release are ignored, unknown types are refused (I8)."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# ---- agent to reconciler


class Hello(Message):
    """First message of an agent. The credential travels in the Authorization header, never here."""

    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    agent: str
    agent_version: str
    sites: tuple[str, ...]
    embedded: bool = False
    probe_ports: dict[str, int] = {}  # site -> port that answers /primary and /standby


class Report(Message):
    """The present facts of one side. `sequence` grows within a session; an older one is dropped.

    Sent when a fact changed and once after every `assign`; `alive` keeps it fresh.
    """

    type: Literal["report"] = "report"
    pair: str
    side: Side
    incarnation: int
    sequence: int
    report: SideReport


class Measure(Message):
    """The present measurements of one side: the fields of `observed.MEASUREMENTS`, all of them."""

    pair: str
    side: Side
    incarnation: int
    position: str = ""
    seed: SeedProgress | None = None
    stream: StreamMeasurements = StreamMeasurements()


class Measured(Message):
    """New measurements of sides whose last `report` of this session still holds. They replace the older ones."""

    type: Literal["measured"] = "measured"
    sequence: int
    measures: Annotated[tuple[Measure, ...], Field(max_length=MEASURES_MAX)]


class Alive(Message):
    """Every report I sent in this session still holds as of now, but for the sides in `unheld`.

    The agent vouches that it looked at each of these sides within the last `REPORT_SECONDS` and found every fact as in
    the newest report it sent, which was sent before this message. It sends one every `REPORT_SECONDS`, also while it
    serves nothing. `unheld` names the (pair, side) whose newest look failed or is overdue (an engine that hangs): their
    report keeps the age it has and becomes unknown after `STALE_SECONDS`; a report is not needed for that.
    """

    type: Literal["alive"] = "alive"
    sequence: int
    unheld: tuple[tuple[str, Side], ...] = ()


class Result(Message):
    """The outcome of a command. `running` means accepted and going on: progress comes in reports.

    The report of what a command changed is sent before its final result, so that whoever hears `done` sees it already.
    A failure that may heal by trying again carries `error.retry_seconds`; without it the error is permanent.
    """

    type: Literal["result"] = "result"
    intent: str
    pair: str
    side: Side
    state: Literal["running", "done", "refused", "failed"]
    error: ErrorBody | None = None
    receipt: Receipt | None = None


class Inspected(Message):
    """The answer to `inspect`."""

    type: Literal["inspected"] = "inspected"
    request: str
    findings: tuple[Finding, ...]
    servers: dict[Side, str] = {}  # server identity by side, where it could be seen
    empty: dict[Side, bool] = {}  # whether the side holds no user data


# ---- reconciler to agent


class Welcome(Message):
    """Accepts the session and says which sites this agent is to serve."""

    type: Literal["welcome"] = "welcome"
    protocol: int
    sites: tuple[str, ...]


class Assign(Message):
    """Serve this side of this pair as declared. Idempotent; replaces an older assignment of the same incarnation.

    `record` is what the agent that served the side before had made durable (R7). The receiver makes it its own record,
    synced before anything else, when it has none of that side or one of an older epoch; otherwise it ignores it.
    """

    type: Literal["assign"] = "assign"
    pair: str
    side: Side
    incarnation: int
    generation: int
    document: MySQLPair
    active: Side | None  # by the store's decision, None before the first
    epoch: int
    record: Record | None = None  # only where the side has just changed hands


class Unassign(Message):
    """Stop serving this side; sent after its cleanup, or when the site is handed to another agent."""

    type: Literal["unassign"] = "unassign"
    pair: str
    side: Side
    incarnation: int


class Command(Message):
    """One idempotent move. Refused when `token` or `epoch` is older than what the agent has durably seen (I6)."""

    type: Literal["command"] = "command"
    intent: str
    pair: str
    side: Side
    incarnation: int
    token: int
    epoch: int
    step: Literal["enrol", "seed", "stream", "prepare", "prove", "fence", "drain", "stop_acks", "promote", "cleanup"]
    receipt: Receipt | None = None
    consent: Consent | None = None
    evidence: Evidence | None = None
    operation: str = ""
    delete_journal: bool = False  # cleanup: the journal files of this side go too (R20)


class Inspect(Message):
    """Look at the endpoints of a declaration without changing anything (dry run, doctor).

    `own` is the side whose admin account this agent may use; it sees the other side with the replication account only.
    """

    type: Literal["inspect"] = "inspect"
    request: str
    document: MySQLPair
    own: Side
    existing: bool = False  # the pair is declared already: a standby with data is expected


class Goodbye(Message):
    """Ends the session with the reason; the agent dials again after `retry_seconds` (0: never)."""

    type: Literal["goodbye"] = "goodbye"
    error: ErrorBody
    retry_seconds: float = 1.0


FromAgent = Annotated[Hello | Report | Measured | Alive | Result | Inspected, Field(discriminator="type")]
ToAgent = Annotated[Welcome | Assign | Unassign | Command | Inspect | Goodbye, Field(discriminator="type")]
FROM_AGENT: TypeAdapter[Hello | Report | Measured | Alive | Result | Inspected] = TypeAdapter(FromAgent)
TO_AGENT: TypeAdapter[Welcome | Assign | Unassign | Command | Inspect | Goodbye] = TypeAdapter(ToAgent)
