"""How fast the journal takes in a source's binary log, durably, against `mysqlbinlog --read-from-remote-server --raw`,
which does not sync. Both start as a fresh process and end when they have everything; both use TLS, and both do not."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from farshore_agent.mysql.journal.client import Tls, TlsMode, ensure_receiver
from tests.bench.report import median, report
from tests.bench.streams import ACCOUNT, Journal, alternately, rss_megabytes, source_account, wait_journaled
from tests.testbed.mysql import MySQLServer, mysql_program

MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", "800"))
TRANSACTIONS = int(os.environ.get("BENCH_TRANSACTIONS", "200000"))
CONNECTIONS = 4
ROUNDS = 3
ROW_BYTES = 8000
ROWS_PER_TRANSACTION = 10
PEER_SECONDS_MAX = 600
OPTIONS = ["max_binlog_size=256M", "sync_binlog=0", "innodb_flush_log_at_trx_commit=0", "innodb_doublewrite=OFF"]

_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Load:
    """A source whose binary log is written and closed."""

    source: MySQLServer
    first_file: str
    bytes: int
    transactions: int


def written(source: MySQLServer, statement: str, count: int) -> Load:
    """Commit `statement` `count` times into fresh binary logs."""
    source.execute("RESET BINARY LOGS AND GTIDS")

    def client() -> None:
        with source.connect() as session, session.cursor() as cursor:
            for _ in range(count // CONNECTIONS):
                cursor.execute(statement)

    clients = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    files = source.query("SHOW BINARY LOGS")
    size = sum(int(row[1]) for row in files)
    for name, *_ in files:
        (source.datadir / str(name)).read_bytes()  # from memory for everybody: the source's disk is not the subject
    return Load(source=source, first_file=str(files[0][0]), bytes=size, transactions=count)


@contextmanager
def scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def by_mysqlbinlog(load: Load, *, tls: bool) -> float:
    """Seconds of the peer."""
    with scratch() as directory:
        began = time.perf_counter()
        subprocess.run(
            [
                *mysql_program("mysqlbinlog"), "--no-defaults", "--read-from-remote-server", "--raw", "--to-last-log",
                "--host=127.0.0.1", f"--port={load.source.port}", f"--user={ACCOUNT[0]}",
                f"--ssl-mode={'REQUIRED' if tls else 'DISABLED'}", "--get-server-public-key",
                f"--connection-server-id={700_000 + next(_numbers)}",
                f"--result-file={directory}/", load.first_file,
            ],
            env={**os.environ, "MYSQL_PWD": ACCOUNT[1]}, check=True, timeout=PEER_SECONDS_MAX,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - began


def by_journal(load: Load, peak: list[float], *, tls: bool) -> float:
    """Seconds until everything is durable in a new journal."""
    with scratch() as directory:
        journal = Journal(directory, load.source)
        mode = TlsMode.REQUIRED if tls else TlsMode.DISABLED
        journal.config = replace(journal.config, source=replace(journal.config.source, tls=Tls(mode=mode)))
        wanted = load.source.gtid_executed()
        began = time.perf_counter()
        journal.receiver = ensure_receiver(journal.config)
        try:
            wait_journaled(journal, wanted)
            took = time.perf_counter() - began
            state = journal.receiver.state()
            assert state.bytes >= load.bytes * 0.99, (state, load)
            peak.append(rss_megabytes(state.pid))
            return took
        finally:
            journal.close()


def measure(name: str, load: Load, amount: float, unit: str) -> None:
    for tls in (True, False):
        peak: list[float] = []
        ways: dict[str, Callable[[], float]] = {
            "mysqlbinlog": lambda tls=tls: by_mysqlbinlog(load, tls=tls),  # type: ignore[misc]
            "journal": lambda tls=tls, peak=peak: by_journal(load, peak, tls=tls),  # type: ignore[misc]
        }
        seconds = alternately(ROUNDS, ways)
        ours, peer = (amount / median(seconds[way]) for way in ("journal", "mysqlbinlog"))
        detail = {
            "load": name,
            "tls": tls,
            "megabytes": round(load.bytes / 1e6),
            "seconds": {way: [round(each, 3) for each in found] for way, found in seconds.items()},
            "receiver_rss_mb": round(max(peak), 1),
        }
        row = f"journal_ingest_{name.replace(' ', '_').lower()}_{'tls' if tls else 'plain'}"
        report(row, ours=ours, peer=peer, unit=unit, detail=detail)


def main() -> None:
    """Write the loads, measure, report."""
    with scratch() as directory, MySQLServer.create(directory, name="source", options=OPTIONS) as source:
        source_account(source)
        source.execute(
            "CREATE DATABASE app",
            "CREATE TABLE app.ten (n INT)",
            f"INSERT INTO app.ten VALUES {','.join(['(1)'] * ROWS_PER_TRANSACTION)}",
            "CREATE TABLE app.big (id BIGINT PRIMARY KEY AUTO_INCREMENT, v BLOB)",
            "CREATE TABLE app.small (id BIGINT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(60))",
        )
        count = MEGABYTES * 1_000_000 // (ROW_BYTES * ROWS_PER_TRANSACTION)
        rows = written(source, f"INSERT INTO app.big (v) SELECT REPEAT('r', {ROW_BYTES}) FROM app.ten", count)
        measure("8 KB rows", rows, rows.bytes / 1e6, "MB/s")
        source.execute("TRUNCATE app.big")
        small = written(source, "INSERT INTO app.small (v) VALUES (REPEAT('v', 60))", TRANSACTIONS)
        measure("small transactions", small, small.transactions, "transactions/s")


if __name__ == "__main__":
    main()
