"""How the rows of one table travel: the SELECT that makes one string of a row, the LOAD DATA that takes it apart.

The source formats, the target parses, and nobody in between looks at a value. That is what makes the copy both fast
and exact: a value is carried as the bytes it is stored as, or in a text form that MySQL itself reads back to the bit.
Each rule here answers a measured trap; they are told in docs/seed.md.

It knows no session and no other table.
"""

# ruff: noqa: S608 - names and bytes are quoted by sql.py; this module is about building statements

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from farshore_agent.mysql.seed import sql

ROW_START = b"\x01\xffROW\xfeX\xfd\x03"
"""Begins every row. LOAD DATA skips what precedes it, which are the packet headers of the source's answer; it has no
border and none of its bytes is 0, so that it can neither lie in a header nor be half of one and half of a row."""
ESCAPE = b"\x02"
"""Must be ASCII: LOAD DATA accepts another ESCAPED BY with warning 1638, and then it never matches."""
TOKEN_BYTES = 7

BINARY_TYPES = frozenset(
    {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector", "bit"}
    | {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
    | {"geomcollection", "geometrycollection"}
)
TEXT_TYPES = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
LONG_TYPES = frozenset(
    {"mediumblob", "longblob", "mediumtext", "longtext", "json", "geometry", "point", "linestring", "polygon"}
    | {"multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection"}
)
"""May hold values over 64 KiB, on which REPLACE() is quadratic."""
UTF8 = frozenset({"utf8mb4", "utf8mb3", "ascii"})
"""Character sets in whose text the bytes 0xfe and 0xff do not occur."""
LABEL_CHARACTER_SETS = UTF8 | {"latin1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    data_type: str
    character_set: str
    """Empty for types without one."""
    nullable: bool
    column_type: str
    """The full type, with the labels of ENUM and SET."""
    generated: bool = False
    """It has no values of its own: it is left out, and computed again by the target."""

    @property
    def holds_any_byte(self) -> bool:
        """Whether 0xfe and 0xff can occur in a value."""
        return self.data_type in BINARY_TYPES or (
            self.data_type in TEXT_TYPES and self.character_set not in UTF8 and not self.by_number
        )

    @property
    def by_number(self) -> bool:
        """Whether an ENUM or SET must travel as its number, because its labels may not be told apart as text."""
        if self.data_type not in ("enum", "set"):
            return False
        odd = "''" in self.column_type or "\\" in self.column_type or not self.column_type.isascii()
        return odd or self.character_set not in LABEL_CHARACTER_SETS


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFormat:
    """The statements and separators that carry one table.

    `escape`: values keep their bytes but ESCAPE is doubled, and NULL is ESCAPE N; cheapest for the target.
    `token`: nothing is escaped, the separators are random, NULL is a random token that the target turns back.
    """

    schema: str
    table: str
    columns: tuple[Column, ...]
    """Those that travel."""
    generated: tuple[Column, ...]
    primary_key: bool
    style: Literal["escape", "token"]
    field_end: bytes
    row_end: bytes
    null: bytes

    @classmethod
    def of(
        cls, schema: str, table: str, columns: Sequence[Column], *, primary_key: bool, always_token: bool = False
    ) -> RowFormat:
        """Choose the cheapest exact way for these columns."""
        own = [column for column in columns if not column.generated]
        token = os.urandom(TOKEN_BYTES)
        style: Literal["escape", "token"] = "escape"
        if always_token or any(column.data_type in LONG_TYPES for column in own):
            style = "token"
        if style == "token" or any(column.holds_any_byte for column in own):
            field_end, row_end = b"\x1f" + token, b"\x1e" + token
        else:
            field_end, row_end = b"\xff", b"\xfe"
        return cls(
            schema=schema,
            table=table,
            columns=tuple(own),
            generated=tuple(column for column in columns if column.generated),
            primary_key=primary_key,
            style=style,
            field_end=field_end,
            row_end=row_end,
            null=b"\x1d" + token if style == "token" else ESCAPE + b"N",
        )

    @property
    def json_columns(self) -> tuple[Column, ...]:
        """The JSON columns that travel."""
        return tuple(column for column in self.columns if column.data_type == "json")

    def with_tokens(self) -> RowFormat:
        """Return the format of style `token` for the same table."""
        return RowFormat.of(
            self.schema,
            self.table,
            (*self.columns, *self.generated),
            primary_key=self.primary_key,
            always_token=True,
        )

    def select(self, where: str = "") -> str:
        """Return the SELECT whose only column is a whole row, from ROW_START to `row_end`."""
        parts = [sql.octets(ROW_START)]
        for index, column in enumerate(self.columns):
            if index:
                parts.append(sql.octets(self.field_end))
            parts.append(self._value(column))
        parts.append(sql.octets(self.row_end))
        return f"SELECT CONCAT({','.join(parts)}) FROM {self._from()}{where}"

    def select_fields(self, where: str = "") -> str:
        """Return the SELECT of the bare values, for rows too long for one string; `join` makes rows of them."""
        return f"SELECT {','.join(self.octets(column) for column in self.columns)} FROM {self._from()}{where}"

    def digest(self, where: str = "", *, typed: bool = True) -> str:
        """Return the SELECT of count and hash of all values, generated ones too, to compare the two sides with.

        Each value is hashed alone, so that neither a separator inside a value nor max_allowed_packet matters. With
        `typed` the types of the values inside JSON documents count too.
        """
        columns = (*self.columns, *self.generated)
        values = [f"IFNULL(SHA2({self._digested(column, typed)}, 256), '-')" for column in columns]
        row = f"SHA2(CONCAT_WS(',', {', '.join(values)}), 256)"
        # Sums, unlike XOR, also see two equal rows come or go.
        sums = ", ".join(f"SUM(CAST(CONV(SUBSTR(h, {at}, 15), 16, 10) AS DECIMAL(20)))" for at in (1, 16, 31, 46))
        return f"SELECT COUNT(*), {sums} FROM (SELECT {row} AS h FROM {self._from()}{where}) AS hashed"

    def join(self, values: Sequence[bytes | None]) -> bytes:
        """Make of the values of `select_fields` what `select` would have made; for style `token` only."""
        if self.style != "token":
            raise ValueError("rows of the style 'escape' cannot be joined here: values are not escaped")
        return ROW_START + self.field_end.join(self.null if value is None else value for value in values) + self.row_end

    def load(self) -> str:
        """Return the LOAD DATA LOCAL that takes the rows."""
        targets: list[str] = []
        settings: list[str] = []
        for index, column in enumerate(self.columns):
            value = self._stored(column, f"@v{index}")
            if value is None:
                targets.append(sql.name(column.name))
            else:
                targets.append(f"@v{index}")
                settings.append(f"{sql.name(column.name)}={value}")
        escaped = sql.octets(ESCAPE) if self.style == "escape" else "''"
        return (
            f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {sql.name(self.schema, self.table)} CHARACTER SET binary "
            f"FIELDS TERMINATED BY {sql.octets(self.field_end)} ESCAPED BY {escaped} "
            f"LINES STARTING BY {sql.octets(ROW_START)} TERMINATED BY {sql.octets(self.row_end)} "
            f"({','.join(targets) or '@none'})" + (f" SET {','.join(settings)}" if settings else "")
        )

    def _from(self) -> str:
        # In the order of the clustered index, or the target would split pages at every row.
        return sql.name(self.schema, self.table) + (" FORCE INDEX (PRIMARY)" if self.primary_key else "")

    def octets(self, column: Column) -> str:
        """Return the SQL of a value as the bytes that are to arrive."""
        value = sql.name(column.name)
        kind = column.data_type
        if kind == "float":
            return f"CAST({value} AS DOUBLE)"  # shown as FLOAT it has six digits only
        if kind == "json":
            return f"CONVERT({value} USING binary)"
        if column.by_number:
            return f"CAST({value} AS UNSIGNED)"
        if kind in TEXT_TYPES or kind == "vector":
            return f"CAST({value} AS BINARY)"
        return value

    def _digested(self, column: Column, typed: bool) -> str:
        value = self.octets(column)
        if column.data_type in ("enum", "set"):
            return f"CAST({sql.name(column.name)} AS UNSIGNED)"  # an ENUM's error value shows as '', as a label may
        if column.data_type == "json" and typed:
            return f"CONCAT({value}, {', '.join(json_types(column.name))})"
        return value

    def _value(self, column: Column) -> str:
        value = self.octets(column)
        text = column.data_type in TEXT_TYPES and not column.by_number
        if self.style == "escape" and (text or column.data_type in BINARY_TYPES):
            value = f"REPLACE({value},{sql.octets(ESCAPE)},{sql.octets(ESCAPE * 2)})"
        return f"IFNULL({value},{sql.octets(self.null)})" if column.nullable else value

    def _stored(self, column: Column, variable: str) -> str | None:
        """Return the expression that stores a value read into `variable`; None when it is stored as it was read."""
        if self.style == "token" and column.nullable:
            value = f"NULLIF({variable},{sql.octets(self.null)})"
        elif column.data_type == "json" or column.by_number:
            value = variable
        else:
            return None
        if column.data_type == "json":
            return f"CONVERT({value} USING utf8mb4)"
        return f"CAST({value} AS UNSIGNED)" if column.by_number else value


def json_types(column: str) -> tuple[str, str, str]:
    """Return SQL for the types of a document: of itself, of the members of all objects, of the items of all arrays.

    The latter two are JSON objects from the ordinal number of the value to its type, or ''.
    """
    name = sql.name(column)
    found = [
        f"IFNULL((SELECT JSON_OBJECTAGG(o, JSON_TYPE(v)) FROM JSON_TABLE({name}, '{path}' "
        "COLUMNS (o FOR ORDINALITY, v JSON PATH '$')) AS inside), '')"
        for path in ("$**.*", "$**[*]")
    ]
    return f"IFNULL(JSON_TYPE({name}), '')", found[0], found[1]
