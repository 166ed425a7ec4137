"""The rights of the two MySQL accounts of a site: each with its reason, the statements that give them, and a check.

`admin` is used only by the site's own gateway and may change the server; `replication` is used only by the peer's
gateway and reads (R4, R6). Both sets are minimal: a test takes every right away in turn and sees the named step fail.

It knows SQL text and lists of grants; it opens no connection and reads no configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

EVERYTHING = "*.*"


class AccountKind(StrEnum):
    """Which of the two accounts of a site."""

    ADMIN = "admin"
    REPLICATION = "replication"


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """One privilege on *.* and what it is for."""

    privilege: str
    step: str
    """The step that fails without it."""
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingRight:
    """A privilege that an account lacks, and the statement that gives it."""

    privilege: str
    step: str
    why: str
    grant: str


ADMIN: tuple[Right, ...] = (
    Right(privilege="SELECT", step="seed: compare", why="read back what was written, watch performance_schema"),
    Right(privilege="INSERT", step="seed: rows", why="load rows, those of the grant tables too; keep the role marker"),
    Right(privilege="DELETE", step="seed: accounts", why="replace accounts; take back the piece of a cut connection"),
    Right(privilege="CREATE", step="seed: tables", why="create schemas and tables"),
    Right(privilege="DROP", step="seed: empty the target", why="drop what is replaced, with consent only"),
    Right(privilege="ALTER", step="seed: keys", why="add secondary and foreign keys after the rows"),
    Right(privilege="REFERENCES", step="seed: foreign keys", why="add foreign keys after the rows"),
    Right(privilege="CREATE VIEW", step="seed: views", why="create views"),
    Right(privilege="SHOW VIEW", step="seed: compare", why="prove that views arrived as they are"),
    Right(privilege="CREATE ROUTINE", step="seed: routines", why="create procedures, functions and libraries"),
    Right(privilege="ALTER ROUTINE", step="seed: take back routines", why="drop what an interrupted step made"),
    Right(privilege="TRIGGER", step="seed: triggers", why="create triggers"),
    Right(privilege="EVENT", step="seed: events", why="create events; switch them on at a promotion"),
    Right(privilege="CREATE TABLESPACE", step="seed: tablespaces", why="create general tablespaces"),
    Right(privilege="RELOAD", step="seed: history", why="RESET BINARY LOGS AND GTIDS, FLUSH ENGINE LOGS"),
    Right(privilege="PROCESS", step="fence: find clients", why="see the sessions of others, InnoDB tablespaces"),
    Right(privilege="REPLICATION CLIENT", step="observe: channel", why="SHOW REPLICA STATUS, SHOW BINARY LOG STATUS"),
    Right(privilege="REPLICATION_SLAVE_ADMIN", step="channel", why="configure, start and stop the channel"),
    Right(privilege="SYSTEM_VARIABLES_ADMIN", step="fence: read only", why="SET PERSIST super_read_only, gtid_purged"),
    Right(
        privilege="CONNECTION_ADMIN",
        step="fence: end clients",
        why="kill sessions; work under offline_mode",
    ),
    Right(
        privilege="SYSTEM_USER",
        step="fence: end clients",
        why="kill sessions of privileged accounts",
    ),
    Right(privilege="SET_ANY_DEFINER", step="seed: routines", why="keep the definers of views, routines and events"),
    Right(privilege="ALLOW_NONEXISTENT_DEFINER", step="seed: routines", why="keep definers that have no account"),
    Right(privilege="XA_RECOVER_ADMIN", step="promote: prepared XA", why="list prepared XA transactions"),
)

REPLICATION: tuple[Right, ...] = (
    Right(privilege="SELECT", step="seed: rows", why="read all rows, the grant tables and performance_schema"),
    Right(privilege="SHOW VIEW", step="seed: views", why="read the definition of views"),
    Right(privilege="TRIGGER", step="seed: triggers", why="read the definition of triggers; none is ever made with it"),
    Right(privilege="EVENT", step="seed: events", why="read the definition of events; none is ever made with it"),
    Right(privilege="PROCESS", step="seed: tablespaces", why="name who blocks the snapshot; read InnoDB tablespaces"),
    Right(privilege="BACKUP_ADMIN", step="seed: snapshot", why="LOCK INSTANCE FOR BACKUP: no DDL during the copy"),
    Right(privilege="FLUSH_TABLES", step="seed: snapshot", why="FLUSH TABLES WITH READ LOCK, for about a millisecond"),
    Right(privilege="XA_RECOVER_ADMIN", step="seed: snapshot", why="see prepared XA transactions"),
    Right(privilege="REPLICATION SLAVE", step="journal: binary log", why="receive the binary log"),
    Right(privilege="REPLICATION CLIENT", step="journal: position", why="SHOW BINARY LOG STATUS"),
)

RIGHTS: dict[AccountKind, tuple[Right, ...]] = {
    AccountKind.ADMIN: ADMIN,
    AccountKind.REPLICATION: REPLICATION,
}


def account_name(user: str, host: str) -> str:
    """Quote an account: 'user'@'host'."""
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in (user, host))


def grant_statement(rights: Iterable[Right], user: str, host: str) -> str:
    """Return the GRANT of `rights` to an account."""
    names = ", ".join(right.privilege for right in rights)
    return f"GRANT {names} ON {EVERYTHING} TO {account_name(user, host)}"


def creation_statements(kind: AccountKind, user: str, host: str, *, password: str = "<password>") -> tuple[str, ...]:  # noqa: S107 - a placeholder
    """Return the statements that make an account of `kind`; run them with a session of the server's own administrator.

    The result holds the password in clear: never log it. The statements must not be written to the binary log where
    the other site is to have an account of another name: run them with sql_log_bin=0.
    """
    secret = password.replace("\\", "\\\\").replace("'", "''")
    return (
        f"CREATE USER {account_name(user, host)} IDENTIFIED BY '{secret}'",
        grant_statement(RIGHTS[kind], user, host),
    )


class Asks(Protocol):
    """The part of a DB-API cursor that a check needs."""

    def execute(self, query: str) -> object:
        """Run one statement."""

    def fetchall(self) -> Sequence[Sequence[object]]:
        """Return its rows."""


def missing_rights(cursor: Asks, kind: AccountKind) -> tuple[MissingRight, ...]:
    """Check the account that `cursor` is logged in with; roles count as far as they are active in its session."""
    cursor.execute("SELECT CURRENT_USER()")
    user, _, host = str(cursor.fetchall()[0][0]).rpartition("@")
    cursor.execute("SHOW GRANTS")
    grants = [str(row[0]) for row in cursor.fetchall()]
    return missing_in(grants, kind, user=user, host=host)


def missing_in(grants: Sequence[str], kind: AccountKind, *, user: str, host: str) -> tuple[MissingRight, ...]:
    """Return which rights of `kind` the lines of SHOW GRANTS lack, each with the GRANT that mends it.

    A privilege that a partial revoke takes away again in some schema counts as missing.
    """
    held, restricted = _held(grants)
    return tuple(
        MissingRight(
            privilege=right.privilege,
            step=right.step,
            why=right.why,
            grant=grant_statement((right,), user, host),
        )
        for right in RIGHTS[kind]
        if right.privilege not in held or right.privilege in restricted
    )


_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON \*\.\* TO ", re.DOTALL)
_REVOKE = re.compile(r"REVOKE (?P<privileges>.+?) ON `", re.DOTALL)


def _held(grants: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the global privileges that are held, and those that are taken away again somewhere."""
    held: set[str] = set()
    restricted: set[str] = set()
    for line in grants:
        if given := _GRANT.match(line):
            held.update(part.strip().upper() for part in given["privileges"].split(","))
        elif taken := _REVOKE.match(line):
            restricted.update(part.strip().upper() for part in taken["privileges"].split(","))
    if "ALL PRIVILEGES" in held:
        # Only the static ones, which are written with blanks; dynamic ones, with underscores, are listed beside it.
        held |= {right.privilege for rights in RIGHTS.values() for right in rights if "_" not in right.privilege}
    return frozenset(held), frozenset(restricted)
