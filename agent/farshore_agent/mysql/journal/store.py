"""The writing end of one segment: append, boundary, sync, publish, cut, seal; and recovery after any crash.

Order is everything here (I2): bytes are written, then synced, then published, and only then may anybody acknowledge or
serve them. A new file's name is durable before its first byte is published. Recovery cuts what is not whole and syncs
what is left before anybody dials the source, because the position of a dial says "this is safe here". This module must
not know connections; it holds the directory's lock for its life.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal import checkpoint, events
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord, file_number, is_binlog_name
from farshore_agent.mysql.journal.checkpoint import Checkpoint
from farshore_agent.mysql.journal.errors import NEW_HISTORY_HINT, Corrupt, Permanent, StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet, Key
from farshore_agent.mysql.journal.position import PositionReader, PositionWriter, Published
from farshore_agent.mysql.journal.scan import damaged, read_previous, scan_file

CHECKPOINT_BYTES: Final = 64 << 20
"""Recovery reads at most this much and one transaction; at about 50 MB/s of tiny transactions that is a second."""

Run = tuple[Key, int, int]
"""Consecutive transactions of one key: (key, first, past the last)."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Where a segment ends: what a dial continues from."""

    file: str
    """Empty when the segment has no file yet."""
    position: int
    last_event: int
    """Where the last event before `position` starts; 0 when that is not known."""


