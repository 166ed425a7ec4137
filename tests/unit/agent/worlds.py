"""A pair on the fake engine with durable records on disk: the agent's core without threads or sockets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from farshore_agent.commands import CommandRunner, Outcome, Point
from farshore_agent.engines.fake import FakeEngine
from farshore_agent.engines.fake_world import FakeWorld
from farshore_agent.holder import EngineHolder
from farshore_agent.moves import BoundMoves
from farshore_agent.records import FileKeeper
from farshore_schema.roles import SIDES, Consent, Evidence, Order, Receipt, Record, Side, Step, StepName

_numbers = count(1)


def order(
    name: StepName,
    side: Side,
    epoch: int,
    *,
    token: int = 1,
    intent: str = "",
    receipt: Receipt | None = None,
    consent: Consent | None = None,
    evidence: Evidence | None = None,
    operation: str = "op",
) -> Order:
    """Return an order; every call is another sending unless `intent` says otherwise."""
    step = Step(name, side, epoch, receipt=receipt, consent=consent, evidence=evidence)
    return Order(intent or f"intent-{next(_numbers)}", token, step, operation)


class Pair:
    """Both sides of one pair, each with its own record; `restarted` is the same disk and databases, new agents."""

    def __init__(self, root: Path, world: FakeWorld | None = None) -> None:
        self.root, self.world = root, world or FakeWorld()
        if world is None:
            for row in ("one", "two", "three"):
                self.world.databases["a"].write(row)
        self.crash: Callable[[Point], None] = lambda point: None
        self._runners = {side: self._runner(side) for side in SIDES}

    def _runner(self, side: Side) -> CommandRunner:
        holder = EngineHolder(FakeEngine(self.world, side, autoflow=True))
        moves = BoundMoves(holder, progress=lambda progress: None, cancelled=lambda: False)
        keeper = FileKeeper(self.root, "orders", side)
        return CommandRunner(side=side, keeper=keeper, moves=moves, crash=lambda point: self.crash(point))

    def restarted(self) -> Pair:
        return Pair(self.root, self.world)

    def run(self, asked: Order) -> Outcome:
        assert asked.step.side is not None
        return self._runners[asked.step.side].run(asked)

    def runner(self, side: Side) -> CommandRunner:
        return self._runners[side]

    def record(self, side: Side) -> Record:
        return FileKeeper(self.root, "orders", side).load()

    def consent(self, side: Side, epoch: int) -> Consent:
        return Consent(side, self.world.databases[side].server, epoch, "test")

    def protect(self) -> None:
        """Side a active in epoch 2, side b following and fenced."""
        for asked in (
            order("enrol", "a", 2),
            order("enrol", "b", 2),
            order("promote", "a", 2, evidence="initial"),
            order("seed", "b", 2, consent=self.consent("b", 2)),
            order("fence", "b", 2),
            order("stream", "b", 2),
        ):
            assert self.run(asked).state == "done", asked
