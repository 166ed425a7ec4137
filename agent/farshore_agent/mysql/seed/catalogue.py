"""Read the definition of everything on a server, as bytes that can be run again elsewhere.

Definitions are read with character_set_results=NULL: the server then sends the body of a routine, trigger, event or
view in the character set its author's client used, untouched, and literals of other character sets survive.

Reading takes no part in the snapshot; that nothing changes meanwhile is the business of whoever calls.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.rows import Column
from farshore_agent.mysql.seed.session import Answer, Session, decoded
from farshore_agent.mysql.seed.table_ddl import without_counter

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
INNODB = "InnoDB"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A base table: its definition and what is needed to plan its copy."""

    schema: str
    name: str
    engine: str
    create: bytes
    columns: tuple[Column, ...]
    """All of them, also generated and invisible ones."""
    primary_key: tuple[str, ...]
    rows_estimate: int
    bytes_estimate: int

    @property
    def label(self) -> str:
        """`schema.table`, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def range_column(self) -> str | None:
        """The integer column that the primary key begins with, by which the table can be copied in ranges."""
        first = self.primary_key[0] if self.primary_key else None
        found = next((column for column in self.columns if column.name == first), None)
        return first if found is not None and found.data_type in INTEGERS else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A view, routine, library, trigger or event, with the session settings that its text was written under."""

    kind: str
    """VIEW, FUNCTION, PROCEDURE, LIBRARY, TRIGGER or EVENT."""
    schema: str
    name: str
    create: bytes
    """In `client_character_set`."""
    sql_mode: str = ""
    client_character_set: str = "utf8mb4"
    connection_collation: str = "utf8mb4_0900_ai_ci"
    database_collation: str = ""
    """The schema's collation when it was created; empty where it does not matter."""
    time_zone: str = "+00:00"
    created: str = ""
    """Unix time; empty for views, which have none."""

    @property
    def label(self) -> str:
        """`view schema.name`, for people."""
        return f"{self.kind.lower()} {self.schema}.{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """A database."""

    name: str
    create: bytes
    collation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tablespace:
    """A general tablespace."""

    name: str
    block_bytes: int
    """FILE_BLOCK_SIZE for compressed tables; 0 for others."""
    encrypted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Every definition on a server, system schemas and accounts aside."""

    schemas: tuple[Schema, ...] = ()
    tables: tuple[Table, ...] = ()
    programs: tuple[Program, ...] = ()
    """In an order in which they can be created, views apart: those may need each other."""
    tablespaces: tuple[Tablespace, ...] = ()

    def digest(self) -> str:
        """Return a hash of all definitions; data and counters do not change it."""
        digest = hashlib.sha256()
        for schema in self.schemas:
            digest.update(repr(schema).encode())
        for table in self.tables:
            digest.update(repr((table.label, table.engine, without_counter(table.create))).encode())
        for program in self.programs:
            digest.update(repr(program).encode())
        digest.update(repr(self.tablespaces).encode())
        return digest.hexdigest()


def read_catalogue(session: Session, skip_schemas: Sequence[str]) -> Catalogue:
    """Read all definitions but those of the system schemas and `skip_schemas`.

    `session` must have been prepared as a reader. Raises StatementFailed 1146, 1305 and the like when something is
    dropped in the middle of it.
    """
    hidden = sql.listed((*sql.SYSTEM_SCHEMAS, *skip_schemas))
    schemas = _schemas(session, hidden)
    return Catalogue(
        schemas=schemas,
        tables=_tables(session, hidden),
        programs=(
            *_libraries(session, hidden),
            *_routines(session, hidden),
            *_views(session, hidden),
            *_triggers(session, hidden),
            *_events(session, hidden),
        ),
        tablespaces=_tablespaces(session),
    )


def _schemas(session: Session, hidden: str) -> tuple[Schema, ...]:
    found = session.ask(
        "SELECT schema_name, default_collation_name FROM information_schema.schemata "
        f"WHERE schema_name NOT IN ({hidden}) ORDER BY 1"
    ).names()
    answers = session.ask_all([f"SHOW CREATE DATABASE {sql.name(schema)}" for schema, _ in found])
    return tuple(
        Schema(name=schema, collation=collation, create=answer.rows[0][1] or b"")
        for (schema, collation), answer in zip(found, answers, strict=True)
    )


def _tables(session: Session, hidden: str) -> tuple[Table, ...]:
    found = session.ask(
        "SELECT table_schema, table_name, engine, table_rows, data_length FROM information_schema.tables "
        f"WHERE table_type='BASE TABLE' AND table_schema NOT IN ({hidden}) ORDER BY 1, 2"
    ).names()
    columns = columns_of(session, f"table_schema NOT IN ({hidden})")
    keys = _primary_keys(session, hidden)
    answers = session.ask_all([f"SHOW CREATE TABLE {sql.name(row[0], row[1])}" for row in found])
    return tuple(
        Table(
            schema=schema,
            name=table,
            engine=engine,
            create=answer.rows[0][1] or b"",
            columns=columns.get((schema, table), ()),
            primary_key=keys.get((schema, table), ()),
            rows_estimate=int(rows or 0),
            bytes_estimate=int(length or 0),
        )
        for (schema, table, engine, rows, length), answer in zip(found, answers, strict=True)
    )


