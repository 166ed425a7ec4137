"""A seed taken under writers is where native replication goes on, without an error and to the same end."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import threading
from collections.abc import Iterator
from typing import Literal

import pymysql
import pytest
from pymysql.cursors import Cursor

from tests.e2e.seed.conftest import SETTINGS, Sites, differences
from tests.testbed.mysql import MySQLServer, schema_objects, table_checksums

pytestmark = pytest.mark.mysql

CATCH_UP_SECONDS = 60
ACCOUNTS = 64
DOCS = 60000
DEADLOCK = 1213
NUMBERS = "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < {rows}) SELECT n"


@pytest.fixture(scope="module")
def bank(sites: Sites) -> Sites:
    """Tables of every kind of change: counters, a log, JSON that is patched, rows that go."""
    sites.tokyo.execute(
        "SET SESSION cte_max_recursion_depth=1000000",
        "CREATE DATABASE bank",
        "CREATE TABLE bank.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)",
        f"INSERT INTO bank.accounts {NUMBERS.format(rows=ACCOUNTS)}, 0 FROM r",
        "CREATE TABLE bank.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, who INT, what VARCHAR(100), KEY (who))",
        "CREATE TABLE bank.docs (id INT PRIMARY KEY, j JSON, k INT AS (j->'$.n') VIRTUAL, KEY (k))",
        f"INSERT INTO bank.docs (id, j) {NUMBERS.format(rows=DOCS)}, JSON_OBJECT('n', n, 't', REPEAT('x', 200)) FROM r",
        "CREATE TABLE bank.no_key (a INT, b VARCHAR(20))",
        "CREATE TRIGGER bank.counts AFTER INSERT ON bank.log FOR EACH ROW "
        "INSERT INTO bank.no_key VALUES (NEW.who, 'x')",
        "ANALYZE TABLE bank.docs",
    )
    return sites


def transaction(cursor: Cursor, number: int, dice: random.Random, count: int) -> None:
    """One unit of work; every one adds 1 to the sum of balances and a row to the log."""
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO bank.log (who, what) VALUES (%s, 'ё')", (number,))
    cursor.execute("UPDATE bank.accounts SET balance = balance + 1 WHERE id = %s", (dice.randint(1, ACCOUNTS),))
    doc = dice.randint(1, DOCS)
    if count % 5 == 0:
        cursor.execute("DELETE FROM bank.docs WHERE id = %s", (doc,))
    else:
        cursor.execute("UPDATE bank.docs SET j = JSON_SET(j, '$.m', %s) WHERE id = %s", (doc, doc))
    cursor.execute("DELETE FROM bank.no_key WHERE a = %s LIMIT 1", (number,))
    cursor.execute("COMMIT")


@contextlib.contextmanager
def writers(server: MySQLServer, count: int) -> Iterator[list[int]]:
    """Change everything from `count` sessions while the body runs; the value counts transactions."""
    stop = threading.Event()
    done = [0] * count
    failures: list[BaseException] = []

    def write(number: int) -> None:
        dice = random.Random(number)  # a test repeats
        try:
            with server.connect() as session, session.cursor() as cursor:
                while not stop.is_set():
                    try:
                        transaction(cursor, number, dice, done[number])
                        done[number] += 1
                    except pymysql.err.OperationalError as error:
                        if error.args[0] != DEADLOCK:
                            raise
        except pymysql.err.MySQLError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize("ddl", ["block", "retry"])
def test_replication_goes_on_where_the_seed_ends(bank: Sites, ddl: Literal["block", "retry"]) -> None:
    """Writers never stop; the target follows the source from the snapshot's GTID set and ends equal."""
    start = bank.tokyo.gtid_executed()
    with writers(bank.tokyo, 3) as done:
        result = bank.seed(dataclasses.replace(SETTINGS, ddl=ddl), journal_start=start)
        during = sum(done)
        bank.tokyo.execute("CREATE TABLE IF NOT EXISTS bank.later (id INT PRIMARY KEY)")
    assert during > 0, "nothing was written during the seed: it proves nothing"
    balance = bank.osaka.scalar("SELECT SUM(balance) FROM bank.accounts")
    assert balance == bank.osaka.scalar("SELECT COUNT(*) FROM bank.log"), "the snapshot cut a transaction in two"
    follow(bank.osaka, bank.tokyo)
    try:
        end = bank.tokyo.gtid_executed()
        assert bank.osaka.scalar(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{end}', {CATCH_UP_SECONDS})") == 0
        assert result.gtid_executed != end
        assert differences(table_checksums(bank.tokyo), table_checksums(bank.osaka)) == {}
        assert differences(definitions(bank.tokyo), definitions(bank.osaka)) == {}
        assert bank.osaka.gtid_executed() == end
    finally:
        bank.osaka.execute("STOP REPLICA", "RESET REPLICA ALL")


def definitions(server: MySQLServer) -> dict[str, object]:
    """All definitions without counters: transactions that are rolled back use up numbers on one side only."""
    return {
        key: re.sub(r" AUTO_INCREMENT=\d+", "", value) if isinstance(value, str) else value
        for key, value in schema_objects(server).items()
    }


def follow(standby: MySQLServer, source: MySQLServer) -> None:
    """Let a server replicate by auto-position."""
    source.execute(
        "SET SESSION sql_log_bin=0",
        "CREATE USER IF NOT EXISTS follower@'%' IDENTIFIED BY 'f'",
        "GRANT REPLICATION SLAVE ON *.* TO follower@'%'",
    )
    standby.execute(
        "SET GLOBAL super_read_only=ON",
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{source.host}', SOURCE_PORT={source.port}, SOURCE_USER='follower', "
        "SOURCE_PASSWORD='f', SOURCE_AUTO_POSITION=1, SOURCE_SSL=1, SOURCE_CONNECT_RETRY=1",
        "START REPLICA",
    )
