"""Commit on the source to visible on the target at about 500 transactions a second, from the journal and directly."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.report import median, percentile, report
from tests.bench.streams import (
    Journal,
    alternately,
    follow_directly,
    follow_journal,
    fresh_target,
    source_account,
    wait_applied,
)
from tests.testbed.load import Load, LoadSize, prepare
from tests.testbed.mysql import MySQLServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "8"))
SAMPLE_SECONDS = 0.003
CLIENT = ("app", "application")
NEWEST = (
    "SELECT last_applied_transaction, TIMESTAMPDIFF(MICROSECOND, last_applied_transaction_original_commit_timestamp, "
    "last_applied_transaction_end_apply_timestamp) FROM performance_schema.replication_applier_status_by_worker "
    "WHERE last_applied_transaction <> ''"
)


def lags(target: MySQLServer) -> list[float]:
    """Return the milliseconds from commit on the source to the end of apply, of every transaction that was sampled."""
    found: dict[str, float] = {}
    ends = time.monotonic() + SECONDS
    with target.connect() as session, session.cursor() as cursor:
        while time.monotonic() < ends:
            cursor.execute(NEWEST)
            found |= {str(gtid): float(micros) / 1000 for gtid, micros in cursor.fetchall()}
            time.sleep(SAMPLE_SECONDS)
    return list(found.values())


def main() -> None:
    """Measure and report."""
    directory = Path(tempfile.mkdtemp(prefix="bench-lag-"))
    source = MySQLServer.create(directory, name="source")
    target = fresh_target(directory, "target")
    source_account(source)
    journal = Journal(directory, source)
    samples: dict[str, list[float]] = {"ours": [], "peer": []}
    try:
        journal.start()
        prepare(source, user=CLIENT[0], password=CLIENT[1])
        size = LoadSize(clients=8, processes=1, rate_per_second=500)
        with Load(directory, host="127.0.0.1", port=source.port, user=CLIENT[0], password=CLIENT[1], size=size) as load:

            def p99(name: str, attach: Callable[[], None]) -> float:
                attach()
                target.execute("START REPLICA")
                wait_applied(target, source.gtid_executed())
                values = lags(target)
                samples[name] += values
                return percentile(values, 0.99)

            measured = alternately(
                ROUNDS,
                {
                    "peer": lambda: p99("peer", lambda: follow_directly(target, source)),
                    "ours": lambda: p99("ours", lambda: follow_journal(target, journal)),
                },
            )
            load.stop()
    finally:
        journal.close()
        target.remove()
        source.remove()
        shutil.rmtree(directory, ignore_errors=True)
    detail = {name: {"p50": round(percentile(values, 0.5), 2), "n": len(values)} for name, values in samples.items()}
    report("mysql_lag_p99", ours=median(measured["ours"]), peer=median(measured["peer"]), unit="ms", detail=detail)


if __name__ == "__main__":
    main()