class SegmentWriter:
    """One open segment. Methods that change it are called by one thread; reading ones by any."""

    def __init__(
        self,
        journal: JournalDirectory,
        record: SegmentRecord,
        positions: PositionWriter,
        changed: threading.Condition | None = None,
    ) -> None:
        """Recover the segment and publish its end. Raises Corrupt, OSError."""
        self._journal = journal
        self._disk = journal.disk
        self._positions = positions
        self.directory = journal.segment(record.name)
        self.changed = changed or threading.Condition()
        """Guards the fields below; notified whenever more is durable or the segment is sealed."""
        self.index_lock = threading.Lock()
        """Held while the index changes: rotation and retention run in different threads."""
        self.record = record
        self.start = GtidSet.parse(record.start)
        self.received = GtidSet()
        self.file = ""
        self.size = 0
        """Bytes appended to the current file."""
        self.boundary = 0
        """Bytes of the current file that are published."""
        self.last_event = 0
        self.on_published: Callable[[], None] = _nothing
        """Called after each publication: wakes the server process."""
        self._fd = -1
        self._unsynced = False
        self._hastened = 0
        self._since_checkpoint = 0
        self._recover()

    # ---- the hot path

    def append(self, data: bytes | memoryview) -> None:
        """Write bytes at the end. They are neither durable nor published. Raises OSError; then call `cut`."""
        self._unsynced = True
        self._disk.append(self._fd, data)
        self.size += len(data)

    def hasten(self) -> None:
        """While more is to come: let the disk start on what was appended since the last call."""
        if self.size > self._hastened:
            self._disk.start_writeback(self._fd, self._hastened, self.size - self._hastened)
            self._hastened = self.size

    def sync(self) -> None:
        """Make everything appended durable, without publishing it."""
        if self._unsynced:
            self._disk.sync_data(self._fd)
            self._unsynced = False

    def commit(self, boundary: int, last_event: int, runs: list[Run]) -> None:
        """Sync, take the transactions in `runs` as received, and publish `boundary`.

        `boundary` is the end of the last whole transaction appended so far; it may lie before the end of the file.
        """
        if boundary > self.size or boundary < self.boundary:
            raise ValueError(f"boundary {boundary} outside {self.boundary}..{self.size}")
        self.sync()
        with self.changed:
            for key, low, high in runs:
                self.received.add_interval(key, low, high)
            self._since_checkpoint += boundary - self.boundary
            self.boundary, self.last_event = boundary, last_event
            self._publish()
            self.changed.notify_all()
        if self._since_checkpoint >= CHECKPOINT_BYTES:
            self.write_checkpoint()

    # ---- files

    def rotate(self, name: str) -> None:
        """Close the current file and begin `name`; durable and published when this returns.

        The caller has committed everything: a file never ends inside a transaction. A file that never got a byte is
        forgotten (the source's could not be had, and held nothing).
        """
        if not is_binlog_name(name):
            raise Permanent(f"the source named a binary log file {name!r}", hint="Check what answers at the endpoint.")
        if self.size != self.boundary:  # equal sizes also mean that the old file is synced: commit does both
            raise ValueError("rotation inside a transaction")
        with self.index_lock:
            files = self._journal.files(self.record.name)
            if name in files:
                raise StreamStopped(
                    StopCode.HISTORY_RESET,
                    f"the source began the binary log {name} a second time",
                    hint=NEW_HISTORY_HINT,
                )
            fd = self._disk.create(self.directory / name)
            self._disk.sync_directory(self.directory)
            self._journal.write_files(self.record.name, [*files[: None if self.size else -1], name])
        if self._fd >= 0:
            self._disk.close(self._fd)
            if not self.size:
                self._disk.remove(self.directory / self.file)
        with self.changed:
            self._fd = fd
            self.file, self.size, self.boundary, self.last_event = name, 0, 0, 0
            self._hastened = 0
            self._publish()
            self.changed.notify_all()
        self.write_checkpoint()

    def cut(self) -> None:
        """Drop what follows the published boundary: half a transaction that the source will send again."""
        if self._fd >= 0 and self._disk_size() > self.boundary:
            self._disk.truncate(self._fd, self.boundary)
            self._unsynced = False
        self.size = self._hastened = self.boundary

    def _disk_size(self) -> int:
        return os.fstat(self._fd).st_size

    # ---- the record

    def grow_start(self, more: GtidSet) -> None:
        """Require `more` of every reader, durably, unless this segment itself serves it."""
        with self.changed:
            missing = more.subtract(self.start).subtract(self.received)
            if not missing:
                return
            self._set_start(self.start.union(missing))

    def begin_at(self, start: GtidSet) -> None:
        """Replace the start of a segment that has no file yet."""
        if self.file:
            raise ValueError("the segment has begun")
        with self.changed:
            self._set_start(start)

    def forget(self, removed: GtidSet) -> None:
        """Require what retention is about to remove of every reader, durably."""
        with self.changed:
            self._set_start(self.start.union(removed))

    def _set_start(self, start: GtidSet) -> None:
        self._write_record(replace(self.record, start=str(start), start_generation=self.record.start_generation + 1))
        self.start = start
        self._publish()
        self.changed.notify_all()

    def seal(self) -> SegmentRecord:
        """End the segment for ever at its boundary. Idempotent."""
        self.cut()
        with self.changed:
            if not self.record.sealed:
                self.sync()
                self._write_record(replace(self.record, sealed=True, end=str(self.start.union(self.received))))
                self._publish()
            self.changed.notify_all()
            return self.record

    def _write_record(self, record: SegmentRecord) -> None:
        self._journal.write_record(record)
        self.record = record

    def write_checkpoint(self) -> None:
        """Save a place from which recovery may start. Only after a commit or a cut."""
        if not self.file:
            return
        made = Checkpoint(
            file=self.file, position=self.boundary, last_event=self.last_event, received=str(self.received)
        )
        checkpoint.write(self._disk, self.directory, made)
        self._since_checkpoint = 0

    def close(self) -> None:
        """Cut, save a checkpoint, and let go. The published position stays."""
        self.cut()
        self.write_checkpoint()
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    # ---- questions

    def end(self) -> GtidSet:
        """Everything a reader has who has read the whole segment: its start and all it received."""
        with self.changed:
            return self.start.union(self.received)

    def tail(self) -> Tail:
        return Tail(file=self.file, position=self.boundary, last_event=self.last_event)

    def read(self, at: int, count: int) -> bytes:
        """Bytes of the current file."""
        return os.pread(self._fd, count, at)

    def _publish(self) -> None:
        self._positions.publish(
            segment=self.record.name,
            file=self.file,
            position=self.boundary,
            start_generation=self.record.start_generation,
            sealed=self.record.sealed,
        )
        self.on_published()

    # ---- recovery

    def _recover(self) -> None:
        published = _published(self._journal.position, self.record.name)
        files = self._journal.files(self.record.name)
        if published and published.position and published.file not in files and not _precedes(published.file, files):
            raise damaged(self.directory / "index", 0, f"the published file {published.file} is not listed")
        self._remove_unlisted(files)
        if files:
            self._recover_file(files, published)
        self._publish()

    def _remove_unlisted(self, files: list[str]) -> None:
        """Remove what a crash left behind: an empty file of a rotation, or files that retention had forgotten.

        Rotation lists a file before its first byte and retention takes the oldest, so any other unlisted file means
        that the index lost lines: then nothing is touched.
        """
        for file in files:
            if not (self.directory / file).exists():
                raise damaged(self.directory / file, 0, "the file is gone")
        for found in sorted(self.directory.iterdir()):
            if not is_binlog_name(found.name) or found.name in files:
                continue
            if found.stat().st_size and not _precedes(found.name, files):
                raise damaged(self.directory / "index", 0, f"{found.name} is not listed and not empty")
            self._disk.remove(found)

    def _recover_file(self, files: list[str], published: Published | None) -> None:
        self.file = files[-1]
        path = self.directory / self.file
        self._fd = self._disk.open(path)
        self._read_back()
        saved = checkpoint.read(self.directory)
        size = self._disk_size()
        if saved and saved.file == self.file:
            if saved.position > size:
                raise damaged(path, size, f"{saved.position - size} durable bytes are gone")
            found = scan_file(path, start=max(saved.position, events.FIRST_POSITION))
            self.received = GtidSet.parse(saved.received)
            boundary, last = found.boundary, found.last_event or saved.last_event
        else:
            found = scan_file(path)
            self.received = self._received_before(files, found.previous)
            boundary, last = found.boundary, found.last_event
        self.received.update(found.received)
        if published and published.file == self.file and boundary < published.position:
            raise damaged(path, found.damage_at, found.damage)
        if size > boundary:
            self._disk.truncate(self._fd, boundary)
        self._disk.sync_directory(self.directory)
        self.size = self.boundary = boundary
        self.last_event = last

    def _read_back(self) -> None:
        """Put what the page cache holds on the disk before a dial vouches for it, then make the scan read the disk.

        After a failed sync the kernel keeps pages that look clean and are not on the disk: dropping them shows the
        truth.
        """
        self._disk.sync_data(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _received_before(self, files: list[str], previous: GtidSet | None) -> GtidSet:
        """What the closed files hold: the difference of the first and the last PREVIOUS_GTIDS."""
        first = read_previous(self.directory / files[0]) or GtidSet()
        if previous is not None:
            return previous.subtract(first)
        if len(files) == 1:
            return GtidSet()
        before = scan_file(self.directory / files[-2])
        if not before.whole:
            raise damaged(self.directory / files[-2], before.damage_at, before.damage)
        return (before.previous or GtidSet()).subtract(first).union(before.received)


def _published(path: Path, segment: str) -> Published | None:
    """The position as the last run left it, when it speaks of this segment."""
    if not path.exists():
        return None
    try:
        reader = PositionReader(path)
    except Corrupt:
        return None  # shorter than its format: the power went while it was made, before anything was published
    try:
        found = reader.read()
    except Corrupt:
        return None
    finally:
        reader.close()
    return found if found and found.segment == segment else None


def _precedes(name: str, files: list[str]) -> bool:
    """Whether `name` is of a file that retention removed: older than the first one listed. After a power cut the
    published position may be that old."""
    return bool(files) and file_number(name) < file_number(files[0])


def _nothing() -> None:
    """The default of `on_published`."""
