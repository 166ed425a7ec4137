"""The engine contract on the in-memory fake, and what only the fake can show: every interruption at every point."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial

import pytest

from farshore_agent.engines import Engine
from farshore_agent.engines.fake import FakeEngine
from farshore_agent.engines.fake_world import DatabaseRefused, FakeWorld, position
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import SIDES, Receipt, Side
from tests.contract.engine_suite import (
    FIRST_ROWS,
    Bench,
    EngineSuite,
    Seeded,
    consent_for,
    never,
    nothing_newer,
    protect,
    switch_to_b,
)


class FakeBench:
    """The suite's hands on a `FakeWorld`."""

    def __init__(self, world: FakeWorld | None = None) -> None:
        self.world = world or FakeWorld()
        for row in FIRST_ROWS:
            self.world.databases["a"].write(row)

    def engine(self, side: Side) -> Engine:
        return FakeEngine(self.world, side, autoflow=True)

    def write(self, side: Side, row: str) -> bool:
        try:
            self.world.databases[side].write(row)
        except DatabaseRefused:
            return False
        return True

    def rows(self, side: Side) -> set[str]:
        return set(self.world.databases[side].executed)

    def settle(self, side: Side) -> None:
        self.world.flow()
        assert not self.world.missing(side)
        assert not self.world.backlog(side)

    def kill(self, side: Side) -> None:
        self.world.databases[side].kill()

    def restart(self, side: Side) -> None:
        self.world.databases[side].restart()

    def break_applier(self, side: Side) -> None:
        self.world.streams[side].applier_broken = True

    def await_backlog(self, side: Side) -> None:
        self.world.flow()
        assert self.world.backlog(side)

    def put_data(self, side: Side) -> None:
        self.world.databases[side].write("own-data")

    def server(self, side: Side) -> str:
        return self.world.databases[side].server

    def replace(self, side: Side, *, emptied: bool = False) -> None:
        database = self.world.databases[side]
        database.server += "-next"
        if emptied:
            database.committed.clear()


class TestFakeEngine(EngineSuite):
    """The contract."""

    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


class AgentKilled(BaseException):
    """kill -9 of the agent in the middle of an effect."""


def points_of(scenario: Callable[[Bench], object]) -> list[tuple[str, Side]]:
    """Return every fault point that a scenario passes, in order."""
    passed: list[tuple[str, Side]] = []
    scenario(FakeBench(FakeWorld(hook=lambda point, side: passed.append((point, side)))))
    return passed


def protect_and_switch(bench: Bench) -> None:
    protect(bench)
    switch_to_b(bench)
    bench.engine("a").stream(4)


STEPS: list[Callable[[Bench, dict[str, Receipt]], None]] = [
    lambda bench, kept: bench.engine("a").promote(2, "initial", None, nothing_newer),
    lambda bench, kept: bench.engine("b").seed(Seeded().call(2, consent=consent_for(bench, "b", 2))),
    lambda bench, kept: bench.engine("a").prepare(4),
    lambda bench, kept: kept.update(fence=Receipt("a", 4, bench.engine("a").fence(4))),
    lambda bench, kept: bench.engine("b").drain(kept["fence"], never),
    lambda bench, kept: bench.engine("b").promote(4, "fenced", kept["fence"], nothing_newer),
    lambda bench, kept: bench.engine("a").stream(4),
]


@pytest.mark.parametrize("at", range(len(points_of(protect_and_switch))))
@pytest.mark.parametrize("restarting", [False, True], ids=["database stays", "databases restart"])
def test_a_switchover_interrupted_at_any_point_ends_the_same_when_repeated(at: int, restarting: bool) -> None:
    """Killed at point N of protect-and-switch, also with both databases restarting then, the repeat ends the same."""
    world = FakeWorld()
    bench = FakeBench(world)
    countdown = [at]

    def hook(_point: str, _side: Side) -> None:
        countdown[0] -= 1
        if countdown[0] == -1:
            raise AgentKilled

    world.hook = hook
    kept: dict[str, Receipt] = {}
    interruptions = 0
    for number, step in enumerate(STEPS):
        try:
            step(bench, kept)
        except AgentKilled:
            interruptions += 1
            if restarting:
                for side in SIDES:
                    bench.kill(side)
                    bench.restart(side)
            step(bench, kept)
        open_sides = [side for side in SIDES if world.databases[side].writable]
        assert number == 0 or len(open_sides) <= 1  # the empty new server is open until its seed
        assert "fence" not in kept or "a" not in open_sides
    assert interruptions == 1
    assert bench.write("b", "after")
    bench.settle("a")
    assert bench.rows("a") == bench.rows("b") == {*FIRST_ROWS, "after"}
    assert not bench.write("a", "on-the-standby")


def restart_if_down(bench: FakeBench, side: Side) -> None:
    if not bench.world.databases[side].up:
        bench.restart(side)


@pytest.mark.parametrize("seed", range(50))
def test_moves_in_any_order_raise_only_our_errors_and_never_open_a_side(seed: int) -> None:
    """Two hundred random moves, kills and restarts without a promote: no foreign exception, no second open side."""
    dice = random.Random(seed)
    bench = FakeBench()
    protect(bench)
    epoch = 2
    for number in range(200):
        side = dice.choice(SIDES)
        engine = bench.engine(side)
        receipt = Receipt("b" if side == "a" else "a", epoch, position(bench.rows(dice.choice(SIDES))))
        seeded = Seeded().call(epoch, consent=dice.choice([None, consent_for(bench, side, epoch)]))
        moves: list[Callable[[], object]] = [
            partial(engine.stream, epoch),
            partial(engine.prepare, epoch),
            partial(engine.drain, receipt, never),
            partial(engine.fence, epoch),
            partial(engine.stop_acks, epoch),
            engine.cleanup,
            engine.observe,
            partial(engine.seed, seeded),
            partial(bench.write, side, f"row-{number}"),
            partial(bench.kill, side),
            partial(restart_if_down, bench, side),
        ]
        with contextlib.suppress(FarshoreError):
            dice.choice(moves)()
        assert not bench.world.databases["b"].writable


def test_what_was_not_persisted_is_gone_after_a_restart() -> None:
    """The fake forgets a switch that was set without persisting it, as a server does: the honest half of R13."""
    world = FakeWorld()
    database = world.databases["a"]
    database.set_read_only(True, persist=False)
    assert not FakeEngine(world, "a").observe().fence_holds
    database.kill()
    database.restart()
    assert database.writable


def test_a_replaced_source_and_a_new_history_stop_the_stream() -> None:
    """Another server at the endpoint, or a source that lost what was received, stops the stream with its code (R3)."""
    for code in ("source_replaced", "history_reset"):
        bench = FakeBench()
        protect(bench)
        assert bench.write("a", "received")
        bench.settle("b")
        if code == "source_replaced":
            bench.world.databases["a"].server = "another"
        else:
            bench.world.databases["a"].committed.remove("received")
        assert bench.write("a", "of-the-new-life")
        bench.world.flow()
        seen = bench.engine("b").observe()
        assert (seen.stopped, seen.receiving) == (code, False)
        assert "of-the-new-life" not in bench.rows("b")
