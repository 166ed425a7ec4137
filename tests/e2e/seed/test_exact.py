"""What arrives is what was there: the whole corpus, through the documented accounts, over TLS."""

from __future__ import annotations

import dataclasses

import pytest

from farshore_agent.mysql.seed import (
    Phase,
    SeedPermanent,
    SeedResult,
    TargetHoldsData,
    inspect_source,
    inspect_target,
    reopen_target,
)
from tests.e2e.seed.conftest import SETTINGS, Sites, differences, our_sessions
from tests.e2e.seed.corpus import fill
from tests.testbed.mysql import schema_objects, table_checksums

pytestmark = pytest.mark.mysql

BROKEN_VIEWS = {"view shop.broken", "view shop.broken_too"}
GRANT_TABLES = (
    "user",
    "db",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "proxies_priv",
    "global_grants",
    "default_roles",
    "role_edges",
    "password_history",
)


@pytest.fixture(scope="module")
def filled(sites: Sites) -> Sites:
    """The source holds the corpus; the target a role marker of its own and nothing else."""
    fill(sites.tokyo)
    sites.tokyo.execute("SET sql_log_bin=0", "ANALYZE TABLE shop.ints UPDATE HISTOGRAM ON a WITH 4 BUCKETS")
    sites.osaka.execute(
        "SET sql_log_bin=0",
        "CREATE DATABASE farshore",
        "CREATE TABLE farshore.marker (id INT PRIMARY KEY)",
        "INSERT INTO farshore.marker VALUES (42)",
    )
    return sites


@pytest.fixture(scope="module")
def seeded(filled: Sites) -> SeedResult:
    """The first seed: the target is empty, nobody consented to anything."""
    written: list[str] = []
    result = filled.seed(
        overwrite=False,
        journal_start=filled.tokyo.gtid_executed(),
        before_first_write=lambda: written.append(str(filled.osaka.scalar("SELECT @@GLOBAL.offline_mode"))),
    )
    assert written == ["0"], "before_first_write comes once, before anything is changed on the target"
    return result


def test_every_row_of_every_table_arrives_to_the_bit(filled: Sites, seeded: SeedResult) -> None:
    """Hashes of all tables, by an oracle that shares no code with the product, are equal on both sides."""
    there = table_checksums(filled.tokyo)
    here = table_checksums(filled.osaka)
    assert differences(there, here) == {}
    assert len(there) == 38
    counted = [there[name] for name in there if not name.startswith("farshore.")]
    assert seeded.rows == sum(each[0] for each in counted if isinstance(each, tuple))


def test_json_keeps_the_types_inside(filled: Sites, seeded: SeedResult) -> None:
    """DECIMAL, DATE, TIME, DATETIME and binary values in documents are of the same type on both sides."""
    question = (
        "SELECT id, JSON_TYPE(j), JSON_TYPE(k), JSON_TYPE(j->'$.price'), JSON_TYPE(j->'$.a.z'), "
        "JSON_TYPE(j->'$.a.b[1]'), JSON_TYPE(j->'$.bb[1][0]'), JSON_TYPE(j->'$.\"\"'), "
        "JSON_TYPE(j->'$.\"ё\"'), JSON_TYPE(j->'$[1]'), "
        "JSON_TYPE(j->'$.d'), JSON_TYPE(j->'$.s') FROM shop.typed_docs "
        "ORDER BY id"
    )
    there = filled.tokyo.query(question)
    assert there == filled.osaka.query(question)
    found = {kind for row in there for kind in row[1:]}
    assert found >= {"DECIMAL", "DATE", "TIME", "DATETIME", "BLOB", "DOUBLE", "STRING"}


def test_every_definition_arrives_as_it_is(filled: Sites, seeded: SeedResult) -> None:
    """SHOW CREATE of every schema, table, view, program, account and grant is equal; counters of AUTO_INCREMENT too."""
    unequal = differences(schema_objects(filled.tokyo), schema_objects(filled.osaka))
    assert set(unequal) == BROKEN_VIEWS
    assert all(here is None for _, here in unequal.values())


