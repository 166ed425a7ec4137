"""Which closed files may go, and how they go without ever leaving a lie behind.

A file goes only when it is beyond a limit of age or size, is the oldest, is not the one being written, and every
transaction in it is in a durable mark: a GTID set that the caller read on the standby *before* flushing its engine logs
(a relaxed standby's live gtid_executed is not durable). First the segment's record requires the removed transactions of
every reader, then the index forgets the file, then the file goes: a crash in between only refuses too much. The caller
holds DIR/lock. This module must not know connections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.config import Retention
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.scan import read_previous
from farshore_agent.mysql.journal.store import SegmentWriter


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    segment: str
    name: str
    bytes: int
    modified_unix: float
    """When its last byte arrived."""
    contents: GtidSet | None
    """Its transactions; None for the file that is being written, which never goes."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What the standby, or whoever else may still read, has durably."""

    everywhere: GtidSet
    of_segment: dict[str, GtidSet]
    """For single segments, usually sealed ones: the mark of the old active side (R21)."""

    def of(self, segment: str) -> GtidSet:
        return self.of_segment.get(segment, self.everywhere)


@dataclass(frozen=True, kw_only=True)
class Removal:
    files: tuple[StoredFile, ...]
    uncovered: GtidSet
    """Transactions in `files` that no mark covers: empty unless dropping them was consented to."""


def stored_files(journal: JournalDirectory) -> list[StoredFile]:
    """Every file of the journal, oldest first. Raises Corrupt and OSError."""
    return [file for record in journal.records() for file in _of_segment(journal, record)]


def _of_segment(journal: JournalDirectory, record: SegmentRecord) -> list[StoredFile]:
    names = journal.files(record.name)
    paths = [journal.segment(record.name) / name for name in names]
    starts = [read_previous(path) for path in paths]
    contents: list[GtidSet | None] = [
        None if before is None or after is None else after.subtract(before) for before, after in pairwise(starts)
    ]
    if names:
        last = starts[-1]
        sealed = record.sealed and record.end is not None
        contents.append(
            GtidSet.parse(record.end or "").subtract(GtidSet.parse(record.start)).subtract(last or GtidSet())
            if sealed
            else None
        )
    stats = [path.stat() for path in paths]
    return [
        StoredFile(segment=record.name, name=name, bytes=stat.st_size, modified_unix=stat.st_mtime, contents=content)
        for name, stat, content in zip(names, stats, contents, strict=True)
    ]


def plan_removal(
    files: list[StoredFile], *, limits: Retention, marks: Marks, now_unix: float, drop_uncovered: bool = False
) -> Removal:
    """Return the files to remove, a prefix of `files`. Pure.

    `drop_uncovered` is the consent to remove what no mark covers (a standby that lacks it must be seeded again).
    """
    left = sum(file.bytes for file in files)
    gone: list[StoredFile] = []
    uncovered = GtidSet()
    for file in files:
        expired = now_unix - file.modified_unix > limits.age_seconds or left > limits.bytes
        if not expired or file.contents is None:
            break
        missing = file.contents.subtract(marks.of(file.segment))
        if missing and not drop_uncovered:
            break
        uncovered.update(missing)
        gone.append(file)
        left -= file.bytes
    return Removal(files=tuple(gone), uncovered=uncovered)


def remove(journal: JournalDirectory, removal: Removal, writer: SegmentWriter | None) -> None:
    """Carry out a plan; `writer` is the open segment's, if a segment is open. Idempotent. Raises OSError."""
    for segment, group in groupby(removal.files, key=lambda file: file.segment):
        _remove_of_segment(journal, segment, list(group), writer)


def _remove_of_segment(
    journal: JournalDirectory, segment: str, files: list[StoredFile], writer: SegmentWriter | None
) -> None:
    contents = GtidSet()
    for file in files:
        contents.update(file.contents or GtidSet())
    names = {file.name for file in files}
    if writer is not None and writer.record.name == segment:
        writer.forget(contents)
        with writer.index_lock:
            journal.write_files(segment, [name for name in journal.files(segment) if name not in names])
    else:
        record = journal.record(segment)
        start = GtidSet.parse(record.start).union(contents)
        journal.write_record(replace(record, start=str(start), start_generation=record.start_generation + 1))
        journal.write_files(segment, [name for name in journal.files(segment) if name not in names])
    for name in sorted(names):
        journal.disk.remove(journal.segment(segment) / name)
    journal.disk.sync_directory(journal.segment(segment))
    if not journal.files(segment) and journal.record(segment).sealed:
        journal.drop_segment(segment)


def disk_bytes(journal: JournalDirectory) -> int:
    """Bytes of all binary log files."""
    total = 0
    for name in journal.catalogue().segments:
        for path in (journal.segment(name) / file for file in journal.files(name)):
            total += path.stat().st_size if path.exists() else 0
    return total
