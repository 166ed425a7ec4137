"""Settings of a server that must outlast its restart: set with SET PERSIST, and read back where the server keeps them.

SET PERSIST writes mysqld-auto.cnf.backup, calls fdatasync on it and renames it over mysqld-auto.cnf, but never syncs
the directory (seen with strace on 9.7.4). The rename becomes durable with the next fdatasync of a new file in that file
system, so a setting that must survive a power cut is followed by one more SET PERSIST.

Persisted values win over option files and command line, and are applied in the order of their timestamps: with
`super_read_only=ON` persisted first and `read_only=OFF` later, a restart ends writable (measured). So both are always
persisted together, with the same value. This module knows no roles and no pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from farshore_agent.mysql.connections import READ_ONLY, Rejected, Session
from farshore_schema.errors import Permanent

_TRUE: Final = frozenset({"1", "ON"})


class Switches(NamedTuple):
    """What decides whether a server can complete a commit now, and whether it could after a restart."""

    super_read_only: bool
    read_only: bool
    offline: bool
    event_scheduler: str
    loads_persisted: bool  # persisted_globals_load=ON: without it nothing persisted counts
    shows_sessions: bool  # performance_schema=ON: without it nobody can tell who may still commit
    persisted: Mapping[str, str]

    @property
    def writable(self) -> bool:
        """Whether any client, the privileged ones included, could commit."""
        return not self.super_read_only

    @property
    def open_for_clients(self) -> bool:
        """Whether an ordinary client could commit."""
        return not (self.super_read_only or self.read_only or self.offline)

    @property
    def closed_for_good(self) -> bool:
        """Whether nobody can commit, now and after a restart (R13)."""
        return (
            self.super_read_only
            and self.read_only
            and self.loads_persisted
            and self.persisted.get("super_read_only") == "ON"
            and self.persisted.get("read_only") == "ON"
            and (
                self.event_scheduler == "DISABLED"
                or (self.event_scheduler == "OFF" and self.persisted.get("event_scheduler") == "OFF")
            )
        )


SWITCHES_COLUMNS: Final = (
    "@@GLOBAL.super_read_only OR @@GLOBAL.innodb_read_only, @@GLOBAL.read_only, @@GLOBAL.offline_mode,"
    " @@GLOBAL.event_scheduler, @@GLOBAL.persisted_globals_load, @@GLOBAL.performance_schema,"
    " (SELECT GROUP_CONCAT(VARIABLE_NAME, '=', VARIABLE_VALUE) FROM performance_schema.persisted_variables"
    " WHERE VARIABLE_NAME IN ('super_read_only', 'read_only', 'event_scheduler'))"
)


def switches(session: Session) -> Switches:
    """Read them all in one statement."""
    return switches_of(session.row(f"SELECT {SWITCHES_COLUMNS}"))


def switches_of(row: Sequence[Any]) -> Switches:
    """Return what `SWITCHES_COLUMNS` gave."""
    closed, read_only, offline, scheduler, loads, shows, persisted = row
    pairs = (item.partition("=") for item in str(persisted or "").split(",") if item)
    return Switches(
        super_read_only=bool(closed),
        read_only=bool(read_only),
        offline=bool(offline),
        event_scheduler=str(scheduler),
        loads_persisted=bool(loads),
        shows_sessions=bool(shows),
        persisted={name: value for name, _, value in pairs},
    )


def close_for_writes(session: Session) -> None:
    """Make the server read-only for everybody, now and after restarts.

    Waits for running statements and table locks, up to the session's lock_wait_timeout; raises Rejected("timeout")
    then, with nothing changed.
    """
    session.run("SET PERSIST super_read_only = ON, PERSIST read_only = ON")


def open_for_writes(session: Session) -> None:
    """Let everybody write, now and after restarts."""
    session.run("SET PERSIST super_read_only = OFF, PERSIST read_only = OFF")


def stop_scheduler(session: Session) -> None:
    """Stop the event scheduler, now and after restarts. Being later than `close_for_writes`, it settles that one.

    A server started with event_scheduler=DISABLED refuses to have it set; it stays so after every restart.
    """
    try:
        session.run("SET PERSIST event_scheduler = OFF")
    except Rejected as error:
        if error.number != READ_ONLY:
            raise
        session.run("SET PERSIST read_only = ON")


def start_scheduler(session: Session) -> None:
    """Start the event scheduler, now and after restarts; a server started with DISABLED keeps it so."""
    try:
        session.run("SET PERSIST event_scheduler = ON")
    except Rejected as error:
        if error.number != READ_ONLY:
            raise


def refuse_unfenceable(now: Switches) -> None:
    """Raise Permanent when a fence would not hold after a restart (R13), or could not be proved complete."""
    if not now.shows_sessions:
        raise Permanent(
            "unsuitable_server",
            "performance_schema is OFF: nobody can tell which sessions could still commit behind a fence",
            hint="remove performance_schema=OFF from its option file and restart it",
        )
    if not now.loads_persisted:
        raise Permanent(
            "unsuitable_server",
            "the server does not load persisted settings at its start (persisted_globals_load=OFF): a fence would not "
            "outlast a restart",
            hint="remove persisted_globals_load=OFF from its option file and restart it",
        )


def is_on(value: object) -> bool:
    """Whether a setting's value means on, in any of MySQL's spellings."""
    return str(value).upper() in _TRUE
