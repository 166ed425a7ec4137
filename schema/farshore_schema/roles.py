"""The vocabulary of a role change: plain values, shared by the reconciler's plan and the agents' admission.

Nothing here knows documents, time, transport or a database (R25): the explorer and the simulation drive exactly these
values through every interleaving. Positions are opaque strings; they are only ever compared for equality, because the
only party that can say "this contains that" is the engine beside the data.
"""

from typing import Literal, NamedTuple

Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")

Evidence = Literal["initial", "fenced", "receipt", "acks_stopped", "attested", "aborted", "emergency", "rebound"]
"""Why the side that is not active cannot complete a commit.

initial: the pair is new and its standby was never active. fenced: fenced and drained by a switchover. receipt: the
stored receipt of an earlier fence. acks_stopped: class `zero` with `block`, acknowledgements stopped. attested: a
named operator vouches. aborted: the target of an aborted operation was never told to promote. emergency: decided on a
gateway. rebound: the active side's server was replaced and proved to hold all that the standby received; the standby
stays what it was.
"""

Verb = Literal["protect", "switchover", "failover", "reprotect", "rebind", "remove"]

Db = Literal["up", "down", "unknown"]
Base = Literal["none", "incomplete", "complete"]


def peer(side: Side) -> Side:
    """Return the other side of the pair."""
    return "b" if side == "a" else "a"


def next_even(epoch: int) -> int:
    """Return the lowest epoch above `epoch` that the store may decide (R16: the store decides even epochs)."""
    return epoch + 2 if epoch % 2 == 0 else epoch + 1


def next_odd(epoch: int) -> int:
    """Return the lowest epoch above `epoch` that an emergency decision may take (R16: emergencies are odd)."""
    return epoch + 1 if epoch % 2 == 0 else epoch + 2


class Receipt(NamedTuple):
    """A durable fence of one side: since `epoch` it commits nothing, and `position` is all it ever committed."""

    side: Side
    epoch: int
    position: str


class Consent(NamedTuple):
    """Permission to copy onto one server, given for one seed of one epoch (R9).

    Every seed needs one. Without `overwrite` only a target that holds no user data may be written: that is what a
    declaration with `on_existing_data: refuse` gives for the first seed.

    That of a `rebind` names the active side and the server that took its place there: permission to follow it from now
    on, once it is proved to hold all that the standby received. Its `overwrite` gives the standby up instead: nothing
    is proved of it, and it follows only after a new copy.
    """

    side: Side
    server: str
    epoch: int
    by: str
    overwrite: bool = False


class Role(NamedTuple):
    """The decision in the store: which side is active since which epoch, and why the other one cannot commit."""

    active: Side
    epoch: int
    evidence: Evidence
    receipt: Receipt | None = None


class Operation(NamedTuple):
    """A request to change roles or to copy data; at most one is open for a pair.

    `epoch` is the epoch it burns with its first fence. `to` is the side that will be active (that of a `rebind` is it
    already), or for `protect` and `reprotect` the side that will be the standby.
    """

    id: str
    verb: Verb
    to: Side
    epoch: int
    consent: Consent | None = None  # protect, reprotect: present when the target may be overwritten; rebind: always
    receipt: Receipt | None = None  # the fence of the old active side, once it is in the store
    attested: bool = False  # failover: the operator vouches that the silent side is isolated
    prepared: bool = False  # switchover: the reverse stream was attached ahead, or the attempt is over
    overdue: bool = False  # the drain outlived the pair's drain_timeout: abort by itself (R15)
    abort: bool = False  # an operator, or the rule above, wants it undone


class Facts(NamedTuple):
    """What one side's gateway reports about its own side. `None` in place of Facts means unknown, never good.

    `drained` repeats the receipt up to which everything was applied here; `stream_epoch` is the role epoch under which
    this side follows the other one (0: it does not).
    """

    token: int
    epoch: int
    fenced_epoch: int
    promoted_epoch: int
    db: Db
    server: str  # identity of the server, "" while unknown
    writable: bool
    receipt: Receipt | None = None  # of the fence in `fenced_epoch`, while the fence is seen to hold
    base: Base = "none"  # does this side hold a complete copy (or is it where the data came from)
    receiving: bool = False  # the receiver is attached to the other side
    applying: bool = False  # what is received is being applied
    stream_epoch: int = 0
    prepared_epoch: int = 0  # the reverse stream stands ready for this operation epoch
    drained: Receipt | None = None
    seeding: bool = False
    zero: bool = False  # the class was proved `zero` when the receiver was last attached
    stopped: str = ""  # code of the reason why the stream cannot go on by itself, "" while it can
    enrolled: bool = True  # False: the agent has no record of this side, or ended protection here (R5)
    draining: Receipt | None = None  # the drain under way here, so that it is not asked for again
    seeded_for: str = ""  # operation whose consent is used up here: copied, or following without a copy
    proved_for: str = ""  # operation (a rebind) for which this gateway proved its part; forgotten with the agent
    peer_ready: bool | None = None  # this gateway logged in at the other side within the last minutes (R6)


StepName = Literal[
    "wait",  # nothing to send; `reason` names what is awaited
    "enrol",  # command: give an agent without a record the store's token and epoch (R5)
    "seed",  # command: first full copy, needs consent or an empty target
    "stream",  # command: follow the active side under this epoch
    "prepare",  # command: attach the reverse stream ahead of a switchover
    "prove",  # command: look whether the replaced server that the consent names can be rebound; changes nothing
    "fence",  # command: make this side durably unable to complete a commit; answers with a Receipt
    "drain",  # command: apply everything up to `receipt.position`
    "stop_acks",  # command: stop receiving and acknowledging
    "promote",  # command: open this side for writes
    "cleanup",  # command: end protection on this side, keep data
    "decide",  # store: one guarded transaction that sets `role`
    "record_fence",  # store: keep the receipt with the operation
    "record_prepared",  # store: the reverse stream is ready, or will not be
    "abort",  # store: mark the operation as to be undone
    "finish",  # store: close the operation with `outcome`
]

Outcome = Literal["", "done", "aborted", "failed"]


class Step(NamedTuple):
    """One idempotent command to one side's gateway, or one transaction on the store (`side` is then None)."""

    name: StepName
    side: Side | None = None
    epoch: int = 0
    role: Role | None = None
    receipt: Receipt | None = None
    consent: Consent | None = None  # seed; prove, promote and stream of a rebind
    evidence: Evidence | None = None  # promote: why the other side cannot commit, checked again at the call
    outcome: Outcome = ""
    reason: str = ""  # wait, finish: stable code of what is awaited or why it ended


class Record(NamedTuple):
    """What an agent keeps on disk for one (pair, side), synced before the effect it allows (R5)."""

    token: int = 0
    epoch: int = 0
    fenced_epoch: int = 0
    promoted_epoch: int = 0
    stream_epoch: int = 0
    base: Base = "none"
    receipt: Receipt | None = None
    intents: tuple[str, ...] = ()  # newest last, bounded
    enrolled: bool = False
    seeded_for: str = ""  # operation that has its copy, or follows without one: one consent, at most one seed (R9)


class Order(NamedTuple):
    """A command as an agent's admission sees it."""

    intent: str  # names one sending: a later decision, even for the same step, has another one
    token: int
    step: Step
    operation: str = ""  # id of the operation the step belongs to, "" for steady work
