"""The world as one visit sees it: a pair's records and both sides' newest facts, read once."""

from typing import NamedTuple

from farshore import operations
from farshore.admission.desk import policy_of
from farshore.plan import Policy
from farshore.plan.view import Seen
from farshore.store import keys
from farshore.store.records import PairRecord, Records, RoleRecord, ServersRecord, Versioned
from farshore_schema.observed import PairObserved
from farshore_schema.roles import Operation, Role, Side
from farshore_schema.status import OperationView


class Snapshot(NamedTuple):
    """Everything a visit decides on. Nothing is read again until the visit is over."""

    pair: str
    spec: Versioned[PairRecord]
    role: Versioned[RoleRecord] | None
    operation: Versioned[OperationView] | None
    servers: ServersRecord
    status_rev: int  # 0: nothing was ever reported
    observed: PairObserved
    seen: Seen

    @property
    def policy(self) -> Policy:
        """What the declaration says that decides."""
        return policy_of(self.spec.value.document)

    def decided(self) -> Role | None:
        """Return the role that the store has decided."""
        return self.role.value.role() if self.role else None

    def core(self) -> Operation | None:
        """Return the open operation as the plan knows it."""
        return operations.core(self.operation.value) if self.operation else None

    def site(self, side: Side) -> str:
        """Return the site of a side."""
        return self.spec.value.site_of(side)


def read(records: Records, pair: str, observed: PairObserved) -> Snapshot | None:
    """Read a pair at one revision of the store; None when it is not declared (any more)."""
    items = {item.key: item for item in records.store.list(keys.pair(pair)).items}
    spec = items.get(keys.spec(pair))
    if spec is None:
        return None
    role, operation = items.get(keys.role(pair)), items.get(keys.operation(pair))
    servers, status = items.get(keys.pair_servers(pair)), items.get(keys.status(pair))
    return Snapshot(
        pair=pair,
        spec=records.parsed(spec, PairRecord),
        role=records.parsed(role, RoleRecord) if role else None,
        operation=records.parsed(operation, OperationView) if operation else None,
        servers=records.parsed(servers, ServersRecord).value if servers else ServersRecord(),
        status_rev=status.mod_rev if status else 0,
        observed=observed,
        seen={
            "a": observed.a.facts() if observed.a else None,
            "b": observed.b.facts() if observed.b else None,
        },
    )
