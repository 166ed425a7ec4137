"""The fence on a real server: whatever clients are doing, and whatever restarts afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from farshore_agent.mysql import persisted
from farshore_agent.mysql.connections import Session, address, dial
from farshore_schema.errors import FarshoreError, Permanent
from tests.e2e.mysql.sites import APP_PASSWORD, APP_USER, SECRETS, TABLE, Sites, still_holds
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql


@pytest.fixture
def server(sites: Sites) -> Iterator[MySQLServer]:
    """Side a, open; its fence is taken away again after the test."""
    made = sites.servers["a"]
    made.execute("SET PERSIST super_read_only = OFF, PERSIST read_only = OFF", f"DELETE FROM {TABLE}")
    yield made
    with made.connect() as session, session.cursor() as cursor:
        cursor.execute("SET PERSIST super_read_only = OFF, PERSIST read_only = OFF")
        cursor.execute("XA RECOVER CONVERT XID")
        for row in cursor.fetchall():
            cursor.execute(f"XA ROLLBACK {row[3]}")


@pytest.fixture
def fence(sites: Sites, server: MySQLServer) -> Iterator[Callable[[], str]]:
    engine = sites.engine("a")
    yield lambda: engine.fence(4)
    engine.close()


@contextlib.contextmanager
def client(server: MySQLServer, **arguments: Any) -> Iterator[pymysql.cursors.Cursor]:
    """A session of an ordinary client."""
    session = pymysql.connect(
        host=server.host, port=server.port, user=APP_USER, password=APP_PASSWORD, **{"autocommit": True, **arguments}
    )
    try:
        with contextlib.suppress(pymysql.err.Error), session.cursor() as cursor:
            yield cursor
    finally:
        with contextlib.suppress(pymysql.err.Error):
            session.close()


def in_background(server: MySQLServer, *statements: str) -> threading.Thread:
    """Run statements in a session of their own, and return when the last one runs on the server."""

    def run() -> None:
        with contextlib.suppress(pymysql.err.Error), client(server) as cursor:
            for statement in statements:
                cursor.execute(statement)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    last = statements[-1]
    wait_until(
        lambda: server.query("SELECT 1 FROM performance_schema.processlist WHERE INFO = %s", (last,)),
        f"{last} runs",
    )
    return thread


def closed_for_good(server: MySQLServer) -> bool:
    with own_session(server) as session:
        return persisted.switches(session).closed_for_good


@contextlib.contextmanager
def own_session(server: MySQLServer) -> Iterator[Session]:
    to = SITES_ADDRESS(server)
    with dial(to) as session:
        yield session


def SITES_ADDRESS(server: MySQLServer) -> Any:  # noqa: N802
    raise NotImplementedError
