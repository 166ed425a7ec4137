"""What the values in the store mean: one frozen record per kind of key, and typed reading of them.

`Records` parses a value once per revision and keeps it, so that ten thousand visits read ten thousand numbers and not
ten thousand documents. Writers build changes with `put`; transactions stay in the hands of the caller.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from farshore.store import Guard, Item, Put, Store, absent, keys, mod_rev
from farshore_schema.documents import MySQLPair, Site
from farshore_schema.roles import Evidence, Receipt, Role, Side
from farshore_schema.status import OperationView, Owner, PairStatus

_KEYS_OF_A_PAIR: Final = 5
_PAGE: Final = 200
RECORDS_CACHED: Final = 25_000  # parsed values kept; an evicted one is parsed again


class Record(BaseModel):
    """A frozen stored value. Unknown fields are refused: a newer release wrote them (I8)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteRecord(Record):
    """A declared site. Incarnations as for pairs (R24)."""

    document: Site
    generation: int = 1
    incarnation: int = 1
    created: str


class Undo(Record):
    """What an accepted role change replaced in the declaration, kept until its operation ends well (R11)."""

    operation: str
    primary_site: str | None
    acknowledge_epoch: int | None


class PairRecord(Record):
    """A declared pair: what people want, and who declared it."""

    document: MySQLPair
    generation: int  # +1 at every change of the document
    incarnation: int  # +1 at every accepted create, never used twice for a name (R24)
    owner: Owner = Owner()
    created: str
    undo: Undo | None = None  # while a declared role change is open

    def side_of(self, site: str) -> Side:
        """Return the side of one of the pair's two sites."""
        return "a" if site == self.document.site_a.site else "b"

    def site_of(self, side: Side) -> str:
        """Return the site of a side."""
        return self.document.site_a.site if side == "a" else self.document.site_b.site


class RoleRecord(Record):
    """The decision: which side is active since which epoch, why the other cannot commit, and who moved it there.

    A decision that leaves the active side where it is (an abort) takes a new epoch but is no move: `decided` keeps who
    moved it and when.
    """

    active: Side
    epoch: int
    evidence: Evidence
    receipt: Receipt | None = None
    since: str  # RFC 3339, UTC: active there since
    by: str = ""
    reason: str = ""
    operation: str = ""  # id of the operation that moved it
    moved_epoch: int | None = None  # of the last decision that moved the active side; 0: never; None: not recorded

    def role(self) -> Role:
        """Return the part that decides."""
        return Role(self.active, self.epoch, self.evidence, self.receipt)

    def knows(self, epoch: int) -> bool:
        """Say whether somebody who last saw this epoch knows where the active side is now."""
        if epoch == self.epoch:
            return True
        moved = self.moved_epoch
        if moved is None:
            moved = 0 if self.evidence == "initial" else self.epoch
        return moved <= epoch < self.epoch


def decided(
    before: RoleRecord | None, role: Role, *, at: str, by: str, reason: str = "", operation: str = ""
) -> RoleRecord:
    """Return the record of a new decision; the story of the last move stays when the active side does."""
    stays = before is not None and before.active == role.active
    return RoleRecord(
        active=role.active,
        epoch=role.epoch,
        evidence=role.evidence,
        receipt=role.receipt,
        since=before.since if stays and before else at,
        by=before.by if stays and before else by,
        reason=before.reason if stays and before else reason,
        operation=before.operation if stays and before else operation,
        moved_epoch=before.moved_epoch if stays and before else 0 if role.evidence == "initial" else role.epoch,
    )


class UsesRecord(Record):
    """How many pairs name a site: what a site's deletion is guarded by."""

    pairs: int = 0


class ServersRecord(Record):
    """The identity of the server behind each endpoint; None until it was first seen (R3)."""

    a: str | None = None
    b: str | None = None

    def of(self, side: Side) -> str | None:
        """Return one side's server."""
        return self.a if side == "a" else self.b


class ServerRecord(Record):
    """The pair that a server is an endpoint of; it can be no other's (R1)."""

    pair: str
    side: Side


class GraveRecord(Record):
    """What must outlive a pair, so that a later one of the same name is newer in everything."""

    incarnation: int
    epoch: int


class OwnerRecord(Record):
    """The reconciler that owns a shard."""

    node: str


class AgentRecord(Record):
    """The enrolled agent of a site."""

    agent: str
    site: str
    token_hash: str
    enrolled: str


class EnrolmentRecord(Record):
    """A one-time code, by its hash."""

    site: str
    expires: str
    by: str


TokenRole = Literal["viewer", "operator", "admin", "agent"]


class TokenRecord(Record):
    """A bearer token, by its hash. Agents have tokens too, bound to their sites."""

    id: str
    role: TokenRole
    note: str = ""  # whose it is
    sites: tuple[str, ...] = ()  # of an agent
    created: str
    by: str = ""


Value = TypeVar("Value", bound=BaseModel)


class Versioned(NamedTuple, Generic[Value]):
    """A parsed value with the revisions to guard it by."""

    key: str
    value: Value
    mod_rev: int
    create_rev: int

    def unchanged(self) -> Guard:
        """Require that it is still this very value."""
        return mod_rev(self.key, self.mod_rev)


def put(key: str, value: BaseModel, lease: int = 0) -> Put:
    """Return the change that stores a value."""
    return Put(key, value.model_dump_json().encode(), lease)


def unchanged(key: str, found: Versioned[Value] | None) -> Guard:
    """Require that the key is as it was read: the same value, or still absent."""
    return absent(key) if found is None else mod_rev(key, found.mod_rev)


