"""Serve one replica: from its starting file through every file that follows, then the tail, with heartbeats when idle.

Every event is checked once more before it leaves (a flipped byte on disk is named and nothing from there on is served);
transactions that the replica has are left out, as a source does. This module must not know logins or listening.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal import events, wire
from farshore_agent.mysql.journal.catalogue import SegmentRecord
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.reader import JournalReader, Place
from farshore_agent.mysql.journal.scan import damaged, file_crc
from farshore_agent.mysql.journal.wake import Sleeper
from farshore_agent.mysql.journal.wire import PacketChannel

WINDOW_BYTES: Final = 1 << 20
HEARTBEAT_SECONDS_DEFAULT: Final = 30.0

_PACKET: Final = struct.Struct("<IB")
"""packet header and the status byte of an event packet"""


class Feed:
    """One dump. `run` ends only by an exception: Corrupt, NotServable, OSError or EOFError."""

    def __init__(
        self,
        channel: PacketChannel,
        reader: JournalReader,
        sleeper: Sleeper,
        *,
        held: GtidSet,
        heartbeat_seconds: float,
        heartbeat_v2: bool,
    ) -> None:
        self._channel = channel
        self._reader = reader
        self._sleeper = sleeper
        self._have = held.copy()
        """What the replica has, or will have when it has applied what was sent."""
        self._heartbeat = heartbeat_seconds or HEARTBEAT_SECONDS_DEFAULT
        self._heartbeat_v2 = heartbeat_v2
        self._window = bytearray(WINDOW_BYTES)
        self._view = memoryview(self._window)
        self._spoken = time.monotonic()
        self.place = Place(segment="", file="")
        self.position = 0

    def run(self, place: Place, *, ended: Callable[[], bool]) -> None:
        """Serve from `place` on until `ended`."""
        record = self._enter(place)
        while not ended():
            fd = os.open(self._path(), os.O_RDONLY | os.O_CLOEXEC)
            try:
                follower = self._file(fd, record, ended)
            finally:
                os.close(fd)
            if follower is None:
                return
            record = self._enter(follower)

    def _enter(self, place: Place) -> SegmentRecord:
        record = self._reader.check_start(place.segment, self._have)
        self.place, self.position = place, events.FIRST_POSITION
        self._send_event(events.make_rotate(server_id=record.server_id, name=place.file))
        return record

    def _file(self, fd: int, record: SegmentRecord, ended: Callable[[], bool]) -> Place | None:
        """Serve one file to its end; returns the file that follows, or None when `ended`."""
        generation = record.start_generation
        while not ended():
            seen = self._sleeper.count
            limit = self._reader.limit(self.place)
            if limit.start_generation > generation:
                generation = self._reader.check_start(self.place.segment, self._have).start_generation
            if self.position < limit.position:
                self._advance(fd, limit.position)
                continue
            if limit.closed and (follower := self._reader.after(self.place)):
                return follower
            self._idle(record, seen)
        return None

    def _idle(self, record: SegmentRecord, seen: int) -> None:
        quiet = time.monotonic() - self._spoken
        if quiet >= self._heartbeat:
            self._send_event(
                events.make_heartbeat(
                    server_id=record.server_id,
                    name=self.place.file,
                    position=self.position,
                    second_version=self._heartbeat_v2,
                )
            )
            return
        self._sleeper.wait(seen, self._heartbeat - quiet)

    # ---- events

    def _advance(self, fd: int, limit: int) -> None:
        """Send what one window of the file holds."""
        filled = os.preadv(fd, [self._view[: min(WINDOW_BYTES, limit - self.position)]], self.position)
        out: list[bytes | memoryview] = []
        try:
            used = self._frame(filled, out)
        finally:
            if out:
                self._channel.sock.sendall(b"".join(out))
                self._spoken = time.monotonic()
        if not used:
            self._send_large(fd, limit)

    def _frame(self, filled: int, out: list[bytes | memoryview]) -> int:
        """Put whole events of the window into `out` as packets, moving `position`; return the bytes used."""
        window, view, sequence = self._window, self._view, self._channel.sequence
        unpack, pack, crc32, residue = events.HEADER.unpack_from, _PACKET.pack, zlib.crc32, events.CRC_RESIDUE
        pos, began = 0, self.position
        try:
            while filled - pos >= events.HEADER_BYTES:
                _, kind, _, size, _, _ = unpack(window, pos)
                if size < events.EVENT_BYTES_MIN:
                    raise damaged(self._path(), began + pos, "no event header")
                stop = pos + size
                if stop > filled:
                    break
                event = view[pos:stop]
                if crc32(event) != residue:
                    raise damaged(self._path(), began + pos, f"wrong checksum in an event of type {kind}")
                if kind == events.GTID or kind == events.GTID_TAGGED:
                    skip = self._known(event, began + pos)
                    if skip:
                        pos += skip
                        continue
                out += (pack(size + 1 | (sequence & 0xFF) << 24, wire.OK), event)
                sequence += 1
                pos = stop
        finally:
            self._channel.sequence = sequence
            self.position = began + pos
        return pos

    def _path(self) -> Path:
        return self._reader.journal.segment(self.place.segment) / self.place.file

    def _known(self, event: memoryview, at: int) -> int:
        """Bytes to leave out because the replica has this transaction; 0 when it is to be sent."""
        try:
            key, gno, length, _ = events.read_gtid(event, 0)
        except events.EventSyntaxError as error:
            raise damaged(self._path(), at, str(error)) from error
        if self._have.contains(key, gno):
            return length
        self._have.add(key, gno)
        return 0

    def _send_large(self, fd: int, limit: int) -> None:
        """Send an event larger than the window in pieces, after a pass that checks it."""
        size = events.read_header(self._window, 0).size
        if self.position + size > limit:
            raise damaged(self._path(), self.position, "an event ends behind the durable position")
        if file_crc(fd, self.position, size) != events.CRC_RESIDUE:
            raise damaged(self._path(), self.position, "wrong checksum in a large event")
        at, left, status = self.position, size, bytes([wire.OK])
        while True:
            length = min(left + len(status), wire.PACKET_BYTES_MAX)
            self._channel.sock.sendall(wire.packet_header(length, self._channel.sequence) + status)
            self._channel.sequence += 1
            at = self._send_bytes(fd, at, length - len(status))
            left -= length - len(status)
            status = b""
            if length < wire.PACKET_BYTES_MAX:
                break
        self.position = at
        self._spoken = time.monotonic()

    def _send_bytes(self, fd: int, at: int, count: int) -> int:
        while count:
            piece = os.pread(fd, min(count, WINDOW_BYTES), at)
            self._channel.sock.sendall(piece)
            at += len(piece)
            count -= len(piece)
        return at

    def _send_event(self, event: bytes) -> None:
        self._channel.send(bytes([wire.OK]) + event)
        self._spoken = time.monotonic()
