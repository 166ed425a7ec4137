"""Switchovers by the engines' moves alone, under clients that write all the time."""

from __future__ import annotations

import pytest

from farshore_schema.errors import Permanent
from farshore_schema.roles import Receipt
from tests.e2e.mysql.sites import Pair
from tests.testbed.load import Load, LoadSize, prepare, verify
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql

USER, PASSWORD = "load", "load-password"
ROUNDS = 4


def own_transactions(server: MySQLServer) -> str:
    """Return what a server committed under its own uuid."""
    uuid = str(server.scalar("SELECT @@GLOBAL.server_uuid"))
    return ",".join(part for part in server.gtid_executed().split(",") if part.startswith(uuid))


def test_no_acknowledged_transaction_is_lost_there_and_back_again(pair: Pair) -> None:
    """Four switchovers under load: every transaction whose client got OK is there, and both sides are equal."""
    servers = pair.sites.servers
    prepare(servers[pair.active], user=USER, password=PASSWORD)
    pair.sites.settle(pair.standby)
    at = servers[pair.active]
    size = LoadSize(clients=6, rate_per_second=300)
    with Load(pair.sites.directory, host=at.host, port=at.port, user=USER, password=PASSWORD, size=size) as load:
        for _ in range(ROUNDS):
            seen_before = len([each for each in load.records() if each.outcome == "ok"])
            pair.switch()
            at = servers[pair.active]
            load.redirect(at.host, at.port)
            pair.follow()
            pair.seen(pair.standby, lambda seen: seen.receiving and seen.applying, "it follows")
            _await_more(load, seen_before)
        records = load.stop()
    verdict = verify(at, records)
    assert verdict.lost == 0
    assert verdict.exact
    pair.settled()


def test_the_fenced_position_is_all_that_was_ever_committed_there(pair: Pair) -> None:
    """The receipt's position is the old side's whole history, and it stays so."""
    assert pair.sites.write(pair.active, "before-the-fence")
    receipt = pair.switch()
    old = pair.sites.servers[pair.standby]
    assert receipt.position == old.gtid_executed()
    assert not pair.sites.write(pair.standby, "behind-the-fence")
    assert receipt.position == old.gtid_executed()
    pair.follow()
    pair.settled()


def test_a_promotion_is_durable_and_writes_no_transaction_of_ours(pair: Pair) -> None:
    """The new side commits durably, also after a restart, and its history grows by its clients' transactions only."""
    target = pair.sites.servers[pair.standby]
    assert pair.engines[pair.standby].observe().durability == "relaxed"
    assert target.query("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit") == [(2,)]
    pair.sites.settle(pair.standby)
    before = own_transactions(target)
    pair.switch()
    assert own_transactions(target) == before
    durable = [(1, 1, 0, 0)]
    question = "SELECT @@sync_binlog, @@innodb_flush_log_at_trx_commit, @@read_only, @@super_read_only"
    assert target.query(question) == durable
    target.kill()
    target.start()
    assert target.query(question) == durable
    assert pair.sites.write(pair.active, "after-the-restart")
    pair.follow()
    pair.settled()


def test_events_run_on_the_active_side_only_and_what_people_switched_off_stays_off(pair: Pair) -> None:
    """The scheduler moves with the role; replicated events run on the new side, disabled ones stay disabled (R13)."""
    servers = pair.sites.servers
    servers[pair.active].execute(
        "SET GLOBAL event_scheduler = ON",
        "CREATE TABLE shop.ticks (at TIMESTAMP(6), site VARCHAR(64))",
        "CREATE DEFINER = 'somebody'@'%' EVENT shop.on_event ON SCHEDULE EVERY 1 HOUR DO SELECT 1",
        "CREATE EVENT shop.off_event ON SCHEDULE EVERY 1 HOUR DISABLE DO SELECT 1",
    )
    pair.sites.settle(pair.standby)
    engine = pair.restart_agent(pair.standby)  # its first login notes what the workload relies on
    pair.seen(pair.standby, lambda seen: seen.peer_ready is True, "logged in")
    assert engine is pair.engines[pair.standby]
    pair.switch()
    new, old = servers[pair.active], servers[pair.standby]
    assert new.scalar("SELECT @@GLOBAL.event_scheduler") == "ON"
    assert old.scalar("SELECT @@GLOBAL.event_scheduler") == "OFF"
    states = dict(new.query("SELECT EVENT_NAME, STATUS FROM information_schema.events WHERE EVENT_SCHEMA = 'shop'"))
    assert states["on_event"] == "ENABLED"
    assert states["off_event"] != "ENABLED"
    definer = new.scalar("SELECT DEFINER FROM information_schema.events WHERE EVENT_NAME = 'on_event'")
    assert definer == "somebody@%"
    pair.follow()
    pair.settled()
    new.execute("DROP EVENT shop.on_event", "DROP EVENT shop.off_event", "SET GLOBAL event_scheduler = OFF")
    pair.settled()


def test_an_abort_reopens_the_old_side_and_ends_the_prepared_stream(pair: Pair) -> None:
    """After prepare and fence, the same side can be opened again; its prepared receiver is gone, the stream goes on."""
    source = pair.active
    pair.epoch += 2
    pair.engines[source].prepare(pair.epoch)
    pair.engines[source].fence(pair.epoch)
    pair.epoch += 2
    pair.engines[source].promote(pair.epoch, "aborted", None, lambda: None)
    assert pair.sites.write(source, "after-the-abort")
    assert not pair.engines[source].observe().receiving
    pair.follow()
    pair.settled()


def test_a_side_that_filters_is_not_opened(pair: Pair) -> None:
    """A filter that somebody set on the standby: a part of the data may be missing there, so it stays closed (R1)."""
    source, target = pair.active, pair.standby
    server = pair.sites.servers[target]
    server.execute(
        "STOP REPLICA SQL_THREAD FOR CHANNEL 'farshore'",
        "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ('nothing.%') FOR CHANNEL 'farshore'",
        "START REPLICA SQL_THREAD FOR CHANNEL 'farshore'",
    )
    pair.epoch += 2
    receipt = Receipt(source, pair.epoch, pair.engines[source].fence(pair.epoch))
    pair.engines[target].drain(receipt, lambda: False)
    with pytest.raises(Permanent, match=r"filters by .*nothing\.%") as refused:
        pair.engines[target].promote(pair.epoch, "fenced", receipt, lambda: None)
    assert refused.value.code == "unsuitable_server"
    assert not pair.engines[target].observe().writable
    server.execute(
        "STOP REPLICA SQL_THREAD FOR CHANNEL 'farshore'",
        "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = () FOR CHANNEL 'farshore'",
    )
    pair.engines[target].promote(pair.epoch, "fenced", receipt, lambda: None)
    pair.active = target
    pair.follow()
    pair.settled()


def _await_more(load: Load, before: int) -> None:
    """Wait until clients got an OK after the switch."""
    wait_until(
        lambda: len([each for each in load.records() if each.outcome == "ok"]) > before + 50,
        "clients write on the new side",
        poll_seconds=0.2,
    )
