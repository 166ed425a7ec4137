"""The role marker (R8): one row on each server that says in which epoch it became the active side.

It belongs to the server and not to the data: written with sql_log_bin=0, left out of seeds and checksums. It only ever
warns: a server that was active in a newer or equal epoch is not overwritten.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from farshore_agent.mysql.connections import Rejected, Session
from farshore_agent.mysql.seed import MARKER_SCHEMA

TABLE: Final = f"{MARKER_SCHEMA}.role_marker"
_NO_TABLE: Final = frozenset({1049, 1146})  # ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE


class Marker(NamedTuple):
    """What a server says of itself."""

    pair: str
    site: str
    active_since_epoch: int


def read(session: Session, pair: str) -> Marker | None:
    """Return the marker of a pair, None where there is none."""
    try:
        rows = session.rows(
            f"SELECT pair, site, active_since_epoch FROM {TABLE} WHERE pair = %s",  # noqa: S608 - a name of ours
            (pair,),
        )
    except Rejected as error:
        if error.number in _NO_TABLE:
            return None
        raise
    return Marker(str(rows[0][0]), str(rows[0][1]), int(rows[0][2])) if rows else None


def write(session: Session, marker: Marker) -> None:
    """Write the marker without a transaction of its own in the binary log. The server must not be super_read_only."""
    if read(session, marker.pair) == marker:
        return
    session.run("SET SESSION sql_log_bin = 0")
    try:
        session.run(f"CREATE DATABASE IF NOT EXISTS {MARKER_SCHEMA}")
        session.run(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (pair VARCHAR(63) CHARACTER SET ascii PRIMARY KEY,"
            " site VARCHAR(63) CHARACTER SET ascii NOT NULL, active_since_epoch BIGINT UNSIGNED NOT NULL,"
            " written TIMESTAMP NOT NULL) ENGINE = InnoDB COMMENT 'role marker; belongs to this server only'"
        )
        session.run(
            f"REPLACE INTO {TABLE} (pair, site, active_since_epoch, written)"  # noqa: S608 - a name of ours
            " VALUES (%s, %s, %s, CURRENT_TIMESTAMP)",
            tuple(marker),
        )
    finally:
        session.run("SET SESSION sql_log_bin = 1")
