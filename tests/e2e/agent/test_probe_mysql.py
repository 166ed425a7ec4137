"""The probe process in front of a real MySQL: its answers when the server is full, read-only, hung, dead or back."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from farshore_agent import stop
from farshore_agent.engines.probing import ProbeTarget
from farshore_agent.probes.control import ProbeSpec
from farshore_agent.probes.keeper import Probes
from farshore_agent.records import FileKeeper
from farshore_schema.roles import Record
from tests.conftest import MySQLServerFactory
from tests.testbed.mysql import MySQLServer
from tests.testbed.ports import reserve_port
from tests.unit.agent.waiting import eventually

pytestmark = pytest.mark.mysql

PASSWORD = "probe-pa55-w0rd"
CONNECTIONS_MAX = 12


@pytest.fixture
def server(mysql_server: MySQLServerFactory) -> MySQLServer:
    made = mysql_server(options=[f"max_connections={CONNECTIONS_MAX}"])
    for user in ("farshore_tokyo", "client"):
        made.execute(f"CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}'")
    return made


@pytest.fixture
def port(tmp_path: Path, server: MySQLServer) -> Iterator[int]:
    """The probe port of tokyo, whose durable record says that it is the active side."""
    root = tmp_path / "agent"
    keeper = FileKeeper(root, "orders", "a")
    keeper.save(Record(token=1, epoch=2, promoted_epoch=2, base="complete", enrolled=True))
    target = ProbeTarget(kind="mysql", host=server.host, port=server.port, user="farshore_tokyo", password=PASSWORD)
    spec = ProbeSpec(pair="orders", side="a", site="tokyo", record=str(keeper.path), target=target)
    probes = Probes(root, specs=lambda: [spec], chosen={"tokyo": reserve_port()})
    probes.tick()
    yield probes.ports()["tokyo"]
    stop.stop_all(root)


def ask(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/primary/orders", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def fill(server: MySQLServer, clients: contextlib.ExitStack) -> None:
    """Open one connection after the other, more than the server allows."""
    for _ in range(CONNECTIONS_MAX + 1):
        client = pymysql.connect(host=server.host, port=server.port, user="client", password=PASSWORD)
        clients.callback(client.close)


def test_a_full_a_read_only_a_hung_and_a_dead_server(server: MySQLServer, port: int) -> None:
    """A server with too many connections is still the active one; read-only, hung or dead it is not; back, it is."""
    eventually(lambda: ask(port)[0] == 200, "the first yes")

    with contextlib.ExitStack() as clients:
        with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
            fill(server, clients)
        assert [ask(port)[0] for _ in range(20)] == [200] * 20

    server.execute("SET GLOBAL super_read_only = ON")
    eventually(lambda: ask(port)[0] == 503, "the no of a read-only server")
    server.execute("SET GLOBAL read_only = OFF")
    eventually(lambda: ask(port)[0] == 200, "the yes after it was opened")

    server.pause()
    eventually(lambda: ask(port)[0] == 503, "the no of a hung server")
    server.resume()
    eventually(lambda: ask(port)[0] == 200, "the yes after it went on")

    server.kill()
    eventually(lambda: ask(port)[0] == 503, "the no of a dead server")
    assert PASSWORD not in ask(port)[1]
    server.start()
    eventually(lambda: ask(port)[0] == 200, "the yes after its restart")
