"""Read a binary log file from disk and say how far it is whole: for recovery, verification and the choice of a file.

Memory stays at one window whatever the size of an event. This module must not know connections, nor change anything.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.errors import Corrupt
from farshore_agent.mysql.journal.gtid import GtidSet, GtidSyntaxError

WINDOW_BYTES: Final = 1 << 20
STRUCTURAL_BYTES_MAX: Final = 16 << 20
"""Largest event whose body the journal reads itself (PREVIOUS_GTIDS of a very ragged set)."""


@dataclass(frozen=True, kw_only=True)
class FileScan:
    """What a pass over one file found."""

    boundary: int
    """End of the last whole transaction or whole event outside one; 0 when not even the head is whole."""
    last_event: int
    """Where the last event before `boundary` starts; 0 when the pass saw none."""
    received: GtidSet
    """Transactions that end at or before `boundary`, as far as the pass saw."""
    previous: GtidSet | None
    """The file's PREVIOUS_GTIDS; None when the pass began behind it."""
    size: int
    damage_at: int
    """Where reading stopped; equal to `size` when every byte is part of a whole event."""
    damage: str
    """Why it stopped there, for people; empty when the file ends with a whole event."""

    @property
    def whole(self) -> bool:
        return self.boundary == self.size


class _Pass:
    """State of one pass; `received` and `boundary` move together."""

    def __init__(self, fd: int, start: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.at = start
        self.boundary = start
        self.last_event = 0
        self.received = GtidSet()
        self.previous: GtidSet | None = None
        self.damage = ""
        self._transaction_end = 0
        self._pending: tuple[tuple[bytes, str], int] | None = None

    def run(self) -> None:
        window = bytearray(WINDOW_BYTES)
        view = memoryview(window)
        while self.at < self.size and not self.damage:
            filled = os.preadv(self.fd, [view], self.at)
            used = self._events(window, view, filled)
            if not used and not self.damage:
                self._large_event(bytes(view[: events.HEADER_BYTES]))

    def _events(self, window: bytearray, view: memoryview, filled: int) -> int:
        """Take whole events from the window; return the bytes used."""
        pos = 0
        while filled - pos >= events.HEADER_BYTES:
            _, kind, _, size, log_pos, flags = events.HEADER.unpack_from(window, pos)
            if not self._header_fits(size, log_pos):
                return pos
            if pos + size > filled:
                break
            event = view[pos : pos + size]
            sound = events.format_checksum_ok(event) if kind == events.FORMAT_DESCRIPTION else events.checksum_ok(event)
            if not sound:
                self.damage = "wrong checksum"
                return pos
            if not self._take(kind, flags, size, event):
                return pos
            pos += size
        if self.size - self.at < events.HEADER_BYTES and self.size > self.at:
            self.damage = "half a header"
        return pos

    def _header_fits(self, size: int, log_pos: int) -> bool:
        if size < events.EVENT_BYTES_MIN or (self.at + size) & 0xFFFFFFFF != log_pos:
            self.damage = "no event header"
        elif self.at + size > self.size:
            self.damage = "half an event"
        return not self.damage

    def _large_event(self, header: bytes) -> None:
        """Check an event larger than the window, piece by piece."""
        _, kind, _, size, _, flags = events.HEADER.unpack(header)
        if kind in events.STRUCTURAL:
            if size > STRUCTURAL_BYTES_MAX:
                self.damage = "an impossibly large event"
                return
            body = os.pread(self.fd, size, self.at)
            if events.checksum_ok(body):
                self._take(kind, flags, size, memoryview(body))
            else:
                self.damage = "wrong checksum"
            return
        if file_crc(self.fd, self.at, size) != events.CRC_RESIDUE:
            self.damage = "wrong checksum"
            return
        self._take(kind, flags, size, None)

    def _take(self, kind: int, flags: int, size: int, event: memoryview | None) -> bool:
        """Move past one sound event; False when it is not allowed here."""
        try:
            if event is not None and kind in events.STRUCTURAL and not self._structural(kind, event):
                return False
        except (events.EventSyntaxError, GtidSyntaxError) as error:
            self.damage = str(error)
            return False
        if not events.PASSES[kind] and kind not in events.STRUCTURAL and not flags & events.FLAG_IGNORABLE:
            self.damage = f"unknown event type {kind}"
            return False
        end = self.at + size
        if self._transaction_end and end > self._transaction_end:
            self.damage = "an event crosses the end of its transaction"
            return False
        if end >= self._transaction_end:
            if self._pending:
                self.received.add(*self._pending)
            self._pending, self._transaction_end = None, 0
            self.boundary, self.last_event = end, self.at
        self.at = end
        return True

    def _structural(self, kind: int, event: memoryview) -> bool:
        if kind in (events.GTID, events.GTID_TAGGED):
            if self._transaction_end:
                self.damage = "a transaction starts inside another"
                return False
            key, gno, length, _ = events.read_gtid(event, 0)
            self._pending, self._transaction_end = (key, gno), self.at + length
        elif kind == events.PREVIOUS_GTIDS:
            self.previous = events.read_previous_gtids(event)
        return True


def scan_file(path: Path, *, start: int = events.FIRST_POSITION) -> FileScan:
    """Check every event from `start`, an event's first byte outside any transaction, to the end of the file.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if start == events.FIRST_POSITION and os.pread(fd, len(events.MAGIC), 0) != events.MAGIC:
            nothing = GtidSet()
            return FileScan(
                boundary=0, last_event=0, received=nothing, previous=None, size=size, damage_at=0, damage="no file head"
            )
        found = _Pass(fd, start)
        found.run()
        boundary = 0 if found.boundary == events.FIRST_POSITION else found.boundary
        return FileScan(
            boundary=boundary,
            last_event=found.last_event,
            received=found.received,
            previous=found.previous,
            size=found.size,
            damage_at=found.at,
            damage=found.damage or ("" if found.at == found.boundary else "half a transaction"),
        )
    finally:
        os.close(fd)


def file_crc(fd: int, at: int, size: int) -> int:
    """CRC32 of `size` bytes from `at`, read through one window."""
    crc = 0
    while size:
        piece = os.pread(fd, min(size, WINDOW_BYTES), at)
        if not piece:
            return 0
        crc = zlib.crc32(piece, crc)
        at += len(piece)
        size -= len(piece)
    return crc


def read_previous(path: Path) -> GtidSet | None:
    """Return PREVIOUS_GTIDS of a file, or None while the file does not have it yet. Raises Corrupt and OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = events.FIRST_POSITION
        for _ in range(2):  # the format description comes first
            head = os.pread(fd, events.HEADER_BYTES, at)
            if len(head) < events.HEADER_BYTES:
                return None
            header = events.read_header(head, 0)
            if not events.EVENT_BYTES_MIN <= header.size <= STRUCTURAL_BYTES_MAX:
                raise _damaged(path, at)
            if header.kind == events.PREVIOUS_GTIDS:
                return _previous_from(path, at, os.pread(fd, header.size, at), header.size)
            at += header.size
        raise _damaged(path, at)
    finally:
        os.close(fd)


def _previous_from(path: Path, at: int, event: bytes, size: int) -> GtidSet | None:
    if len(event) < size:
        return None
    if not events.checksum_ok(event):
        raise _damaged(path, at)
    try:
        return events.read_previous_gtids(event)
    except GtidSyntaxError as error:
        raise _damaged(path, at) from error


def _damaged(path: Path, at: int) -> Corrupt:
    return damaged(path, at, "no PREVIOUS_GTIDS event where the file must have one")


def damaged(path: Path, at: int, why: str) -> Corrupt:
    """The error for bytes in a journal file that are not what was written."""
    return Corrupt(
        f"journal file {path} is damaged at offset {at}: {why}",
        file=str(path),
        offset=at,
        hint="Nothing from there on is served. Check the disk; restore the file from the source if it still has it "
        "(closed files are byte-identical), or start a new journal and re-seed.",
    )
