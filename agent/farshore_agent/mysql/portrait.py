"""A portrait of one server for `doctor`: everything the rules look at, read once, with nothing changed.

What an account may not read, or what this version does not have, is absent in it. It judges nothing.
"""

# ruff: noqa: S608 - every name in the statements is a constant of ours

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from farshore_agent.mysql import accounts, marker
from farshore_agent.mysql.channel import CHANNEL
from farshore_agent.mysql.connections import Address, Rejected, Row, Session
from farshore_agent.mysql.marker import Marker
from farshore_schema.roles import Side

TABLES_MAX: Final = 20
"""So many tables are named of those that have no key or another engine."""
_USER_SCHEMAS: Final = "NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema', 'farshore')"
_VARIABLES_SQL: Final = (
    "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables WHERE VARIABLE_NAME IN %s"
)
VARIABLES: Final = (
    *("server_uuid", "server_id", "version", "log_bin", "gtid_mode", "enforce_gtid_consistency", "binlog_format"),
    *("binlog_row_image", "binlog_checksum", "binlog_expire_logs_seconds", "log_replica_updates", "sync_binlog"),
    *("innodb_flush_log_at_trx_commit", "innodb_doublewrite", "innodb_page_size", "relay_log_recovery"),
    *(
        "performance_schema",
        "read_only",
        "super_read_only",
        "offline_mode",
        "persisted_globals_load",
        "init_replica",
        "local_infile",
    ),
    *("lower_case_table_names", "max_allowed_packet", "replica_max_allowed_packet", "replica_parallel_workers"),
    *("sql_require_primary_key", "default_table_encryption", "log_bin_trust_function_creators"),
)
_NOT_INNODB_SQL: Final = (
    "SELECT CONCAT(table_schema, '.', table_name, ' (', IFNULL(engine, '?'), ')') FROM information_schema.tables"
    " WHERE table_type = 'BASE TABLE' AND IFNULL(engine, '') <> 'InnoDB'"
    f" AND table_schema {_USER_SCHEMAS} ORDER BY 1"
)
_NO_KEY_SQL: Final = (
    "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t"
    " LEFT JOIN information_schema.table_constraints c ON c.table_schema = t.table_schema"
    " AND c.table_name = t.table_name AND c.constraint_type = 'PRIMARY KEY'"
    f" WHERE t.table_type = 'BASE TABLE' AND t.table_schema {_USER_SCHEMAS} AND c.constraint_name IS NULL ORDER BY 1"
)
_CHANNELS_SQL: Final = (
    "SELECT CHANNEL_NAME, HOST FROM performance_schema.replication_connection_configuration WHERE HOST <> ''"
)
_FILTERS_SQL: Final = (
    "SELECT FILTER_NAME, FILTER_RULE FROM performance_schema.replication_applier_global_filters WHERE FILTER_RULE <> ''"
    " UNION ALL SELECT FILTER_NAME, FILTER_RULE FROM performance_schema.replication_applier_filters"
    " WHERE FILTER_RULE <> ''"
)
_GROUP_SQL: Final = (
    "SELECT MEMBER_STATE FROM performance_schema.replication_group_members WHERE MEMBER_STATE NOT IN ('', 'OFFLINE')"
)
_INSTRUMENTS_SQL: Final = (
    "SELECT (SELECT ENABLED FROM performance_schema.setup_consumers WHERE NAME = 'events_transactions_current') = 'YES'"
    " AND (SELECT ENABLED FROM performance_schema.setup_instruments WHERE NAME = 'transaction') = 'YES'"
)


class Size(NamedTuple):
    """How much user data there is, by the server's statistics."""

    schemas: int
    tables: int
    data_bytes: int


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One server as one account sees it. Lists are complete or cut at TABLES_MAX; counts are exact."""

    side: Side
    address: Address
    variables: Mapping[str, str]
    clock_offset_seconds: float  # the server's clock minus this machine's, to half a round trip
    missing_rights: tuple[accounts.MissingRight, ...]
    size: Size
    not_innodb: tuple[str, ...]
    no_primary_key: tuple[str, ...]
    foreign_channels: tuple[str, ...]
    filters: tuple[str, ...]
    in_group: bool
    instrumented: bool
    prepared_xa: int
    collations: frozenset[str]
    plugins: frozenset[str]
    components: frozenset[str]
    functions: frozenset[str]
    account_plugins: frozenset[str]
    encrypted_tables: int
    role: Marker | None = field(default=None)

    @property
    def server(self) -> str:
        """The server's uuid."""
        return self.variables.get("server_uuid", "").lower()

    @property
    def version(self) -> str:
        """As the server says it."""
        return self.variables.get("version", "")

    @property
    def series(self) -> tuple[int, int]:
        """Major and minor version."""
        return series(self.version)

    @property
    def empty(self) -> bool:
        """Whether a seed would destroy no user data."""
        return self.size.schemas == 0

    def on(self, name: str) -> bool:
        """Whether a switch is on; unknown is off."""
        return self.variables.get(name, "").upper() in ("ON", "1")


