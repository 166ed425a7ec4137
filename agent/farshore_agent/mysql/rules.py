"""What `doctor` says of one server: findings with the exact words that mend them, from its portrait alone.

An `error` refuses protection; a `warning` and a `note` are shown. Every rule is one small function, so that it can be
read and provoked by itself. It opens no connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from farshore_agent.mysql.portrait import TABLES_MAX, Portrait
from farshore_schema.documents import MySQLPair
from farshore_schema.observed import Finding

SERIES_TESTED: Final = ((9, 7),)
SERIES_UNVERIFIED: Final = ((8, 0), (8, 4))
KEEP_SECONDS_MIN: Final = 86_400
"""binlog_expire_logs_seconds below this leaves a gateway that is down over a weekend no way back."""
_GTID_MENDS: Final = (
    "SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE; "
    "SET PERSIST gtid_mode = ON_PERMISSIVE; wait until Ongoing_anonymous_transaction_count is 0; "
    "SET PERSIST gtid_mode = ON;"
)

Severity = Literal["error", "warning", "note"]


def of_server(portrait: Portrait, document: MySQLPair) -> Iterator[Finding]:
    """Judge one server by itself."""
    yield from _series(portrait, document)
    yield from _rights(portrait)
    yield from _log(portrait)
    yield from _restart(portrait)
    yield from _others(portrait)
    yield from _tables(portrait)
    yield from _durability(portrait, document)
    yield from _hints(portrait)


def found(
    portrait: Portrait, severity: Severity, code: str, message: str, hint: str = "", *, at: str = "host"
) -> Finding:
    """Return a finding about one server; `at` is the place below its site in the declaration."""
    where = f"{portrait.address.host}:{portrait.address.port}"
    return Finding(
        code=code,
        severity=severity,
        message=f"{where}: {message}",
        hint=hint,
        field=f"site_{portrait.side}.{at}",
        side=portrait.side,
    )


def _series(portrait: Portrait, document: MySQLPair) -> Iterator[Finding]:
    if portrait.series in SERIES_TESTED:
        return
    version = portrait.version
    if portrait.series in SERIES_UNVERIFIED and document.allow_unverified_version:
        yield found(
            portrait,
            "warning",
            "unsupported_server_version",
            f"MySQL {version} is accepted, but this series is not tested",
        )
        return
    hint = "use MySQL 9.7"
    if portrait.series in SERIES_UNVERIFIED:
        hint += ", or declare allow_unverified_version: true"
    yield found(portrait, "error", "unsupported_server_version", f"MySQL {version} is not supported", hint)


def _rights(portrait: Portrait) -> Iterator[Finding]:
    for missing in portrait.missing_rights:
        yield found(
            portrait,
            "error",
            "missing_privilege",
            f"{portrait.address.user} lacks {missing.privilege} ({missing.step}: {missing.why})",
            f"{missing.grant};",
            at=portrait.address.purpose,
        )


def _log(portrait: Portrait) -> Iterator[Finding]:
    if not portrait.on("log_bin"):
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            "the binary log is off",
            "remove skip_log_bin (disable_log_bin) from its option file, and restart it",
        )
    if portrait.variables.get("gtid_mode") != "ON" or portrait.variables.get("enforce_gtid_consistency") != "ON":
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"gtid_mode is {portrait.variables.get('gtid_mode')} and enforce_gtid_consistency is "
            f"{portrait.variables.get('enforce_gtid_consistency')}",
            _GTID_MENDS,
        )
    form = portrait.variables.get("binlog_format", "ROW")
    if form != "ROW":
        yield found(
            portrait,
            "warning" if form == "MIXED" else "error",
            "unsuitable_server",
            f"binlog_format is {form}: statements may have another effect on the other side",
            "SET PERSIST binlog_format = ROW;",
        )
    if portrait.variables.get("binlog_row_image", "FULL") != "FULL":
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"binlog_row_image is {portrait.variables['binlog_row_image']}: rows lost or changed could not be reported",
            "SET PERSIST binlog_row_image = FULL;",
        )
    if portrait.variables.get("binlog_checksum", "CRC32") != "CRC32":
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"binlog_checksum is {portrait.variables['binlog_checksum']}: the journal takes events with CRC32 only",
            "SET PERSIST binlog_checksum = CRC32;",
        )
    if portrait.variables.get("server_id", "1") == "0":
        yield found(
            portrait, "error", "unsuitable_server", "server_id is 0: nobody may replicate from it",
            "SET PERSIST server_id = 1; a number that no other server in the topology has",
        )  # fmt: skip
    keep = int(portrait.variables.get("binlog_expire_logs_seconds", KEEP_SECONDS_MIN))
    if 0 < keep < KEEP_SECONDS_MIN:
        yield found(
            portrait,
            "warning",
            "binlog_expires_soon",
            f"binary logs go after {keep} s: a gateway that is down for longer must seed again",
            f"SET PERSIST binlog_expire_logs_seconds = {30 * KEEP_SECONDS_MIN};",
        )


def _restart(portrait: Portrait) -> Iterator[Finding]:
    if "persisted_globals_load" in portrait.variables and not portrait.on("persisted_globals_load"):
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            "persisted_globals_load is OFF: a fence would not outlast a restart",
            "remove persisted_globals_load=OFF from its option file, and restart it",
        )
    if "performance_schema" in portrait.variables and not portrait.on("performance_schema"):
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            "performance_schema is OFF: nobody can tell which sessions could still commit behind a fence",
            "remove performance_schema=OFF from its option file, and restart it",
        )
    if not portrait.on("relay_log_recovery"):
        yield found(
            portrait,
            "warning",
            "relay_log_recovery_off",
            "relay_log_recovery is OFF: after a crash this side may not be able to go on following by itself",
            "write relay_log_recovery=ON into its option file, and restart it",
        )


def _others(portrait: Portrait) -> Iterator[Finding]:
    for channel in portrait.foreign_channels:
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"it replicates from elsewhere too (channel {channel}): a pair is one whole server (R1)",
            "STOP REPLICA FOR CHANNEL '...'; RESET REPLICA ALL FOR CHANNEL '...';",
        )
    for rule in portrait.filters:
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"a filter is set ({rule}): a part of the data would not arrive (R1)",
            "remove it from the option file and restart; or CHANGE REPLICATION FILTER ... = ();",
        )
    if portrait.in_group:
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            "it is a member of a replication group (R1)",
            "STOP GROUP_REPLICATION; or name a server that is in no group",
        )
    if portrait.variables.get("init_replica"):
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            "init_replica is set: what it executes would be done on one side only (R1)",
            "SET PERSIST init_replica = '';",
        )


def _tables(portrait: Portrait) -> Iterator[Finding]:
    if portrait.not_innodb:
        yield found(
            portrait,
            "error",
            "unsuitable_server",
            f"{len(portrait.not_innodb)} tables are not InnoDB: {some(portrait.not_innodb)}",
            "ALTER TABLE ... ENGINE = InnoDB; for each",
        )
    if portrait.no_primary_key:
        yield found(
            portrait,
            "warning",
            "no_primary_key",
            f"{len(portrait.no_primary_key)} tables have no primary key: updates of them apply slowly on the standby: "
            + some(portrait.no_primary_key),
            "ALTER TABLE ... ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY; for each",
        )


def _durability(portrait: Portrait, document: MySQLPair) -> Iterator[Finding]:
    if portrait.on("log_replica_updates"):
        explicit = document.standby_durability == "relaxed"
        yield found(
            portrait,
            "error" if explicit else "warning",
            "unsuitable_server" if explicit else "standby_slower",
            "log_replica_updates is ON: as a standby it must commit with full durability, which makes it apply several "
            "times slower than its source can write, and the backlog is the time of a failover",
            "write log_replica_updates=OFF into the option file of both servers, and restart them",
            at="host",
        )
    elif document.standby_durability == "full":
        yield found(
            portrait,
            "note",
            "standby_slower",
            "standby_durability: full makes a standby apply several times slower than relaxed would",
            "declare standby_durability: auto; here that is safe",
        )
    loose = [
        f"{name} = {portrait.variables.get(name)}"
        for name in ("sync_binlog", "innodb_flush_log_at_trx_commit")
        if portrait.variables.get(name) not in ("1", None)
    ]
    if loose and not portrait.on("super_read_only"):
        yield found(
            portrait,
            "warning",
            "source_not_durable",
            f"{' and '.join(loose)}: after a power cut it may lack what the other side has, and must be seeded again",
            "SET PERSIST sync_binlog = 1; SET PERSIST innodb_flush_log_at_trx_commit = 1;",
        )


def _hints(portrait: Portrait) -> Iterator[Finding]:
    if not portrait.instrumented:
        yield found(
            portrait,
            "note",
            "not_instrumented",
            "transactions are not instrumented: a fence must end every client session before it knows its position",
            "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME = 'events_transactions_current'; "
            "UPDATE performance_schema.setup_instruments SET ENABLED = 'YES' WHERE NAME = 'transaction';",
        )
    if portrait.prepared_xa:
        yield found(
            portrait,
            "warning",
            "prepared_xa",
            f"{portrait.prepared_xa} XA transactions are prepared and undecided: a seed and a switchover wait for them",
            "XA RECOVER CONVERT XID; then XA COMMIT or XA ROLLBACK each",
        )
    workers = portrait.variables.get("replica_parallel_workers")
    if workers in ("0", "1"):
        yield found(
            portrait,
            "warning",
            "standby_slower",
            f"replica_parallel_workers is {workers}: as a standby it applies one transaction at a time",
            "SET PERSIST replica_parallel_workers = 4;",
        )


def some(names: tuple[str, ...]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - TABLES_MAX
    return ", ".join(names[:TABLES_MAX]) + (f" and {more} more" if more > 0 else "")
