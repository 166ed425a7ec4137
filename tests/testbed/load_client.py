"""Clients that write without pause and record what became of every transaction; one process of them.

Started by `load.py` as a process of its own, with its orders as JSON on standard input; ends at SIGTERM. A client
reconnects at once and never repeats a transaction: what was not answered with OK stays *unknown* or an *error*.
Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import pymysql
import pymysql.connections
from pymysql.cursors import Cursor

BACK_OFF_SECONDS = 0.005
BEHIND_SECONDS_MAX = 1.0
"""A client further behind its rate than this (after an outage) does not try to make up for it."""
FLUSH_SECONDS = 0.2
NUMBERS_PER_CLIENT = 100_000_000
BIG_ROW_BYTES = 1 << 20
EVERY_UPDATE = 3
"""Each third transaction updates the client's counter, the others append a row."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What one process of clients has to do; given as JSON."""

    endpoint: str
    """File with `HOST PORT`, read at every connect."""
    records: str
    """Folder for the record files."""
    user: str
    password: str
    database: str
    clients: tuple[int, ...]
    """Numbers of this process's clients, unique among all clients that ever wrote there."""
    seconds_between: float
    """Of one client's transactions, start to start; 0 is flat out."""
    row_bytes: int
    answer_seconds: float
    """A client waits this long for an answer; then the outcome is unknown."""
    ddl_client: int
    """A client number for statements that change tables, every `ddl_seconds`; 0: none."""
    ddl_seconds: float
    big_client: int
    """A client number for one transaction of `big_bytes`; 0: none."""
    big_bytes: int


