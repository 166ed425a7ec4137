"""A full copy of 20 mixed tables with secondary keys, against `mysqldump --single-transaction | mysql`.

`BENCH_SEED_MB` is about how much data there is (1024). CLONE, which copies files and wants a target that somebody
restarts, is reported beside it.
"""

# ruff: noqa: E501 - definitions of tables are easier to read whole

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection

from farshore_agent.mysql.accounts import AccountKind, creation_statements
from farshore_agent.mysql.seed import Account, Connect, SeedSettings, run_seed
from tests.bench.report import median, report
from tests.bench.streams import alternately
from tests.testbed.mysql import MySQLServer, mysql_program

MEGABYTES = int(os.environ.get("BENCH_SEED_MB", "1024"))
ROUNDS = int(os.environ.get("BENCH_SEED_ROUNDS", "3"))
WORKERS = (1, 2, 4)
SCALE = MEGABYTES / 850
"""At 1 the tables below hold about 850 MB in their clustered indexes."""
OPTIONS = ("innodb_buffer_pool_size=2G", "innodb_redo_log_capacity=2G", "log_bin_trust_function_creators=ON")
PASSWORD = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
STEP_ROWS = 50_000

WORDS = "ELT(1 + n % 8, 'hello ', 'мир ', '世界 ', 'naïve ', '😀🎉 ', 'back\\\\slash ', 'tab\\there ', 'new\\nline ')"
BYTES = "CONCAT(UNHEX(SHA2(n, 512)), RANDOM_BYTES(960))"

