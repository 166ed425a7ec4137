"""What breaks in the middle of a seed is mended or ends it cleanly: never a wrong copy, never a blocked source."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pymysql
import pytest

from farshore_agent.mysql.seed import (
    NotExact,
    SeedCancelled,
    SeedPermanent,
    SeedResult,
    SeedTransient,
    objects,
    run,
    tables,
)
from tests.e2e.seed.conftest import SETTINGS, Sites, differences, our_sessions
from tests.testbed.mysql import MySQLServer, schema_objects, table_checksums

pytestmark = pytest.mark.mysql

WAIT_SECONDS = 60.0
ROWS = 160_000
LOADING = "LOAD DATA LOCAL INFILE%"
READING = "SELECT CONCAT(x%`shop`%"
IN_WORK = (
    "SELECT processlist_id FROM performance_schema.threads WHERE processlist_info LIKE '{statement}' "
    "AND processlist_user LIKE 'farshore%'"
)


@pytest.fixture(scope="module")
def shop(sites: Sites) -> Sites:
    """One table of about 40 MB with keys, and a few small ones."""
    sites.tokyo.execute(
        "SET SESSION cte_max_recursion_depth=1000000",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.large (id INT NOT NULL PRIMARY KEY, a INT, v VARCHAR(250), KEY (a), KEY (v(30)))",
        "INSERT INTO shop.large WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < "
        f"{ROWS}) SELECT n, n * 7919 % 10007, CONCAT(n, REPEAT('x', 200)) FROM r",
        "CREATE TABLE shop.small (id INT PRIMARY KEY, v VARCHAR(20))",
        "INSERT INTO shop.small VALUES (1, 'a'), (2, 'b')",
        "CREATE VIEW shop.v AS SELECT * FROM shop.small",
        "ANALYZE TABLE shop.large",
    )
    return sites


@pytest.fixture(autouse=True)
def clean(shop: Sites) -> Iterator[None]:
    """After every test no session of a seed is left, and the source's writers are held up by nobody."""
    yield
    # The last session to go is the one that ended the others: its thread needs a moment.
    wait_for(lambda: our_sessions(shop.tokyo) == our_sessions(shop.osaka) == 0)
    shop.tokyo.execute("SET lock_wait_timeout=1", "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES")
    shop.tokyo.execute("SET lock_wait_timeout=1", "LOCK INSTANCE FOR BACKUP", "UNLOCK INSTANCE")


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("waited in vain")


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run `action` beside the body; its failure is the test's."""
    failures: list[BaseException] = []

    def run_it() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def in_work(server: MySQLServer, statement: str) -> list[tuple[Any, ...]]:
    """Return the sessions of a seed that are in the middle of a statement like this."""
    try:
        return server.query(IN_WORK.format(statement=statement))
    except pymysql.err.OperationalError:
        return []  # offline_mode, when it is switched on, ends whoever is just logging in


def kill_in_work(server: MySQLServer, statement: str) -> None:
    """Kill a session that is in the middle of a statement like this."""

    def killed() -> bool:
        for (session,) in in_work(server, statement):
            with suppress(pymysql.err.OperationalError):  # it may have ended in between
                server.execute(f"KILL {session}")
                return True
        return False

    wait_for(killed)


def assert_equal(sites: Sites, result: SeedResult) -> None:
    """Both sides hold the same, and the target says so."""
    assert differences(table_checksums(sites.tokyo), table_checksums(sites.osaka)) == {}
    assert differences(schema_objects(sites.tokyo), schema_objects(sites.osaka)) == {}
    assert sites.osaka.gtid_executed() == result.gtid_executed


@pytest.mark.parametrize("chunk_bytes", [4 << 20, 1 << 30], ids=["ranges", "whole table"])
def test_a_cut_costs_a_piece_and_not_the_copy(shop: Sites, chunk_bytes: int) -> None:
    """Readers and writers killed in the middle of rows: the snapshot goes on from spare sessions, the end is exact."""
    settings = dataclasses.replace(SETTINGS, chunk_bytes=chunk_bytes)

    def cut() -> None:
        kill_in_work(shop.tokyo, READING)
        kill_in_work(shop.osaka, LOADING)

    with meanwhile(cut):
        result = shop.seed(settings)
    assert result.epochs == 1
    assert_equal(shop, result)


