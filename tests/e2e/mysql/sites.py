"""Two real MySQL servers as the two sites of a pair, with the product's own accounts, and engines on their seats.

The hands that disturb them work past the product: as root over the socket. This module must not know what is tested.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pymysql

from farshore_agent.engines import Seat, SeedCall, Seen
from farshore_agent.mysql.accounts import AccountKind, creation_statements
from farshore_agent.mysql.engine import MySQLEngine
from farshore_agent.mysql.journal import client
from farshore_schema.documents import DOCUMENT, MySQLPair
from farshore_schema.observed import SeedProgress
from farshore_schema.roles import SIDES, Consent, Receipt, Side, peer
from tests.testbed.mysql import MySQLServer, table_checksums
from tests.testbed.waiting import wait_until

PAIR = "orders"
SITES: dict[Side, str] = {"a": "tokyo", "b": "osaka"}
SECRETS = {
    f"env:{site.upper()}_{kind.upper()}": f"{site}-{kind}-päss" for site in SITES.values() for kind in AccountKind
}
APP_USER = "app"
APP_PASSWORD = "app-password"
TABLE = "shop.rows"
SYSTEM = ("mysql", "sys", "performance_schema", "information_schema")
KEPT = ("root", *(f"farshore_{site}{kind}" for site in SITES.values() for kind in ("", "_repl")))
"""Accounts that `reset` leaves."""


def account(server: MySQLServer, kind: AccountKind, site: str) -> None:
    """Create one of our accounts, as docs/mysql-accounts.md says."""
    user = f"farshore_{site}" + ("" if kind is AccountKind.ADMIN else "_repl")
    password = SECRETS[f"env:{site.upper()}_{kind.upper()}"]
    server.execute("SET SESSION sql_log_bin = 0", *creation_statements(kind, user, "%", password=password))


def document(servers: dict[Side, MySQLServer], **fields: Any) -> MySQLPair:
    """Declare the pair."""
    made = DOCUMENT.validate_python(
        {
            "version": "farshore/v1",
            "kind": "MySQLPair",
            "name": PAIR,
            **{
                f"site_{side}": {
                    "site": site,
                    "host": servers[side].host,
                    "port": servers[side].port,
                    "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
                    "replication": {"user": f"farshore_{site}_repl", "password": f"env:{site.upper()}_REPLICATION"},
                }
                for side, site in SITES.items()
            },
            **fields,
        }
    )
    assert isinstance(made, MySQLPair)
    return made


def site_server(directory: Path, site: str, options: Sequence[str] = ()) -> MySQLServer:
    """Make a started server with the site's two accounts."""
    server = MySQLServer.create(directory, name=site, options=options)
    for kind in AccountKind:
        account(server, kind, site)
    return server


