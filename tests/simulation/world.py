"""The small world of the explorer: values only, each interned to a small number so that a state is cheap to hash.

Two sites, each with a database, its agent and the journal of what it received; the store; two reconcilers of which the
first can become a zombie; a network that may hold a few commands; clients, and what they were told.
Transactions are numbered from 0 and kept in bit masks: a position is such a mask, written as a text.
"""

from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

from farshore_schema.roles import Consent, Facts, Operation, Receipt, Record, Role, Side, Step

V = TypeVar("V", bound=Hashable)

SERVER: Final[dict[Side, str]] = {"a": "server-a", "b": "server-b"}
INDEX: Final[dict[Side, int]] = {"a": 0, "b": 1}


class Options(NamedTuple):
    """Which small world: budgets of what may happen, and the shape of the installation."""

    trx: int = 0  # client transactions
    faults: int = 0
    messages: int = 2  # commands under way at once
    operations: int = 1  # requests of operators
    emergencies: int = 0  # decisions taken at a gateway without the reconciler
    sync: bool = False  # clients are told OK only when the other site's journal has it
    one_agent: bool = False  # one agent process serves both sites
    new_pair: bool = False  # begin before the pair is protected
    rebinds: bool = False  # people may ask for rebinds too: the active server counts as replaced, with all of its data


class Message(NamedTuple):
    """A command under way."""

    token: int
    step: Step
    operation: str


class Site(NamedTuple):
    """One side: its database, its journal, its agent's durable record and what its agent holds in memory."""

    side: Side
    record: Record
    writable: bool  # accepts clients' writes while the database is up
    lasting: bool  # what `writable` will be after the database restarts (R13)
    executed: int = 0
    received: int = 0  # the journal of what came from the other side
    receiving: bool = False
    zero: bool = False
    prepared: int = 0
    proved: str = ""  # the rebind for which this side's gateway proved its part
    stopped: str = ""
    up: bool = True  # the database
    agent: bool = True  # the agent process
    alive: bool = True  # the whole site; a dead one returns as it was
    isolated: bool = False  # a person keeps clients away from it, as attested, until the store's decision fenced it
    drain: Receipt | None = None  # in the agent's memory
    pending: Message | None = None  # a seed under way, or a promotion between its check and its effect


class World(NamedTuple):
    """One state; every field but the plain counters is the number of an interned value."""

    a: int
    b: int
    role: int
    op: int
    token: int  # of the present owner
    seen_a: int  # facts as the first reconciler knows them
    seen_b: int
    new_a: int  # and as the second one does, once it has taken over
    new_b: int
    net: int
    zombie: int  # role and operation as the replaced reconciler still believes them, NOTHING before
    told: int  # mask of transactions whose client was told OK
    waiting: int  # mask of transactions whose client waits for the journal
    written: int
    faults: int
    operations: int
    emergencies: int
    grants: int  # consents that a person gave, each with its operation
    lossy: bool  # a decision was taken that says it may lose acknowledged transactions


class Interned(Generic[V]):
    """Values by number and numbers by value; number 0 is always None."""

    def __init__(self) -> None:
        self.values: list[V | None] = [None]
        self.numbers: dict[V | None, int] = {None: 0}

    def number(self, value: V | None) -> int:
        """Return the value's number, a new one for a value not met before."""
        found = self.numbers.get(value)
        if found is None:
            found = self.numbers[value] = len(self.values)
            self.values.append(value)
        return found

    def __getitem__(self, number: int) -> V | None:
        return self.values[number]

    def some(self, number: int) -> V:
        """Return a value that is known to be there."""
        value = self.values[number]
        if value is None:
            raise LookupError(f"number {number} stands for nothing")
        return value


class Belief(NamedTuple):
    """What a replaced reconciler goes on believing of the store."""

    role: Role | None
    op: Operation | None


class Grant(NamedTuple):
    """A consent as a person gave it, and whether a complete copy has used it up."""

    operation: str
    consent: Consent
    used: bool = False


class Tables:
    """All interned values of one exploration."""

    def __init__(self) -> None:
        self.sites: Interned[Site] = Interned()
        self.roles: Interned[Role] = Interned()
        self.ops: Interned[Operation] = Interned()
        self.facts: Interned[Facts] = Interned()
        self.messages: Interned[Message] = Interned()
        self.nets: Interned[tuple[int, ...]] = Interned()
        self.beliefs: Interned[Belief] = Interned()
        self.grants: Interned[tuple[Grant, ...]] = Interned()


def start(options: Options, tables: Tables) -> World:
    """Return the first state: a protected pair, or two servers and a request to protect them."""
    if options.new_pair:
        a = Site("a", Record(), writable=True, lasting=True)
        b = Site("b", Record(), writable=True, lasting=True)
        consent = Consent("b", SERVER["b"], 2, "first seed")
        role, op = None, Operation("0", "protect", "b", 2, consent=consent)
        grants: tuple[Grant, ...] = (Grant("0", consent),)
    else:
        opened = Record(token=1, epoch=2, promoted_epoch=2, base="complete", enrolled=True)
        receipt = Receipt("b", 2, "0")
        fenced = Record(1, 2, fenced_epoch=2, stream_epoch=2, base="complete", receipt=receipt, enrolled=True)
        a = Site("a", opened, writable=True, lasting=True)
        b = Site("b", fenced, writable=False, lasting=False, receiving=True, zero=True)
        role, op, grants = Role("a", 2, "initial"), None, ()
    return World(
        a=tables.sites.number(a),
        b=tables.sites.number(b),
        role=tables.roles.number(role),
        op=tables.ops.number(op),
        token=1,
        seen_a=0,
        seen_b=0,
        new_a=0,
        new_b=0,
        net=tables.nets.number(()),
        zombie=0,
        told=0,
        waiting=0,
        written=0,
        faults=options.faults,
        operations=options.operations,
        emergencies=options.emergencies,
        grants=tables.grants.number(grants),
        lossy=False,
    )


def may_write(site: Site) -> bool:
    """Return whether a client that reaches the site can write there."""
    return site.alive and site.up and site.writable and not site.isolated


def is_spare(site: Site) -> bool:
    """Return whether the server is not part of the pair yet: whatever is written there is not the workload's."""
    return site.record.base != "complete" and site.record.promoted_epoch == 0 and site.side == "b"