def test_a_cut_while_keys_are_built_costs_only_that(shop: Sites) -> None:
    """A writer killed in its ALTER TABLE comes back and adds the keys that are missing."""
    with meanwhile(lambda: kill_in_work(shop.osaka, "ALTER TABLE%")):
        result = shop.seed()
    assert result.epochs == 1
    assert_equal(shop, result)


def test_a_source_that_restarts_gets_a_new_snapshot(shop: Sites) -> None:
    """All sessions of the snapshot die with the source: the seed starts over by itself, with what is there then."""

    def restart() -> None:
        wait_for(lambda: in_work(shop.tokyo, READING))
        shop.tokyo.kill()
        shop.tokyo.start()
        shop.tokyo.execute("UPDATE shop.small SET v = 'after the restart'")

    with meanwhile(restart):
        result = shop.seed()
    assert result.epochs == 2
    assert_equal(shop, result)


def test_a_target_that_restarts_keeps_what_it_had(shop: Sites) -> None:
    """A target killed in the middle comes back closed to clients, and the copy goes on in the same snapshot."""

    def restart() -> None:
        wait_for(lambda: in_work(shop.osaka, LOADING))
        shop.osaka.kill()
        shop.osaka.start()
        assert shop.osaka.query("SELECT @@GLOBAL.offline_mode, @@GLOBAL.read_only") == [(1, 1)]

    with meanwhile(restart):
        result = shop.seed()
    assert result.epochs == 1
    assert_equal(shop, result)


