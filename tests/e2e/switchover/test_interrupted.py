"""A switchover that is broken at any step ends finished or rolled back, or waits for a named reason (R15, I1, I3)."""

from __future__ import annotations

import os
import zlib

import pytest

from tests.e2e.switchover.faults import MOMENTS, PARTS, Attempt, Breaker, held
from tests.e2e.switchover.rig import Rig, now
from tests.testbed.load import outage

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

ALL = os.environ.get("FARSHORE_FAULTS", "") == "all"
SEED = int(os.environ.get("FARSHORE_FAULTS_SEED", "1"))
CHOSEN = (
    ("target MySQL", "drain"),
    ("journal server", "fence"),
    ("target MySQL", "fence"),
    ("agent", "fence"),
    ("reconciler", "decide"),
)
EVERY = tuple((part, moment) for moment in MOMENTS for part in PARTS)


@pytest.mark.parametrize(("part", "moment"), EVERY if ALL else CHOSEN)
def test_a_switchover_that_is_broken_ends_whole(rig: Rig, part: str, moment: str) -> None:
    """The part is killed at the moment, under load: the operation ends, nothing is lost, never two sides commit."""
    rig.heal()
    rig.protected()
    source, target = rig.active, rig.standby
    attempt = Attempt(rig, source, target, rig.next_epoch, seed=SEED + zlib.crc32(f"{part}/{moment}".encode()))
    with rig.clients() as clients:
        with held(attempt, moment), Breaker(attempt, part, moment) as breaker:
            attempt.operation = rig.request(target)
            attempt.asked.set()
            breaker.wait()
        broken = now()
        breaker.mend()
        operation = rig.ended(attempt.operation)
        ended = now()
        assert operation["state"] in ("done", "aborted"), rig.told(operation)
        active = target if operation["state"] == "done" else source
        assert rig.active == active
        clients.wait_for_writes(active, ended)
        rig.protected()
        protected = now()
        records = clients.judge(decided=int(operation["state"] == "done"))
    print(  # with pytest -s: what R15 came to in this case
        f"\n{part} at {moment}: {operation['state']} {ended - broken:.1f} s after the fault, protected after"
        f" {protected - broken:.1f} s; longest write outage {outage(records).seconds:.1f} s"
    )
