"""The promises of the load: it records what clients were told, and its check finds whatever is missing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.conftest import MySQLServerFactory
from tests.testbed.load import Load, LoadSize, outage, prepare, verify
from tests.testbed.load_client import NUMBERS_PER_CLIENT
from tests.testbed.mysql import MySQLServer
from tests.testbed.records import Record
from tests.testbed.waiting import wait_until

PASSWORD = "not-in-argv-7391"


def ok(client: int, end: float, kind: str = "I") -> Record:
    return Record(client, kind, 1, end, end, "ok", 0)


@pytest.fixture(scope="module")
def server(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    made = mysql_server_of_module(name="tokyo")
    prepare(made, user="shop", password=PASSWORD)
    return made


@pytest.mark.mysql
def test_a_load_over_a_crash_loses_nothing_and_every_loss_is_found(server: MySQLServer, tmp_path: Path) -> None:
    """Over a kill -9 of a durable server nothing acknowledged is lost; whatever is taken away by hand is found."""
    size = LoadSize(clients=4, processes=2, ddl_seconds=0.2, big_bytes=20 << 20)
    with Load(tmp_path, host=server.host, port=server.port, user="shop", password=PASSWORD, size=size) as load:
        for process in load.processes:
            assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        wait_until(lambda: any(each.kind == "B" and each.outcome == "ok" for each in load.records()), "the big one")
        server.kill()
        before = len(load.records())
        server.start()
        wait_until(lambda: sum(each.outcome == "ok" for each in load.records()) > before + 100, "they go on")
        wait_until(lambda: any(each.kind == "D" and each.outcome == "ok" for each in load.records()), "tables change")
        records = load.stop()
    verdict = verify(server, records)
    assert verdict.exact
    assert verdict.acknowledged > 200
    assert verdict.errors > 0
    assert 0 < outage(records).seconds < math.inf

    victim = max(each for each in records if each.kind == "I" and each.outcome == "ok")
    counted = next(each.client for each in records if each.kind == "U" and each.outcome == "ok")
    server.execute(
        f"DELETE FROM farshore_load.appended WHERE id = {victim.client * NUMBERS_PER_CLIENT + victim.number}",
        f"UPDATE farshore_load.counters SET n = n - 2 WHERE client = {counted}",
        "DELETE FROM farshore_load.big WHERE place = 3",
    )
    broken = verify(server, records)
    assert broken.missing_rows == (victim.client * NUMBERS_PER_CLIENT + victim.number,)
    assert [client for client, _, _ in broken.lost_updates] == [counted]
    assert len(broken.broken_big) == 1
    assert not broken.exact
    server.execute(f"UPDATE farshore_load.counters SET n = n + 1000 WHERE client = {counted}")
    assert [client for client, _, _ in verify(server, records).extra_updates] == [counted]


def test_the_outage_is_the_longest_time_without_any_ok() -> None:
    """Over all clients the gap is counted once; a client that never came back has an infinite one."""
    records = [ok(1, 1.0), ok(2, 1.5), ok(1, 4.0), ok(1, 4.1), ok(2, 1.6), ok(3, 1.2), ok(3, 4.5, kind="D")]
    found = outage(records)
    assert found.seconds == pytest.approx(2.4)
    assert found.last_ok == 1.6
    assert found.per_client_seconds == {1: pytest.approx(3.0), 2: math.inf, 3: math.inf}
    assert outage(records, since=3.9).seconds == pytest.approx(0.1)


def test_too_few_answers_are_no_outage_of_zero() -> None:
    """A load that was answered once proves nothing about an outage."""
    with pytest.raises(ValueError, match="1 transactions"):
        outage([ok(1, 1.0)])
