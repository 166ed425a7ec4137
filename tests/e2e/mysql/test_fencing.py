"""The fence on a real server: whatever clients are doing, and whatever restarts afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from farshore_agent.mysql import fencing
from farshore_agent.mysql.engine import MySQLEngine
from farshore_schema.errors import Permanent, Transient
from tests.e2e.mysql.sites import APP_PASSWORD, APP_USER, TABLE, Sites
from tests.testbed.load import Load, LoadSize, prepare, verify
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql

Cursor = pymysql.cursors.Cursor


@pytest.fixture
def server(sites: Sites) -> Iterator[MySQLServer]:
    """Side a, open and with one row; its fence is taken away again after the test."""
    made = sites.servers["a"]
    reopen(made)
    made.execute(f"DELETE FROM {TABLE}", f"INSERT INTO {TABLE} VALUES ('kept')")
    yield made
    reopen(made)


@pytest.fixture
def engine(sites: Sites, server: MySQLServer) -> Iterator[MySQLEngine]:
    made = sites.engine("a")
    yield made
    made.close()


def reopen(server: MySQLServer) -> None:
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SET PERSIST super_read_only = OFF, PERSIST read_only = OFF")
        cursor.execute("XA RECOVER CONVERT XID")
        for row in cursor.fetchall():
            cursor.execute(f"XA ROLLBACK {row[3]}")


@contextlib.contextmanager
def client(server: MySQLServer, **arguments: Any) -> Iterator[Cursor]:
    """A session of an ordinary client; it may be ended from outside."""
    settings: dict[str, Any] = {"autocommit": True, **arguments}
    session = pymysql.connect(host=server.host, port=server.port, user=APP_USER, password=APP_PASSWORD, **settings)
    try:
        with session.cursor() as cursor:
            yield cursor
    finally:
        with contextlib.suppress(pymysql.err.Error):
            session.close()


def in_background(server: MySQLServer, statement: str) -> threading.Thread:
    """Run a statement in a session of its own, and return when it runs on the server."""

    def run() -> None:
        with contextlib.suppress(pymysql.err.Error), client(server) as cursor:
            cursor.execute(statement)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    running = "SELECT 1 FROM performance_schema.processlist WHERE INFO = %s AND ID <> CONNECTION_ID()"
    wait_until(lambda: server.query(running, (statement,)), f"{statement} runs")
    return thread


def rows(server: MySQLServer) -> set[str]:
    return {str(row[0]) for row in server.query(f"SELECT name FROM {TABLE}")}


def test_an_open_transaction_neither_delays_a_fence_nor_survives_it(server: MySQLServer, engine: MySQLEngine) -> None:
    """What was begun before the fence cannot be committed after it; its session is ended."""
    with client(server, autocommit=False) as cursor:
        cursor.execute(f"INSERT INTO {TABLE} VALUES ('begun')")
        engine.fence(4)
        with pytest.raises(pymysql.err.Error):
            cursor.execute("COMMIT")
    assert rows(server) == {"kept"}


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {TABLE} SET name = CONCAT(name, SLEEP(40))",
        "CREATE TABLE shop.copied AS SELECT name, SLEEP(40) AS waited FROM shop.rows",
    ],
    ids=["a long update", "long DDL"],
)
def test_a_long_statement_is_ended_and_leaves_nothing(server: MySQLServer, engine: MySQLEngine, statement: str) -> None:
    """A fence gets past statements that would run much longer than it may take; they roll back."""
    thread = in_background(server, statement)
    position = engine.fence(4)
    thread.join(20)
    assert not thread.is_alive()
    assert rows(server) == {"kept"}
    assert not server.query("SHOW TABLES FROM shop LIKE 'copied'")
    assert server.gtid_executed() == position
    assert engine.observe().fence_holds


def test_table_locks_of_a_client_do_not_hold_up_a_fence(server: MySQLServer, engine: MySQLEngine) -> None:
    """LOCK TABLES of an idle client is ended with its session."""
    with client(server) as cursor:
        cursor.execute(f"LOCK TABLES {TABLE} WRITE")
        engine.fence(4)
    assert engine.observe().fence_holds


def test_what_holds_a_fence_up_for_too_long_is_named_and_nothing_is_changed(
    server: MySQLServer, engine: MySQLEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fence is bounded; when it gives up, the side is as open as it was (R13)."""
    monkeypatch.setattr(fencing, "FENCE_SECONDS", 1.0)
    monkeypatch.setattr(fencing, "kill", lambda *_: None)  # as if the session were rolling back something huge
    with client(server) as cursor:
        cursor.execute(f"LOCK TABLES {TABLE} WRITE")
        with pytest.raises(Transient, match=APP_USER) as held:
            engine.fence(4)
    assert held.value.code == "timeout"
    seen = engine.observe()
    assert seen.writable
    assert not seen.fence_holds


def test_an_xa_transaction_cannot_be_prepared_behind_a_fence(server: MySQLServer, engine: MySQLEngine) -> None:
    """A read-only server still prepares what was written before, so the fence ends such sessions before it answers."""
    with client(server) as cursor:
        cursor.execute("XA START 'open'")
        cursor.execute(f"INSERT INTO {TABLE} VALUES ('in-xa')")
        position = engine.fence(4)
        with pytest.raises(pymysql.err.Error):
            cursor.execute("XA END 'open'")
    assert server.query("XA RECOVER") == []
    assert server.gtid_executed() == position