class Sites:
    """Both sites of one pair: the `Bench` of the engine suite, and more hands."""

    def __init__(self, directory: Path, *, options: Sequence[str] = (), **fields: Any) -> None:
        self.directory = directory
        self.servers: dict[Side, MySQLServer] = {
            side: site_server(directory, site, options) for side, site in SITES.items()
        }
        self.document = document(self.servers, **fields)
        self._declared = self.document
        self._engines: list[MySQLEngine] = []
        self.fill()

    def fill(self, *rows: str) -> None:
        """Give side a its table and its clients' account."""
        self.servers["a"].execute(
            "CREATE DATABASE shop",
            f"CREATE TABLE {TABLE} (name VARCHAR(100) PRIMARY KEY)",
            f"CREATE USER {APP_USER}@'%' IDENTIFIED BY '{APP_PASSWORD}'",
            f"GRANT ALL ON shop.* TO {APP_USER}@'%'",
            *(f"INSERT INTO {TABLE} VALUES ('{row}')" for row in rows),
        )

    def reset(self) -> None:
        """Make both servers and both agents as they were before `fill`: cheaper than starting others."""
        self._end_agents()
        for side in SIDES:
            shutil.rmtree(self.directory / f"agent-{side}", ignore_errors=True)
            self.servers[side].start()
            _empty(self.servers[side])
        self.document = self._declared

    # ---- the product

    def seat(self, side: Side) -> Seat:
        directory = self.directory / f"agent-{side}"
        directory.mkdir(mode=0o700, exist_ok=True)
        return Seat(
            pair=PAIR,
            side=side,
            incarnation=1,
            document=self.document,
            directory=directory,
            secret=lambda reference: SECRETS[reference],
        )

    def engine(self, side: Side) -> MySQLEngine:
        made = MySQLEngine(self.seat(side))
        self._engines.append(made)
        return made

    def journal(self, side: Side) -> Path:
        return self.directory / f"agent-{side}" / "journal"

    def receiver(self, side: Side) -> client.ReceiverClient:
        return client.ReceiverClient(self.journal(side))

    def kill_journal(self, side: Side) -> None:
        """End both processes of a site's journal as kill -9 does."""
        for adopted in (client.adopt_receiver(self.journal(side)), client.adopt_server(self.journal(side))):
            if adopted is not None:
                os.kill(adopted.state().pid, signal.SIGKILL)

    def close(self) -> None:
        """End everything that was started for these sites."""
        self._end_agents()
        for server in self.servers.values():
            server.remove()

    def _end_agents(self) -> None:
        for engine in self._engines:
            engine.close()
        self._engines.clear()
        for side in SIDES:
            for directory in (self.directory / f"agent-{side}").glob("journal*"):
                for adopted in (client.adopt_receiver(directory), client.adopt_server(directory)):
                    if adopted is not None:
                        with contextlib.suppress(client.Permanent):
                            adopted.stop()

    # ---- the hands

    def write(self, side: Side, row: str) -> bool:
        """Write one row as an ordinary client over TCP."""
        server = self.servers[side]
        try:
            with (
                contextlib.closing(
                    pymysql.connect(
                        host=server.host,
                        port=server.port,
                        user=APP_USER,
                        password=APP_PASSWORD,
                        autocommit=True,
                        connect_timeout=5,
                        read_timeout=20,
                    )
                ) as session,
                session.cursor() as cursor,
            ):
                cursor.execute(f"INSERT INTO {TABLE} VALUES (%s)", (row,))
        except pymysql.err.Error:
            return False
        return True

    def rows(self, side: Side) -> set[str]:
        server = self.servers[side]
        if not server.query("SELECT 1 FROM information_schema.tables WHERE table_schema='shop' AND table_name='rows'"):
            return set()
        return {str(row[0]) for row in server.query(f"SELECT name FROM {TABLE}")}

    def applied(self, side: Side) -> bool:
        """Whether a side applied everything that the other one committed."""
        position = self.servers[peer(side)].gtid_executed()
        return bool(self.servers[side].scalar("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (position,)))

    def settle(self, side: Side) -> None:
        wait_until(lambda: self.applied(side), f"side {side} applied everything")

    def kill(self, side: Side) -> None:
        self.servers[side].kill()

    def restart(self, side: Side) -> None:
        self.servers[side].start()

    def break_applier(self, side: Side) -> None:
        """Take away the table that is written to, without a trace in the binary log."""
        server = self.servers[side]
        with server.connect() as session, session.cursor() as cursor:
            cursor.execute("SET SESSION sql_log_bin = 0")
            cursor.execute("SET GLOBAL super_read_only = OFF")
            cursor.execute(f"DROP TABLE {TABLE}")
            cursor.execute("SET GLOBAL super_read_only = ON")

    def await_backlog(self, side: Side) -> None:
        position = self.servers[peer(side)].gtid_executed()
        wait_until(lambda: self.receiver(side).wait_contains(position, 1.0), f"side {side} received everything")
        assert not self.applied(side)

    def put_data(self, side: Side) -> None:
        self.servers[side].execute(
            "CREATE DATABASE shop",
            f"CREATE TABLE {TABLE} (name VARCHAR(100) PRIMARY KEY)",
            f"INSERT INTO {TABLE} VALUES ('own-data')",
        )

    def server(self, side: Side) -> str:
        return str(self.servers[side].scalar("SELECT @@GLOBAL.server_uuid"))

    def replace(self, side: Side, *, emptied: bool = False) -> None:
        """Give the data to a server with another identity; `emptied`: it knows nothing of how they came about."""
        server = self.servers[side]
        server.stop()
        (server.datadir / "auto.cnf").unlink()
        server.start()
        if emptied:
            server.execute("RESET BINARY LOGS AND GTIDS")


def _empty(server: MySQLServer) -> None:
    """Take away all data, accounts of clients, replication, persisted settings and history."""
    with server.connect() as session, session.cursor() as cursor:
        for statement in (
            "STOP REPLICA",
            "RESET REPLICA ALL",
            "SET GLOBAL super_read_only = OFF, GLOBAL read_only = OFF, GLOBAL offline_mode = OFF",
            "RESET PERSIST",
            "SET GLOBAL event_scheduler = OFF, GLOBAL sync_binlog = 1, GLOBAL innodb_flush_log_at_trx_commit = 1,"
            " GLOBAL replica_net_timeout = 60",
        ):
            cursor.execute(statement)
        cursor.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN %s", (SYSTEM,))
        for (schema,) in cursor.fetchall():
            cursor.execute(f"DROP DATABASE `{schema}`")
        cursor.execute("SELECT user, host FROM mysql.user WHERE user NOT LIKE 'mysql.%%' AND user NOT IN %s", (KEPT,))
        for user, host in cursor.fetchall():
            cursor.execute("DROP USER %s@%s", (user, host))
        cursor.execute("RESET BINARY LOGS AND GTIDS")


class Pair:
    """A protected pair under test: drives the engines' moves as the reconciler would, with its own count of epochs."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.epoch = 2
        self.active: Side = "a"
        self.engines: dict[Side, MySQLEngine] = {side: sites.engine(side) for side in SIDES}

    @property
    def standby(self) -> Side:
        return peer(self.active)

    def protect(self) -> None:
        """Record the active side and seed the other one."""
        self.engines[self.active].promote(self.epoch, "initial", None, still_holds)
        self.seed()

    def seed(self, *, consent: bool = False) -> list[SeedProgress]:
        told: list[SeedProgress] = []
        given = Consent(self.standby, self.sites.server(self.standby), self.epoch, "test") if consent else None
        self.engines[self.standby].seed(
            SeedCall(
                epoch=self.epoch,
                consent=given,
                before_first_write=lambda: None,
                progress=told.append,
                cancelled=lambda: False,
            )
        )
        self.sites.settle(self.standby)
        return told

    def switch(self) -> Receipt:
        """The planned switchover, all of it."""
        source, target = self.active, self.standby
        self.epoch += 2
        self.engines[source].prepare(self.epoch)
        receipt = Receipt(source, self.epoch, self.engines[source].fence(self.epoch))
        self.engines[target].drain(receipt, lambda: False)
        self.engines[target].promote(self.epoch, "fenced", receipt, still_holds)
        self.active = target
        return receipt

    def follow(self) -> None:
        """The old active side follows the new one."""
        self.engines[self.standby].stream(self.epoch)

    def restart_agent(self, side: Side) -> MySQLEngine:
        """Replace an engine by a new one, as after a kill -9 of its agent."""
        self.engines[side].close()
        self.engines[side] = self.sites.engine(side)
        return self.engines[side]

    def seen(self, side: Side, condition: Callable[[Seen], bool], what: str) -> Seen:
        """Observe until the condition holds."""
        newest = self.engines[side].observe()

        def holds() -> bool:
            nonlocal newest
            newest = self.engines[side].observe()
            return condition(newest)

        wait_until(holds, f"{what} at side {side}", poll_seconds=0.1)
        return newest

    def settled(self) -> None:
        """Wait until the standby has everything, and prove that both sides hold the same."""
        self.sites.settle(self.standby)
        held = [table_checksums(server) for server in self.sites.servers.values()]
        for tables in held:
            tables.pop("farshore.role_marker", None)  # it belongs to its server, not to the data (R8)
        assert held[0] == held[1]


def still_holds() -> None:
    """The order is the newest one."""