def test_programs_keep_their_circumstances(filled: Sites, seeded: SeedResult) -> None:
    """Order of triggers, state and time of events, character sets, collations, times of creation are the source's."""
    for question in (
        "SELECT trigger_schema, trigger_name, action_order, created, sql_mode, definer, character_set_client, "
        "collation_connection, database_collation FROM information_schema.triggers "
        "WHERE trigger_schema NOT IN ('sys') ORDER BY 1, 2",
        "SELECT event_schema, event_name, status, execute_at, starts, ends, interval_value, created, time_zone, "
        "on_completion, sql_mode, database_collation FROM information_schema.events ORDER BY 1, 2",
        "SELECT routine_schema, routine_name, created, HEX(routine_definition), sql_mode, security_type, "
        "character_set_client, collation_connection, database_collation FROM information_schema.routines "
        "WHERE routine_schema<>'sys' ORDER BY 1, 2",
        "SELECT table_schema, table_name, HEX(view_definition), security_type, character_set_client "
        "FROM information_schema.views WHERE table_schema<>'sys' AND table_name NOT LIKE 'broken%' ORDER BY 1, 2",
        "SELECT library_schema, library_name, library_definition FROM information_schema.libraries",
    ):
        rows = filled.tokyo.query(question)
        assert rows
        assert rows == filled.osaka.query(question)
    assert filled.osaka.scalar("SELECT @@GLOBAL.event_scheduler") == "OFF"


def test_accounts_arrive_to_the_last_attribute(filled: Sites, seeded: SeedResult) -> None:
    """Rows of the grant tables are equal: retained second passwords, history, partial revokes, grants on nothing."""
    for table in GRANT_TABLES:
        rows = [
            {row for row in server.query(f"SELECT * FROM mysql.{table}") if not any("farshore" in str(v) for v in row)}
            for server in (filled.tokyo, filled.osaka)
        ]
        ours = {row for row in rows[0] | rows[1] if "root" in row or any(str(v).startswith("mysql.") for v in row)}
        assert rows[0] - ours == rows[1] - ours, table
    for password in ("three", "four"):
        filled.osaka.execute("SET GLOBAL offline_mode=OFF")
        filled.osaka.connect(user="twin", password=password).close()
        filled.osaka.execute("SET GLOBAL offline_mode=ON")
    assert {str(each) for each in seeded.skipped_accounts} >= {"'root'@'localhost'", "'farshore_tokyo_replication'@'%'"}


def test_the_targets_history_is_the_snapshots(filled: Sites, seeded: SeedResult) -> None:
    """gtid_executed is the source's, nothing of the seed is in the target's binary log, our marker is untouched."""
    assert seeded.gtid_executed == filled.tokyo.gtid_executed() == filled.osaka.gtid_executed()
    (log,) = filled.osaka.query("SHOW BINARY LOGS")
    kinds = {row[2] for row in filled.osaka.query(f"SHOW BINLOG EVENTS IN '{log[0]}'")}
    assert kinds <= {"Format_desc", "Previous_gtids", "Stop"}
    assert filled.osaka.scalar("SELECT id FROM farshore.marker") == 42


def test_what_is_not_carried_is_said(filled: Sites, seeded: SeedResult) -> None:
    """Remarks name the histogram, the views that are invalid, the definer without account and differing settings."""
    found = {(remark.code, remark.subject) for remark in seeded.remarks}
    assert ("histogram", "shop.ints.a") in found
    assert ("invalid_view", "shop.broken") in found
    assert ("definer_missing", "nobody@nowhere") in found
    assert ("setting_differs", "log_bin_trust_function_creators") in found


def test_progress_names_every_phase_and_ends_complete(filled: Sites, seeded: SeedResult) -> None:
    """Phases come in order, rows never exceed their total, and the last report says that all is done."""
    phases = list(dict.fromkeys(report.phase for report in filled.reports))
    assert phases == list(Phase)
    assert all(report.rows_done <= report.rows_total for report in filled.reports)
    last = filled.reports[-1]
    assert (last.tables_done, last.rows_done) == (seeded.tables, seeded.rows)
    assert last.rows_done == last.rows_total
    assert last.bytes_done == last.bytes_total == seeded.bytes


def test_the_target_stays_closed_until_it_is_opened(filled: Sites, seeded: SeedResult) -> None:
    """After a seed clients cannot log in, also after a restart; reopening lets them in, and they cannot write."""
    filled.osaka.restart()
    twin = {"user": "twin", "password": "three"}
    with pytest.raises(Exception, match="offline mode"):
        filled.osaka.connect(**twin)
    reopen_target(filled.target)
    with (
        filled.osaka.connect(**twin) as session,
        session.cursor() as cursor,
        pytest.raises(Exception, match="read-only"),
    ):
        cursor.execute("INSERT INTO shop.empty VALUES (1, 'x')")
    assert filled.osaka.query("SELECT @@GLOBAL.local_infile, @@GLOBAL.log_bin_trust_function_creators") == [(1, 0)]


