"""Observation and role probes when the server is full, hung, dead or will not let us in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pymysql
import pytest

from farshore_agent.engines.probing import ProbeTarget
from farshore_agent.mysql.probe import MySQLWritable
from farshore_schema.errors import FarshoreError
from tests.e2e.mysql.sites import APP_PASSWORD, APP_USER, SECRETS, Pair, Sites
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql


@pytest.fixture
def server(sites: Sites) -> MySQLServer:
    return sites.servers["a"]


@pytest.fixture
def probe(server: MySQLServer) -> Iterator[MySQLWritable]:
    made = MySQLWritable(target(server))
    yield made
    made.close()


def target(server: MySQLServer, *, password: str = SECRETS["env:TOKYO_ADMIN"]) -> ProbeTarget:
    return ProbeTarget(kind="mysql", host=server.host, port=server.port, user="farshore_tokyo", password=password)


@contextlib.contextmanager
def exhausted(server: MySQLServer) -> Iterator[None]:
    """Clients hold every connection the server has for them, and an administrator the spare one."""
    before = server.scalar("SELECT @@GLOBAL.max_connections")
    with contextlib.ExitStack() as held:
        held.enter_context(contextlib.closing(server.connect()))
        server.execute("SET GLOBAL max_connections = 20")
        with contextlib.suppress(pymysql.err.OperationalError):
            for _ in range(30):
                held.enter_context(
                    contextlib.closing(
                        pymysql.connect(host=server.host, port=server.port, user=APP_USER, password=APP_PASSWORD)
                    )
                )
        admin = held.enter_context(contextlib.closing(server.connect()))
        with pytest.raises(pymysql.err.OperationalError, match="Too many"):
            server.connect()
        yield
        with admin.cursor() as cursor:
            cursor.execute(f"SET GLOBAL max_connections = {before}")


def test_a_server_with_too_many_connections_is_still_observed_and_probed(
    pair: Pair, server: MySQLServer, probe: MySQLWritable
) -> None:
    """The kept connections answer when not even an administrator can get one (R23)."""
    assert pair.engines["a"].observe().db == "up"
    assert probe.writable()
    with exhausted(server):
        for _ in range(3):
            seen = pair.engines["a"].observe()
            assert (seen.db, seen.writable, seen.stopped) == ("up", True, "")
            assert probe.writable()


def test_a_full_server_met_for_the_first_time_is_unknown_and_says_why(pair: Pair, server: MySQLServer) -> None:
    """Without a kept connection nothing is known, and that never looks good."""
    with exhausted(server):
        engine = pair.sites.engine("a")
        seen = engine.observe()
        assert (seen.db, seen.writable, seen.fence_holds) == ("unknown", False, False)
        assert any("Too many connections" in finding.message for finding in seen.findings)
        engine.close()


def test_a_hung_server_is_unknown_and_comes_back(pair: Pair, server: MySQLServer, probe: MySQLWritable) -> None:
    """A frozen process keeps its connections open and answers nothing: observation and probe give up by themselves."""
    assert pair.engines["a"].observe().db == "up"
    assert probe.writable()
    server.pause()
    try:
        assert pair.engines["a"].observe().db == "unknown"
        with pytest.raises(FarshoreError):
            probe.writable()
    finally:
        server.resume()
    assert pair.engines["a"].observe().db == "up"
    assert probe.writable()


def test_the_probe_says_what_an_ordinary_client_could_do(server: MySQLServer, probe: MySQLWritable) -> None:
    """read_only, super_read_only and offline_mode each make it say no; a dead server makes it say nothing."""
    for name in ("read_only", "super_read_only", "offline_mode"):
        server.execute(f"SET GLOBAL {name} = ON")
        assert not probe.writable()
        server.execute(
            "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF", "SET GLOBAL offline_mode = OFF"
        )
        assert probe.writable()
    server.kill()
    with pytest.raises(FarshoreError):
        probe.writable()
    server.start()
    assert probe.writable()


def test_a_probe_with_a_wrong_password_shows_no_secret(server: MySQLServer) -> None:
    """The refusal is told as it is, without the password."""
    wrong = MySQLWritable(target(server, password="wrong-password"))
    with pytest.raises(FarshoreError) as refused:
        wrong.writable()
    assert refused.value.code == "access_denied"
    assert "wrong-password" not in str(refused.value) + repr(target(server, password="wrong-password"))
    wrong.close()


def test_a_changed_password_is_noticed_by_fresh_logins(pair: Pair, server: MySQLServer) -> None:
    """Kept connections go on working; the fresh login of each minute makes the peer not ready, with the field (R6)."""
    standby = pair.restart_agent("b")
    pair.seen("b", lambda seen: seen.peer_ready is True and seen.receiving, "logged in and receiving")
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("ALTER USER farshore_tokyo_repl@'%' IDENTIFIED BY 'another'")
        standby = pair.restart_agent("b")
        seen = pair.seen("b", lambda seen: seen.peer_ready is False, "not ready")
        assert [finding.field for finding in seen.findings] == ["site_a.replication"]
        assert seen.findings[0].code == "access_denied"
        assert seen.receiving
        cursor.execute("ALTER USER farshore_tokyo_repl@'%%' IDENTIFIED BY %s", (SECRETS["env:TOKYO_REPLICATION"],))
    pair.seen("b", lambda seen: seen.peer_ready is True and not seen.findings, "ready again")
    assert standby is pair.engines["b"]
    wait_until(lambda: pair.sites.applied("b"), "still following")