# A spatial key costs both sides 0.15 ms a row, however it is built: one small table of it is enough.
# Each: columns and keys, the SELECT that fills them, rows at scale 1.
TABLES: dict[str, tuple[str, str, int]] = {
    "ints": (
        "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, a INT, b INT UNSIGNED, c SMALLINT, d VARCHAR(32), e VARCHAR(64), "
        "KEY (a), KEY (b), KEY (d)",
        "n, n * 7919 % 1000003, IF(n % 9, n * 31 % 4000000000, NULL), n % 30000, IF(n % 7, LEFT(SHA2(n, 256), 32), NULL), "
        "LEFT(SHA2(n, 256), 40)",
        800_000,
    ),
    "sysbench": (
        "id INT NOT NULL PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k)",
        "n, n * 7919 % 500009, REPEAT(CONCAT(LEFT(SHA2(n, 256), 39), '-'), 3), LEFT(SHA2(-n, 256), 59)",
        500_000,
    ),
    "wide": (
        "id INT NOT NULL PRIMARY KEY, title VARCHAR(200) NOT NULL, body TEXT, more MEDIUMTEXT, KEY (title(50))",
        f"n, CONCAT({WORDS}, n), REPEAT({WORDS}, 100 + n % 200), IF(n % 5, REPEAT({WORDS}, 30), NULL)",
        60_000,
    ),
    "docs": (
        "id INT NOT NULL PRIMARY KEY, j JSON, k JSON NOT NULL, g VARCHAR(40) AS (j->>'$.name') VIRTUAL, KEY (g), "
        "KEY tags ((CAST(k->'$.tags' AS UNSIGNED ARRAY)))",
        f"n, JSON_OBJECT('name', CONCAT('n', n), 'v', RAND(n), 't', REPEAT({WORDS}, 6), 'a', JSON_ARRAY(1, n, NULL)), "
        "JSON_OBJECT('tags', JSON_ARRAY(n % 100, n % 77), 'neg', -n)",
        150_000,
    ),
    "blobs": (
        "id INT NOT NULL PRIMARY KEY, b BLOB, m MEDIUMBLOB, x BINARY(16) NOT NULL, v VARBINARY(255), KEY (x), KEY (v(20))",
        f"n, CONCAT({BYTES}, {BYTES}), IF(n % 3, {BYTES}, NULL), RANDOM_BYTES(16), IF(n % 4, RANDOM_BYTES(30), NULL)",
        40_000,
    ),
    "decimals": (
        "id INT NOT NULL PRIMARY KEY, a DECIMAL(20,6), b DECIMAL(65,30), c DOUBLE, d FLOAT, KEY (a), KEY (c)",
        "n, (RAND(n) - 0.5) * 1e12, IF(n % 5, -1.23456789 * n, NULL), RAND(n) * POW(10, n % 300), RAND(n) * POW(10, n % 30)",
        300_000,
    ),
    "times": (
        "id INT NOT NULL PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP(3) NULL, t TIME(6), y YEAR, KEY (dt), KEY (t)",
        "n, FROM_DAYS(700000 + n % 100000), TIMESTAMP('1000-01-01') + INTERVAL n * 123457 SECOND, "
        "FROM_UNIXTIME(1 + n * 5000.123), SEC_TO_TIME(n), 1901 + n % 250",
        300_000,
    ),
    "bits": (
        "id INT NOT NULL PRIMARY KEY, a BIT(1), b BIT(64) NOT NULL, e ENUM('a','b','x y') NOT NULL, s SET('p','q','r'), "
        "KEY (b), KEY (e)",
        "n, n % 2, n * 922337203685, 1 + n % 3, n % 8",
        250_000,
    ),
    "places": (
        "id INT NOT NULL PRIMARY KEY, g GEOMETRY, p POINT NOT NULL SRID 4326, SPATIAL KEY (p)",
        "n, ST_GeomFromText(CONCAT('LINESTRING(0 0,', n, ' ', n / 3, ')')), "
        "ST_GeomFromText(CONCAT('POINT(', n % 90, ' ', n % 180, ')'), 4326)",
        10_000,
    ),
    "vectors": (
        "id INT NOT NULL PRIMARY KEY, v VECTOR(64), k INT, KEY (k)",
        "n, STRING_TO_VECTOR(CONCAT('[', REPEAT(CONCAT(n / 7, ','), 63), '1]')), n % 1000",
        60_000,
    ),
    "generated": (
        "id INT NOT NULL PRIMARY KEY, a INT NOT NULL, b VARCHAR(50), c INT AS (a * 2 + 1) STORED, "
        "d VARCHAR(60) AS (CONCAT(b, '-', a)) VIRTUAL, i INT INVISIBLE DEFAULT 7, KEY (c), KEY (d)",
        "n, n, CONCAT('b', n)",
        250_000,
    ),
    "no_key": (
        "a INT, b VARCHAR(40), c DATETIME(2), KEY (a), KEY (b)",
        "n % 1000, IF(n % 6, CONCAT('dup', n % 500), NULL), '2020-01-01 10:11:12.34'",
        250_000,
    ),
    "composite": (
        "a INT NOT NULL, b VARCHAR(20) NOT NULL, c DATE NOT NULL, v BIGINT, w VARCHAR(80), PRIMARY KEY (c, b, a), KEY (v), "
        "KEY (w)",
        "n, CONCAT('k', n % 1000), FROM_DAYS(730000 + n % 3000), n * n, REPEAT(LEFT(SHA2(n, 256), 32), 2)",
        300_000,
    ),
    "by_text": (
        "k VARCHAR(64) NOT NULL PRIMARY KEY, v VARCHAR(100) NOT NULL, n INT, KEY (n), UNIQUE KEY (v)",
        "CONCAT('Ключ-', LEFT(SHA2(n, 256), 40)), CONCAT(LEFT(SHA2(n, 256), 32), n), n",
        200_000,
    ),
    "parents": ("id INT NOT NULL PRIMARY KEY, u VARCHAR(30) NOT NULL, UNIQUE KEY (u)", "n, CONCAT('u', n)", 100_000),
    "children": (
        "id INT NOT NULL PRIMARY KEY, pid INT, v VARCHAR(60), KEY (v), FOREIGN KEY (pid) REFERENCES parents (id)",
        "n, NULL, CONCAT('child ', LEFT(SHA2(n, 256), 32))",
        300_000,
    ),
    "nulls": (
        "id INT NOT NULL PRIMARY KEY, a VARCHAR(20), b INT, c DATETIME, d VARBINARY(10), e TEXT, KEY (a), KEY (b)",
        "n, ELT(1 + n % 4, NULL, '', 'NULL', 'N'), IF(n % 2, NULL, n), NOW(), ELT(1 + n % 3, NULL, '', x'fd4e'), '\\n'",
        200_000,
    ),
    "parted": (
        "id INT NOT NULL, d DATE NOT NULL, v VARCHAR(100), PRIMARY KEY (id, d), KEY (v(20)), KEY (d)",
        "n, FROM_DAYS(737000 + n % 2000), REPEAT(LEFT(SHA2(n, 256), 32), 3)",
        250_000,
    ),
    "latin1": (
        "id INT NOT NULL PRIMARY KEY, v VARCHAR(255) CHARACTER SET latin1, k CHAR(10) CHARACTER SET latin1, KEY (v), KEY (k)",
        "n, CONVERT(REPEAT('é', 200) USING latin1), 'k'",
        60_000,
    ),
    "cjk": (
        "id INT NOT NULL PRIMARY KEY, g VARCHAR(100) CHARACTER SET gbk, u VARCHAR(60) CHARACTER SET utf16, KEY (g)",
        "n, _gbk x'bf5cd65cd0d0', CONCAT('u', n, '😀')",
        120_000,
    ),
}
INSERTED = {"generated": " (id, a, b)", "docs": " (id, j, k)"}


