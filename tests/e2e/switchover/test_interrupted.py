"""A switchover that is broken at any step ends finished or rolled back, or waits for a named reason (R15, I1, I3).

Every case is one switchover under clients that write through HAProxy, with the witness of `witness.py` watching.
FARSHORE_FAULTS=all runs every part at every moment, and pairs of faults drawn with FARSHORE_FAULTS_SEED.
"""

from __future__ import annotations

import itertools
import os
import random
import zlib
from contextlib import ExitStack
from typing import Final

import pytest

from tests.e2e.switchover.faults import HELD, MOMENT_SECONDS, MOMENTS, PARTS, Attempt, Breaker, held
from tests.e2e.switchover.rig import Rig, now
from tests.testbed.load import outage

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

ALL: Final = os.environ.get("FARSHORE_FAULTS", "") == "all"
SEED: Final = int(os.environ.get("FARSHORE_FAULTS_SEED", "1"))
DOUBLE_FAULTS: Final = 20

CHOSEN: Final = (
    # Each part once or twice, each moment that clients wait for at least twice; what may hurt most where it may.
    ("agent", "fence"),  # noted and not done
    ("reconciler", "fenced"),  # done and not heard of
    ("target MySQL", "drain"),  # its channel does not come back by itself (skip_replica_start)
    ("journal receiver", "fence"),  # with the last transactions not received
    ("agent", "decide"),
    ("reconciler", "decide"),
    ("journal server", "drain"),
    ("source MySQL", "fence"),  # comes back writable or fenced
    ("probes", "open"),
    ("reverse receiver", "open"),
    ("target MySQL", "open"),  # noted and not done
    ("paused agent", "decide"),
    ("everything", "open"),
)
CHOSEN_TWICE: Final = ((("reconciler", "fence"), ("target MySQL", "drain")),)
EVERY: Final = tuple(itertools.product(PARTS, MOMENTS))


def drawn(seed: int) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return pairs of faults of different parts."""
    lot = random.Random(seed)
    singles = [(part, moment) for part, moment in EVERY if part not in ("everything", "paused agent")]
    pairs = [(one, two) for one, two in itertools.permutations(singles, 2) if one[0] != two[0]]
    return lot.sample(pairs, DOUBLE_FAULTS)


@pytest.mark.parametrize(("part", "moment"), EVERY if ALL else CHOSEN)
def test_a_switchover_that_is_broken_ends_whole(rig: Rig, part: str, moment: str) -> None:
    """The part is killed at the moment: the operation ends, nothing is lost, never two sides commit."""
    break_and_judge(rig, (part, moment))


@pytest.mark.parametrize(("one", "two"), drawn(SEED) if ALL else CHOSEN_TWICE)
def test_a_switchover_that_is_broken_twice_ends_whole(rig: Rig, one: tuple[str, str], two: tuple[str, str]) -> None:
    """Two parts are killed, each at its moment: the same end."""
    break_and_judge(rig, one, two)


def break_and_judge(rig: Rig, *faults: tuple[str, str]) -> None:
    """Do one switchover, break it, and require R15's end."""
    source, target = rig.active, rig.standby
    attempt = Attempt(rig, source, target, rig.next_epoch, seed=SEED + zlib.crc32(repr(faults).encode()))
    with rig.clients() as clients, ExitStack() as stack:
        stack.enter_context(held(attempt, {moment for _, moment in faults}))
        breakers = [stack.enter_context(Breaker(attempt, part, moment)) for part, moment in faults]
        attempt.operation = rig.request(target)
        attempt.asked.set()
        for breaker in breakers:
            if breaker.moment in HELD:
                breaker.broken.wait(MOMENT_SECONDS)
        attempt.hold.close()
        operation = rig.ended(attempt.operation)
        ended = now()
        attempt.over.set()
        for breaker in breakers:
            breaker.finish(reached=len(faults) == 1)
        assert operation["state"] in ("done", "aborted"), rig.told(operation)
        active = target if operation["state"] == "done" else source
        assert rig.active == active
        rig.heal()
        clients.wait_for_writes(active, ended)
        rig.protected()
        records = clients.judge(decided=int(operation["state"] == "done"))
    print(f"\n{faults}: {operation['state']}; longest write outage {outage(records).seconds:.1f} s")
