"""The rights of docs/mysql-accounts.md are enough, and none of them is too much: measured by taking each one away."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql.constants import COMMAND

from farshore_agent.mysql.accounts import ADMIN, REPLICATION, AccountKind, Right, missing_rights
from farshore_agent.mysql.seed import SeedSettings, prepare, run_seed
from farshore_agent.mysql.seed.catalogue import Catalogue, read_catalogue
from farshore_agent.mysql.seed.epoch import open_epoch
from farshore_agent.mysql.seed.servers import Server
from tests.conftest import MySQLServerFactory
from tests.e2e.seed.conftest import PASSWORD, SETTINGS, SOURCE_LOGIN, TARGET_LOGIN, Sites, make_account
from tests.testbed.mysql import MySQLServer

pytestmark = pytest.mark.mysql

ONE_OF_EVERYTHING = (
    "CREATE DATABASE shop",
    "CREATE TABLESPACE space",
    "CREATE TABLE shop.parent (id INT PRIMARY KEY, a INT, KEY (a)) TABLESPACE space",
    "INSERT INTO shop.parent VALUES (1, 2)",
    "CREATE TABLE shop.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id))",
    "CREATE USER somebody@'%'",
    "GRANT SELECT, EXECUTE ON shop.* TO somebody@'%'",
    "CREATE DEFINER=somebody@'%' FUNCTION shop.f() RETURNS INT NO SQL RETURN 1",
    "CREATE DEFINER=root@localhost PROCEDURE shop.p() SELECT 1",
    "CREATE DEFINER=nobody@nowhere PROCEDURE shop.q() SELECT 1",
    "CREATE DEFINER=somebody@'%' VIEW shop.v AS SELECT id, shop.f() FROM shop.parent",
    "CREATE DEFINER=nobody@nowhere SQL SECURITY INVOKER VIEW shop.w AS SELECT shop.f()",
    "CREATE TRIGGER shop.t BEFORE INSERT ON shop.child FOR EACH ROW SET NEW.p = NEW.p",
    "CREATE EVENT shop.e ON SCHEDULE EVERY 1 YEAR DO SET @a = 1",
)
REFUSED = re.compile(r"denied|privilege|offline mode|definer|not arrive|read-only|owner|XAER_RMERR", re.IGNORECASE)
"""How MySQL says that a right is missing; not always as such."""
QUICK = SeedSettings(
    lock_tries=1, reconnect_seconds=0, chunk_tries=1, epochs_max=1, skip_accounts=SETTINGS.skip_accounts
)
"""Nothing is tried twice: what fails here fails for lack of a right."""


@pytest.fixture(scope="module")
def sites(mysql_server_of_module: MySQLServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Sites:
    """A source with one of everything, an empty target, and the two accounts with exactly the documented rights."""
    tokyo = mysql_server_of_module(name="tokyo", options=["log_bin_trust_function_creators=ON"])
    osaka = mysql_server_of_module(name="osaka")
    tokyo.execute(*ONE_OF_EVERYTHING)
    return Sites(
        tokyo=tokyo,
        osaka=osaka,
        source=make_account(tokyo, AccountKind.REPLICATION, SOURCE_LOGIN),
        target=make_account(osaka, AccountKind.ADMIN, TARGET_LOGIN),
        state=tmp_path_factory.mktemp("state"),
    )


@contextlib.contextmanager
def without(server: MySQLServer, user: str, right: Right) -> Iterator[None]:
    """Take a right away for the duration of the body."""
    quiet = ("SET SESSION sql_log_bin=0", "SET GLOBAL super_read_only=OFF")
    server.execute(*quiet, f"REVOKE {right.privilege} ON *.* FROM {user}")
    try:
        yield
    finally:
        server.execute(*quiet, f"GRANT {right.privilege} ON *.* TO {user}")


# -- replication ------------------------------------------------------------------------------------------------------


def read_definitions(sites: Sites) -> Catalogue:
    """Read every definition of the source; what an account may not see is simply not there."""
    server = Server(sites.source, "source")
    try:
        return read_catalogue(server.open(), ["farshore"])
    finally:
        server.end_all()


def read_rows(sites: Sites) -> None:
    """Read rows and grant tables."""
    with as_account(sites.source) as session, session.cursor() as cursor:
        cursor.execute("SELECT * FROM shop.parent")
        cursor.execute("SELECT * FROM mysql.user")


def take_snapshot(sites: Sites) -> None:
    """Take the snapshot of a seed."""
    server = Server(sites.source, "source")
    try:
        open_epoch(server, QUICK, journal_start="", cancelled=lambda: False, before_lock=lambda control: None).close()
    finally:
        server.end_all()


def dump_binary_log(sites: Sites) -> None:
    """Ask for the binary log as a replica does, and read the first packet."""
    name = str(sites.tokyo.query("SHOW BINARY LOGS")[0][0]).encode()
    with as_account(sites.source) as session:
        session._execute_command(COMMAND.COM_BINLOG_DUMP, struct.pack("<IHI", 4, 1, 4_000_000_000) + name)
        session._read_packet()
        session._force_close()


def ask_position(sites: Sites) -> None:
    """Ask where the binary log ends."""
    with as_account(sites.source) as session, session.cursor() as cursor:
        cursor.execute("SHOW BINARY LOG STATUS")


@contextlib.contextmanager
def as_account(connect: Any) -> Iterator[Any]:
    """A session of one of our accounts."""
    session = connect(program_name="test", local_infile=False)
    try:
        yield session
    finally:
        if session.open:
            session.close()


REPLICATION_STEPS: dict[str, Callable[[Sites], object]] = {
    "seed: rows": read_rows,
    "seed: views": read_definitions,
    "seed: triggers": read_definitions,
    "seed: events": read_definitions,
    "seed: routines": read_definitions,
    "seed: tablespaces": read_definitions,
    "seed: snapshot": take_snapshot,
    "journal: binary log": dump_binary_log,
    "journal: position": ask_position,
}


@pytest.mark.parametrize("right", REPLICATION, ids=lambda right: right.privilege)
def test_replication_needs_every_right(sites: Sites, right: Right) -> None:
    """Its step gives what it should with all rights, and fails, or shows less, without this one."""
    step = REPLICATION_STEPS[right.step]
    whole = step(sites)
    with without(sites.tokyo, SOURCE_LOGIN, right):
        said = ""
        less: object = None
        try:
            less = step(sites)
        except Exception as error:  # noqa: BLE001 - each step fails in its own way
            said = str(error)
    if said:
        assert REFUSED.search(said)
    else:
        assert less != whole, "the step does not need the right"


# -- admin ------------------------------------------------------------------------------------------------------------


def seed(sites: Sites) -> None:
    """Make a whole seed, the check of rights aside."""
    quiet = ("SET SESSION sql_log_bin=0", "SET GLOBAL super_read_only=OFF")
    sites.osaka.execute(*quiet, "CREATE DATABASE IF NOT EXISTS old")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepare, "_require_rights", lambda session, kind: None)
        run_seed(
            sites.source,
            sites.target,
            QUICK,
            journal_start="",
            state_directory=sites.state,
            progress=lambda report: None,
            cancelled=lambda: False,
            before_first_write=lambda: None,
            overwrite=True,
        )


def statements(*texts: str) -> Callable[[Sites], None]:
    """A step that is a few statements."""

    def step(sites: Sites) -> None:
        with as_account(sites.target) as session, session.cursor() as cursor:
            for text in texts:
                cursor.execute(text)

    return step


def retake_routines(sites: Sites) -> None:
    """Drop routines that an interrupted step had made as somebody else's."""
    sites.osaka.execute(
        "SET sql_log_bin=0",
        "SET GLOBAL super_read_only=OFF, GLOBAL log_bin_trust_function_creators=ON",
        "CREATE DATABASE IF NOT EXISTS made",
        "DROP FUNCTION IF EXISTS made.f",
        "CREATE FUNCTION made.f() RETURNS INT NO SQL RETURN 1",
    )
    statements("SET sql_log_bin=0", "DROP FUNCTION made.f")(sites)


