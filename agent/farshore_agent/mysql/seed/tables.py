"""Plan the work on all tables, create them bare, and count them again where a restart may have cost rows."""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

from collections.abc import Sequence

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.board import TableWork
from farshore_agent.mysql.seed.catalogue import Catalogue, Table
from farshore_agent.mysql.seed.errors import EpochLost, SeedPermanent, StatementFailed
from farshore_agent.mysql.seed.meter import Meter
from farshore_agent.mysql.seed.pieces import cut
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.session import Session
from farshore_agent.mysql.seed.table_ddl import plan_table
from farshore_agent.mysql.seed.target import permanent
from farshore_agent.mysql.seed.values import SeedSettings

RESTART_TOLERANCE_SECONDS = 3
"""The time of a server's start is computed from two clocks of whole seconds."""


def plan_works(control: Session, catalogue: Catalogue, settings: SeedSettings) -> tuple[TableWork, ...]:
    """Decide for every table how it travels and in what pieces; reads the source's index statistics."""
    return tuple(_work(control, table, settings) for table in catalogue.tables)


def _work(control: Session, table: Table, settings: SeedSettings) -> TableWork:
    try:
        plan = plan_table(table.create)
    except ValueError as error:
        raise SeedPermanent(
            f"the definition of {table.label} is not understood: {error}", hint="report it with SHOW CREATE TABLE"
        ) from error
    return TableWork(
        layout=RowFormat.of(table.schema, table.name, table.columns, primary_key=bool(table.primary_key)),
        plan=plan,
        pieces=tuple(cut(control, table, bytes_max=settings.chunk_bytes)),
        label=table.label,
        rows_estimate=table.rows_estimate,
        bytes_estimate=table.bytes_estimate,
    )


def create_tables(writer: Session, works: Sequence[TableWork]) -> int:
    """Create every table without what is added later; return the time of the server's start (Unix)."""
    for work in works:
        writer.ask(f"USE {sql.name(work.layout.schema)}")
        try:
            writer.ask(work.plan.create)
        except StatementFailed as error:
            raise permanent(error, f"table {work.label}") from error
    return _started(writer)


def count_again(writer: Session, works: Sequence[TableWork], meter: Meter, started: int) -> None:
    """If the target restarted since `started`, count every table and raise EpochLost when rows are missing.

    A commit may be lost by a restart where innodb_flush_log_at_trx_commit is not 1.
    """
    if abs(_started(writer) - started) <= RESTART_TOLERANCE_SECONDS:
        return
    for work in works:
        table = sql.name(work.layout.schema, work.layout.table)
        rows = writer.ask(f"SELECT COUNT(*) FROM {table}").number()
        if rows != meter.rows_of(work.label):
            raise EpochLost(f"the target restarted and holds {rows} rows of {work.label}, not all that were copied")


def _started(session: Session) -> int:
    return session.ask(
        "SELECT UNIX_TIMESTAMP() - CAST(variable_value AS SIGNED) FROM performance_schema.global_status "
        "WHERE variable_name='Uptime'"
    ).number()
