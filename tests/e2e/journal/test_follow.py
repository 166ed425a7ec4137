"""One source, its journal and a real replica through every kind of traffic: everything arrives, byte for byte."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farshore_agent.mysql.journal import client as journal
from tests.conftest import MySQLServerFactory
from tests.e2e.journal.conftest import MakeStream, Stream, fresh_standby
from tests.testbed.mysql import MySQLServer, mysql_program
from tests.testbed.mysql_content import schema_objects, table_checksums
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql

FULL = 0xFFFFFF


@pytest.fixture(scope="module")
def source(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    server = mysql_server_of_module(name="source", options=["max_binlog_size=1M"])
    server.execute(
        "CREATE DATABASE app",
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT, j JSON)",
        "CREATE TABLE app.big (id INT PRIMARY KEY, b LONGBLOB)",
    )
    return server


@pytest.fixture(scope="module")
def standby(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    server = mysql_server_of_module(name="standby", options=["replica_parallel_workers=4"])
    fresh_standby(server)
    return server


@pytest.fixture(scope="module")
def stream(source: MySQLServer, standby: MySQLServer, make_stream_of_module: MakeStream) -> Iterator[Stream]:
    """A journal over verified TLS on both legs, with the standby following it the whole time."""
    made = make_stream_of_module(source)
    made.config = _with_tls(made, journal.Tls(mode=journal.TlsMode.VERIFY_CA, ca_file=source.ca_file))
    made.receive()
    made.serve()
    made.follow(standby)
    yield made
    standby.execute("STOP REPLICA")


def _with_tls(stream: Stream, tls: journal.Tls) -> journal.JournalConfig:
    return replace(stream.config, source=replace(stream.config.source, tls=tls))


def check(stream: Stream, standby: MySQLServer) -> None:
    """Everything is in the journal as the source wrote it, and on the standby as the source has it."""
    stream.caught_up()
    stream.applied_by(standby)
    stream.assert_files_equal_the_source_s()
    assert table_checksums(standby) == table_checksums(stream.source)
    assert standby.scalar("SELECT @@GLOBAL.super_read_only") == 1


def test_small_transactions_and_rotations(stream: Stream, standby: MySQLServer) -> None:
    """Files of one megabyte: many rotations by size and by command, with nothing lost between them."""
    with contextlib.closing(stream.source.connect()) as session, session.cursor() as cursor:
        for number in range(300):
            cursor.execute("INSERT INTO app.t (v) VALUES (REPEAT(%s, 12000))", (chr(97 + number % 26),))
            if number % 130 == 0:
                cursor.execute("FLUSH BINARY LOGS")
    check(stream, standby)
    assert len(stream.files()) > 5
    assert stream.receiver.state().mode is journal.Mode.FOLLOWING
    assert stream.receiver.state().stopped is None


def test_ddl_users_and_programs(stream: Stream, standby: MySQLServer) -> None:
    """Statements, users, routines, triggers, events, views and CREATE TABLE AS SELECT arrive as they are."""
    stream.source.execute(
        "CREATE TABLE app.copied AS SELECT id, LEFT(v, 10) AS v FROM app.t",
        "CREATE TABLE app.audit (n INT)",
        "CREATE TRIGGER app.t_ai AFTER INSERT ON app.t FOR EACH ROW INSERT INTO app.audit VALUES (NEW.id)",
        "CREATE VIEW app.seen AS SELECT id FROM app.t",
        "CREATE PROCEDURE app.p() INSERT INTO app.audit VALUES (7)",
        "CREATE EVENT app.e ON SCHEDULE EVERY 1 DAY DO INSERT INTO app.audit VALUES (8)",
        "CREATE USER clerk@'%' IDENTIFIED BY 'x'",
        "GRANT SELECT ON app.* TO clerk@'%'",
        "CALL app.p()",
        "ALTER TABLE app.copied ADD COLUMN extra VARCHAR(10) INVISIBLE",
        "INSERT INTO app.t (v) VALUES ('triggers')",
    )
    check(stream, standby)
    theirs, ours = schema_objects(stream.source), schema_objects(standby)
    for name in ("view app.seen", "trigger app.t_ai", "procedure app.p", "table app.copied"):
        assert theirs.get(name) == ours.get(name), name


def test_compressed_tagged_and_partial(stream: Stream, standby: MySQLServer) -> None:
    """Compressed payloads, tagged GTIDs, partial JSON and statement format: bytes to us, understood by the replica."""
    stream.source.execute(
        "SET SESSION binlog_transaction_compression=ON",
        "INSERT INTO app.t (v, j) VALUES (REPEAT('compress me ', 5000), '{\"a\": 1, \"b\": [1, 2, 3]}')",
        "SET SESSION binlog_transaction_compression=OFF",
        "SET SESSION binlog_row_value_options='PARTIAL_JSON'",
        "UPDATE app.t SET j = JSON_SET(j, '$.a', 2) WHERE j IS NOT NULL",
        "SET SESSION gtid_next='AUTOMATIC:blue'",
        "INSERT INTO app.t (v) VALUES ('blue')",
        "SET SESSION gtid_next='AUTOMATIC:green_2'",
        "SET SESSION binlog_transaction_compression=ON",
        "INSERT INTO app.t (v) VALUES (REPEAT('green ', 4000))",
        "SET SESSION gtid_next='AUTOMATIC'",
        "SET SESSION binlog_format='STATEMENT'",
        "INSERT INTO app.t (v) VALUES ('as a statement')",
    )
    assert ":blue:1" in stream.source.gtid_executed()
    check(stream, standby)
    assert ":green_2:1" in stream.receiver.end()


def test_xa_in_every_ending(stream: Stream, standby: MySQLServer) -> None:
    """Prepared transactions that are committed, rolled back, finished in one phase, and left for later."""
    stream.source.execute(
        "XA START 'a'", "INSERT INTO app.t (v) VALUES ('xa a')", "XA END 'a'", "XA PREPARE 'a'", "XA COMMIT 'a'",
        "XA START 'b'", "INSERT INTO app.t (v) VALUES ('xa b')", "XA END 'b'", "XA PREPARE 'b'", "XA ROLLBACK 'b'",
        "XA START 'c'", "INSERT INTO app.t (v) VALUES ('xa c')", "XA END 'c'", "XA COMMIT 'c' ONE PHASE",
        "XA START 'd'", "INSERT INTO app.t (v) VALUES ('xa d')", "XA END 'd'", "XA PREPARE 'd'",
    )  # fmt: skip
    stream.caught_up()
    stream.applied_by(standby)
    assert len(standby.query("XA RECOVER")) == 1
    stream.source.execute("XA COMMIT 'd'")
    check(stream, standby)


def test_events_at_the_edges_of_packets(stream: Stream, standby: MySQLServer) -> None:
    """Row events whose packets end exactly at 2^24 - 1 bytes, one less, one more, and twice that."""
    with contextlib.closing(stream.source.connect(max_allowed_packet=1 << 30)) as session, session.cursor() as cursor:
        cursor.execute("INSERT INTO app.big VALUES (0, 'x')")
        cursor.execute("SHOW BINARY LOG STATUS")
        name = str((cursor.fetchone() or ("",))[0])
        cursor.execute(f"SHOW BINLOG EVENTS IN '{name}'")
        rows = [row for row in cursor.fetchall() if row[2] == "Write_rows"]
        overhead = rows[-1][4] - rows[-1][1] - 1
        for number, wanted in enumerate((FULL - 2, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL), start=1):
            size = wanted - overhead
            cursor.execute("INSERT INTO app.big VALUES (%s, REPEAT('e', %s))", (number, size))
    check(stream, standby)
    stream.source.execute("DELETE FROM app.big")


def test_a_forty_megabyte_event_costs_no_memory(stream: Stream, standby: MySQLServer) -> None:
    """It streams to the file in pieces: neither process grows beyond its budget of 100 MB."""
    stream.source.execute("INSERT INTO app.big VALUES (1, REPEAT('m', 40000000))")
    check(stream, standby)
    for role in ("receiver", "server"):
        status = Path(f"/proc/{stream.pid(role)}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])
        assert peak < 100_000, f"{role} used {peak} kB"
    stream.source.execute("DELETE FROM app.big")


def test_a_restart_and_a_crash_of_the_source(stream: Stream, standby: MySQLServer) -> None:
    """A clean restart (STOP event) and kill -9 under load: the stream finds its way back and nothing differs."""
    source = stream.source
    source.execute("INSERT INTO app.t (v) VALUES ('before restart')")
    source.restart()
    source.execute("INSERT INTO app.t (v) VALUES ('after restart')")
    check(stream, standby)
    source.execute("INSERT INTO app.t (v) VALUES ('before crash')")
    source.kill()
    assert stream.receiver.state().mode in (journal.Mode.WAITING, journal.Mode.FOLLOWING)
    source.start()
    source.execute("INSERT INTO app.t (v) VALUES ('after crash')")
    check(stream, standby)
    assert stream.receiver.state().stopped is None


def test_the_journal_survives_its_own_restarts(stream: Stream, standby: MySQLServer) -> None:
    """Receiver and server are found again when they run, and continue when they were stopped or killed."""
    source = stream.source
    before = stream.receiver.state().pid
    stream.receive()
    assert stream.receiver.state().pid == before
    port = stream.server.state().port
    stream.kill("server")
    source.execute("INSERT INTO app.t (v) VALUES ('server gone')")
    stream.serve()
    assert stream.server.state().port == port
    stream.receiver.stop()
    assert journal.adopt_receiver(stream.directory) is None
    source.execute("INSERT INTO app.t (v) VALUES ('receiver gone')")
    stream.receive()
    check(stream, standby)


def test_mysqlbinlog_reads_the_journal(stream: Stream) -> None:
    """Stock tools read the files, checksums included: the way out without us."""
    stream.caught_up()
    files = [str(path) for path in stream.files()]
    done = subprocess.run(
        [*mysql_program("mysqlbinlog"), "--verify-binlog-checksum", *files],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(journal.verify(stream.directory)) == len(files) - 1


def test_a_heartbeat_keeps_an_idle_replica_connected(stream: Stream, standby: MySQLServer) -> None:
    """While nothing is written the replica hears from the journal, and the journal from the source."""
    sql = "SELECT count_received_heartbeats FROM performance_schema.replication_connection_status"
    before = standby.scalar(sql)
    wait_until(lambda: standby.scalar(sql) >= before + 2, "two heartbeats")
    age = stream.receiver.state().last_event_age
    assert age is not None
    assert age < 30
