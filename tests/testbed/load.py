"""A client load that records every transaction's outcome: for tests, the demo and benchmarks.

    prepare(server, user="shop", password="...")
    with Load(tmp_path, host=proxy.host, port=proxy.port, user="shop", password="...") as load:
        ...                                        # switch, kill, restart: the clients go on
        records = load.stop()
    assert verify(server, records).lost == 0       # load_check.py

The clients are processes of their own, so that the test's own work does not slow them down.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.load_check import Outage, Verdict, outage, verify
from tests.testbed.load_client import Orders
from tests.testbed.mysql import MySQLServer
from tests.testbed.places import CHECKOUT, TestBedError
from tests.testbed.processes import end, spawn
from tests.testbed.records import Record, read_records
from tests.testbed.waiting import wait_until

__all__ = ["Load", "LoadSize", "Outage", "Record", "Verdict", "outage", "prepare", "verify"]

DATABASE = "farshore_load"
CLIENTS_MAX = 1000
STOP_SECONDS = 120.0
"""A client may wait `answer_seconds` for a server that hangs, and a big transaction takes a while."""
TABLES = (
    "CREATE TABLE {0}.appended (id BIGINT PRIMARY KEY, filler VARCHAR(16000))",
    "CREATE TABLE {0}.counters (client BIGINT PRIMARY KEY, n BIGINT NOT NULL)",
    "CREATE TABLE {0}.big (client BIGINT, number BIGINT, place INT, rows_in_all INT, filler LONGBLOB,"
    " PRIMARY KEY (client, number, place))",
)


def prepare(server: MySQLServer, *, user: str, password: str, database: str = DATABASE) -> None:
    """Make the tables of the load and its account, with ordinary rights in that database only."""
    server.execute(f"CREATE DATABASE {database}", *(table.format(database) for table in TABLES))
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
        cursor.execute(f"GRANT ALL ON {database}.* TO %s@'%%'", (user,))


@dataclass(frozen=True, kw_only=True)
class LoadSize:
    """How much is written."""

    clients: int = 4
    processes: int = 1
    """The clients are spread over so many processes, as threads; flat out wants one process a client."""
    rate_per_second: float | None = None
    """Of all clients together; None is flat out."""
    row_bytes: int = 60
    answer_seconds: float = 20.0
    ddl_seconds: float = 0.0
    """One more client changes tables every so many seconds; 0: none."""
    big_bytes: int = 0
    """One more client writes one transaction of this size; 0: none."""


class Load:
    """Clients that write from `start` (or entering the context) to `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        host: str,
        port: int,
        user: str,
        password: str,
        size: LoadSize | None = None,
        database: str = DATABASE,
    ) -> None:
        self.size = size or LoadSize()
        if not 0 < self.size.processes <= self.size.clients <= CLIENTS_MAX:
            raise TestBedError(f"a load has 1..{CLIENTS_MAX} clients, in at most as many processes")
        self.directory = Path(tempfile.mkdtemp(prefix="load-", dir=directory))
        (self.directory / "records").mkdir()
        self._endpoint = self.directory / "endpoint"
        self.redirect(host, port)
        self._login = (user, password, database)
        # Client numbers are unique among all loads that ever wrote to these tables.
        self._numbers = itertools.count(secrets.randbelow(90_000_000) * CLIENTS_MAX + 1)
        self.processes: list[subprocess.Popen[bytes]] = []

    def redirect(self, host: str, port: int) -> None:
        """Let every later connect go to `host`:`port`; open connections stay where they are."""
        fresh = self._endpoint.with_suffix(".new")
        fresh.write_text(f"{host} {port}\n")
        fresh.rename(self._endpoint)

    def start(self) -> None:
        """Start the clients, and return when every one of them had its first OK.

        Raises AssertionError when that takes longer than a minute: a load that cannot write proves nothing.
        """
        log = self.directory / "clients.log"
        with log.open("ab") as output:
            for orders in self._orders():
                with tempfile.TemporaryFile() as given:
                    given.write(json.dumps(asdict(orders)).encode())  # holds the password: never in argv
                    given.seek(0)
                    command = [sys.executable, "-m", "tests.testbed.load_client"]
                    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
                    process = spawn(
                        command, cwd=CHECKOUT, environment=environment, stdin=given, stdout=output, stderr=output
                    )
                self.processes.append(process)
        wait_until(self._writing, f"the load writes (its log: {log})", poll_seconds=0.05)

    def records(self) -> list[Record]:
        """Return what was recorded so far, in no order; the newest moment of each client may be missing."""
        return read_records(self.directory / "records")

    def stop(self) -> list[Record]:
        """Stop the clients, each after its transaction in flight, and return everything they recorded.

        Raises TestBedError when a client process failed by itself: its records are not complete.
        """
        for process in self.processes:
            process.terminate()
        try:
            codes = [process.wait(STOP_SECONDS) for process in self.processes]
        except subprocess.TimeoutExpired as error:
            raise TestBedError(f"a process of load clients did not stop in {STOP_SECONDS:.0f} s") from error
        self.processes = []
        if any(codes):
            words = (self.directory / "clients.log").read_text(errors="replace")[-3000:]
            raise TestBedError(f"a process of load clients failed {codes}: {words}")
        return self.records()

    def _orders(self) -> Iterator[Orders]:
        size = self.size
        user, password, database = self._login
        numbers = [next(self._numbers) for _ in range(size.clients)]
        ddl = next(self._numbers) if size.ddl_seconds else 0
        big = next(self._numbers) if size.big_bytes else 0
        for index in range(size.processes):
            first = index == 0
            yield Orders(
                endpoint=str(self._endpoint),
                records=str(self.directory / "records"),
                user=user,
                password=password,
                database=database,
                clients=tuple(numbers[index :: size.processes]),
                seconds_between=size.clients / size.rate_per_second if size.rate_per_second else 0.0,
                row_bytes=size.row_bytes,
                answer_seconds=size.answer_seconds,
                ddl_client=ddl if first else 0,
                ddl_seconds=size.ddl_seconds,
                big_client=big if first else 0,
                big_bytes=size.big_bytes,
            )

    def _writing(self) -> bool:
        failed = [process.returncode for process in self.processes if process.poll() is not None]
        if failed:
            words = (self.directory / "clients.log").read_text(errors="replace")[-3000:]
            raise TestBedError(f"a process of load clients ended at once {failed}: {words}")
        ready = {each.client for each in self.records() if each.kind == "C" and each.outcome == "ok"}
        return len(ready) == self.size.clients

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            end(process, kill=True)
        self.processes = []
