"""The server process against real replicas and strangers: who gets in, what is served, what is refused and with which
words."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from farshore_agent.mysql.journal import client as journal
from tests.conftest import MySQLServerFactory
from tests.e2e.journal.conftest import MakeStream, Stream, fresh_standby, make_account, replica_errors
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_content import table_checksums
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql

ONE_ROW = "INSERT INTO app.t (v) VALUES (REPEAT('r', 500))"


@pytest.fixture(scope="module")
def tokyo(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    server = mysql_server_of_module(name="tokyo")
    server.execute("CREATE DATABASE app", "CREATE TABLE app.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v TEXT)")
    make_account(server)
    return server


@pytest.fixture(scope="module")
def osaka(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    server = mysql_server_of_module(name="osaka")
    make_account(server)
    return server


@pytest.fixture(scope="module")
def stream(tokyo: MySQLServer, make_stream_of_module: MakeStream) -> Stream:
    made = make_stream_of_module(tokyo)
    made.receive()
    made.serve()
    return made


@pytest.fixture
def standby(osaka: MySQLServer) -> Iterator[MySQLServer]:
    """An empty standby without a channel."""
    osaka.execute("STOP REPLICA", "RESET REPLICA ALL", "SET GLOBAL super_read_only=0", "DROP DATABASE IF EXISTS app")
    fresh_standby(osaka)
    yield osaka
    osaka.execute("STOP REPLICA", "RESET REPLICA ALL")


def error_number(replica: MySQLServer) -> int:
    return max(int(row[0]) for row in replica_errors(replica))


def login(stream: Stream, **settings: object) -> int:
    """The error number that a client gets from the journal's port."""
    state, own = stream.server.state(), stream.server.credentials()
    values: dict[str, Any] = {
        "host": state.host,
        "port": state.port,
        "user": own.user,
        "password": own.password_file.read_text().strip(),
        "ssl": ssl.create_default_context(cafile=str(own.ca_file)),
        **settings,
    }
    with pytest.raises(pymysql.err.OperationalError) as caught:
        pymysql.connect(**values)
    return int(caught.value.args[0])


def test_strangers_are_refused(stream: Stream) -> None:
    """Other users, wrong passwords, no password and no TLS are all turned away, and counted; nothing is served."""
    before = stream.server.state().refused_logins
    assert login(stream, user="root", password="") == 1045
    assert login(stream, user="farshore_repl", password="r3plication") == 1045
    assert login(stream, password="wrong") == 1045
    assert login(stream, password="") == 1045
    assert login(stream, ssl=None, ssl_disabled=True) == 3159
    assert stream.server.state().refused_logins == before + 5
    assert stream.server.state().connections == ()


def test_a_client_that_is_no_replica_gets_nothing(stream: Stream) -> None:
    """With the right account, statements are still answered with an error: this is no database. Our generated
    certificate verifies, name included."""
    state, own = stream.server.state(), stream.server.credentials()
    # PyMySQL sets its character set after the login, which a replica may too; everything else is refused.
    context = ssl.create_default_context(cafile=str(own.ca_file))
    with (
        pymysql.connect(
            host=state.host, port=state.port, user=own.user, password=own.password_file.read_text().strip(), ssl=context
        ) as session,
        session.cursor() as cursor,
    ):
        with pytest.raises(pymysql.err.MySQLError) as caught:
            cursor.execute("DROP DATABASE app")
        assert caught.value.args[0] == 1235


def test_a_foreign_replica_is_refused(stream: Stream, standby: MySQLServer) -> None:
    """A replica with somebody else's login, or without TLS, or with another authority, gets 1045, 3159 or 2026."""
    stream.follow(standby, SOURCE_USER="farshore_repl", SOURCE_PASSWORD="r3plication")
    wait_until(lambda: error_number(standby) == 1045, "access denied")
    stream.follow(standby, tls="off", GET_SOURCE_PUBLIC_KEY=1)
    wait_until(lambda: error_number(standby) == 3159, "TLS required")
    stream.follow(standby, SOURCE_SSL_CA=str(standby.ca_file))
    wait_until(lambda: error_number(standby) == 2026, "certificate refused")
    assert stream.server.state().connections == ()


def test_serving_goes_on_while_the_receiver_is_down(stream: Stream, standby: MySQLServer) -> None:
    """Receiver and server do not need each other: a replica catches up from a journal that nobody writes, and follows
    again as soon as the receiver is back."""
    stream.source.execute(*[ONE_ROW] * 20)
    stream.caught_up()
    stream.kill("receiver")
    stream.follow(standby)
    stream.applied_by(standby)
    stream.source.execute(ONE_ROW)
    stream.receive()
    stream.applied_by(standby)
    assert table_checksums(standby) == table_checksums(stream.source)
    served = stream.server.state().connections
    assert [replica.replica_uuid for replica in served] == [standby.scalar("SELECT @@server_uuid")]