def end_privileged_client(sites: Sites) -> None:
    """End the session of a privileged account, seen in the list of all sessions."""
    with sites.osaka.connect() as client:
        number = client.thread_id()  # type: ignore[no-untyped-call]
        with as_account(sites.target) as session, session.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_tablespaces")
            cursor.execute(f"KILL {number}")
        client._force_close()  # type: ignore[attr-defined]


ADMIN_STEPS: dict[str, Callable[[Sites], None]] = {
    "fence: find clients": statements("SELECT * FROM information_schema.innodb_trx"),
    "fence: read only": statements("SET PERSIST super_read_only=ON"),
    "fence: end clients": end_privileged_client,
    "observe: channel": statements("SHOW REPLICA STATUS", "SHOW BINARY LOG STATUS"),
    "channel": statements(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_AUTO_POSITION=1 FOR CHANNEL 'ours'",
        "START REPLICA SQL_THREAD FOR CHANNEL 'ours'",
        "STOP REPLICA FOR CHANNEL 'ours'",
        "RESET REPLICA ALL FOR CHANNEL 'ours'",
    ),
    "promote: prepared XA": statements("XA RECOVER CONVERT XID"),
    "seed: take back routines": retake_routines,
}


@pytest.mark.parametrize("right", ADMIN, ids=lambda right: right.privilege)
def test_admin_needs_every_right(sites: Sites, right: Right) -> None:
    """Its step works with all rights and fails without this one; a seed is the step of every right it names."""
    step = ADMIN_STEPS.get(right.step, seed)
    assert (step is seed) == (right.step not in ADMIN_STEPS)
    if step is not seed:
        step(sites)
    with (
        without(sites.osaka, TARGET_LOGIN, right),
        pytest.raises(Exception, match=REFUSED),
    ):
        step(sites)