def fill(source: MySQLServer) -> None:
    """Make the tables."""
    rows_max = max(rows for _, _, rows in TABLES.values())
    with source.connect() as session, session.cursor() as cursor:
        for statement in (
            "SET SESSION sql_mode='', time_zone='+00:00', cte_max_recursion_depth=10000000, sql_log_bin=0",
            "SET GLOBAL innodb_flush_log_at_trx_commit=2",
            "CREATE DATABASE bench",
            "CREATE DATABASE numbers",
            "CREATE TABLE numbers.n (n INT PRIMARY KEY)",
            "INSERT INTO numbers.n WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < "
            f"{int(rows_max * SCALE) + 1}) SELECT n FROM r",
        ):
            cursor.execute(statement)
        for table, (columns, values, rows) in TABLES.items():
            cursor.execute(f"CREATE TABLE bench.{table} ({columns})")
            for start in range(0, int(rows * SCALE), STEP_ROWS):
                cursor.execute(
                    f"INSERT INTO bench.{table}{INSERTED.get(table, '')} SELECT {values} FROM numbers.n "
                    f"WHERE n > {start} AND n <= {min(start + STEP_ROWS, int(rows * SCALE))}"
                )
            cursor.execute(f"ANALYZE TABLE bench.{table}")
        cursor.execute("DROP DATABASE numbers")
        cursor.execute("RESET BINARY LOGS AND GTIDS")


def account(server: MySQLServer, kind: AccountKind, user: str) -> Connect:
    """Make an account of ours, and return how to log in with it."""
    server.execute("SET sql_log_bin=0", *creation_statements(kind, user, "%", password=PASSWORD))

    def connect(*, program_name: str, local_infile: bool) -> Connection[Any]:
        # The peer uses a Unix socket; without TLS a loopback connection costs about the same.
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=PASSWORD,
            program_name=program_name,
            local_infile=local_infile,
            autocommit=True,
            ssl_disabled=True,
        )

    return connect


@dataclass(frozen=True)
class Measured:
    """One copy: seconds of wall time, and of CPU by who spent them."""

    seconds: float
    source_cpu: float
    target_cpu: float
    client_cpu: float


