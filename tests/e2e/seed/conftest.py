"""Two servers with the accounts of two sites, and a seed between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

from farshore_agent.mysql.accounts import AccountKind, creation_statements
from farshore_agent.mysql.seed import Account, Connect, Progress, SeedResult, SeedSettings, run_seed
from tests.conftest import MySQLServerFactory
from tests.testbed.mysql import MySQLServer

PASSWORD = "correct horse"
SOURCE_LOGIN = "farshore_tokyo_replication"
TARGET_LOGIN = "farshore_osaka_admin"
SETTINGS = SeedSettings(
    chunk_bytes=2 * 1024 * 1024,
    lock_pause_seconds=0.2,
    reconnect_seconds=60,
    progress_seconds=0.05,
    skip_accounts=(Account(user=SOURCE_LOGIN), Account(user=TARGET_LOGIN)),
)


def make_account(server: MySQLServer, kind: AccountKind, user: str) -> Connect:
    """Make an account with exactly the documented rights and return how to log in with it."""
    server.execute("SET SESSION sql_log_bin=0", *creation_statements(kind, user, "%", password=PASSWORD))
    return login(server, user)


def login(server: MySQLServer, user: str) -> Connect:
    """Return a Connect over TCP and TLS."""

    def connect(*, program_name: str, local_infile: bool) -> Connection[Any]:
        return server.connect(
            host=server.host,
            user=user,
            password=PASSWORD,
            program_name=program_name,
            local_infile=local_infile,
            ssl_ca=str(server.ca_file),
            ssl_verify_cert=True,
        )

    return connect


@dataclass
class Sites:
    """A source and a target, and what seeds between them have reported."""

    tokyo: MySQLServer
    osaka: MySQLServer
    source: Connect
    target: Connect
    state: Path
    reports: list[Progress] = field(default_factory=list)

    def seed(
        self,
        settings: SeedSettings = SETTINGS,
        *,
        overwrite: bool = True,
        journal_start: str = "",
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        before_first_write: Callable[[], None] = lambda: None,
    ) -> SeedResult:
        """Run a seed from tokyo to osaka."""
        self.reports.clear()
        return run_seed(
            self.source,
            self.target,
            settings,
            journal_start=journal_start,
            state_directory=self.state,
            progress=progress or self.reports.append,
            cancelled=cancelled,
            before_first_write=before_first_write,
            overwrite=overwrite,
        )


@pytest.fixture(scope="module")
def sites(mysql_server_of_module: MySQLServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Sites:
    """Two fresh servers, shared by a module; the source has binary log and settings as a customer's would be."""
    tokyo = mysql_server_of_module(name="tokyo", options=["log_bin_trust_function_creators=ON"])
    osaka = mysql_server_of_module(name="osaka")
    return Sites(
        tokyo=tokyo,
        osaka=osaka,
        source=make_account(tokyo, AccountKind.REPLICATION, SOURCE_LOGIN),
        target=make_account(osaka, AccountKind.ADMIN, TARGET_LOGIN),
        state=tmp_path_factory.mktemp("seed-state"),
    )


def our_sessions(server: MySQLServer) -> int:
    """Return how many sessions of a seed the server has."""
    return int(
        server.scalar(
            "SELECT COUNT(DISTINCT processlist_id) FROM performance_schema.session_connect_attrs "
            "WHERE attr_name='program_name' AND attr_value='farshore-seed'"
        )
    )


def differences(one: dict[str, object], other: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what is not the same on both sides, our own accounts and the marker schema aside."""
    ours = (SOURCE_LOGIN, TARGET_LOGIN, " farshore", "farshore.", " follower@")
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and not any(each in key for each in ours)
    }


def lost(error: pymysql.err.MySQLError) -> bool:
    """Whether an error says that a session ended."""
    return bool(error.args) and error.args[0] in (0, 2006, 2013)