def test_a_returning_replica_replaces_its_old_connection(stream: Stream, standby: MySQLServer) -> None:
    """A replica that lost its link without a goodbye is served once, on its new connection."""
    stream.follow(standby)
    stream.applied_by(standby)
    first = stream.server.state().connections[0].connection
    standby.kill()
    standby.start()
    standby.execute("START REPLICA")
    stream.source.execute(ONE_ROW)
    stream.applied_by(standby)
    served = wait_until(
        lambda: [each for each in stream.server.state().connections if each.connection != first], "a new connection"
    )
    assert len(served) == 1
    wait_until(lambda: len(stream.server.state().connections) == 1, "the old connection is gone")


def test_a_flipped_byte_is_named_and_not_served(stream: Stream, standby: MySQLServer, make_stream: MakeStream) -> None:
    """Everything before the damage is served; the replica stops with the file and offset, and state shows them."""
    damaged = make_stream(stream.source, name="damaged")
    damaged.receive()
    damaged.caught_up()
    damaged.serve()
    path = damaged.files()[-1]
    sound = damaged.receiver.state().position
    damaged.source.execute(*[ONE_ROW] * 10)
    damaged.caught_up()
    raw = bytearray(path.read_bytes())
    at = sound + (len(raw) - sound) // 2
    raw[at] ^= 0x20
    path.write_bytes(bytes(raw))
    damaged.follow(standby)
    wait_until(lambda: error_number(standby) in (1236, 13114), "the replica stopped")
    damage = wait_until(lambda: damaged.server.state().damage, "damage in the state")
    assert damage is not None
    assert damage.file == str(path)
    assert at - 700 < damage.offset <= at
    assert any(f"{path.name} is damaged at offset {damage.offset}" in str(row[1]) for row in replica_errors(standby))
    rows = standby.scalar("SELECT COUNT(*) FROM app.t")
    assert 0 < rows < damaged.source.scalar("SELECT COUNT(*) FROM app.t")


def test_retention_keeps_what_the_standby_needs(
    tokyo: MySQLServer, standby: MySQLServer, make_stream: MakeStream
) -> None:
    """Files beyond the limits go only up to the standby's durable mark; a requester from before is refused with what it
    lacks, and one at the mark is served."""
    stream = make_stream(tokyo, name="retained", retention=journal.Retention(age_seconds=0.0, bytes=0))
    stream.receive()
    stream.serve()
    for _ in range(4):
        tokyo.execute(*[ONE_ROW] * 3, "FLUSH BINARY LOGS")
    stream.caught_up()
    count = len(stream.files())
    assert stream.receiver.purge().files == ()
    mark = tokyo.gtid_executed()
    tokyo.execute(ONE_ROW, "FLUSH BINARY LOGS", ONE_ROW, "FLUSH BINARY LOGS", ONE_ROW)
    stream.caught_up()
    stream.receiver.set_retention_mark(mark)
    removed = stream.receiver.purge()
    assert removed.uncovered == ""
    assert len(removed.files) == count - 1
    left = [path.name for path in stream.files()]
    assert len(left) == 3
    assert tokyo.scalar("SELECT GTID_SUBSET(%s, %s)", (stream.receiver.state().start_gtid_set, mark)) == 1
    stream.follow(standby)
    wait_until(lambda: error_number(standby) in (1236, 13114), "refused")
    assert any("starts after transactions that the requester lacks" in str(row[1]) for row in replica_errors(standby))
    standby.execute("STOP REPLICA", "RESET REPLICA ALL", f"SET GLOBAL gtid_purged='{mark}'")
    standby.execute(
        "SET GLOBAL super_read_only=0", "SET sql_log_bin=0", "CREATE DATABASE app",
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v TEXT)", "SET GLOBAL super_read_only=1",
    )  # fmt: skip
    stream.follow(standby)
    stream.applied_by(standby)
    assert standby.scalar("SELECT COUNT(*) FROM app.t") == 3
    stream.receiver.stop()
    stream.receive()
    stream.caught_up()
    assert [path.name for path in stream.files()] == left


