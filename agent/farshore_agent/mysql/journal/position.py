"""The published position: how far whole transactions are durable, for other processes to read at any moment.

A file of two slots, mapped into memory by writer and readers. The writer fills the older slot; each slot carries a
sequence number and a CRC32, so a reader always finds a whole one, at worst the one before. It is written only after the
data it speaks of was synced, so it needs no sync of its own: after a power cut it may be old, never too far ahead. This
module must not know events or segments' files.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal.disk import PRIVATE_FILE
from farshore_agent.mysql.journal.errors import Corrupt

_MAGIC: Final = b"FSHPOS01"
_HEAD: Final = struct.Struct("<8sQQQQBHH")
"""magic, sequence, position, start generation, published at (Unix microseconds), sealed, lengths of the segment's and
the file's name"""
_SLOT_BYTES: Final = 1024
_CRC_AT: Final = _SLOT_BYTES - 4
_NAMES_BYTES_MAX: Final = _CRC_AT - _HEAD.size
_FILE_BYTES: Final = 2 * _SLOT_BYTES
_READ_ATTEMPTS: Final = 1000
"""A reader would have to be overtaken twice within one copy, this many times in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    sequence: int
    segment: str
    file: str
    """Empty until the segment has its first file. Files before it in the segment's index are complete."""
    position: int
    """Bytes of `file` that are durable and end with a whole transaction."""
    start_generation: int
    """Of the segment's record (see catalogue); a change means that its start set was replaced."""
    sealed: bool
    """Nothing will follow in this segment."""
    published_unix: float


class PositionWriter:
    """The one writer; holds DIR/lock."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        if os.fstat(self._fd).st_size < _FILE_BYTES:
            os.pwrite(self._fd, bytes(_FILE_BYTES), 0)  # real blocks: a store to a hole on a full disk is SIGBUS
            os.fsync(self._fd)
        self._map = mmap.mmap(self._fd, _FILE_BYTES)
        last = _newest(self._map)
        self._sequence = last.sequence if last else 0

    def publish(self, *, segment: str, file: str, position: int, start_generation: int, sealed: bool) -> None:
        """Make a position visible. The caller has synced everything up to it."""
        raw_segment, raw_file = segment.encode(), file.encode()
        names = raw_segment + raw_file
        if len(names) > _NAMES_BYTES_MAX:
            raise ValueError("names too long for the published position")
        self._sequence += 1
        now = int(time.time() * 1e6)
        lengths = (len(raw_segment), len(raw_file))
        head = _HEAD.pack(_MAGIC, self._sequence, position, start_generation, now, sealed, *lengths)
        slot = (head + names).ljust(_CRC_AT, b"\0")
        at = (self._sequence & 1) * _SLOT_BYTES
        self._map[at : at + _SLOT_BYTES] = slot + zlib.crc32(slot).to_bytes(4, "little")

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)


class PositionReader:
    """Reads the position that another process publishes."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when nothing was ever published, Corrupt when the file is too short."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < _FILE_BYTES:
                raise _damaged(path)
            self._map = mmap.mmap(fd, _FILE_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        self._path = path

    def read(self) -> Published | None:
        """Return the newest whole position, or None when none was published yet.

        Raises Corrupt when both slots are damaged; then nothing may be served.
        """
        for _ in range(_READ_ATTEMPTS):
            found = _newest(self._map)
            if found is not None:
                return found
            if not any(self._map[:]):
                return None
        raise _damaged(self._path)

    def close(self) -> None:
        self._map.close()


def _newest(mapped: mmap.mmap) -> Published | None:
    found = [slot for slot in (_slot(mapped[:_SLOT_BYTES]), _slot(mapped[_SLOT_BYTES:_FILE_BYTES])) if slot]
    return max(found, key=lambda slot: slot.sequence, default=None)


def _slot(raw: bytes) -> Published | None:
    if zlib.crc32(raw[:_CRC_AT]) != int.from_bytes(raw[_CRC_AT:], "little"):
        return None
    magic, sequence, position, generation, micros, sealed, segment_bytes, file_bytes = _HEAD.unpack_from(raw)
    if magic != _MAGIC:
        return None
    names = raw[_HEAD.size :]
    return Published(
        sequence=sequence,
        segment=names[:segment_bytes].decode(),
        file=names[segment_bytes : segment_bytes + file_bytes].decode(),
        position=position,
        start_generation=generation,
        sealed=bool(sealed),
        published_unix=micros / 1e6,
    )


def _damaged(path: Path) -> Corrupt:
    return Corrupt(
        f"{path} is damaged",
        file=str(path),
        offset=0,
        hint="Restart the receiver: it checks the journal's tail and publishes the position again.",
    )
