"""Two real MySQL servers as the two sites of a pair, with the product's own accounts, and engines on their seats.

The hands that disturb them work past the product: as root over the socket. This module must not know what is tested.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql

from farshore_agent.engines import Seat
from farshore_agent.mysql.accounts import AccountKind, creation_statements
from farshore_agent.mysql.engine import MySQLEngine
from farshore_agent.mysql.journal import client
from farshore_schema.documents import DOCUMENT, MySQLPair
from farshore_schema.roles import SIDES, Side, peer
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

PAIR = "orders"
SITES: dict[Side, str] = {"a": "tokyo", "b": "osaka"}
SECRETS = {
    f"env:{site.upper()}_{kind.upper()}": f"{site}-{kind}-päss" for site in SITES.values() for kind in AccountKind
}
APP_USER = "app"
APP_PASSWORD = "app-password"
TABLE = "shop.rows"


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
        self._engines: list[MySQLEngine] = []
        self.servers["a"].execute(
            "CREATE DATABASE shop",
            f"CREATE TABLE {TABLE} (name VARCHAR(100) PRIMARY KEY)",
            f"CREATE USER {APP_USER}@'%' IDENTIFIED BY '{APP_PASSWORD}'",
            f"GRANT ALL ON shop.* TO {APP_USER}@'%'",
        )

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
        for engine in self._engines:
            engine.close()
        for side in SIDES:
            for directory in (self.directory / f"agent-{side}").glob("journal*"):
                for adopted in (client.adopt_receiver(directory), client.adopt_server(directory)):
                    if adopted is not None:
                        with contextlib.suppress(client.Permanent):
                            adopted.stop()
        for server in self.servers.values():
            server.remove()

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
