"""How durably a standby commits: relaxed is three to five times as fast, and safe only under conditions.

428 simulated power cuts showed: with log_replica_updates=OFF a relaxed standby is behind after a crash, never wrong,
because its rows and its GTIDs are one InnoDB commit; with log_replica_updates=ON they may silently disagree. What a
relaxed standby shows as gtid_executed is not durable: `durable_mark` is. Relaxed is never persisted, so a restart
comes back with the server's own settings; full is persisted at a promotion. This module knows no roles.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.fencing import position
from farshore_schema.errors import Permanent

Durability = Literal["full", "relaxed"]
Wish = Literal["auto", "full", "relaxed"]

_CONDITIONS_SQL: Final = (
    "SELECT @@GLOBAL.log_replica_updates, @@GLOBAL.relay_log_recovery, @@GLOBAL.innodb_doublewrite,"
    " (SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB'"
    " AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema'))"
)
_WHOLE_PAGES: Final = frozenset({"ON", "DETECT_AND_RECOVER"})


class Verdict(NamedTuple):
    """What a standby may be, and what stands against relaxing it."""

    durability: Durability
    against: tuple[str, ...]


def judge(session: Session, wish: Wish) -> Verdict:
    """Decide for this server; raises Permanent when `relaxed` is asked for where it is not safe."""
    logs_updates, recovery, doublewrite, others = session.row(_CONDITIONS_SQL)
    against = tuple(
        reason
        for reason, holds in (
            ("log_replica_updates is ON: after a power cut rows and GTIDs could disagree silently", logs_updates),
            ("relay_log_recovery is OFF", not recovery),
            (f"innodb_doublewrite is {doublewrite}", str(doublewrite) not in _WHOLE_PAGES),
            (f"{others} tables are not InnoDB", others),
        )
        if holds
    )
    if wish == "relaxed" and against:
        raise Permanent(
            "unsuitable_server",
            f"standby_durability: relaxed is not safe at {session.address.host}:{session.address.port}: "
            + "; ".join(against),
            hint="start the server with log_replica_updates=OFF and relay_log_recovery=ON, or declare "
            "standby_durability: auto",
            field="standby_durability",
        )
    return Verdict("full" if wish == "full" or against else "relaxed", against)


def relax(session: Session, durability: Durability) -> None:
    """Run a standby as decided, until its next restart."""
    sync, flush = (1, 1) if durability == "full" else (0, 2)
    session.run("SET GLOBAL sync_binlog = %s, GLOBAL innodb_flush_log_at_trx_commit = %s", (sync, flush))


def make_full(session: Session) -> None:
    """Make every commit durable from now on, and everything committed so far; writes no GTID."""
    session.run("SET GLOBAL sync_binlog = 1, GLOBAL innodb_flush_log_at_trx_commit = 1")
    flush(session)


def keep_full(session: Session) -> None:
    """Make every commit durable for good: a side that was promoted must not come back relaxed from a restart."""
    session.run("SET PERSIST sync_binlog = 1, PERSIST innodb_flush_log_at_trx_commit = 1")


def flush(session: Session) -> None:
    """Make everything committed so far survive a power cut; writes no GTID."""
    session.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")


def seen(sync_binlog: int, flush_log_at_commit: int, *, logs_updates: bool) -> Durability:
    """Name the present settings; without logged updates sync_binlog does not matter to a standby."""
    return "full" if flush_log_at_commit == 1 and (sync_binlog == 1 or not logs_updates) else "relaxed"


def durable_mark(session: Session) -> str:
    """Return a GTID set that the server holds even after a power cut: read first, then made durable.

    The flush covers what was committed before it only while each commit reaches the log at all, so
    innodb_flush_log_at_trx_commit is 1 for the moment: the form that the power cuts were tried with.
    """
    mark = position(session)
    setting = session.scalar("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")
    if setting == 1:
        flush(session)
        return mark
    session.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    try:
        flush(session)
    finally:
        session.run("SET GLOBAL innodb_flush_log_at_trx_commit = %s", (setting,))
    return mark
