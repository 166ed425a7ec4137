"""Write outage of a planned switchover, seen by clients through HAProxy, against the same steps scripted by hand.

Ours: `POST /operations` to a real reconciler with its agent. The peer: `by_hand.py` on stock replication. Both behind
the same HAProxy recipe, run alternately. Three loads: about 500 transactions a second, and flat out with a full and
with a relaxed standby.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.bench.by_hand import ByHand
from tests.bench.report import median, report
from tests.demo.stage import APPLICATION, Stage
from tests.testbed.load import Load, LoadSize, outage, prepare, verify
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

RUNS = int(os.environ.get("BENCH_RUNS", "10"))
BEFORE_SECONDS = 2.0
AFTER_SECONDS = 3.0
Durability = Literal["full", "relaxed"]
PACED = LoadSize(clients=8, processes=2, rate_per_second=500)
FLAT_OUT = LoadSize(clients=8, processes=4)


def measure(directory: Path, port: int, size: LoadSize, switch: Callable[[], MySQLServer]) -> float:
    """Return the outage of one switchover under load, in seconds. Raises when an acknowledged transaction is lost."""
    user, password = APPLICATION
    with Load(directory, host="127.0.0.1", port=port, user=user, password=password, size=size) as load:
        time.sleep(BEFORE_SECONDS)
        began = time.monotonic()
        new = switch()
        wait_until(
            lambda: any(each.outcome == "ok" and each.start > began + 0.05 for each in load.records()), "clients go on"
        )
        time.sleep(AFTER_SECONDS)
        records = load.stop()
    verdict = verify(new, records)
    if not verdict.exact:
        raise AssertionError(f"acknowledged transactions lost: {verdict}")
    return outage(records, since=began - 1).seconds


class Ours:
    """A protected pair that is moved through the API."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self.stage = Stage(directory / "ours")
        self.stage.__enter__()
        self.stage.servers()
        prepare(self.stage.tokyo.server, user=APPLICATION[0], password=APPLICATION[1])
        self.stage.reconciler()
        self.stage.declare(standby_durability=durability)
        self.stage.farshore.wait_for_phase("orders", "protected")
        self.proxy = self.stage.haproxy()
        wait_until(lambda: self.proxy.up().get("tokyo"), "HAProxy sees the active side")
        self.site = "tokyo"

    def switch(self) -> MySQLServer:
        """Move to the other site; return its server."""
        self.site = "osaka" if self.site == "tokyo" else "tokyo"
        self.stage.farshore.switchover("orders", self.site)
        return self.stage.osaka.server if self.site == "osaka" else self.stage.tokyo.server

    def settle(self) -> None:
        """Wait until the pair is protected again."""
        self.stage.farshore.wait_for_phase("orders", "protected")

    def close(self) -> None:
        """End everything."""
        self.stage.__exit__(None, None, None)


def run(name: str, directory: Path, size: LoadSize, durability: Durability, runs: int) -> None:
    """Measure both sides alternately and report."""
    ours, hand = Ours(directory, durability), ByHand(directory, relaxed=durability == "relaxed")
    try:
        prepare(hand.active, user=APPLICATION[0], password=APPLICATION[1])
        hand.start()

        def by_hand() -> MySQLServer:
            hand.switchover()
            return hand.active

        measured: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(runs):
            wait_until(hand.caught_up, "the peer's standby caught up")
            measured["peer"].append(measure(directory, hand.proxy.port, size, by_hand))
            ours.settle()
            measured["ours"].append(measure(directory, ours.proxy.port, size, ours.switch))
        report(
            f"switchover_outage_{name}",
            ours=median(measured["ours"]) * 1000,
            peer=median(measured["peer"]) * 1000,
            unit="ms",
            detail={
                "runs": runs,
                "ours_max": round(max(measured["ours"]) * 1000),
                "peer_max": round(max(measured["peer"]) * 1000),
                "ours_all": [round(value * 1000) for value in measured["ours"]],
                "peer_all": [round(value * 1000) for value in measured["peer"]],
            },
        )
    finally:
        ours.close()
        hand.close()


def main() -> None:
    """Run the three loads."""
    directory = Path(tempfile.mkdtemp(prefix="bench-switchover-"))
    try:
        for name, size, durability, runs in (
            ("paced_500", PACED, "relaxed", RUNS),
            ("flat_out_full", FLAT_OUT, "full", max(3, RUNS // 2)),
            ("flat_out_relaxed", FLAT_OUT, "relaxed", max(3, RUNS // 2)),
        ):
            work = directory / name
            work.mkdir()
            run(name, work, size, "full" if durability == "full" else "relaxed", runs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
