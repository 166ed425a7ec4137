"""Look at the two servers before anything is written: what is there, what would be refused, what cannot be carried.

Reads only. The decisions R8 and R9 ask for are the engine's; what a seed can never do is refused by `check_pair`.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.errors import Interruption, SeedPermanent, SeedTransient, StatementFailed
from farshore_agent.mysql.seed.servers import Server, explained
from farshore_agent.mysql.seed.session import Connect, Session
from farshore_agent.mysql.seed.values import (
    Account,
    Remark,
    SchemaContents,
    SeedSettings,
    SourceContents,
    TargetContents,
)

Seen = TypeVar("Seen", SourceContents, TargetContents)

RESERVED_USERS = ("mysql.sys", "mysql.session", "mysql.infoschema")
NAMES_SHOWN_MAX = 10
VARIABLES = (
    *("server_uuid", "version", "gtid_mode", "lower_case_table_names", "innodb_page_size", "local_infile"),
    *("log_bin_trust_function_creators", "partial_revokes", "event_scheduler", "read_only", "super_read_only"),
    *("offline_mode", "max_allowed_packet", "persisted_globals_load", "gtid_executed"),
    *("sql_mode", "character_set_server", "collation_server", "time_zone", "system_time_zone"),
    *("default_collation_for_utf8mb4", "innodb_default_row_format", "default_table_encryption"),
)
COMPARED = (
    *("sql_mode", "character_set_server", "collation_server", "time_zone", "system_time_zone"),
    *("default_collation_for_utf8mb4", "innodb_default_row_format", "default_table_encryption"),
    *("log_bin_trust_function_creators", "max_allowed_packet"),
)
"""Settings whose difference changes what later DDL or clients do; told, not mended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Settings of a server that a seed depends on."""

    variables: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.variables[name]

    @property
    def series(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor, *_ = self["version"].split(".")
        return int(major), int(minor)

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self[name] in ("1", "ON")


def read_facts(session: Session) -> Facts:
    """Read the settings named in VARIABLES."""
    answer = session.ask("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in VARIABLES))
    return Facts(variables=dict(zip(VARIABLES, answer.names()[0], strict=True)))


def inspect_target(target: Connect, settings: SeedSettings) -> TargetContents:
    """Return what a would-be target holds; raises SeedTransient when it cannot be reached, SeedPermanent."""
    return _inspect(Server(target, "target"), lambda session: target_contents(session, settings))


def inspect_source(source: Connect, settings: SeedSettings) -> SourceContents:
    """Return what a would-be source holds and what of it a seed refuses; raises as `inspect_target` does."""
    return _inspect(Server(source, "source"), lambda session: source_contents(session, settings))


def _inspect(server: Server, look: Callable[[Session], Seen]) -> Seen:
    try:
        return look(server.open())
    except StatementFailed as error:
        refused = explained(error)
        if isinstance(refused, SeedPermanent):
            raise refused from error
        raise SeedPermanent(str(error), hint=f"see what the {server.side} answered") from error
    except Interruption as error:
        raise SeedTransient(f"the {server.side} cannot be inspected: {error}") from error
    finally:
        server.end_all()


def target_contents(session: Session, settings: SeedSettings) -> TargetContents:
    """Return what the server of `session` holds."""
    hidden = sql.listed((*sql.SYSTEM_SCHEMAS, *settings.skip_schemas))
    facts = read_facts(session)
    schemas = session.ask(
        "SELECT s.schema_name,"
        " (SELECT COUNT(*) FROM information_schema.tables t WHERE t.table_schema=s.schema_name"
        "  AND t.table_type='BASE TABLE'),"
        " (SELECT IFNULL(SUM(t.table_rows), 0) FROM information_schema.tables t WHERE t.table_schema=s.schema_name),"
        " (SELECT IFNULL(SUM(t.data_length + t.index_length), 0) FROM information_schema.tables t"
        "  WHERE t.table_schema=s.schema_name),"
        " (SELECT COUNT(*) FROM information_schema.views v WHERE v.table_schema=s.schema_name)"
        " + (SELECT COUNT(*) FROM information_schema.routines r WHERE r.routine_schema=s.schema_name)"
        " + (SELECT COUNT(*) FROM information_schema.events e WHERE e.event_schema=s.schema_name)"
        f" FROM information_schema.schemata s WHERE s.schema_name NOT IN ({hidden}) ORDER BY 1"
    ).names()
    return TargetContents(
        server_uuid=facts["server_uuid"],
        version=facts["version"],
        gtid_executed=sql.one_line(facts["gtid_executed"]),
        schemas=tuple(
            SchemaContents(
                name=name,
                tables=int(tables),
                rows_estimate=int(rows),
                bytes_estimate=int(size),
                other_objects=int(others),
            )
            for name, tables, rows, size, others in schemas
        ),
        accounts=tuple(
            each for each in accounts_of(session) if not _is_ours(each, (*settings.skip_accounts, login_of(session)))
        ),
        writable=not (facts.on("read_only") or facts.on("super_read_only") or facts.on("offline_mode")),
        client_sessions=_client_sessions(session),
        prepared_xa=len(session.ask("XA RECOVER").rows),
    )


def source_contents(session: Session, settings: SeedSettings) -> SourceContents:
    """Return what the server of `session` holds, and what of it a seed refuses or leaves out."""
    hidden = sql.listed((*sql.SYSTEM_SCHEMAS, *settings.skip_schemas))
    facts = read_facts(session)
    tables, rows, size = session.ask(
        "SELECT COUNT(*), IFNULL(SUM(table_rows), 0), IFNULL(SUM(data_length), 0) FROM information_schema.tables "
        f"WHERE table_type='BASE TABLE' AND table_schema NOT IN ({hidden})"
    ).names()[0]
    return SourceContents(
        server_uuid=facts["server_uuid"],
        version=facts["version"],
        gtid_executed=sql.one_line(facts["gtid_executed"]),
        tables=int(tables),
        rows_estimate=int(rows),
        bytes_estimate=int(size),
        not_innodb=not_innodb(session, settings),
        prepared_xa=len(session.ask("XA RECOVER").rows),
        remarks=_left_out(session, hidden),
    )


def not_innodb(session: Session, settings: SeedSettings) -> tuple[str, ...]:
    """Return the tables that no snapshot covers."""
    hidden = sql.listed((*sql.SYSTEM_SCHEMAS, *settings.skip_schemas))
    rows = session.ask(
        "SELECT table_schema, table_name, engine FROM information_schema.tables WHERE table_type='BASE TABLE' "
        f"AND table_schema NOT IN ({hidden}) AND IFNULL(engine, '')<>'InnoDB' ORDER BY 1, 2"
    ).names()
    return tuple(f"{schema}.{table} ({engine})" for schema, table, engine in rows)


def accounts_of(session: Session) -> tuple[Account, ...]:
    """Return every account of the server, roles too."""
    rows = session.ask("SELECT user, host FROM mysql.user ORDER BY 1, 2").names()
    return tuple(Account(user=user, host=host) for user, host in rows)


def login_of(session: Session) -> Account:
    """Return the account that the server took this session for."""
    user, _, host = session.ask("SELECT CURRENT_USER()").text().rpartition("@")
    return Account(user=user, host=host)


def _is_ours(account: Account, ours: Sequence[Account]) -> bool:
    return account.user == "root" or account.user in RESERVED_USERS or account in ours


def check_pair(source: Facts, target: Facts, tables_not_innodb: Sequence[str]) -> tuple[Remark, ...]:
    """Refuse what a seed can never do between these two, and return what a person should know; reads nothing."""
    if source["server_uuid"] == target["server_uuid"]:
        raise SeedPermanent("source and target are the same server", hint="check host and port of both endpoints")
    if target.series < source.series:
        raise SeedPermanent(
            f"the target is older ({target['version']}) than the source ({source['version']})",
            hint="upgrade the target to the source's release series or a newer one",
        )
    for side, facts in (("source", source), ("target", target)):
        if facts["gtid_mode"] != "ON":
            raise SeedPermanent(
                f"gtid_mode of the {side} is {facts['gtid_mode']}",
                hint=f"set gtid_mode=ON and enforce_gtid_consistency=ON on the {side}",
            )
    for variable in ("lower_case_table_names", "innodb_page_size"):
        if source[variable] != target[variable]:
            raise SeedPermanent(
                f"{variable} differs: {source[variable]} on the source, {target[variable]} on the target",
                hint=f"initialise the target's data directory with {variable}={source[variable]}",
            )
    if tables_not_innodb:
        shown = ", ".join(tables_not_innodb[:NAMES_SHOWN_MAX])
        raise SeedPermanent(
            f"{len(tables_not_innodb)} tables are not InnoDB, no snapshot covers them: {shown}",
            hint="convert them with ALTER TABLE ... ENGINE=InnoDB",
        )
    return tuple(
        Remark(
            code="setting_differs",
            subject=name,
            message=f"{name} is {source[name]!r} on the source and {target[name]!r} on the target",
        )
        for name in COMPARED
        if source[name] != target[name]
    )


def check_no_channel(session: Session) -> None:
    """Refuse a target that still replicates from somewhere."""
    running = session.ask(
        "SELECT channel_name FROM performance_schema.replication_connection_status WHERE service_state<>'OFF' UNION "
        "SELECT channel_name FROM performance_schema.replication_applier_status WHERE service_state<>'OFF'"
    ).names()
    if running:
        names = ", ".join(repr(row[0]) for row in running)
        raise SeedPermanent(
            f"the target replicates on channel {names}", hint="STOP REPLICA on the target, then seed again"
        )


def _client_sessions(session: Session) -> int:
    return session.ask(
        "SELECT COUNT(*) FROM performance_schema.threads WHERE type='FOREGROUND' AND processlist_id IS NOT NULL "
        "AND processlist_user NOT IN ('system user', 'event_scheduler') "
        "AND processlist_user<>SUBSTRING_INDEX(USER(), '@', 1) "
        "AND IFNULL(processlist_command, '') NOT IN ('Daemon', 'Binlog Dump', 'Binlog Dump GTID')"
    ).number()


def _left_out(session: Session, hidden: str) -> tuple[Remark, ...]:
    """Name what no seed carries."""
    questions = (
        (
            "histogram",
            "SELECT CONCAT_WS('.', schema_name, table_name, column_name) FROM information_schema.column_statistics "
            f"WHERE schema_name NOT IN ({hidden}) ORDER BY 1",
            "histograms are not carried: run ANALYZE TABLE ... UPDATE HISTOGRAM on the new side after a promotion",
        ),
        (
            "loadable_function",
            "SELECT name FROM mysql.func ORDER BY 1",
            "loadable functions (UDFs) are not carried: install them on the target before the seed",
        ),
        (
            "foreign_server",
            "SELECT server_name FROM mysql.servers ORDER BY 1",
            "CREATE SERVER definitions are not carried: create them on the target",
        ),
        (
            "read_only_schema",
            "SELECT schema_name FROM information_schema.schemata_extensions WHERE options LIKE '%READ ONLY=1%' "
            f"AND schema_name NOT IN ({hidden})",
            "READ ONLY of a schema is not carried, as it is not replicated either",
        ),
        (
            "own_directory",
            "SELECT CONCAT_WS('.', table_schema, table_name) FROM information_schema.tables "
            f"WHERE create_options LIKE '%data_directory%' AND table_schema NOT IN ({hidden})",
            "DATA DIRECTORY must exist and be allowed (innodb_directories) on the target",
        ),
        (
            "encrypted",
            "SELECT CONCAT_WS('.', table_schema, table_name) FROM information_schema.tables "
            f"WHERE create_options LIKE '%ENCRYPTION=''Y''%' AND table_schema NOT IN ({hidden})",
            "encrypted tables need a keyring on the target; it has its own master key",
        ),
    )
    remarks = []
    for code, question, message in questions:
        names = [row[0] for row in session.ask(question).names()]
        if names:
            more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
            subject = ", ".join(names[:NAMES_SHOWN_MAX]) + more
            remarks.append(Remark(code=code, subject=subject, message=message))
    return tuple(remarks)


def missing_on_target(source: Session, target: Session) -> tuple[Remark, ...]:
    """Name components and authentication plugins that the source's tables and accounts may need on the target."""
    remarks = []
    components = "SELECT component_urn FROM mysql.component ORDER BY 1"
    here = {row[0] for row in target.ask(components).names()}
    lacking = [row[0] for row in source.ask(components).names() if row[0] not in here]
    if lacking:
        message = "components of the source are not on the target; generated columns, views and accounts may need them"
        remarks.append(Remark(code="component_missing", subject=", ".join(lacking), message=message))
    plugins = {
        row[0]
        for row in target.ask(
            "SELECT plugin_name FROM information_schema.plugins WHERE plugin_status='ACTIVE' "
            "AND plugin_type='AUTHENTICATION'"
        ).names()
    }
    used = source.ask("SELECT DISTINCT plugin FROM mysql.user WHERE plugin<>'' ORDER BY 1").names()
    absent = [row[0] for row in used if row[0] not in plugins]
    if absent:
        message = "accounts of the source use authentication plugins that are not active on the target"
        remarks.append(Remark(code="authentication_plugin_missing", subject=", ".join(absent), message=message))
    return tuple(remarks)
