"""Text of SQL: names, strings and bytes as literals that no session setting can change the meaning of.

It knows nothing of tables or servers.
"""

from __future__ import annotations

from collections.abc import Iterable

SYSTEM_SCHEMAS = ("mysql", "sys", "information_schema", "performance_schema")
"""Schemas that every server makes for itself; a seed never copies or drops them."""


def name(*parts: str) -> str:
    """Quote a name: `name("db", "t")` is "`db`.`t`"."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def text(value: str) -> str:
    """Write a string as a literal that holds in every sql_mode and connection character set.

    Hexadecimal digits with an introducer: backslashes, quotes and NO_BACKSLASH_ESCAPES cannot matter.
    """
    return f"_utf8mb4 x'{value.encode().hex()}'"


def octets(value: bytes) -> str:
    """Write bytes as a binary string literal."""
    return f"x'{value.hex()}'"


def plain(value: str) -> str:
    """Write a string as a quoted literal for places of the grammar that take no introducer; sql_mode must be ''."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def listed(values: Iterable[str]) -> str:
    """Write strings as the inside of IN (...); an empty list matches nothing."""
    return ", ".join(text(value) for value in values) or "NULL"


def one_line(gtid_set: str) -> str:
    """Return a GTID set as the server prints it, without its line breaks."""
    return "".join(gtid_set.split())