def server_cpu(server: MySQLServer) -> float:
    """CPU seconds of a server since its start."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def client_cpu() -> float:
    """CPU seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Copies:
    """Makes copies of one source to fresh targets, one after another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = MySQLServer.create(directory, name="source", options=OPTIONS)
        fill(self.source)
        self.login = account(self.source, AccountKind.REPLICATION, "bench_source")
        self.made = 0
        self.kept: dict[str, list[Measured]] = {}

    def measure(self, name: str, copy: Callable[[MySQLServer], None]) -> float:
        """Time a copy to a fresh target, remember it under a name, and return MB per second."""
        self.made += 1
        with MySQLServer.create(self.directory, name=f"target{self.made}", options=OPTIONS) as target:
            before = server_cpu(self.source), server_cpu(target), client_cpu()
            began = time.monotonic()
            copy(target)
            seconds = time.monotonic() - began
            after = server_cpu(self.source), server_cpu(target), client_cpu()
            cpu = [now - then for now, then in zip(after, before, strict=True)]
            counts = [server.scalar("SELECT COUNT(*) FROM bench.ints") for server in (self.source, target)]
            if counts[0] != counts[1]:
                raise AssertionError(f"{name} did not copy everything: {counts}")
            target.remove()
        self.kept.setdefault(name, []).append(Measured(seconds, *cpu))
        return MEGABYTES / seconds

    def ours(self, workers: int) -> Callable[[MySQLServer], None]:
        """Our seed."""

        def copy(target: MySQLServer) -> None:
            admin = account(target, AccountKind.ADMIN, "bench_target")
            skip = (Account(user="bench_source"), Account(user="bench_target"))
            run_seed(
                self.login,
                admin,
                SeedSettings(workers=workers, skip_accounts=skip),
                journal_start=self.source.gtid_executed(),
                state_directory=target.home / "seed",
                progress=lambda progress: None,
                cancelled=lambda: False,
                before_first_write=lambda: None,
            )

        return copy

    def dump(self, target: MySQLServer) -> None:
        """The peer: everything through the standard tools, without a binary log as ours."""
        dump = subprocess.Popen(
            [
                *mysql_program("mysqldump"),
                f"--socket={self.source.socket}",
                "--user=root",
                "--single-transaction",
                "--routines",
                "--events",
                "--hex-blob",
                "--set-gtid-purged=ON",
                "--max-allowed-packet=1G",
                "--databases",
                "bench",
            ],
            stdout=subprocess.PIPE,
        )
        load = [*mysql_program("mysql"), f"--socket={target.socket}", "--user=root", "--max-allowed-packet=1G"]
        subprocess.run(load, stdin=dump.stdout, check=True)
        if dump.wait() != 0:
            raise AssertionError("mysqldump failed")

    def clone(self) -> float:
        """CLONE, until the target answers again."""
        self.source.execute("INSTALL PLUGIN clone SONAME 'mysql_clone.so'", "CREATE USER donor@'%' IDENTIFIED BY 'd'")
        self.source.execute("GRANT BACKUP_ADMIN ON *.* TO donor@'%'")
        with MySQLServer.create(self.directory, name="clone", options=OPTIONS) as target:
            target.execute("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")
            address = f"{self.source.host}:{self.source.port}"
            target.execute(f"SET GLOBAL clone_valid_donor_list='{address}'")
            began = time.monotonic()
            try:
                target.execute(f"CLONE INSTANCE FROM donor@'{self.source.host}':{self.source.port} IDENTIFIED BY 'd'")
            except pymysql.err.MySQLError as error:  # it shuts down and waits for somebody to start it
                if error.args[0] not in (3707, 2013):
                    raise
            target.kill()
            target.start()
            seconds = time.monotonic() - began
            target.remove()
        return MEGABYTES / seconds


def detail(rows: Sequence[Measured]) -> dict[str, object]:
    """All measurements of one kind."""
    return {
        "seconds": [round(row.seconds, 2) for row in rows],
        "cpu source/target/client": [
            [round(row.source_cpu, 1), round(row.target_cpu, 1), round(row.client_cpu, 1)] for row in rows
        ],
    }


def main() -> None:
    """Copy with the peer and with one, two and four workers, alternately."""
    directory = Path(tempfile.mkdtemp(prefix="farshore-bench-"))
    copies: Copies | None = None
    try:
        copies = Copies(directory)
        ways: dict[str, Callable[[], float]] = {"mysqldump": lambda: made.measure("mysqldump", made.dump)}
        made = copies
        for workers in WORKERS:
            ways[f"workers {workers}"] = lambda workers=workers: made.measure(  # type: ignore[misc]
                f"workers {workers}", made.ours(workers)
            )
        measured = alternately(ROUNDS, ways)
        peer = median(measured["mysqldump"])
        for workers in WORKERS:
            name = f"workers {workers}"
            rows = {"mysqldump": detail(copies.kept["mysqldump"]), name: detail(copies.kept[name])}
            bench = "mysql_seed" if workers == 2 else f"mysql_seed_{workers}_workers"
            report(bench, ours=median(measured[name]), peer=peer, unit="MB/s", detail={"megabytes": MEGABYTES, **rows})
        report("mysql_seed_clone", ours=copies.clone(), peer=peer, unit="MB/s", detail={"megabytes": MEGABYTES})
    finally:
        if copies is not None:
            copies.source.remove()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