def before_the_source_is_left(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Run `action` once, when all rows are copied and before the seed lets the source go."""
    leave_source = run._Seed._leave_source
    done: list[None] = []

    def with_action(seed: Any, *arguments: Any) -> None:
        if not done:
            done.append(None)
            action()
        leave_source(seed, *arguments)

    monkeypatch.setattr(run._Seed, "_leave_source", with_action)


def test_ddl_waits_while_rows_are_copied(shop: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """DDL waits; if the lock that holds it back is lost, what was copied is not used and the seed starts over."""

    def ddl() -> None:
        with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
            shop.tokyo.execute("SET lock_wait_timeout=1", "ALTER TABLE shop.small ADD COLUMN w INT")
        holder = shop.tokyo.scalar(
            "SELECT processlist_id FROM performance_schema.metadata_locks JOIN performance_schema.threads "
            "ON owner_thread_id=thread_id WHERE object_type='BACKUP LOCK' AND processlist_user LIKE 'farshore%'"
        )
        shop.tokyo.execute(f"KILL {holder}", "ALTER TABLE shop.small ADD COLUMN w INT DEFAULT 3")

    before_the_source_is_left(monkeypatch, ddl)
    result = shop.seed()
    assert result.epochs == 2
    assert_equal(shop, result)


def test_ddl_is_let_through_and_noticed_with_retry(shop: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ddl=retry DDL does not wait, on tables that were read neither, and the copy is that of a later moment.

    This DDL leaves the rows readable in the old snapshot: only the comparison of definitions can notice it.
    """
    before_the_source_is_left(
        monkeypatch,
        lambda: shop.tokyo.execute(
            "SET lock_wait_timeout=1", "ALTER TABLE shop.small ALTER COLUMN v SET DEFAULT 'new'"
        ),
    )
    result = shop.seed(dataclasses.replace(SETTINGS, ddl="retry"))
    assert result.epochs == 2
    assert_equal(shop, result)


def test_ddl_that_takes_rows_out_of_the_snapshot_starts_over(shop: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table truncated before it was read cannot be read in the snapshot any more (error 1412)."""
    create_tables = tables.create_tables
    done: list[None] = []

    def truncated_meanwhile(*arguments: Any) -> int:
        if not done:
            done.append(None)
            shop.tokyo.execute("TRUNCATE TABLE shop.small")
        return create_tables(*arguments)

    monkeypatch.setattr(run, "create_tables", truncated_meanwhile)
    result = shop.seed(dataclasses.replace(SETTINGS, ddl="retry"))
    assert result.epochs == 2
    assert_equal(shop, result)
    shop.tokyo.execute("INSERT INTO shop.small (id, v) VALUES (1, 'a'), (2, 'b')")


def test_who_blocks_the_snapshot_is_named(shop: Sites) -> None:
    """Beside a long statement and an idle LOCK TABLES the seed gives up in time, names both, and shows no value."""
    settings = dataclasses.replace(SETTINGS, lock_wait_seconds=1, lock_tries=2)
    for statement in ("SELECT SLEEP(20), 'a secret' FROM shop.small", "LOCK TABLES shop.small WRITE"):
        session = shop.tokyo.connect()
        blocking = session.thread_id()  # type: ignore[no-untyped-call]
        thread = threading.Thread(target=_run_until_killed, args=(session, statement))
        thread.start()
        wait_for(partial(_is_running, shop.tokyo, statement))
        try:
            with pytest.raises(SeedTransient, match=f"session {blocking} of root@localhost") as refusal:
                shop.seed(settings)
            assert "secret" not in str(refusal.value)
        finally:
            shop.tokyo.execute(f"KILL {blocking}")
            thread.join()
            session.close()


def _run_until_killed(session: Any, statement: str) -> None:
    with session.cursor() as cursor, suppress(pymysql.err.MySQLError):
        cursor.execute(statement)


def _is_running(server: MySQLServer, statement: str) -> bool:
    if statement.startswith("SELECT"):
        return bool(
            server.query("SELECT 1 FROM performance_schema.threads WHERE processlist_info LIKE 'SELECT SLEEP%'")
        )
    return bool(
        server.query(
            "SELECT 1 FROM performance_schema.metadata_locks WHERE object_name='small' "
            "AND lock_type='SHARED_NO_READ_WRITE' AND lock_status='GRANTED'"
        )
    )


def test_a_prepared_xa_transaction_is_waited_for(shop: Sites) -> None:
    """Its rows are in no snapshot although its GTID is in gtid_executed: the seed names it and does not begin."""
    shop.tokyo.execute(
        "XA START 'branch 7'",
        "INSERT INTO shop.small (id, v) VALUES (7, 'xa')",
        "XA END 'branch 7'",
        "XA PREPARE 'branch 7'",
    )
    try:
        with pytest.raises(SeedTransient, match="prepared XA transactions 0x6272616E63682037"):
            shop.seed(dataclasses.replace(SETTINGS, lock_tries=2))
    finally:
        shop.tokyo.execute("XA ROLLBACK 'branch 7'")


def test_a_journal_of_another_history_is_refused(shop: Sites) -> None:
    """A snapshot that does not contain the journal's start would leave a gap: refused after a bounded wait."""
    elsewhere = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:1-5"
    with pytest.raises(SeedPermanent, match=elsewhere):
        shop.seed(dataclasses.replace(SETTINGS, journal_wait_seconds=0.1), journal_start=elsewhere)


def test_rows_that_do_not_arrive_are_refused(shop: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with rights writes into a table that is being filled: LOAD DATA skips a row, and the seed does not."""
    create_tables = tables.create_tables

    def with_a_strange_row(*arguments: Any) -> int:
        started = create_tables(*arguments)
        shop.osaka.execute("SET sql_log_bin=0", "INSERT INTO shop.small (id, v) VALUES (2, 'strange')")
        return started

    monkeypatch.setattr(run, "create_tables", with_a_strange_row)
    with pytest.raises(NotExact, match=r"shop\.small did not arrive.*2 rows were read and 1 written; warning 1062"):
        shop.seed()


def test_a_definition_that_does_not_arrive_is_refused(shop: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions are compared at the end: a view that came out different ends the seed before its history is told."""
    create_programs = objects.create_programs

    def with_a_change(writer: Any, *arguments: Any) -> Any:
        remarks = create_programs(writer, *arguments)
        writer.ask("CREATE OR REPLACE VIEW shop.v AS SELECT id FROM shop.small")
        return remarks

    monkeypatch.setattr(run, "create_programs", with_a_change)
    with pytest.raises(NotExact, match=r"1 definitions did not arrive.*view shop\.v"):
        shop.seed()
    assert shop.osaka.scalar("SELECT @@GLOBAL.offline_mode") == 1


def test_warnings_without_a_difference_do_not_refuse(shop: Sites) -> None:
    """Generated values that warn, as they did on the source, are accepted because hashes of both sides agree."""
    shop.tokyo.execute(
        "SET SESSION sql_mode=''",
        "CREATE TABLE shop.clipped (id INT PRIMARY KEY, s VARCHAR(10), n TINYINT AS (CAST(s AS SIGNED)) STORED)",
        "INSERT INTO shop.clipped (id, s) VALUES (1, '12x'), (2, '999'), (3, '5')",
    )
    try:
        assert_equal(shop, shop.seed())
    finally:
        shop.tokyo.execute("DROP TABLE shop.clipped")


def test_a_cancelled_seed_ends_soon_and_may_be_repeated_without_consent(shop: Sites) -> None:
    """Cancelled in the middle the target stays closed; what the seed itself had made there needs no consent to go."""
    for name in ("shop",):
        shop.osaka.execute("SET sql_log_bin=0", "SET GLOBAL super_read_only=OFF", f"DROP DATABASE IF EXISTS {name}")
    with pytest.raises(SeedCancelled):
        shop.seed(
            overwrite=False,
            cancelled=lambda: bool(in_work(shop.osaka, LOADING)),
        )
    assert shop.osaka.query("SELECT schema_name FROM information_schema.schemata WHERE schema_name='shop'")
    assert_equal(shop, shop.seed(overwrite=False))


def test_a_callback_that_fails_ends_the_seed_with_its_error(shop: Sites) -> None:
    """An exception of the caller's own progress callback is not swallowed."""

    def progress(report: Any) -> None:
        if report.rows_done:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        shop.seed(progress=progress)


def test_a_missing_right_is_named_with_the_grant_that_mends_it(shop: Sites) -> None:
    """Without TRIGGER the source would show no triggers, and no error: the seed refuses before it looks."""
    shop.tokyo.execute("SET sql_log_bin=0", "REVOKE TRIGGER ON *.* FROM farshore_tokyo_replication")
    try:
        with pytest.raises(SeedPermanent, match="lacks TRIGGER") as refusal:
            shop.seed(before_first_write=lambda: pytest.fail("something was about to be written"))
    finally:
        shop.tokyo.execute("SET sql_log_bin=0", "GRANT TRIGGER ON *.* TO farshore_tokyo_replication")
    assert refusal.value.hint == "on the source: GRANT TRIGGER ON *.* TO 'farshore_tokyo_replication'@'%'"


def test_sessions_of_a_dead_seed_are_ended_by_the_next(shop: Sites) -> None:
    """A reader that an agent left behind, idle with a backup lock, does not block the next seed."""
    left = shop.source(program_name="farshore-seed", local_infile=False)
    try:
        with left.cursor() as cursor:
            cursor.execute("LOCK INSTANCE FOR BACKUP")
            cursor.execute("FLUSH TABLES WITH READ LOCK")
        assert_equal(shop, shop.seed(dataclasses.replace(SETTINGS, lock_tries=1)))
    finally:
        left.close()


def test_a_target_that_replicates_is_refused(shop: Sites) -> None:
    """A running channel would write beside the seed."""
    shop.osaka.execute(
        "SET GLOBAL super_read_only=OFF",
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={shop.tokyo.port}, SOURCE_USER='nobody', "
        "SOURCE_AUTO_POSITION=1 FOR CHANNEL 'theirs'",
        "START REPLICA FOR CHANNEL 'theirs'",
    )
    try:
        with pytest.raises(SeedPermanent, match="'theirs'"):
            shop.seed(before_first_write=lambda: pytest.fail("something was about to be written"))
    finally:
        shop.osaka.execute("STOP REPLICA FOR CHANNEL 'theirs'", "RESET REPLICA ALL FOR CHANNEL 'theirs'")