def columns_of(session: Session, condition: str) -> dict[tuple[str, str], tuple[Column, ...]]:
    """Return the columns of tables; `condition` on information_schema.columns selects the tables."""
    found: dict[tuple[str, str], list[Column]] = {}
    for schema, table, name, kind, character_set, nullable, column_type, extra in session.ask(
        "SELECT table_schema, table_name, column_name, LOWER(data_type), character_set_name, is_nullable, column_type, "
        f"extra FROM information_schema.columns WHERE {condition} "
        "ORDER BY table_schema, table_name, ordinal_position"
    ).names():
        found.setdefault((schema, table), []).append(
            Column(
                name=name,
                data_type=kind,
                character_set=character_set,
                nullable=nullable == "YES",
                column_type=column_type,
                generated="VIRTUAL GENERATED" in extra or "STORED GENERATED" in extra,
            )
        )
    return {key: tuple(columns) for key, columns in found.items()}


def _primary_keys(session: Session, hidden: str) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], list[str]] = {}
    for schema, table, column in session.ask(
        "SELECT table_schema, table_name, column_name FROM information_schema.statistics WHERE index_name='PRIMARY' "
        f"AND table_schema NOT IN ({hidden}) ORDER BY table_schema, table_name, seq_in_index"
    ).names():
        found.setdefault((schema, table), []).append(column)
    return {key: tuple(columns) for key, columns in found.items()}


def _routines(session: Session, hidden: str) -> list[Program]:
    found = session.ask(
        "SELECT routine_type, routine_schema, routine_name, UNIX_TIMESTAMP(created) FROM information_schema.routines "
        f"WHERE routine_schema NOT IN ({hidden}) AND routine_type IN ('FUNCTION', 'PROCEDURE') ORDER BY 2, 1, 3"
    ).names()
    return _programs(session, found, body=2)


def _libraries(session: Session, hidden: str) -> list[Program]:
    found = session.ask(
        "SELECT 'LIBRARY', library_schema, library_name, UNIX_TIMESTAMP(created) FROM information_schema.libraries "
        f"WHERE library_schema NOT IN ({hidden}) ORDER BY 2, 3"
    ).names()
    answers = session.ask_all([f"SHOW CREATE LIBRARY {sql.name(row[1], row[2])}" for row in found])
    return [
        Program(
            kind=kind,
            schema=schema,
            name=name,
            created=created,
            sql_mode=decoded(answer.rows[0][1]),
            create=answer.rows[0][2] or b"",
        )
        for (kind, schema, name, created), answer in zip(found, answers, strict=True)
    ]


def _triggers(session: Session, hidden: str) -> list[Program]:
    # action_order is the order in which those of one table and moment fire; creating them in it repeats it.
    found = session.ask(
        "SELECT 'TRIGGER', trigger_schema, trigger_name, UNIX_TIMESTAMP(created) FROM information_schema.triggers "
        f"WHERE trigger_schema NOT IN ({hidden}) "
        "ORDER BY trigger_schema, event_object_table, action_timing, event_manipulation, action_order"
    ).names()
    return _programs(session, found, body=2)


def _events(session: Session, hidden: str) -> list[Program]:
    found = session.ask(
        "SELECT 'EVENT', event_schema, event_name, UNIX_TIMESTAMP(created) FROM information_schema.events "
        f"WHERE event_schema NOT IN ({hidden}) ORDER BY 2, 3"
    ).names()
    return _programs(session, found, body=3)


def _programs(session: Session, found: Sequence[tuple[str, ...]], *, body: int) -> list[Program]:
    """Read SHOW CREATE of each; its columns are name, sql_mode, [time_zone,] text, and three about character sets."""
    answers = session.ask_all([f"SHOW CREATE {row[0]} {sql.name(row[1], row[2])}" for row in found])
    return [
        _program(kind, schema, name, created, answer, body)
        for (kind, schema, name, created), answer in zip(found, answers, strict=True)
    ]


def _program(kind: str, schema: str, name: str, created: str, answer: Answer, body: int) -> Program:
    row = answer.rows[0]
    return Program(
        kind=kind,
        schema=schema,
        name=name,
        create=row[body] or b"",
        sql_mode=decoded(row[1]),
        time_zone=decoded(row[2]) if kind == "EVENT" else "+00:00",
        client_character_set=decoded(row[body + 1]),
        connection_collation=decoded(row[body + 2]),
        database_collation=decoded(row[body + 3]),
        created=created,
    )


def _views(session: Session, hidden: str) -> list[Program]:
    found = session.ask(
        f"SELECT table_schema, table_name FROM information_schema.views WHERE table_schema NOT IN ({hidden}) "
        "ORDER BY 1, 2"
    ).names()
    answers = session.ask_all([f"SHOW CREATE VIEW {sql.name(*row)}" for row in found])
    return [
        Program(
            kind="VIEW",
            schema=schema,
            name=name,
            create=answer.rows[0][1] or b"",
            client_character_set=decoded(answer.rows[0][2]),
            connection_collation=decoded(answer.rows[0][3]),
        )
        for (schema, name), answer in zip(found, answers, strict=True)
    ]


def _tablespaces(session: Session) -> tuple[Tablespace, ...]:
    rows = session.ask(
        "SELECT name, zip_page_size, encryption FROM information_schema.innodb_tablespaces "
        "WHERE space_type='General' AND name<>'mysql' ORDER BY 1"
    ).names()
    return tuple(Tablespace(name=name, block_bytes=int(size or 0), encrypted=key == "Y") for name, size, key in rows)
