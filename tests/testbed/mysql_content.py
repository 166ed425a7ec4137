"""Compare what two MySQL servers hold: every row of every user table, and every object with its definition.

CHECKSUM TABLE is not used: for JSON columns it answers differently at every call. This oracle must not share code
with the product's own verification, or both could be wrong in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pymysql.cursors import Cursor

if TYPE_CHECKING:
    from tests.testbed.mysql import MySQLServer

SYSTEM_SCHEMAS = ("mysql", "sys", "performance_schema", "information_schema")
RESERVED_ACCOUNTS = ("mysql.sys", "mysql.session", "mysql.infoschema")


def table_checksums(server: MySQLServer, *, schemas: Iterable[str] | None = None) -> dict[str, object]:
    """Return `{"db.table": (rows, hash)}` of every user table, all read in one consistent snapshot.

    The hash covers every column of every row, generated and invisible ones too, to the bit, and does not depend on
    the order of rows. `schemas` limits the reading to those databases.
    """
    with contextlib.closing(server.connect()) as session, session.cursor() as cursor:
        # Nothing of the session may change how a value looks; TIMESTAMP is shown in the session's time zone.
        cursor.execute("SET SESSION sql_mode='', time_zone='+00:00', group_concat_max_len=4294967295")
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return {
            f"{schema}.{table}": _checksum(cursor, schema, table)
            for schema, table in _tables(cursor, "BASE TABLE", schemas)
        }


def _checksum(cursor: Cursor, schema: str, table: str) -> tuple[int, str]:
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema=%s AND table_name=%s "
        "ORDER BY ordinal_position",
        (schema, table),
    )
    # Each value is hashed alone, so that no separator inside a value, and no size, can hide a difference.
    values = ", ".join(f"IFNULL(SHA2({_exact(str(name), str(kind))}, 256), '-')" for name, kind in cursor.fetchall())
    row = f"SHA2(CONCAT_WS(',', {values}), 256)"
    # A sum over rows, unlike XOR, also sees two equal rows come or go (tables without a key).
    parts = ", ".join(f"SUM(CAST(CONV(SUBSTR(h, {start}, 15), 16, 10) AS DECIMAL(20)))" for start in (1, 16, 31, 46))
    cursor.execute(f"SELECT COUNT(*), {parts} FROM (SELECT {row} AS h FROM {_name(schema)}.{_name(table)}) AS hashed")
    found = cursor.fetchone()
    assert found is not None
    count, *sums = found
    return int(count), "-".join(f"{int(each or 0):x}" for each in sums)


def _exact(name: str, kind: str) -> str:
    """Return the SQL that shows a column's value without loss."""
    column = _name(name)
    if kind == "float":
        return f"CAST({column} AS DOUBLE)"  # shown as FLOAT it has six digits only
    if kind in ("enum", "set"):
        return f"CONCAT({column} + 0, ':', {column})"  # number 0, the error value, also shows as ''
    if kind == "vector":
        return f"HEX({column})"
    return column


def schema_objects(server: MySQLServer) -> dict[str, object]:
    """Return the definition of every database, table, view, routine, trigger, event, account and grant.

    Keys say the kind and the name (`"trigger shop.t1_bi"`). Two servers are equal when the values are: strings as
    the server shows them, for grants sorted tuples. AUTO_INCREMENT counters are part of a table's definition.
    """
    found: dict[str, object] = {}
    with contextlib.closing(server.connect()) as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode='', time_zone='+00:00', print_identified_with_as_hex=ON")
        cursor.execute("SET SESSION information_schema_stats_expiry=0, show_create_table_skip_secondary_engine=ON")
        for (schema,) in _rows(cursor, f"SELECT schema_name FROM information_schema.schemata {_users('schema_name')}"):
            found[f"database {schema}"] = _show(cursor, f"DATABASE {_name(schema)}", 1)
        for schema, table in _tables(cursor, "BASE TABLE", None):
            found[f"table {schema}.{table}"] = _show(cursor, f"TABLE {_name(schema)}.{_name(table)}", 1)
        for schema, view in _tables(cursor, "VIEW", None):
            found[f"view {schema}.{view}"] = _show(cursor, f"VIEW {_name(schema)}.{_name(view)}", 1)
        _programs(cursor, found)
        _accounts(cursor, found)
    return found


def _programs(cursor: Cursor, found: dict[str, object]) -> None:
    sources = {
        "routines": ("routine_schema", "routine_name", "routine_type"),
        "triggers": ("trigger_schema", "trigger_name", "'TRIGGER'"),
        "events": ("event_schema", "event_name", "'EVENT'"),
    }
    # Where SHOW CREATE has the statement, per kind (the columns before it are name, sql_mode, time zone).
    columns = {"PROCEDURE": 2, "FUNCTION": 2, "TRIGGER": 2, "EVENT": 3, "LIBRARY": 2}
    for view, (schema_column, name_column, kind_column) in sources.items():
        rows = _rows(
            cursor,
            f"SELECT {schema_column}, {name_column}, {kind_column} FROM information_schema.{view} "
            f"{_users(schema_column)} ORDER BY 1, 2, 3",
        )
        for schema, name, kind in rows:
            definition = _show(cursor, f"{kind} {_name(schema)}.{_name(name)}", columns[str(kind)])
            mode = _show(cursor, f"{kind} {_name(schema)}.{_name(name)}", 1)
            found[f"{str(kind).lower()} {schema}.{name}"] = f"/* sql_mode={mode} */ {definition}"


def _accounts(cursor: Cursor, found: dict[str, object]) -> None:
    for user, host in _rows(cursor, "SELECT user, host FROM mysql.user ORDER BY 1, 2"):
        if user in RESERVED_ACCOUNTS:
            continue
        cursor.execute("SHOW CREATE USER %s@%s", (user, host))
        found[f"account {user}@{host}"] = str(_one(cursor)[0])
        cursor.execute("SHOW GRANTS FOR %s@%s", (user, host))
        found[f"grants {user}@{host}"] = tuple(sorted(str(row[0]) for row in cursor.fetchall()))


def _tables(cursor: Cursor, kind: str, schemas: Iterable[str] | None) -> list[tuple[str, str]]:
    wanted = None if schemas is None else set(schemas)
    rows = _rows(
        cursor,
        f"SELECT table_schema, table_name FROM information_schema.tables {_users('table_schema')} "
        f"AND table_type = '{kind}' ORDER BY 1, 2",
    )
    return [(str(schema), str(table)) for schema, table in rows if wanted is None or schema in wanted]


def _users(column: str) -> str:
    names = ", ".join(f"'{name}'" for name in SYSTEM_SCHEMAS)
    return f"WHERE {column} NOT IN ({names})"


def _show(cursor: Cursor, what: str, column: int) -> str:
    cursor.execute(f"SHOW CREATE {what}")
    return str(_one(cursor)[column])


def _rows(cursor: Cursor, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    return list(cursor.fetchall())


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return row


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
