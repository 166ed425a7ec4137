"""The store in one SQLite file: the default engine, durable to the power cut.

WAL with synchronous=FULL syncs the log at every commit (https://sqlite.org/pragma.html#pragma_synchronous), so an
answered transaction survives; a torn one is not replayed, because every frame carries a checksum. One process owns the
directory (`lock`). Knows nothing of what the values mean.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from farshore.clock import Clock, SystemClock
from farshore.store import EVENTS_KEPT, Item, prefix_end
from farshore.store.embedded import Embedded
from farshore.store.lock import DirectoryLock
from farshore_schema.errors import FarshoreError, Permanent, Transient

STORE_FILE: Final = "store.sqlite3"
FORMAT: Final = 1  # of the tables; written to PRAGMA user_version
_APPLICATION: Final = 0x46617273  # "Fars", PRAGMA application_id: this file is ours
_DISK_FULL_RETRY_SECONDS: Final = 5.0

_TABLES: Final = """
CREATE TABLE kv (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, mod_rev INTEGER NOT NULL, create_rev INTEGER NOT NULL,
  lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX kv_lease ON kv (lease) WHERE lease != 0;
CREATE TABLE revision (rev INTEGER NOT NULL);
INSERT INTO revision VALUES (0);
"""
_ITEM: Final = "SELECT key, value, mod_rev, create_rev, lease FROM kv "
_PUT: Final = "INSERT OR REPLACE INTO kv (key, value, mod_rev, create_rev, lease) VALUES (?, ?, ?, ?, ?)"


class SqliteStore(Embedded):
    """A store in `directory`, which is made (0700) when it does not exist."""

    def __init__(self, directory: Path, clock: Clock | None = None, *, events_kept: int = EVENTS_KEPT) -> None:
        """Open or create. Raises Permanent: directory_in_use, newer_format, store_failed."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / STORE_FILE
        self._directory_lock = DirectoryLock(directory)
        try:
            self._db, rev = _open(self._path)
        except FarshoreError:
            self._directory_lock.release()
            raise
        self._failed: FarshoreError | None = None
        super().__init__(clock=clock or SystemClock(), rev=rev, events_kept=events_kept)
        try:
            self._end_old_leases()
        except FarshoreError:
            self.close()
            raise

    def _end_old_leases(self) -> None:
        """Delete what was bound to leases of an earlier process: its holders are gone with it."""
        with self._engine():
            leases = self._db.execute("SELECT DISTINCT lease FROM kv WHERE lease != 0").fetchall()
        for (lease,) in leases:
            self._end(lease)

    def _read(self, key: str) -> Item | None:
        with self._engine():
            row = self._db.execute(_ITEM + "WHERE key = ?", (key,)).fetchone()
        return None if row is None else Item(*row)

    def _scan(self, prefix: str, after: str, limit: int) -> tuple[Item, ...]:
        query = _ITEM + "WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?"
        with self._engine():
            rows = self._db.execute(query, (prefix, after, prefix_end(prefix), limit)).fetchall()
        return tuple(Item(*row) for row in rows)

    def _leased(self, lease: int, limit: int) -> tuple[str, ...]:
        query = "SELECT key FROM kv WHERE lease = ? AND lease != 0 ORDER BY key LIMIT ?"
        with self._engine():
            return tuple(key for (key,) in self._db.execute(query, (lease, limit)))

    def _commit(self, rev: int, puts: Sequence[Item], deletes: Sequence[str]) -> None:
        with self._engine():
            self._db.execute("BEGIN IMMEDIATE")
            # The file's revision must be the one we remember: a second writer would show itself here.
            moved = self._db.execute("UPDATE revision SET rev = ? WHERE rev = ?", (rev, rev - 1)).rowcount
            if moved != 1:
                raise self._poisoned("another process wrote to it")
            self._db.executemany(_PUT, puts)
            self._db.executemany("DELETE FROM kv WHERE key = ?", [(key,) for key in deletes])
            self._db.execute("COMMIT")

    def _close(self) -> None:
        with suppress(sqlite3.Error):  # closing checkpoints the log; when that fails the log is simply replayed
            self._db.close()
        self._directory_lock.release()

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """Turn SQLite's errors into ours and leave no transaction open."""
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except sqlite3.Error as error:
            self._rollback()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise Transient(
                    "disk_full",
                    f"no space left for {self._path}; nothing was changed",
                    retry_seconds=_DISK_FULL_RETRY_SECONDS,
                    hint=f"make room: df -h {self._path.parent}",
                ) from error
            raise self._poisoned(str(error)) from error
        except FarshoreError:
            self._rollback()
            raise

    def _rollback(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have rolled back already
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _poisoned(self, reason: str) -> FarshoreError:
        """After an I/O error nobody knows what is on the disk (a failed fsync may not fail twice): stop here, so that
        the next start reads what is there."""
        self._failed = _failed(self._path, reason)
        return self._failed


def _failed(path: Path, reason: str) -> Permanent:
    return Permanent(
        "store_failed",
        f"the store {path} failed: {reason}",
        hint="check the disk (dmesg), then start `farshore serve` again",
    )


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    """Return the connection and the store's revision; creates the tables in one transaction."""
    new = not path.exists()
    if new:
        path.touch(mode=0o600)
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise _failed(path, str(error)) from error
    try:
        _prepare(db, path)
        (rev,) = db.execute("SELECT rev FROM revision").fetchone()
    except sqlite3.Error as error:
        db.close()
        raise _failed(path, str(error)) from error
    except FarshoreError:
        db.close()
        raise
    if new:
        _sync_directory(path.parent)
    return db, int(rev)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if found > FORMAT:
        raise Permanent(
            "newer_format",
            f"{path} was written in format {found}; this release reads up to {FORMAT}",
            hint="start the release that wrote it, or a newer one",
        )
    if found and application != _APPLICATION:
        raise _failed(path, "it is another program's database")
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY"):
        db.execute(f"PRAGMA {pragma}")
    if found == 0:  # new, or its creation was interrupted: the transaction below is all or nothing
        stamps = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT};"
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} {stamps} COMMIT;")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
