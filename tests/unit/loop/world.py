"""A small world for the loop: a memory store, a clock that is set by hand, and agents that do as they are told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from farshore import operations
from farshore.admission import Desk
from farshore.clock import rfc3339
from farshore.loop import Loop
from farshore.ownership import Ownership
from farshore.sessions import Standing
from farshore.sightings import UNHEARD_SECONDS
from farshore.store import absent, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import PairRecord, Records, RoleRecord, put
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import ErrorBody
from farshore_schema.messages import Command, Result
from farshore_schema.observed import PairObserved, SideReport, StreamMeasurements
from farshore_schema.roles import Consent, Receipt, Role, Side, Verb, next_even, peer
from farshore_schema.status import OperationView, PairStatus

PAIR = "orders"
VISITS_MAX = 60


class HandClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> str:
        return rfc3339(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds))


def document(name: str = PAIR, **changes: object) -> MySQLPair:
    """Return a valid declaration."""
    body: dict[str, object] = {"name": name}
    for side, site, port in (("a", "tokyo", 3306), ("b", "osaka", 3307)):
        body[f"site_{side}"] = {
            "site": site,
            "host": f"{site}.example",
            "port": port,
            "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
            "replication": {"user": f"farshore_{site}_r", "password": f"env:{site.upper()}_REPLICATION"},
        }
    return MySQLPair.model_validate(body | changes)


@dataclass
class FakeAgents:
    """Both gateways. Commands wait in `sent` until a test lets them take effect; facts are what was last reported."""

    facts: dict[Side, SideReport | None] = field(
        default_factory=lambda: {
            "a": SideReport(db="up", server="server-a", server_version="9.7.0", writable=True, peer_ready=True),
            "b": SideReport(db="up", server="server-b", server_version="9.7.0", writable=True, peer_ready=True),
        }
    )
    sent: list[Command] = field(default_factory=list)
    sessions: dict[Side, int] = field(default_factory=lambda: {"a": 1, "b": 2})
    standing: Standing | None = None
    is_gone: bool = False
    never_heard: bool = False  # no report has reached this reconciler process yet
    fails: dict[str, ErrorBody] = field(default_factory=dict)  # step name -> how it fails
    before_effect: Callable[[Command], None] = lambda _command: None

    def observed(self, pair: str) -> PairObserved:
        a, b = self.facts["a"], self.facts["b"]
        old = None if self.never_heard else UNHEARD_SECONDS + 1
        return PairObserved(a=a, b=b, age_a=0.0 if a else old, age_b=0.0 if b else old)

    def send(self, command: Command) -> bool:
        self.sent.append(command)
        return True

    def session(self, pair: str, side: Side) -> int:
        return self.sessions[side]

    def generation(self, pair: str, side: Side) -> int:
        return self.standing.generation if self.standing and self.sessions[side] else 0

    def settle(self, standing: Standing) -> None:
        self.standing = standing

    def gone(self, pair: str) -> None:
        self.is_gone = True

    def change(self, side: Side, **facts: object) -> None:
        """Change what a side reports."""
        now = self.facts[side]
        assert now is not None
        self.facts[side] = now.model_copy(update=facts)

    def carry_out(self, command: Command) -> Result:
        """Let a command take effect, as an agent would, and return its answer."""
        self.before_effect(command)
        if command.step in self.fails:
            return _result(command, "failed", error=self.fails[command.step])
        side, epoch = command.side, command.epoch
        now = self.facts[side]
        assert now is not None
        if epoch < now.epoch or command.token < now.token:
            return _result(command, "refused", error=ErrorBody(code="stale_epoch_command", message="older"))
        self.change(side, token=command.token)
        if command.step not in ("prepare", "prove"):
            self.change(side, epoch=epoch)
        receipt = None
        match command.step:
            case "enrol":
                self.change(side, enrolled=True)
            case "seed":
                self.change(side, base="complete", stream_epoch=epoch, receiving=True, applying=True)
                self.change(side, stream=StreamMeasurements(lag_seconds=0.1), seeded_for=command.operation)
            case "stream":
                self.change(side, stream_epoch=epoch, receiving=True, applying=True)
                if command.operation:
                    self.change(side, seeded_for=command.operation)
            case "prepare":
                self.change(side, prepared_epoch=epoch)
            case "prove":
                self.change(side, proved_for=command.operation)
            case "fence":
                receipt = Receipt(side, epoch, f"end-of-{side}-in-{epoch}")
                self.change(side, fenced_epoch=epoch, receipt=receipt, writable=False, drained=None)
            case "drain":
                self.change(side, drained=command.receipt)
            case "promote":
                self.change(side, promoted_epoch=epoch, writable=True, base="complete", receipt=None)
                self.change(side, receiving=False, applying=False, stream_epoch=0, drained=None)
            case "cleanup":
                self.change(side, enrolled=False, receiving=False, applying=False)
        return _result(command, "done", receipt=receipt)


def _result(command: Command, state: str, **more: object) -> Result:
    return Result.model_validate(
        {"intent": command.intent, "pair": command.pair, "side": command.side, "state": state} | more
    )


class World:
    """Everything around one loop. `restart` puts a new process in its place over the same store."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = MemoryStore(self.clock)
        self.records = Records(self.store)
        self.agents = FakeAgents()
        self.again: float | None = 0.0
        self.start()

    def start(self) -> None:
        self.desk = Desk(records=Records(self.store), clock=self.clock, random=Random(1), observed=self.agents.observed)
        self.ownership = Ownership(self.store, self.clock, "node-1")
        self.ownership.keep()
        self.loop = Loop(desk=self.desk, sessions=self.agents, owner=self.ownership.owner, on_lost=self.ownership.lost)

    def restart(self) -> None:
        """The process dies; a new one takes over, with the store and the agents as they are."""
        self.ownership.release()
        self.start()

    # ---- what a test does

    def sleep(self, seconds: float) -> None:
        """Let time pass, with the lease kept alive as the supervisor would."""
        while seconds > 0:
            self.clock.seconds += min(seconds, 3.0)
            seconds -= 3.0
            self.ownership.keep()

    def declare(self, *, consent: bool = True, **changes: Any) -> None:
        """Declare the pair and ask for its protection, as admission does."""
        spec = PairRecord(document=document(**changes), generation=1, incarnation=1, created=self.clock.now())
        operation = operations.birth(
            id="op-1", pair=PAIR, verb="protect", to="b", to_site="osaka", epoch=2, created=self.clock.now(), by="ann",
            consent=Consent("b", "server-b", 2, "first seed") if consent else None,
        )  # fmt: skip
        done = self.store.txn(
            [absent(keys.spec(PAIR))], [put(keys.spec(PAIR), spec), put(keys.operation(PAIR), operation)]
        )
        assert done.ok

    def request(self, verb: Verb, *, id: str = "op-2", **more: object) -> OperationView:
        """Ask for an operation, as admission does."""
        role = self.role()
        assert role is not None
        epoch = next_even(role.epoch) if verb in ("switchover", "failover") else role.epoch
        to = peer(role.active)
        operation = operations.birth(
            id=id, pair=PAIR, verb=verb, to=to, to_site="tokyo" if to == "a" else "osaka", epoch=epoch,
            created=self.clock.now(), by="ann",
        ).model_copy(update=more)  # fmt: skip
        assert self.store.txn([absent(keys.operation(PAIR))], [put(keys.operation(PAIR), operation)]).ok
        return operation

    def request_first_removal(self) -> None:
        """Ask for the removal of a pair that has no role yet."""
        operation = operations.birth(
            id="op-2", pair=PAIR, verb="remove", to="b", to_site="osaka", epoch=2, created=self.clock.now()
        )
        assert self.store.txn([absent(keys.operation(PAIR))], [put(keys.operation(PAIR), operation)]).ok

    def visit(self) -> float | None:
        """Visit until the loop wants to wait; return for how long."""
        for _ in range(VISITS_MAX):
            self.again = self.loop.visit(PAIR)
            if self.again != 0.0:
                self.loop.flush()
                return self.again
        raise AssertionError("the loop does not come to rest")

    def answer(self) -> list[str]:
        """Let every command that was sent take effect and be answered; return the names of their steps."""
        done, self.agents.sent = self.agents.sent, []
        for command in done:
            self.loop.heard(self.agents.carry_out(command))
        return [f"{command.step} {command.side} {command.epoch}" for command in done]

    def settle(self) -> list[str]:
        """Visit and answer until nothing is sent any more; return all steps in their order."""
        steps: list[str] = []
        for _ in range(VISITS_MAX):
            self.visit()
            done = self.answer()
            if not done:
                return steps
            steps += done
        raise AssertionError(f"the pair does not come to rest: {steps}")

    def protect(self) -> None:
        """Bring a new pair to protection."""
        self.declare()
        self.settle()
        assert self.operation() is None
        assert self.status().phase == "protected"

    # ---- what a test looks at

    def role(self) -> Role | None:
        found = self.records.role(PAIR)
        return found.value.role() if found else None

    def role_record(self) -> RoleRecord:
        found = self.records.role(PAIR)
        assert found is not None
        return found.value

    def operation(self) -> OperationView | None:
        found = self.records.operation(PAIR)
        return found.value if found else None

    def ended(self, id: str = "op-2") -> OperationView:
        found = self.records.ended_operation(PAIR, id)
        assert found is not None, f"{id} has not ended"
        return found.value

    def status(self) -> PairStatus:
        found = self.records.status(PAIR)
        assert found is not None
        return found.value

    def condition(self, name: str) -> str:
        return next(each.status for each in self.status().conditions if each.type == name)
