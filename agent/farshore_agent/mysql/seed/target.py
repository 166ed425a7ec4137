"""The target's state around a seed: closed to everybody, emptied, and at the end told which transactions it holds.

Every step is idempotent. Closing is persisted (R10, R13): a target that restarts in the middle of a seed comes back
closed. Opening it again for clients is not part of a seed.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

from collections.abc import Sequence

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.catalogue import Catalogue
from farshore_agent.mysql.seed.errors import Interruption, NotExact, SeedPermanent, SeedTransient, StatementFailed
from farshore_agent.mysql.seed.inspect import Facts
from farshore_agent.mysql.seed.servers import Server, explained
from farshore_agent.mysql.seed.session import Connect, Session

LOADING = ("SET GLOBAL super_read_only=OFF", "SET GLOBAL local_infile=ON")
"""What loading needs of the server. Not persisted: after a restart it must be said again, by every session."""
LOCK_TIMEOUT = 1205
UNCHANGEABLE = frozenset({1238, 1290})
"""The event scheduler was switched off for good at the server's start: as good as OFF."""


def close_target(session: Session) -> None:
    """Shut clients out, durably: offline_mode ends their sessions, read_only stops who may stay; no event runs."""
    session.ask("SET PERSIST read_only=ON")
    session.ask("SET PERSIST offline_mode=ON")
    try:
        session.ask("SET PERSIST event_scheduler=OFF")
    except StatementFailed as error:
        if error.code not in UNCHANGEABLE:
            raise
    for statement in LOADING:
        session.ask(statement)


def restore_settings(session: Session, before: Facts) -> None:
    """Put back the two settings that only the seed needed otherwise."""
    for name in ("local_infile", "log_bin_trust_function_creators"):
        session.ask(f"SET GLOBAL {name}={'ON' if before.on(name) else 'OFF'}")


def reopen_target(target: Connect) -> None:
    """Let clients log in again (they stay unable to write until a promotion): the engine's last step of a seed.

    Idempotent. To be called when the target is super_read_only and its channel has applied the first tail.
    """
    server = Server(target, "target")
    try:
        session = server.open()
        session.ask("SET GLOBAL offline_mode=OFF")
        session.ask("RESET PERSIST IF EXISTS offline_mode")
    except Interruption as error:
        raise SeedTransient(f"the target cannot be opened for clients: {error}") from error
    finally:
        server.end_all()


def clear_target(session: Session, keep: Sequence[str]) -> None:
    """Drop every schema and general tablespace but the server's own and `keep`."""
    hidden = sql.listed((*sql.SYSTEM_SCHEMAS, *keep))
    locked = session.ask(
        "SELECT schema_name FROM information_schema.schemata_extensions WHERE options LIKE '%READ ONLY=1%' "
        f"AND schema_name NOT IN ({hidden})"
    ).names()
    for row in locked:
        session.ask(f"ALTER DATABASE {sql.name(row[0])} READ ONLY=0")
    schemas = session.ask(
        f"SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ({hidden}) ORDER BY 1"
    ).names()
    try:
        for row in schemas:
            session.ask(f"DROP DATABASE {sql.name(row[0])}")
    except StatementFailed as error:
        if error.code != LOCK_TIMEOUT:
            raise
        raise SeedPermanent(
            f"somebody on the target holds tables of {row[0]} open: {error}",
            hint="see XA RECOVER on the target, and sessions of accounts with CONNECTION_ADMIN; end them",
        ) from error
    spaces = session.ask(
        "SELECT name FROM information_schema.innodb_tablespaces WHERE space_type='General' AND name<>'mysql'"
    ).names()
    for row in spaces:
        session.ask(f"DROP TABLESPACE {sql.name(row[0])}")


def create_containers(session: Session, catalogue: Catalogue) -> None:
    """Create general tablespaces (in files of the target's own choice) and schemas."""
    for space in catalogue.tablespaces:
        block = f" FILE_BLOCK_SIZE={space.block_bytes}" if space.block_bytes else ""
        encryption = " ENCRYPTION='Y'" if space.encrypted else ""
        session.ask(f"CREATE TABLESPACE {sql.name(space.name)}{block}{encryption}")
    for schema in catalogue.schemas:
        session.ask(schema.create)


def take_over_history(session: Session, gtid_executed: str) -> None:
    """Make the copied transactions the target's whole history, durably; raises NotExact when it is not that after."""
    session.ask("RESET BINARY LOGS AND GTIDS")
    session.ask(f"SET GLOBAL gtid_purged={sql.plain(gtid_executed)}")
    now = sql.one_line(session.ask("SELECT @@GLOBAL.gtid_executed").text())
    missing = session.ask(f"SELECT GTID_SUBTRACT({sql.text(gtid_executed)}, {sql.text(now)})").text()
    more = session.ask(f"SELECT GTID_SUBTRACT({sql.text(now)}, {sql.text(gtid_executed)})").text()
    if missing or more:
        raise NotExact(
            f"after the seed the target's gtid_executed lacks '{missing}' and has '{more}' too much",
            hint="somebody wrote to the target during the seed: find who holds CONNECTION_ADMIN there, then seed again",
        )
    # Rows may sit in buffers where innodb_flush_log_at_trx_commit is not 1.
    session.ask("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")


def permanent(error: StatementFailed, what: str) -> Exception:
    """Return what to raise when the target refuses a definition."""
    refused = explained(error)
    if isinstance(refused, SeedPermanent):
        return refused
    return SeedPermanent(
        f"the target refuses {what}: {error}",
        hint="mend what it names on the target (a keyring, a directory, a component, a setting), then repeat the seed",
    )
