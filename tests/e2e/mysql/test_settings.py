"""Settings that protection changes: how a standby commits, what is recorded, and what comes back at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farshore_agent.mysql import durability
from farshore_agent.mysql.connections import address, dial
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_schema.errors import Permanent
from tests.e2e.mysql.sites import SECRETS, Pair, Sites
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_install import MySQLInstallation

pytestmark = pytest.mark.mysql

NAMES = "event_scheduler, sync_binlog, innodb_flush_log_at_trx_commit, replica_net_timeout"
SETTINGS = "SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in NAMES.split(", "))
PERSISTED = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.persisted_variables ORDER BY 1"


@pytest.fixture(scope="module")
def logging_sites(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Sites]:
    """Servers that log what they replicate, and with settings of their own."""
    made = Sites(tmp_path_factory.mktemp("logging"), options=["log_replica_updates=ON", "sync_binlog=10"])
    yield made
    made.close()


def test_relaxed_is_refused_where_it_is_not_safe_and_auto_is_full_there(logging_sites: Sites) -> None:
    """With log_replica_updates=ON an explicit relaxed is refused with the reason; auto runs with full durability."""
    sites = logging_sites
    sites.document = sites.document.model_copy(update={"standby_durability": "relaxed"})
    pair = Pair(sites)
    with pytest.raises(Permanent, match="log_replica_updates") as refused:
        pair.protect()
    assert (refused.value.code, refused.value.field) == ("unsuitable_server", "standby_durability")
    sites.document = sites.document.model_copy(update={"standby_durability": "auto"})
    pair = Pair(sites)
    pair.epoch = 4
    pair.protect()
    assert pair.engines["b"].observe().durability == "full"
    assert sites.servers["b"].query("SELECT @@sync_binlog, @@innodb_flush_log_at_trx_commit") == [(1, 1)]
    pair.switch()
    pair.follow()
    assert sites.write("b", "logged")
    pair.settled()
    for engine in pair.engines.values():
        engine.cleanup()


def test_cleanup_puts_back_what_was_there_and_keeps_a_standby_a_standby(pair: Pair) -> None:
    """After the end of protection both servers have their own settings again; roles, data and read-only stay (R20)."""
    tokyo, osaka = pair.sites.servers["a"], pair.sites.servers["b"]
    before = osaka.query(SETTINGS), tokyo.query(SETTINGS)
    assert before[0][0][1:] == (0, 2, 8)
    pair.switch()
    pair.follow()
    pair.settled()
    pair.engines["a"].cleanup()
    pair.engines["b"].cleanup()
    for server in (tokyo, osaka):
        assert server.query(SETTINGS) == [("OFF", 1, 1, 60)]
    assert tokyo.query("SELECT @@read_only, @@super_read_only") == [(1, 1)]
    assert osaka.query("SELECT @@read_only, @@super_read_only") == [(0, 0)]
    assert dict(tokyo.query(PERSISTED)) == {"event_scheduler": "OFF", "read_only": "ON", "super_read_only": "ON"}
    assert {"sync_binlog", "innodb_flush_log_at_trx_commit", "replica_net_timeout"}.isdisjoint(
        dict(osaka.query(PERSISTED))
    )
    assert no_channel(tokyo)
    assert no_channel(osaka)
    assert pair.sites.write("b", "unprotected")
    assert not pair.sites.write("a", "on-the-standby")
    kept = list((pair.sites.directory / "agent-a").glob("journal.kept-*"))
    assert len(kept) == 1
    again(pair)


def again(pair: Pair) -> None:
    """The same pair declared anew, the other way round, starts from nothing."""
    pair.sites.document = pair.sites.document.model_copy(update={"primary_site": "osaka"})
    fresh = Pair(pair.sites)
    fresh.active = "b"
    fresh.epoch = pair.epoch + 2
    fresh.engines["b"].promote(fresh.epoch, "initial", None, lambda: None)
    fresh.seed(consent=True)
    fresh.settled()
    for engine in fresh.engines.values():
        engine.cleanup()


def no_channel(server: MySQLServer) -> bool:
    return not server.query("SELECT 1 FROM performance_schema.replication_connection_configuration")


def test_a_durable_mark_is_what_was_read_before_the_flush(sites: Sites) -> None:
    """Retention learns only of what a relaxed standby holds durably; its settings are as before afterwards."""
    sites.reset()
    sites.fill("first")
    with dial(address(sites.document, "a", "admin", SECRETS.__getitem__)) as session:
        durability.relax(session, "relaxed")
        position = sites.servers["a"].gtid_executed()
        mark = durability.durable_mark(session)
        assert GtidSet.parse(mark) == GtidSet.parse(position)
        assert sites.servers["a"].gtid_executed() == position
        assert session.row("SELECT @@GLOBAL.sync_binlog, @@GLOBAL.innodb_flush_log_at_trx_commit") == (0, 2)
