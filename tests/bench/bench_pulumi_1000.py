"""First `up` and no-op `up` of 1,000 pairs against 1,000 resources of an empty dynamic provider, alternately.

No agent takes part, so that only the declarations are measured; before the no-op runs every pair is decided on paper,
as those of a protected estate are.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from farshore.clock import SystemClock
from farshore.store import keys
from farshore.store.records import Records, RoleRecord, put
from farshore.store.sqlite import SqliteStore
from tests.bench.fleet import CREATED, EPOCH
from tests.bench.report import median, report
from tests.e2e.provider.conftest import endpoint, pair
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.reconciler import Reconciler

COUNT = int(os.environ.get("BENCH_PAIRS", "1000"))
NO_OP_RUNS = 3
OURS = Path(__file__).with_name("pairs_program")
EMPTY = Path(__file__).with_name("empty_program")
CHECKOUT = Path(__file__).resolve().parents[2]


def timed(stack: Stack) -> float:
    """Return the seconds of one `up`."""
    began = time.monotonic()
    stack.up(seconds=1800).ok()
    return time.monotonic() - began


def decide(directory: Path) -> None:
    """Write the first decision of every pair into the store of a reconciler that does not run."""
    store = SqliteStore(directory, SystemClock())
    try:
        for found in list(Records(store).specs()):
            role = RoleRecord(active="a", epoch=EPOCH, evidence="initial", since=CREATED)
            store.txn([], [put(keys.role(found.value.document.name), role)])
    finally:
        store.close()


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
            ours, peer = engine.stack("ours", template=OURS), engine.stack("peer", template=EMPTY)
            for stack in (ours, peer):
                stack.config_set("pairs_file", str(file))
            first_peer, first_ours = timed(peer), timed(ours)
            reconciler.stop()
            decide(reconciler.directory)
            reconciler.start()
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