class PairRecords(NamedTuple):
    """Everything current of one pair, as far as it exists."""

    spec: Versioned[PairRecord] | None
    role: Versioned[RoleRecord] | None
    operation: Versioned[OperationView] | None
    servers: Versioned[ServersRecord] | None
    status: Versioned[PairStatus] | None


class Records:
    """Typed reading of a store."""

    def __init__(self, store: Store, *, cached: int = RECORDS_CACHED) -> None:
        self.store = store
        self._cached = cached
        self._cache: OrderedDict[str, Versioned[BaseModel]] = OrderedDict()

    def read(self, key: str, of: type[Value]) -> Versioned[Value] | None:
        """Return the parsed value of a key, or None."""
        item = self.store.get(key)
        return None if item is None else self.parsed(item, of)

    def parsed(self, item: Item, of: type[Value]) -> Versioned[Value]:
        """Return an item's value, parsed at most once per revision while it stays cached."""
        known = self._cache.get(item.key)
        if known is not None and known.mod_rev == item.mod_rev and isinstance(known.value, of):
            self._cache.move_to_end(item.key)
            return Versioned(item.key, known.value, known.mod_rev, known.create_rev)
        fresh = Versioned(item.key, of.model_validate_json(item.value), item.mod_rev, item.create_rev)
        self._cache[item.key] = Versioned(*fresh)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return fresh

    def site(self, name: str) -> Versioned[SiteRecord] | None:
        """Return a declared site."""
        return self.read(keys.site(name), SiteRecord)

    def uses(self, site: str) -> Versioned[UsesRecord] | None:
        """Return how many pairs name a site, None when none ever did."""
        return self.read(keys.uses(site), UsesRecord)

    def spec(self, name: str) -> Versioned[PairRecord] | None:
        """Return a pair's declaration."""
        return self.read(keys.spec(name), PairRecord)

    def role(self, name: str) -> Versioned[RoleRecord] | None:
        """Return a pair's role, None before the first decision."""
        return self.read(keys.role(name), RoleRecord)

    def operation(self, name: str) -> Versioned[OperationView] | None:
        """Return a pair's open operation."""
        return self.read(keys.operation(name), OperationView)

    def ended_operation(self, name: str, operation_id: str) -> Versioned[OperationView] | None:
        """Return an operation that has ended."""
        return self.read(keys.ended_operation(name, operation_id), OperationView)

    def servers(self, name: str) -> Versioned[ServersRecord] | None:
        """Return the servers a pair is bound to."""
        return self.read(keys.pair_servers(name), ServersRecord)

    def status(self, name: str) -> Versioned[PairStatus] | None:
        """Return the loop's last stored report."""
        return self.read(keys.status(name), PairStatus)

    def grave(self, name: str) -> Versioned[GraveRecord] | None:
        """Return what an earlier pair of this name left behind."""
        return self.read(keys.grave(name), GraveRecord)

    def pair(self, name: str) -> PairRecords:
        """Return everything current of a pair."""
        return self.whole(self.store.list(keys.pair(name)).items)

    def pairs(self, *, after: str = "", limit: int) -> tuple[list[tuple[str, PairRecords]], str | None]:
        """Return up to `limit` whole pairs in key order, and the name to go on after (None: that was all).

        The order is that of the keys, which is not quite alphabetical ("a-b" comes before "a").
        """
        page, following = self._declared(after, limit)
        return [(name, self.whole(items)) for name, items in page], following

    def roles(self, *, after: str = "", limit: int) -> tuple[list[tuple[PairRecord, RoleRecord | None]], str | None]:
        """Return the same page of pairs with nothing but the declaration and the decision: far less to read."""
        page, following = self._declared(after, limit)
        found = []
        for name, items in page:
            of = {item.key: item for item in items}
            role = of.get(keys.role(name))
            spec = self.parsed(of[keys.spec(name)], PairRecord).value
            found.append((spec, self.parsed(role, RoleRecord).value if role is not None else None))
        return found, following

    def _declared(self, after: str, limit: int) -> tuple[list[tuple[str, list[Item]]], str | None]:
        """Return the items of up to `limit` declared pairs, and the name to go on after."""
        found: list[tuple[str, list[Item]]] = []
        cursor = keys.after_pair(after) if after else ""
        while True:
            wanted = (limit - len(found) + 1) * _KEYS_OF_A_PAIR
            items = self.store.list(keys.PAIRS, limit=wanted, after=cursor).items
            groups = [(name, list(group)) for name, group in groupby(items, key=lambda item: keys.pair_name(item.key))]
            if len(items) == wanted and len(groups) > 1:
                groups.pop()  # it may go on beyond this page
            for name, group in groups:
                if name is None or all(item.key != keys.spec(name) for item in group):
                    continue  # leftovers of a pair that is no more
                if len(found) == limit:
                    return found, found[-1][0]
                found.append((name, group))
            if len(items) < wanted:
                return found, None
            cursor = keys.after_pair(groups[-1][0] or "")

    def specs(self) -> Iterator[Versioned[PairRecord]]:
        """Return every declared pair, page by page."""
        after: str | None = ""
        while after is not None:
            page, after = self.pairs(after=after, limit=_PAGE)
            yield from (whole.spec for _, whole in page if whole.spec is not None)

    def whole(self, items: Iterable[Item]) -> PairRecords:
        """Return the parsed records of one pair's items."""
        by_kind = {item.key.rpartition("/")[2]: item for item in items}

        def of(kind: str, record: type[Value]) -> Versioned[Value] | None:
            item = by_kind.get(kind)
            return None if item is None else self.parsed(item, record)

        return PairRecords(
            spec=of("spec", PairRecord),
            role=of("role", RoleRecord),
            operation=of("operation", OperationView),
            servers=of("servers", ServersRecord),
            status=of("status", PairStatus),
        )