def test_admin_with_all_rights_makes_a_seed(sites: Sites) -> None:
    """The steps above that are a seed fail for lack of a right, not for anything else."""
    seed(sites)


# -- the check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AccountKind))
def test_the_check_finds_nothing_missing_in_accounts_made_by_the_page(sites: Sites, kind: AccountKind) -> None:
    """The statements of docs/mysql-accounts.md give all that the check asks for."""
    connect = sites.source if kind is AccountKind.REPLICATION else sites.target
    with as_account(connect) as session, session.cursor() as cursor:
        assert missing_rights(cursor, kind) == ()


def test_rights_held_through_an_active_role_count(sites: Sites) -> None:
    """What a default role gives is seen; what is not active, or was partly revoked, is not."""
    sites.tokyo.execute(
        "SET sql_log_bin=0",
        "SET GLOBAL partial_revokes=ON",
        "CREATE ROLE keeper",
        "GRANT SELECT, TRIGGER, BACKUP_ADMIN ON *.* TO keeper",
        f"CREATE USER by_role@'%' IDENTIFIED BY '{PASSWORD}'",
        "GRANT keeper TO by_role@'%'",
        "ALTER USER by_role@'%' DEFAULT ROLE keeper",
        "GRANT EVENT ON *.* TO by_role@'%'",
        "REVOKE EVENT ON shop.* FROM by_role@'%'",
    )
    with (
        contextlib.closing(
            pymysql.connect(host=sites.tokyo.host, port=sites.tokyo.port, user="by_role", password=PASSWORD)
        ) as session,
        session.cursor() as cursor,
    ):
        missing = {each.privilege: each.grant for each in missing_rights(cursor, AccountKind.REPLICATION)}
    assert missing.keys() == {right.privilege for right in REPLICATION} - {"SELECT", "TRIGGER", "BACKUP_ADMIN"}
    assert missing["SHOW VIEW"] == "GRANT SHOW VIEW ON *.* TO 'by_role'@'%'"