class Recorder:
    """Appends one line a transaction: `kind number start end outcome code`."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a")
        self._lines: list[str] = []
        self._flushed = time.monotonic()

    def add(self, kind: str, number: int, start: float, outcome: str, code: int = 0) -> None:
        """Record a transaction that ends now."""
        now = time.monotonic()
        self._lines.append(f"{kind} {number} {start:.6f} {now:.6f} {outcome} {code}\n")
        if now - self._flushed > FLUSH_SECONDS:
            self.flush()
            self._flushed = now

    def flush(self) -> None:
        """Write what was recorded to the file."""
        self._file.write("".join(self._lines))
        self._file.flush()
        self._lines = []

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


class Client:
    """One connection that writes, one transaction after another."""

    def __init__(self, orders: Orders, number: int, stopping: threading.Event) -> None:
        self.orders = orders
        self.number = number
        self.stopping = stopping
        self.recorder = Recorder(Path(orders.records) / f"{number}")
        self._session: pymysql.connections.Connection[Cursor] | None = None
        self._sent = 0

    def run(self) -> None:
        """Write until told to stop."""
        try:
            self._until_ok("C", lambda cursor: cursor.execute(f"INSERT IGNORE INTO counters VALUES ({self.number}, 0)"))
            self.recorder.flush()  # tells the starter that this client writes
            due = time.monotonic()
            while not self.stopping.is_set():
                self._sent += 1
                if self._sent % EVERY_UPDATE == 0:
                    self.attempt("U", self._count)
                else:
                    self.attempt("I", self._append)
                due = self._wait(due)
        finally:
            self.close()

    def run_ddl(self) -> None:
        """Change tables until told to stop."""
        try:
            while not self.stopping.wait(self.orders.ddl_seconds):
                self._sent += 1
                self.attempt("D", self._change_tables)
        finally:
            self.close()

    def run_big(self) -> None:
        """Write one big transaction, again under a new number until one is answered with OK."""
        try:
            self._until_ok("B", self._big)
        finally:
            self.close()

    def attempt(self, kind: str, work: Callable[[Cursor], object]) -> bool:
        """Do one transaction, connecting first if need be, and record it; True when it was answered with OK."""
        start = time.monotonic()
        if self._session is None and not self._connect(start):
            return False
        assert self._session is not None
        try:
            with self._session.cursor() as cursor:
                work(cursor)
        except pymysql.err.Error as error:
            code = int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
            # 2000-2999 and 0 are the client's own words (errmsg.h): the connection broke, and the server may have
            # committed. Any other number is the server's refusal.
            outcome = "unknown" if code == 0 or 2000 <= code < 3000 else "error"
            self.recorder.add(kind, self._sent, start, outcome, code)
            self._disconnect()
            self.stopping.wait(BACK_OFF_SECONDS)
            return False
        self.recorder.add(kind, self._sent, start, "ok")
        return True

    def close(self) -> None:
        """End the connection and the record file."""
        self._disconnect()
        self.recorder.close()

    def _until_ok(self, kind: str, work: Callable[[Cursor], object]) -> None:
        while not self.stopping.is_set():
            self._sent += 1
            if self.attempt(kind, work):
                return

    def _append(self, cursor: Cursor) -> None:
        row = self.number * NUMBERS_PER_CLIENT + self._sent
        cursor.execute(f"INSERT INTO appended (id, filler) VALUES ({row}, '{'v' * self.orders.row_bytes}')")

    def _count(self, cursor: Cursor) -> None:
        cursor.execute(f"UPDATE counters SET n = n + 1 WHERE client = {self.number}")

    def _change_tables(self, cursor: Cursor) -> None:
        side = f"side_{self.number}_{self._sent}"
        cursor.execute(f"CREATE TABLE {side} (id INT PRIMARY KEY, v INT)")
        cursor.execute(f"INSERT INTO {side} VALUES (1, {self._sent})")
        cursor.execute(f"ALTER TABLE {side} ADD COLUMN more VARCHAR(20) DEFAULT 'x', ADD KEY (v)")
        cursor.execute(f"DROP TABLE IF EXISTS side_{self.number}_{self._sent - 3}")
        cursor.execute(f"ALTER TABLE appended ADD COLUMN note_{self._sent} INT DEFAULT {self._sent}")
        cursor.execute(f"ALTER TABLE appended DROP COLUMN note_{self._sent}")

    def _big(self, cursor: Cursor) -> None:
        rows = max(1, self.orders.big_bytes // BIG_ROW_BYTES)
        cursor.execute("BEGIN")
        for row in range(rows):
            filler = f"REPEAT('{row % 10}', {BIG_ROW_BYTES})"
            cursor.execute(f"INSERT INTO big VALUES ({self.number}, {self._sent}, {row}, {rows}, {filler})")
        cursor.execute("COMMIT")

    def _wait(self, due: float) -> float:
        if not self.orders.seconds_between:
            return due
        due += self.orders.seconds_between
        ahead = due - time.monotonic()
        if ahead > 0:
            self.stopping.wait(ahead)
        elif -ahead > BEHIND_SECONDS_MAX:
            return time.monotonic()
        return due

    def _connect(self, start: float) -> bool:
        try:
            host, port = Path(self.orders.endpoint).read_text().split()
            self._session = pymysql.connect(
                host=host,
                port=int(port),
                user=self.orders.user,
                password=self.orders.password,
                database=self.orders.database,
                autocommit=True,
                ssl_disabled=True,
                connect_timeout=3,
                read_timeout=self.orders.answer_seconds,
                write_timeout=self.orders.answer_seconds,
            )
        except pymysql.err.Error as error:
            code = int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
            self.recorder.add("N", self._sent, start, "error", code)  # nothing was sent: surely not committed
            self.stopping.wait(BACK_OFF_SECONDS)
            return False
        return True

    def _disconnect(self) -> None:
        if self._session is not None:
            with contextlib.suppress(pymysql.err.Error, OSError):
                self._session.close()
            self._session = None


def main() -> None:
    """Run the clients of one process until SIGTERM."""
    given = json.load(sys.stdin)
    orders = Orders(**{**given, "clients": tuple(given["clients"])})
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    work = [Client(orders, number, stopping).run for number in orders.clients]
    if orders.ddl_client:
        work.append(Client(orders, orders.ddl_client, stopping).run_ddl)
    if orders.big_client:
        work.append(Client(orders, orders.big_client, stopping).run_big)
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