def test_a_prepared_xa_transaction_makes_a_fence_refuse_and_name_it(server: MySQLServer, engine: MySQLEngine) -> None:
    """Anybody may commit a prepared XA transaction on a read-only server: such a side is no proof of anything."""
    with client(server) as cursor:
        for statement in ("XA START 'lost'", f"INSERT INTO {TABLE} VALUES ('in-doubt')", "XA END 'lost'"):
            cursor.execute(statement)
        cursor.execute("XA PREPARE 'lost'")
    with pytest.raises(Permanent, match="XA transactions are prepared") as refused:
        engine.fence(4)
    assert refused.value.code == "not_possible_now"
    assert "0x6C6F7374" in refused.value.message  # 'lost', as XA RECOVER CONVERT XID shows it
    server.execute("XA COMMIT 'lost'")
    position = engine.fence(4)
    assert rows(server) == {"kept", "in-doubt"}
    assert server.gtid_executed() == position


def test_a_fence_waits_for_transaction_managers_that_are_about_to_finish(
    server: MySQLServer, engine: MySQLEngine
) -> None:
    """What is committed in two phases around the fence is part of the position."""
    with client(server) as cursor:
        for statement in ("XA START 'soon'", f"INSERT INTO {TABLE} VALUES ('two-phase')", "XA END 'soon'"):
            cursor.execute(statement)
        cursor.execute("XA PREPARE 'soon'")
    fenced = threading.Event()

    def finish() -> None:
        wait_until(lambda: server.scalar("SELECT @@GLOBAL.super_read_only"), "the server is read-only")
        server.execute("XA COMMIT 'soon'")
        fenced.set()

    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    position = engine.fence(4)
    thread.join(20)
    assert fenced.is_set()
    assert "two-phase" in rows(server)
    assert server.gtid_executed() == position


def test_under_load_nothing_is_acknowledged_behind_the_position(
    sites: Sites, server: MySQLServer, engine: MySQLEngine
) -> None:
    """Clients write as fast as they can; every OK they got is within the position, and all of them are sent away."""
    prepare(server, user="load", password="load-password")
    size = LoadSize(clients=8)
    with Load(
        sites.directory, host=server.host, port=server.port, user="load", password="load-password", size=size
    ) as load:
        position = engine.fence(4)
        assert server.gtid_executed() == position
        records = load.stop()
    assert verify(server, records).exact
    assert server.gtid_executed() == position


def test_a_fence_that_is_persisted_in_the_wrong_order_is_seen_and_mended(
    server: MySQLServer, engine: MySQLEngine
) -> None:
    """read_only=OFF persisted after super_read_only=ON comes back writable; such a fence does not count."""
    server.execute(
        "SET PERSIST super_read_only = ON", "SET PERSIST read_only = OFF", "SET GLOBAL super_read_only = ON",
        "SET PERSIST event_scheduler = OFF",
    )  # fmt: skip
    seen = engine.observe()
    assert (seen.writable, seen.fence_holds) == (False, False)
    engine.fence(4)
    assert engine.observe().fence_holds
    server.kill()
    server.start()
    assert server.query("SELECT @@read_only, @@super_read_only") == [(1, 1)]
    assert engine.observe().fence_holds


def test_a_server_without_event_scheduler_can_be_fenced(server: MySQLServer, engine: MySQLEngine) -> None:
    """event_scheduler=DISABLED cannot be set by anybody, and is as good as OFF."""
    server.execute("RESET PERSIST IF EXISTS event_scheduler")
    server.kill()
    server.start("event_scheduler=DISABLED")
    engine.fence(4)
    assert engine.observe().fence_holds
    server.kill()
    server.start()


@pytest.mark.parametrize("option", ["persisted_globals_load", "performance_schema"])
def test_a_server_whose_fence_would_be_no_evidence_is_refused(
    server: MySQLServer, engine: MySQLEngine, option: str
) -> None:
    """A fence that a restart undoes, or behind which nobody sees the sessions, is none: nothing is changed (R13)."""
    server.kill()
    server.start(f"{option}=OFF")
    try:
        with pytest.raises(Permanent, match=option) as refused:
            engine.fence(4)
        assert refused.value.code == "unsuitable_server"
        assert engine.observe().writable
    finally:
        server.kill()
        server.start()


def test_clients_are_sent_away_and_our_own_sessions_are_not(server: MySQLServer, engine: MySQLEngine) -> None:
    """Idle clients lose their sessions soon after the fence; the observing session of the product stays."""
    engine.observe()
    with client(server) as cursor:
        cursor.execute("SELECT 1")
        engine.fence(4)
        theirs = "SELECT 1 FROM performance_schema.processlist WHERE USER = %s"
        wait_until(lambda: not server.query(theirs, (APP_USER,)), "the client's session is gone")
    assert server.query(theirs, ("farshore_tokyo",))
    assert engine.observe().db == "up"