def series(version: str) -> tuple[int, int]:
    """Return major and minor of a version text, (0, 0) for one that cannot be read."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return 0, 0
    return int(parts[0]), int(parts[1])


def paint(session: Session, pair: str) -> Portrait:
    """Read everything; raises only what ends the session."""
    to = session.address
    kind = accounts.AccountKind.ADMIN if to.purpose == "admin" else accounts.AccountKind.REPLICATION
    schemas, tables, size = session.row(
        f"SELECT (SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name {_USER_SCHEMAS}), COUNT(*),"
        " IFNULL(SUM(data_length + index_length), 0) FROM information_schema.tables"
        f" WHERE table_type = 'BASE TABLE' AND table_schema {_USER_SCHEMAS}"
    )
    return Portrait(
        side=to.side,
        address=to,
        variables={str(name).lower(): str(value) for name, value in session.rows(_VARIABLES_SQL, (VARIABLES,))},
        clock_offset_seconds=_clock_offset(session),
        missing_rights=_missing_rights(session, kind),
        size=Size(int(schemas), int(tables), int(size)),
        not_innodb=_names(session, _NOT_INNODB_SQL),
        no_primary_key=_names(session, _NO_KEY_SQL),
        foreign_channels=tuple(
            f"{name or '(default)'} from {host}"
            for name, host in _if_allowed(session, _CHANNELS_SQL)
            if name != CHANNEL
        ),
        filters=tuple(f"{name}={rule}" for name, rule in _if_allowed(session, _FILTERS_SQL)) + _log_filters(session),
        in_group=bool(_if_allowed(session, _GROUP_SQL)),
        instrumented=bool((_if_allowed(session, _INSTRUMENTS_SQL) or [(0,)])[0][0]),
        prepared_xa=len(_if_allowed(session, "XA RECOVER CONVERT XID")),
        collations=frozenset(_names(session, "SELECT collation_name FROM information_schema.collations")),
        plugins=frozenset(
            _names(session, "SELECT plugin_name FROM information_schema.plugins WHERE plugin_status = 'ACTIVE'")
        ),
        components=frozenset(_names(session, "SELECT component_urn FROM mysql.component")),
        functions=frozenset(_names(session, "SELECT name FROM mysql.func")),
        account_plugins=frozenset(_names(session, "SELECT DISTINCT plugin FROM mysql.user WHERE plugin <> ''")),
        encrypted_tables=len(
            _names(
                session,
                "SELECT table_name FROM information_schema.tables"
                f" WHERE create_options LIKE '%ENCRYPTION=''Y''%' AND table_schema {_USER_SCHEMAS}",
            )
        ),
        role=_role(session, pair),
    )


def _missing_rights(session: Session, kind: accounts.AccountKind) -> tuple[accounts.MissingRight, ...]:
    user, _, host = str(session.scalar("SELECT CURRENT_USER()")).rpartition("@")
    grants = [str(row[0]) for row in session.rows("SHOW GRANTS")]
    return accounts.missing_in(grants, kind, user=user, host=host)


def _clock_offset(session: Session) -> float:
    before = time.time()
    theirs = float(session.scalar("SELECT UNIX_TIMESTAMP(NOW(6))"))
    return theirs - (before + time.time()) / 2


def _log_filters(session: Session) -> tuple[str, ...]:
    """Return binlog_do_db and binlog_ignore_db; they are shown nowhere else."""
    try:
        rows = session.records("SHOW BINARY LOG STATUS")
    except Rejected:
        return ()
    names = ("Binlog_Do_DB", "Binlog_Ignore_DB")
    return tuple(f"{name.lower()}={row[name]}" for row in rows for name in names if row.get(name))


def _role(session: Session, pair: str) -> Marker | None:
    try:
        return marker.read(session, pair)
    except Rejected:
        return None


def _names(session: Session, statement: str) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in _if_allowed(session, statement))


def _if_allowed(session: Session, statement: str) -> list[Row]:
    """Return the rows; none where the account lacks the right (its own finding) or the version the table."""
    try:
        return session.rows(statement)
    except Rejected:
        return []
