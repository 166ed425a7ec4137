"""Carry accounts, roles and grants, to the last attribute: as the rows of the grant tables, not as statements.

SHOW CREATE USER and SHOW GRANTS do not tell everything (a retained second password, password history, grants on what
does not exist yet, privileges of components that are not loaded), and replaying them needs every privilege there is
WITH GRANT OPTION. Rows do tell everything, and they are read in the snapshot. Both servers are of one release series,
so the tables are the same; a column that the target lacks is refused.

Named time zones travel the same way where the target has none: events and expressions may need them.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.catalogue import columns_of
from farshore_agent.mysql.seed.errors import NotExact, SeedPermanent
from farshore_agent.mysql.seed.framing import RowFramer
from farshore_agent.mysql.seed.inspect import RESERVED_USERS
from farshore_agent.mysql.seed.relay import SEPARATOR_WARNING
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.session import Session
from farshore_agent.mysql.seed.values import Account

ACCOUNT_TABLES = {
    "user": ("User", "Host"),
    "db": ("User", "Host"),
    "tables_priv": ("User", "Host"),
    "columns_priv": ("User", "Host"),
    "procs_priv": ("User", "Host"),
    "proxies_priv": ("User", "Host"),
    "global_grants": ("USER", "HOST"),
    "default_roles": ("USER", "HOST"),
    "role_edges": ("TO_USER", "TO_HOST"),
    "password_history": ("User", "Host"),
}
"""Each with the columns that say whose row it is."""
TIME_ZONE_TABLES = ("time_zone", "time_zone_name", "time_zone_transition", "time_zone_transition_type")
MYSQL = "mysql"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRows:
    """Rows of one table of the schema `mysql`, as the source sent them."""

    layout: RowFormat
    octets: bytes
    rows: int


def roles_of(session: Session, accounts: Sequence[Account]) -> tuple[Account, ...]:
    """Return the roles that `accounts` hold, directly or through roles: dropping one would take rights from them."""
    edges = session.ask("SELECT from_user, from_host, to_user, to_host FROM mysql.role_edges").names()
    known = set(accounts)
    todo = list(accounts)
    while todo:
        holder = todo.pop()
        for from_user, from_host, to_user, to_host in edges:
            role = Account(user=from_user, host=from_host)
            if Account(user=to_user, host=to_host) == holder and role not in known:
                known.add(role)
                todo.append(role)
    return tuple(sorted(known - set(accounts)))


def read_accounts(reader: Session, skip: Sequence[Account]) -> tuple[KeptRows, ...]:
    """Read the grant tables without the rows of `skip`, every root and the server's own accounts."""
    return tuple(
        _read(reader, table, f" WHERE NOT {_left_alone(owner, skip)}") for table, owner in ACCOUNT_TABLES.items()
    )


def read_time_zones(reader: Session) -> tuple[KeptRows, ...]:
    """Read the tables of named time zones."""
    return tuple(_read(reader, table, "") for table in TIME_ZONE_TABLES)


def write_accounts(writer: Session, kept: Sequence[KeptRows], skip: Sequence[Account]) -> None:
    """Make the target's accounts those of `kept`, those of `skip`, root and the server's own; all or nothing."""
    writer.ask("BEGIN")
    for rows in kept:
        owner = ACCOUNT_TABLES[rows.layout.table]
        writer.ask(f"DELETE FROM {sql.name(MYSQL, rows.layout.table)} WHERE NOT {_left_alone(owner, skip)}")
        _write(writer, rows)
    writer.ask("COMMIT")
    writer.ask("FLUSH NO_WRITE_TO_BINLOG PRIVILEGES")


def write_time_zones(writer: Session, kept: Sequence[KeptRows]) -> None:
    """Fill the target's tables of named time zones where they are empty."""
    if writer.ask("SELECT COUNT(*) FROM mysql.time_zone_name").number():
        return
    writer.ask("BEGIN")
    for rows in kept:
        writer.ask(f"DELETE FROM {sql.name(MYSQL, rows.layout.table)}")
        _write(writer, rows)
    writer.ask("COMMIT")


def _left_alone(owner: tuple[str, str], skip: Sequence[Account]) -> str:
    """Return the condition that a row belongs to an account that a seed leaves alone."""
    user, host = (sql.name(part) for part in owner)
    own = f"{user} IN ({sql.listed(('root', *RESERVED_USERS))})"
    pairs = [f"({user}={sql.text(each.user)} AND {host}={sql.text(each.host)})" for each in skip]
    return "(" + " OR ".join([own, *pairs]) + ")"


def _read(reader: Session, table: str, where: str) -> KeptRows:
    columns = columns_of(reader, f"table_schema='mysql' AND table_name={sql.text(table)}")[MYSQL, table]
    layout = RowFormat.of(MYSQL, table, columns, primary_key=True)
    framer = RowFramer()
    octets = b"".join(reader.raw_rows(layout.select(where), framer))
    return KeptRows(layout=layout, octets=octets, rows=framer.rows)


def _write(writer: Session, kept: KeptRows) -> None:
    table = kept.layout.table
    there = {
        column.name
        for column in columns_of(writer, f"table_schema='mysql' AND table_name={sql.text(table)}")[MYSQL, table]
    }
    lacking = [column.name for column in kept.layout.columns if column.name not in there]
    if lacking:
        raise SeedPermanent(
            f"mysql.{table} of the target has no column {', '.join(lacking)}",
            hint="both servers must be of one release series",
        )
    answer = writer.load(kept.layout.load(), iter((kept.octets,)))
    strange = []
    if answer.warnings:
        strange = [row for row in writer.ask("SHOW WARNINGS").names() if int(row[1]) != SEPARATOR_WARNING]
    if answer.affected != kept.rows or strange:
        writer.ask("ROLLBACK")
        codes = ", ".join(sorted({row[1] for row in strange}))  # texts could show what an account hides
        raise NotExact(
            f"mysql.{table}: {kept.rows} rows were read, {answer.affected} written, warnings {codes or 'none'}",
            hint="compare the table's definition on both servers; no account was changed",
        )
