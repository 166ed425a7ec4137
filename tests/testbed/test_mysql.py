"""The promises of the test bed's MySQL servers."""

from __future__ import annotations

import pymysql
import pytest

from tests.conftest import MySQLServerFactory
from tests.testbed.mysql import MySQLServer, schema_objects, table_checksums

pytestmark = pytest.mark.mysql

EVERY_KIND = """CREATE TABLE shop.kinds (
    id INT PRIMARY KEY, j JSON, f FLOAT, e ENUM('', 'a'), b BIT(9), g GEOMETRY, v VECTOR(3), d DATETIME(6),
    t TIMESTAMP NULL, x BLOB, s VARCHAR(20) CHARACTER SET latin1, total INT AS (id * 2) STORED, hidden INT INVISIBLE)"""
A_ROW = """INSERT INTO shop.kinds (id, j, f, e, b, g, v, d, t, x, s, hidden) VALUES (1, '{"b": 1, "a": [1.5, null]}',
    0.1, 'a', b'101', ST_GeomFromText('POINT(1 2)'), TO_VECTOR('[1,2,3]'), '2026-01-02 03:04:05.123456',
    '2026-01-02 03:04:05', x'00ff', 'é', 7)"""


@pytest.fixture(scope="module")
def server(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    made = mysql_server_of_module(name="tokyo", options=["--max_connections=77"])
    made.execute("CREATE DATABASE shop", EVERY_KIND, A_ROW, "CREATE TABLE shop.t (id INT PRIMARY KEY)")
    return made


def test_a_server_has_the_settings_of_a_protected_server_and_options_win(server: MySQLServer) -> None:
    """Defaults are those of a server that can be protected; an option given to `create` wins over them."""
    assert server.query("SELECT @@gtid_mode, @@log_bin, @@log_replica_updates, @@max_connections") == [("ON", 1, 0, 77)]
    assert server.ca_file.exists()
    assert server.gtid_executed().count(":") == 1


def test_rows_and_persisted_settings_survive_restart_and_kill(server: MySQLServer) -> None:
    """A clean restart and a kill -9 keep committed rows, SET PERSIST and the port."""
    port = server.port
    server.execute("INSERT INTO shop.t VALUES (1)", "SET PERSIST max_connect_errors = 123")
    server.restart()
    server.execute("INSERT INTO shop.t VALUES (2)")
    server.kill()
    assert not server.running
    server.start()
    assert server.query("SELECT id FROM shop.t ORDER BY id") == [(1,), (2,)]
    assert (server.scalar("SELECT @@max_connect_errors"), server.scalar("SELECT @@port")) == (123, port)


def test_extra_options_hold_for_one_start(server: MySQLServer) -> None:
    """An option given to `restart` is gone at the next one."""
    server.restart("max_connections=55")
    assert server.scalar("SELECT @@max_connections") == 55
    server.restart()
    assert server.scalar("SELECT @@max_connections") == 77


def test_a_paused_server_goes_on_where_it_was(server: MySQLServer) -> None:
    """A pause keeps sessions open; they go on after it."""
    with server.connect() as session, session.cursor() as cursor:
        server.pause()
        with pytest.raises(pymysql.err.OperationalError):
            server.connect(host=server.host, read_timeout=0.2)
        server.resume()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize(
    "change",
    [
        'j = \'{"b": 1, "a": [1.5, 0]}\'',
        "f = f + 0.0000001",
        "e = ''",
        "b = b'111'",
        "v = TO_VECTOR('[1,2,4]')",
        "d = '2026-01-02 03:04:05.123457'",
        "x = NULL",
        "s = 'e'",
        "hidden = 8",
        "id = 2",
    ],
)
def test_a_checksum_sees_every_change_and_nothing_else(server: MySQLServer, change: str) -> None:
    """The checksum of a table is the same at every call and differs after any change of any column."""
    before = table_checksums(server)
    assert before == table_checksums(server)
    server.execute(f"UPDATE shop.kinds SET {change}")
    changed = table_checksums(server)
    assert changed["shop.kinds"] != before["shop.kinds"]
    assert changed["shop.t"] == before["shop.t"]
    server.execute("TRUNCATE shop.kinds", A_ROW)
    assert table_checksums(server) == before


def test_duplicate_rows_count(server: MySQLServer) -> None:
    """Two equal rows less in a table without a key change its checksum."""
    server.execute("CREATE TABLE shop.nokey (a INT)", "INSERT INTO shop.nokey VALUES (1), (1), (2), (2)")
    four = table_checksums(server, schemas=["shop"])["shop.nokey"]
    server.execute("DELETE FROM shop.nokey LIMIT 2")
    assert table_checksums(server, schemas=["shop"])["shop.nokey"] != four


def test_schema_objects_see_every_kind_of_object(server: MySQLServer) -> None:
    """Definitions of all kinds of objects, accounts and grants are listed, and a changed one differs."""
    before = schema_objects(server)
    server.execute(
        "CREATE DATABASE app",
        "CREATE TABLE app.t (a INT)",
        "CREATE VIEW app.v AS SELECT a FROM app.t",
        "CREATE PROCEDURE app.p() SELECT 1",
        "CREATE FUNCTION app.f() RETURNS INT DETERMINISTIC RETURN 1",
        "CREATE TRIGGER app.tr BEFORE INSERT ON app.t FOR EACH ROW SET NEW.a = 1",
        "CREATE EVENT app.ev ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "CREATE USER shop@'%' IDENTIFIED BY 'secret'",
        "GRANT SELECT ON app.* TO shop@'%'",
    )
    after = schema_objects(server)
    new = {"database app", "table app.t", "view app.v", "procedure app.p", "function app.f", "trigger app.tr"}
    new |= {"event app.ev", "account shop@%", "grants shop@%"}
    assert after.keys() - before.keys() == new
    assert {key: after[key] for key in before} == before
    server.execute("GRANT INSERT ON app.* TO shop@'%'", "DROP TRIGGER app.tr")
    third = schema_objects(server)
    assert {key for key in after if third.get(key) != after[key]} == {"grants shop@%", "trigger app.tr"}
