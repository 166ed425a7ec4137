"""A target that catches up 50,000 small transactions, from the journal against directly from the source."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.bench.report import median, report
from tests.bench.streams import (
    Journal,
    alternately,
    follow_directly,
    follow_journal,
    fresh_target,
    rss_megabytes,
    source_account,
    wait_applied,
    wait_journaled,
)
from tests.testbed.mysql import MySQLServer

TRANSACTIONS = int(os.environ.get("BENCH_TRANSACTIONS", "50000"))
CONNECTIONS = 8
ROUNDS = 3


def write(source: MySQLServer) -> None:
    """Commit the small transactions, from several connections as an application would."""
    source.execute(
        "SET GLOBAL sync_binlog = 0",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
        "CREATE DATABASE app",
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY, v VARCHAR(100), k INT, KEY (k))",
    )

    def client(number: int) -> None:
        with source.connect() as session, session.cursor() as cursor:
            for n in range(TRANSACTIONS // CONNECTIONS):
                key = number * TRANSACTIONS + n
                cursor.execute("INSERT INTO app.t VALUES (%s, %s, %s)", (key, "v" * 60, key % 1000))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Measure and report."""
    directory = Path(tempfile.mkdtemp(prefix="bench-apply-"))
    source = MySQLServer.create(directory, name="source")
    source_account(source)
    journal = Journal(directory, source)
    numbers = count(1)
    try:
        journal.start()
        idle = [rss_megabytes(journal.receiver.state().pid), rss_megabytes(journal.server.state().pid)]
        write(source)
        position = source.gtid_executed()
        wait_journaled(journal, position)

        def catch_up(attach: Callable[[MySQLServer], None]) -> float:
            target = fresh_target(directory, f"target{next(numbers)}")
            try:
                attach(target)
                began = time.monotonic()
                target.execute("START REPLICA")
                wait_applied(target, position)
                return TRANSACTIONS / (time.monotonic() - began)
            finally:
                target.remove()

        measured = alternately(
            ROUNDS,
            {
                "peer": lambda: catch_up(lambda target: follow_directly(target, source)),
                "ours": lambda: catch_up(lambda target: follow_journal(target, journal)),
            },
        )
        busy = [rss_megabytes(journal.receiver.state().pid), rss_megabytes(journal.server.state().pid)]
    finally:
        journal.close()
        source.remove()
        shutil.rmtree(directory, ignore_errors=True)
    all_of = {name: [round(value) for value in values] for name, values in measured.items()}
    report("mysql_apply", ours=median(measured["ours"]), peer=median(measured["peer"]), unit="trx/s", detail=all_of)
    roles = ("receiver", "server")
    for name, values in (("idle", idle), ("busy", busy)):
        each = {role: round(value, 1) for role, value in zip(roles, values, strict=True)}
        report(f"memory_{name}_stream", ours=sum(values), peer=None, unit="MB RSS of both processes", detail=each)


if __name__ == "__main__":
    main()
