"""First `up` and no-op `up` of 1,000 pairs against 1,000 resources of an empty dynamic provider, alternately."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.bench.report import median, report
from tests.e2e.provider.conftest import PROGRAM, endpoint, pair
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.reconciler import Reconciler

COUNT = int(os.environ.get("BENCH_PAIRS", "1000"))
NO_OP_RUNS = 3
EMPTY = Path(__file__).with_name("empty_program")
CHECKOUT = Path(__file__).resolve().parents[2]


def timed(stack: Stack) -> float:
    """Return the seconds of one `up`."""
    began = time.monotonic()
    stack.up(seconds=1800).ok()
    return time.monotonic() - began


def main() -> None:
    """Measure and report."""
    directory = Path(tempfile.mkdtemp(prefix="bench-pulumi-"))
    many = [
        pair(f"p{n:04}", site_a=endpoint("tokyo", 10000 + n), site_b=endpoint("osaka", 20000 + n)) for n in range(COUNT)
    ]
    file = directory / "pairs.json"
    file.write_text(json.dumps(many))
    try:
        with Reconciler(directory / "reconciler", arguments=("--no-embedded-agent",)) as reconciler:
            environment = {**reconciler.environment, "PYTHONPATH": str(CHECKOUT)}
            engine = PulumiEngine(directory / "pulumi", environment=environment)
            ours, peer = engine.stack("ours", template=PROGRAM), engine.stack("peer", template=EMPTY)
            for stack in (ours, peer):
                stack.config_set("pairs_file", str(file))
            first_peer, first_ours = timed(peer), timed(ours)
            again_peer, again_ours = [], []
            for _ in range(NO_OP_RUNS):
                again_peer.append(timed(peer))
                again_ours.append(timed(ours))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report("pulumi_1000_first_up", ours=first_ours, peer=first_peer, unit="s", detail={"pairs": COUNT})
    report("pulumi_1000_no_op_up", ours=median(again_ours), peer=median(again_peer), unit="s", detail={"pairs": COUNT})


if __name__ == "__main__":
    main()