def test_a_target_with_data_is_refused_untouched(filled: Sites, seeded: SeedResult) -> None:
    """Without consent a target that holds data is left as it is, and the refusal says what is there (I5)."""
    before = table_checksums(filled.osaka)
    with pytest.raises(TargetHoldsData, match=r"shop \(3\d tables"):
        filled.seed(overwrite=False, before_first_write=lambda: pytest.fail("something was about to be written"))
    assert table_checksums(filled.osaka) == before
    contents = inspect_target(filled.target, SETTINGS)
    assert {schema.name for schema in contents.schemas} == {"shop", "other db", "we`ird '\"% db"}
    assert contents.gtid_executed == seeded.gtid_executed
    assert not contents.empty
    assert not contents.writable


def test_with_consent_it_is_replaced(filled: Sites, seeded: SeedResult) -> None:
    """With consent the old data goes, and a second seed by one worker, without ranges, is as exact as the first."""
    filled.osaka.execute(
        "SET sql_log_bin=0",
        "SET GLOBAL super_read_only=OFF",
        "CREATE DATABASE old_data",
        "CREATE TABLE old_data.t (id INT PRIMARY KEY)",
        "ALTER DATABASE old_data READ ONLY=1",
        "CREATE USER left_over@'%'",
        "SET PERSIST super_read_only=ON",
    )
    filled.tokyo.execute("DROP VIEW shop.broken_too, shop.broken", "UPDATE shop.ranges SET v = 'new' WHERE w = 1")
    filled.seed(dataclasses.replace(SETTINGS, workers=1, spare_sessions=0, chunk_bytes=1 << 30))
    assert differences(table_checksums(filled.tokyo), table_checksums(filled.osaka)) == {}
    assert differences(schema_objects(filled.tokyo), schema_objects(filled.osaka)) == {}


def test_accounts_that_only_the_target_has_need_consent(filled: Sites, seeded: SeedResult) -> None:
    """An account of somebody else on an otherwise empty target is not dropped without consent."""
    osaka = filled.osaka
    osaka.execute("SET sql_log_bin=0", "SET GLOBAL super_read_only=OFF", "CREATE USER monitor@'10.%'")
    for schema in inspect_target(filled.target, SETTINGS).schemas:
        osaka.execute("SET sql_log_bin=0", f"DROP DATABASE `{schema.name.replace('`', '``')}`")
    with pytest.raises(TargetHoldsData, match=r"'monitor'@'10\.%'"):
        filled.seed(overwrite=False)
    osaka.execute("SET sql_log_bin=0", "DROP USER monitor@'10.%'")


def test_rows_too_long_for_one_string_are_carried_value_by_value(filled: Sites, seeded: SeedResult) -> None:
    """A row longer than the source's max_allowed_packet arrives, although no CONCAT can hold it."""
    filled.tokyo.execute("SET GLOBAL max_allowed_packet=20000000")
    try:
        filled.seed()
    finally:
        filled.tokyo.execute("SET GLOBAL max_allowed_packet=1073741824")
    assert differences(table_checksums(filled.tokyo), table_checksums(filled.osaka)) == {}


def test_nothing_is_left_behind(filled: Sites, seeded: SeedResult) -> None:
    """After a seed neither server has a session of it, and a global read lock can be had at once."""
    assert our_sessions(filled.tokyo) == our_sessions(filled.osaka) == 0
    filled.tokyo.execute("SET lock_wait_timeout=1", "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES")


def test_tables_that_are_not_innodb_are_refused(filled: Sites, seeded: SeedResult) -> None:
    """A MyISAM table is named beforehand by the inspection and refused by the seed, before anything is written."""
    filled.tokyo.execute("CREATE TABLE shop.old (id INT) ENGINE=MyISAM")
    try:
        assert inspect_source(filled.source, SETTINGS).not_innodb == ("shop.old (MyISAM)",)
        with pytest.raises(SeedPermanent, match=r"shop\.old \(MyISAM\)"):
            filled.seed(before_first_write=lambda: pytest.fail("something was about to be written"))
    finally:
        filled.tokyo.execute("DROP TABLE shop.old")


def test_a_server_is_never_its_own_target(filled: Sites, seeded: SeedResult) -> None:
    """The same server under another name is recognised by its uuid."""
    same = Sites(tokyo=filled.osaka, osaka=filled.osaka, source=filled.target, target=filled.target, state=filled.state)
    with pytest.raises(SeedPermanent, match="same server"):
        same.seed()