def test_a_role_change_and_back(
    tokyo: MySQLServer, standby: MySQLServer, mysql_server: MySQLServerFactory, make_stream: MakeStream
) -> None:
    """With log_replica_updates=OFF on both sides: the reverse journal is attached before the standby opens for writes
    and requires everything that the standby applied; the old side follows it; after the way back both segments are in
    one journal, and whoever lacks what only the other site's journal holds is refused with its name."""
    osaka = standby
    at_osaka = make_stream(tokyo, name="at-osaka")
    at_osaka.receive()
    at_osaka.serve()
    at_osaka.follow(osaka)
    at_osaka.applied_by(osaka)
    # Attach to the standby while it is read-only and still applying.
    at_tokyo = make_stream(osaka, name="at-tokyo", epoch=4, start_gtid_set=None)
    at_tokyo.receive()
    at_tokyo.serve()
    at_tokyo.mode(journal.Mode.FOLLOWING)
    tokyo.execute(*[ONE_ROW] * 5)
    at_osaka.applied_by(osaka)
    early = at_tokyo.receiver.state().start_gtid_set
    # Switchover.
    tokyo.execute("SET GLOBAL super_read_only=1")
    before = tokyo.gtid_executed()
    at_osaka.caught_up()
    assert at_osaka.receiver.end() == before
    at_osaka.applied_by(osaka)
    osaka.execute("STOP REPLICA", "RESET REPLICA ALL")
    assert at_osaka.receiver.seal().end == before
    at_osaka.receiver.stop()
    osaka.execute("SET GLOBAL super_read_only=0", ONE_ROW, ONE_ROW)
    at_tokyo.caught_up()
    start = at_tokyo.receiver.state().start_gtid_set
    assert (start, early != start) == (before, True)
    # The old side follows the reverse journal.
    at_tokyo.follow(tokyo)
    at_tokyo.applied_by(tokyo)
    assert table_checksums(tokyo) == table_checksums(osaka)
    # Somebody who lacks what the standby applied without logging is told so.
    clone = mysql_server(name="clone")
    fresh_standby(clone)
    at_tokyo.follow(clone)
    wait_until(lambda: error_number(clone) in (1236, 13114), "refused")
    # And back: a second segment in the first journal, attached before tokyo opens.
    at_osaka.config = replace(at_osaka.config, epoch=6, start_gtid_set=None)
    at_osaka.receive()
    at_osaka.mode(journal.Mode.FOLLOWING)
    osaka.execute("SET GLOBAL super_read_only=1")
    middle = osaka.gtid_executed()
    at_tokyo.applied_by(tokyo)
    tokyo.execute("STOP REPLICA", "RESET REPLICA ALL")
    at_tokyo.receiver.seal()
    tokyo.execute("SET GLOBAL super_read_only=0", ONE_ROW)
    at_osaka.follow(osaka)
    at_osaka.applied_by(osaka)
    assert table_checksums(tokyo) == table_checksums(osaka)
    # The file that was current at the attach may have begun earlier: the segment then holds a little more, never less.
    start = at_osaka.receiver.state().start_gtid_set
    assert tokyo.scalar("SELECT GTID_SUBSET(%s, %s)", (start, middle)) == 1
    assert osaka.scalar("SELECT @@server_uuid") in start
    assert at_osaka.receiver.end() == tokyo.gtid_executed()
    assert [record.epoch for record in journal.catalogue(at_osaka.directory)] == [2, 6]
    # From nothing, the first segment is served to its end; the second needs what only the other journal has.
    clone.execute("STOP REPLICA", "RESET REPLICA ALL")
    at_osaka.follow(clone)
    wait_until(lambda: error_number(clone) in (1236, 13114), "refused at the second segment")
    text = " ".join(str(row[1]) for row in replica_errors(clone))
    assert osaka.scalar("SELECT @@server_uuid") in text
    assert "not in this journal" in text
    assert clone.gtid_executed() == before
    # Filled from the other site's journal, it goes on.
    clone.execute("STOP REPLICA", "RESET REPLICA ALL")
    at_tokyo.follow(clone)
    assert clone.scalar("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", (middle,)) == 0
    clone.execute("STOP REPLICA", "RESET REPLICA ALL")
    at_osaka.follow(clone)
    at_osaka.applied_by(clone)
    assert table_checksums(clone) == table_checksums(tokyo)


def test_two_segments_of_one_source_are_served_as_one(
    tokyo: MySQLServer, standby: MySQLServer, make_stream: MakeStream
) -> None:
    """A sealed segment and its continuation bring a requester from nothing to the present in one connection."""
    stream = make_stream(tokyo, name="two", epoch=2)
    tokyo.execute("SET GLOBAL super_read_only=0", "DROP DATABASE app", "RESET BINARY LOGS AND GTIDS")
    tokyo.execute("CREATE DATABASE app", "CREATE TABLE app.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v TEXT)", ONE_ROW)
    stream.receive()
    stream.caught_up()
    stream.serve()
    stream.follow(standby)
    stream.applied_by(standby)
    sealed = stream.receiver.seal()
    tokyo.execute("FLUSH BINARY LOGS", ONE_ROW)
    stream.config = replace(stream.config, epoch=4, start_gtid_set=sealed.end)
    stream.receive()
    stream.applied_by(standby)
    assert len(stream.server.state().connections) == 1
    assert stream.server.state().connections[0].segment.startswith("000004-")
    assert table_checksums(standby) == table_checksums(tokyo)
