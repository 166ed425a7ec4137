"""A witness of I1: it tries to commit at both servers directly, and asks both role probes, all the time.

It reads nothing that the product says. One commit at a server, then one at the other, then one at the first again is
proof that both could commit at some time without a decision in between; so the number of changes that are proved by
commits that do not overlap may never be larger than the number of role changes that were decided.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import pymysql

from tests.testbed.load import DATABASE
from tests.testbed.mysql import MySQLServer

PAUSE_SECONDS: Final = 0.004
"""Between two tries at one server: it is asked a few hundred times in a second, which two small servers bear."""
ANSWER_SECONDS: Final = 3.0
JOIN_SECONDS: Final = 20.0
ROWS_PER_LIFE: Final = 10_000_000
TABLE: Final = f"{DATABASE}.witness"

_lives = itertools.count(1)


class Sight(NamedTuple):
    """One success at one site: it happened between `start` and `end` (CLOCK_MONOTONIC)."""

    site: str
    start: float
    end: float
    row: int = 0  # of a commit


def changes(sights: Sequence[Sight]) -> list[Sight]:
    """Return the longest chain of sights that do not overlap and alternate between the sites.

    One less than its length is the number of role changes that are proved to have happened.
    """
    chain: list[Sight] = []
    for sight in sorted(sights, key=lambda each: each.end):
        if not chain or (sight.site != chain[-1].site and sight.start > chain[-1].end):
            chain.append(sight)
    return chain


def make_table(server: MySQLServer) -> None:
    """Make the table that the witness writes to, beside those of the load."""
    server.execute(f"CREATE TABLE {TABLE} (id BIGINT PRIMARY KEY, site VARCHAR(64) NOT NULL)")


class Witness:
    """Watches two sites from entering the context until `stop`."""

    def __init__(self, servers: Mapping[str, MySQLServer], probes: Mapping[str, int], *, login: tuple[str, str]):
        """`login` is an ordinary client's account, with rights in the load's database only."""
        self._user, self._password = login
        self._over = threading.Event()
        self.commits: list[Sight] = []
        self.primaries: list[Sight] = []
        self._threads = [
            *(threading.Thread(target=self._commit, args=(site, server)) for site, server in servers.items()),
            *(threading.Thread(target=self._ask, args=(site, port)) for site, port in probes.items()),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End watching. Idempotent."""
        self._over.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
            assert not thread.is_alive(), "a thread of the witness does not end"

    def committed_at(self, site: str, since: float) -> bool:
        """Return whether a transaction that began after `since` was committed at a site."""
        return any(each.site == site and each.start > since for each in reversed(self.commits))

    def lost(self, server: MySQLServer) -> list[Sight]:
        """Return the commits that this server does not hold although the witness was told OK."""
        held = {int(row[0]) for row in server.query(f"SELECT id FROM {TABLE}")}
        return [each for each in self.commits if each.row not in held]

    def _commit(self, site: str, server: MySQLServer) -> None:
        rows = itertools.count(next(_lives) * ROWS_PER_LIFE)
        session: pymysql.Connection[pymysql.cursors.Cursor] | None = None
        while not self._over.wait(PAUSE_SECONDS):
            row, start = next(rows), time.monotonic()
            try:
                session = session or self._dial(server)
                start = time.monotonic()
                with session.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {TABLE} VALUES (%s, %s)", (row, site))
            except pymysql.err.Error:
                if session is not None:
                    with contextlib.suppress(pymysql.err.Error):
                        session.close()
                session = None
            else:
                self.commits.append(Sight(site, start, time.monotonic(), row))
        if session is not None:
            session.close()

    def _dial(self, server: MySQLServer) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=self._user,
            password=self._password,
            autocommit=True,
            ssl_disabled=True,
            connect_timeout=ANSWER_SECONDS,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
        )

    def _ask(self, site: str, port: int) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            start = time.monotonic()
            if says_primary(port):
                self.primaries.append(Sight(site, start, time.monotonic()))


def says_primary(port: int, pair: str = "orders", *, verb: str = "primary") -> bool:
    """Ask a role probe as a proxy does; no answer is no."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        link.request("GET", f"/{verb}/{pair}")
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


Condition = Callable[[], bool]
