"""What goes into a seed and what comes out of it: settings, progress and result as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

MARKER_SCHEMA = "farshore"
"""The schema of our own role marker; it belongs to one server and is never copied or dropped (R8)."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Account:
    """A MySQL account, user@host."""

    user: str
    host: str = "%"

    def __str__(self) -> str:
        return f"'{self.user}'@'{self.host}'"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSettings:
    """How a seed goes about it; the defaults suit two free cores and a source that must not notice."""

    workers: int = 2
    """Tables (or parts of one) copied at a time. The target's cores are the limit: about one each."""
    spare_sessions: int = 2
    """Further sessions of the same snapshot, to go on with after a cut."""
    ddl: Literal["block", "retry"] = "block"
    """block: the source's DDL waits until the rows are copied. retry: it does not wait, and the seed starts over."""
    lock_wait_seconds: int = 2
    """How long the source's writers may be held up by one try for the global read lock."""
    lock_tries: int = 10
    lock_pause_seconds: float = 3.0
    """Between two tries, so that held up writers can work off what gathered."""
    chunk_bytes: int = 128 * 1024 * 1024
    """Larger tables are copied in ranges of about this size, where the primary key begins with an integer."""
    chunk_tries: int = 5
    """Tries for one range or table before the seed gives up."""
    epochs_max: int = 3
    """Snapshots begun before the seed gives up; a new one is needed when all sessions of the old one are gone."""
    reconnect_seconds: float = 120.0
    """How long a server may be unreachable (a restart, say) before the seed gives up."""
    journal_wait_seconds: float = 30.0
    """How long to wait until the source has executed what the journal starts with."""
    progress_seconds: float = 1.0
    skip_accounts: tuple[Account, ...] = ()
    """Accounts left alone on both sides, besides those logged in with, every root, and the server's own.

    All accounts of ours belong here (both of both sites): one that exists only on the target would be dropped.
    """
    skip_schemas: tuple[str, ...] = (MARKER_SCHEMA,)
    """Schemas neither read on the source nor touched on the target."""


class Phase(StrEnum):
    """Where a seed is; in this order, and from the beginning again when it starts over."""

    SNAPSHOT = "snapshot"
    TABLES = "tables"
    KEYS = "keys"
    ACCOUNTS = "accounts"
    OBJECTS = "objects"
    FINISH = "finish"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a seed is."""

    phase: Phase
    epoch: int
    """1 for the first snapshot; higher when the seed had to start over."""
    tables_done: int = 0
    """Tables with all rows and all keys."""
    tables_total: int = 0
    rows_done: int = 0
    rows_total: int = 0
    """An estimate of the source's statistics, replaced table by table by what was counted."""
    bytes_done: int = 0
    """Bytes of rows that went over the wire."""
    bytes_total: int = 0
    """An estimate, as rows_total."""
    current: tuple[str, ...] = ()
    """Tables being worked on, `schema.table`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remark:
    """Something a person should know about the copy although nothing is wrong with it."""

    code: str
    """Stable: `invalid_view`, `histogram`, `account_only_on_target`, `setting_differs`, ..."""
    subject: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """A finished copy: the target holds exactly what the source had at `gtid_executed`."""

    gtid_executed: str
    source_uuid: str
    target_uuid: str
    tables: int
    rows: int
    bytes: int
    epochs: int
    lock_held_seconds: float
    """How long the source's writers were held up."""
    skipped_accounts: tuple[Account, ...]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaContents:
    """One schema of a target and how much is in it."""

    name: str
    tables: int
    rows_estimate: int
    bytes_estimate: int
    other_objects: int
    """Views, routines and events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetContents:
    """What a would-be target holds, for the decision whether it may be overwritten (R8, R9)."""

    server_uuid: str
    version: str
    gtid_executed: str
    schemas: tuple[SchemaContents, ...]
    accounts: tuple[Account, ...]
    """All accounts but root, the server's own and the skipped ones."""
    writable: bool
    """Neither read_only nor super_read_only nor offline_mode."""
    client_sessions: int
    """Sessions of other accounts, without the server's own and replication's."""
    prepared_xa: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing that a seed would destroy, accounts aside."""
        return not self.schemas

    def describe(self) -> str:
        """Say in one line what is there."""
        if self.empty:
            return "no data"
        parts = [
            f"{each.name} ({each.tables} tables, about {each.rows_estimate} rows, {each.other_objects} other objects)"
            for each in self.schemas
        ]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceContents:
    """What a would-be source holds, and what of it a seed refuses or cannot carry; known before any write."""

    server_uuid: str
    version: str
    gtid_executed: str
    tables: int
    rows_estimate: int
    bytes_estimate: int
    not_innodb: tuple[str, ...]
    """Tables that no snapshot covers: a seed refuses them."""
    prepared_xa: int
    """Prepared XA transactions: a seed waits for their end."""
    remarks: tuple[Remark, ...]
