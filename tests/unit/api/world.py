"""A small world for admission and API tests: a store in memory, a clock that stands, and facts that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from farshore.admission import Desk, ending
from farshore.operations import ended
from farshore.store import Item, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import Records, SiteRecord, decided, put, unchanged
from farshore_schema.documents import MySQLPair, Site
from farshore_schema.errors import ErrorBody, FarshoreError
from farshore_schema.observed import PairObserved, SideReport
from farshore_schema.roles import Evidence, Outcome, Role, Side, peer
from farshore_schema.status import OperationView, Owner

STACK = Owner(organization="acme", project="dr", stack="prod")
OTHER_STACK = Owner(organization="acme", project="dr", stack="test")


class StandingClock:
    """A clock that moves only when told, a second at a time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Return the time set."""
        return self.seconds

    def now(self) -> str:
        """Return the time set as a text."""
        return (
            f"2026-01-01T{int(self.seconds) // 3600:02d}:{int(self.seconds) // 60 % 60:02d}:{self.seconds % 60:06.3f}Z"
        )


def endpoint(site: str, **changes: Any) -> dict[str, Any]:
    """Return a site's endpoint."""
    return {
        "site": site,
        "host": f"db.{site}.example",
        "port": 3306,
        "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
        "replication": {"user": f"repl_{site}", "password": f"env:{site.upper()}_REPL"},
    } | changes


def document(name: str = "orders", **changes: Any) -> MySQLPair:
    """Return a pair between tokyo and osaka."""
    plain = {"name": name, "site_a": endpoint("tokyo"), "site_b": endpoint("osaka")}
    return MySQLPair.model_validate(plain | changes)


class World:
    """The desk, and the hands that play loop and agents."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.records = Records(self.store)
        self.clock = StandingClock()
        self.facts: dict[str, PairObserved] = {}
        self.desk = Desk(records=self.records, clock=self.clock, random=Random(1), observed=self.observed)
        for name in ("tokyo", "osaka"):
            site = SiteRecord(document=Site(name=name), created=self.clock.now())
            self.store.txn((), (put(keys.site(name), site),))

    def observed(self, pair: str) -> PairObserved:
        """Return the facts the test has set."""
        return self.facts.get(pair, PairObserved())

    def decide(self, pair: str, active: Side, epoch: int, evidence: Evidence = "initial", by: str = "ann") -> None:
        """Play the loop's decision."""
        before = self.records.role(pair)
        record = decided(
            before.value if before else None,
            Role(active, epoch, evidence),
            at=self.clock.now(),
            by=by,
            reason="INC-7",
            operation="op-x",
        )
        assert self.store.txn((unchanged(keys.role(pair), before),), (put(keys.role(pair), record),)).ok

    def end(self, pair: str, outcome: Outcome = "done") -> OperationView:
        """Play the loop's end of the open operation."""
        found = self.records.operation(pair)
        assert found is not None
        error = None if outcome == "done" else ErrorBody(code="operation_failed", message="taken back")
        last = ended(found.value, outcome=outcome, at=self.clock.now(), error=error)
        transaction = ending(self.records, found, last)
        assert self.store.txn(transaction.guards, transaction.changes).ok
        return last

    def see_protected(self, pair: str, active: Side, epoch: int, lag: float | None = 0.4) -> None:
        """Play agents that report a healthy, protected pair."""
        standby = {
            "enrolled": True,
            "db": "up",
            "epoch": epoch,
            "fenced_epoch": epoch,
            "base": "complete",
            "receiving": True,
            "applying": True,
            "stream_epoch": epoch,
            "peer_ready": True,
            "server": f"server-{peer(active)}",
            "stream": {"lag_seconds": lag},
        }
        source = {
            "enrolled": True,
            "db": "up",
            "epoch": epoch,
            "promoted_epoch": epoch,
            "writable": True,
            "base": "complete",
            "peer_ready": True,
            "server": f"server-{active}",
        }
        sides = {active: SideReport.model_validate(source), peer(active): SideReport.model_validate(standby)}
        self.facts[pair] = PairObserved(a=sides["a"], b=sides["b"], age_a=0.1, age_b=0.1)

    def refused(self, code: str, call: Callable[[], object]) -> FarshoreError:
        """Make a call that must be refused, and check that it changed nothing at all."""
        before: dict[str, Item] = self.store.snapshot()
        with pytest.raises(FarshoreError) as caught:
            call()
        assert caught.value.code == code, caught.value.message
        assert self.store.snapshot() == before, "a refused request changed the store"
        return caught.value
