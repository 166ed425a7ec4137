"""Turn the packets of a binlog dump into appends on a segment: checked, in batches, never holding a large event.

One buffer is filled from the socket; whole events are checked where they lie and written together. An event larger than
the buffer streams to the file piece by piece. What was appended becomes received only by `commit`: sync, publish, then
acknowledge, in this order (I2), at the last boundary inside the batch and not only when a batch ends at one. This
module must not know sockets, logins or retries.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from typing import Final

from farshore_agent.mysql.journal import events, wire
from farshore_agent.mysql.journal.acks import AckPolicy
from farshore_agent.mysql.journal.errors import NEW_HISTORY_HINT, StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSyntaxError, Key
from farshore_agent.mysql.journal.large import LargeEvent, LargeEventError
from farshore_agent.mysql.journal.store import Run, SegmentWriter
from farshore_agent.mysql.journal.wirefaults import SourceSaid, checksum_off, corrupt, differs, gap

BUFFER_BYTES: Final = 1 << 20
SYNC_BYTES_MAX: Final = 16 << 20
"""While the source sends without a pause, the file is synced at least this often: bounds the work of the last sync."""
_LOW32: Final = 0xFFFFFFFF


class Ingest:
    """The state of one dump connection. Raises StreamStopped on everything that must not be appended."""

    def __init__(
        self,
        writer: SegmentWriter,
        acks: AckPolicy,
        *,
        overlap: bytes = b"",
        before_commit: Callable[[], None] | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """The dump was asked to start at the writer's boundary, less `overlap`: the last event we have, which the
        source must send again byte for byte to prove that it is the same history.

        `before_commit` runs before transactions are published (a standby's start set must be fresh by then).
        """
        self._writer = writer
        self._acks = acks
        self._overlap = overlap
        self._before_commit = before_commit
        self._raw = bytearray(buffer_bytes)
        self._view = memoryview(self._raw)
        self._pos = self._end = 0
        self._head = 1 + acks.header_bytes
        self._prefix = struct.Struct(f"<IB{acks.header_bytes}xIBIIIH" if acks.header_bytes else "<IBIBIIIH")
        self._at = writer.boundary - len(overlap)
        self._last = writer.last_event
        self._transaction_end = writer.boundary
        """Where the current transaction ends, or the last one did: what follows must start exactly there."""
        self._pending: tuple[Key, int, int] | None = None
        self._boundary, self._boundary_last = writer.boundary, writer.last_event
        self._runs: list[Run] = []
        self._run: tuple[Key, int, int] | None = None
        self._large: LargeEvent | None = None
        self._ack_at = 0
        self._out: list[memoryview] = []
        self.ended = False
        """The source said that there is nothing more (non-blocking dump)."""
        self.unsynced_bytes = 0
        self.bytes = 0
        self.transactions = 0
        self.events_seen = False
        self.last_commit_unix = 0.0
        """The source's commit time of the last whole transaction."""
        self.last_arrival = time.monotonic()

    @property
    def unproved(self) -> bool:
        """The source has not yet sent our last event again."""
        return bool(self._overlap)

    # ---- buffer

    def room(self) -> memoryview:
        """Where the next bytes of the connection go; never empty."""
        return self._view[self._end :]

    def take(self, count: int) -> None:
        """Use `count` more bytes of `room`: check and append every whole event."""
        self.last_arrival = time.monotonic()
        self._end += count
        try:
            if self._large is not None:
                self._continue_large(self._large)
            while self._large is None and not self.ended and self._parse():
                pass
        finally:
            self._write()  # also what was sound in front of a bad event
        self._compact()

    def commit(self) -> None:
        """Make durable, publish and acknowledge every whole transaction that was appended."""
        self._settle(self._at, self._last)
        if not self.unsynced_bytes:
            return
        if self._run:
            self._runs.append(self._run)
            self._run = None
        if self._boundary > self._writer.boundary:
            if self._runs and self._before_commit:
                self._before_commit()
            self._writer.commit(self._boundary, self._boundary_last, self._runs)
        else:
            self._writer.sync()
        self._runs = []
        self.unsynced_bytes = 0
        if 0 < self._ack_at <= self._boundary:
            self._acks.durable(self._writer.file, self._ack_at)
            self._ack_at = 0

    def hasten(self) -> None:
        """More is on its way: let the disk start on what is here."""
        self._writer.hasten()

    def _compact(self) -> None:
        """Move what is left of the buffer to its front."""
        left = self._end - self._pos
        if self._pos and left:
            self._view[:left] = self._view[self._pos : self._end]
        self._pos, self._end = 0, left

    def _write(self) -> None:
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._append(data)

    def _append(self, data: bytes | memoryview) -> None:
        self._writer.append(data)
        self.unsynced_bytes += len(data)
        self.bytes += len(data)

    # ---- events

    def _parse(self) -> bool:
        """Check whole events in the buffer; True when the loop must be entered again."""
        raw, view, end, out = self._raw, self._view, self._end, self._out
        unpack, head, need = self._prefix.unpack_from, self._head, self._prefix.size
        crc32, residue, table, begins = zlib.crc32, events.CRC_RESIDUE, events.PASSES, events.BEGINS
        pos, at, last = self._pos, self._at, self._last
        overlap = bool(self._overlap)
        try:
            while end - pos >= need:
                word, status, timestamp, kind, _, size, log_pos, flags = unpack(raw, pos)
                length = word & 0xFFFFFF
                stop = pos + 4 + length
                if status or length == wire.PACKET_BYTES_MAX or stop > end:
                    break
                if length != size + head:
                    raise corrupt(self._writer.file, at, f"a packet of {length} bytes carries an event of {size}")
                event = view[pos + 4 + head : stop]
                passes = table[kind]
                if passes and not overlap:
                    if (log_pos - size ^ at) & _LOW32:
                        raise gap(self._writer.file, at, kind, log_pos - size)
                    if crc32(event) != residue:
                        raise corrupt(self._writer.file, at, f"wrong checksum in an event of type {kind}")
                    if passes == begins:
                        self._transaction_begins(at, last, event)
                    out.append(event)
                    last = at
                    at += size
                    if head > 1 and raw[pos + 6]:
                        self._ack_at = at
                    pos = stop
                    continue
                self._at, self._last = at, last
                self._other(kind, timestamp, log_pos, flags, event)
                if head > 1 and raw[pos + 6]:
                    self._ack_at = self._at
                at, last = self._at, self._last
                overlap = bool(self._overlap)
                pos = stop
        finally:
            self._pos, self._at, self._last = pos, at, last
        return self._stuck(end - pos)

    def _stuck(self, left: int) -> bool:
        """Decide why the next packet was not taken: half of it is here, it is no event, or it is too large."""
        if left < wire.PACKET_HEADER_BYTES + 1:
            return False
        raw, pos = self._raw, self._pos
        length = int.from_bytes(raw[pos : pos + 3], "little")
        if raw[pos + 4]:
            if left >= 4 + length:
                self._control(bytes(raw[pos + 4 : pos + 4 + length]))
                self._pos += 4 + length
                return not self.ended
            return False
        if left < self._prefix.size:
            return False
        if length == wire.PACKET_BYTES_MAX or 4 + length > len(raw):
            return self._begin_large(length)
        size = events.read_header(raw, pos + 4 + self._head).size
        if length != size + self._head:  # told now: half a packet of a wrong length might wait for ever
            raise corrupt(self._writer.file, self._at, f"a packet of {length} bytes carries an event of {size}")
        return False

    def _control(self, payload: bytes) -> None:
        if payload[0] == wire.EOF and len(payload) < 9:
            self.ended = True
            return
        if payload[0] == wire.ERROR:
            raise SourceSaid(*wire.read_error(payload))
        raise corrupt(self._writer.file, self._at, f"a packet of unknown kind {payload[0]}")

    def _other(self, kind: int, timestamp: int, log_pos: int, flags: int, event: memoryview) -> None:
        """Everything but the events of transactions, and those while the overlap is awaited."""
        sound = events.format_checksum_ok if kind == events.FORMAT_DESCRIPTION else events.checksum_ok
        artificial = bool(flags & events.FLAG_ARTIFICIAL) or log_pos == 0 or timestamp == 0
        if kind == events.FORMAT_DESCRIPTION and not events.has_crc32(event):
            raise checksum_off()
        if not sound(event):
            raise corrupt(self._writer.file, self._at, f"wrong checksum in an event of type {kind}")
        self.events_seen = True
        if kind in (events.HEARTBEAT, events.HEARTBEAT_V2):
            pass  # its arrival is all it says
        elif kind == events.ROTATE and artificial:
            self._file_begins(events.read_rotate(event)[0])
        elif kind == events.FORMAT_DESCRIPTION and (artificial or self._at > 0):
            pass  # made for this connection: our file has its own
        elif self._overlap:
            self._check_overlap(event)
        elif kind == events.FORMAT_DESCRIPTION:
            self._format_description(event, log_pos)
        else:
            if (log_pos - len(event) ^ self._at) & _LOW32:
                raise gap(self._writer.file, self._at, kind, log_pos - len(event))
            self._structural(kind, flags, event)

    def _structural(self, kind: int, flags: int, event: memoryview) -> None:
        self._settle(self._at, self._last)
        if kind == events.PREVIOUS_GTIDS:
            self._previous_gtids(event)
        elif kind == events.INCIDENT:
            raise StreamStopped(
                StopCode.GAP,
                f"the source wrote an INCIDENT event at {self._writer.file}:{self._at}: it lost events itself",
                hint="See the source's error log; then seed the standby again (consent needed).",
            )
        elif kind == events.ANONYMOUS_GTID:
            raise StreamStopped(
                StopCode.UNKNOWN_EVENT,
                f"a transaction without a GTID at {self._writer.file}:{self._at}",
                hint="Set gtid_mode=ON on the source, rotate its binary log, and start from a later point.",
            )
        elif kind not in (events.STOP, events.ROTATE):
            self._allow(kind, flags)
        inside = self._at < self._transaction_end
        self._out.append(event)
        self._last = self._at
        self._at += len(event)
        if not inside:
            self._boundary, self._boundary_last = self._at, self._last
            self._transaction_end = self._at

    def _allow(self, kind: int, flags: int) -> None:
        if not events.PASSES[kind] and not flags & events.FLAG_IGNORABLE:
            raise StreamStopped(
                StopCode.UNKNOWN_EVENT,
                f"an event of unknown type {kind} at {self._writer.file}:{self._at}",
                hint="Upgrade farshore-agent: this version does not know what the source wrote, and never skips.",
            )

    def _transaction_begins(self, at: int, last: int, event: memoryview) -> None:
        self._settle(at, last)
        if at != self._transaction_end:
            raise corrupt(self._writer.file, at, "a transaction starts inside another")
        try:
            key, gno, length, committed = events.read_gtid(event, 0)
        except events.EventSyntaxError as error:
            raise corrupt(self._writer.file, at, str(error)) from error
        self._transaction_end = at + length
        self._pending = (key, gno, committed)

    def _settle(self, at: int, last: int) -> None:
        """Take the pending transaction as whole when its last byte was appended; refuse one that ends too late.

        `at` is where the next event starts, `last` where the last one did.
        """
        if self._pending is None or at < self._transaction_end or self._large is not None:
            return
        key, gno, committed = self._pending
        self._pending = None
        if at > self._transaction_end:
            raise corrupt(self._writer.file, at, "an event crosses the end of its transaction")
        self._boundary, self._boundary_last = at, last
        self.last_commit_unix = committed / 1e6
        self.transactions += 1
        run = self._run
        if run and run[2] == gno and run[0] == key:
            self._run = (key, run[1], gno + 1)
            return
        if run:
            self._runs.append(run)
        self._run = (key, gno, gno + 1)

    # ---- files

    def _file_begins(self, name: str) -> None:
        """The artificial ROTATE: which file the next events belong to."""
        if name == self._writer.file:
            return
        self._settle(self._at, self._last)
        if self._pending is not None or self._overlap:
            raise StreamStopped(
                StopCode.GAP,
                f"the source went on to {name} before the end of {self._writer.file}",
                hint=NEW_HISTORY_HINT,
            )
        self._write()
        self.commit()
        self._writer.rotate(name)
        self._at = self._last = self._boundary = self._boundary_last = self._transaction_end = 0

    def _format_description(self, event: memoryview, log_pos: int) -> None:
        if log_pos != len(events.MAGIC) + len(event):
            raise gap(self._writer.file, self._at, events.FORMAT_DESCRIPTION, log_pos - len(event))
        self._out += (memoryview(events.MAGIC), event)
        self._last = len(events.MAGIC)
        self._at = self._boundary = log_pos
        self._boundary_last = self._last
        self._transaction_end = self._at

    def _previous_gtids(self, event: memoryview) -> None:
        """The source's own list of what came before this file: anything of it that we lack is a gap."""
        try:
            missing = events.read_previous_gtids(event).subtract(self._writer.end())
        except GtidSyntaxError as error:
            raise corrupt(self._writer.file, self._at, error.message) from error
        if missing:
            raise StreamStopped(
                StopCode.GAP,
                f"the source's {self._writer.file} follows transactions that never arrived",
                hint=NEW_HISTORY_HINT,
                evidence={"missing": str(missing), "journal_end": str(self._writer.end())},
            )

    def _check_overlap(self, event: memoryview) -> None:
        if event != self._overlap:
            raise differs(self._writer.file, self._at)
        self._overlap = b""
        self._last = self._at
        self._at += len(event)

    # ---- large events

    def _begin_large(self, length: int) -> bool:
        """Start streaming the event at the buffer's head; True when the loop goes on."""
        header = events.read_header(self._raw, self._pos + 4 + self._head)
        if header.size < events.EVENT_BYTES_MIN:
            raise corrupt(self._writer.file, self._at, f"an event of {header.size} bytes")
        if self._overlap and header.size != len(self._overlap):
            raise differs(self._writer.file, self._at)
        if self._overlap or header.kind in events.STRUCTURAL:
            return self._grow(header.size + self._head)
        if (header.log_pos - header.size ^ self._at) & _LOW32:
            raise gap(self._writer.file, self._at, header.kind, header.log_pos - header.size)
        self._allow(header.kind, header.flags)
        self._write()
        if self._head > 1 and self._raw[self._pos + 6]:
            self._ack_at = self._at + header.size
        self._pos += 4 + self._head
        try:
            self._large = LargeEvent(kind=header.kind, size=header.size, packet_bytes=length, head_bytes=self._head)
        except LargeEventError as error:
            raise corrupt(self._writer.file, self._at, str(error)) from error
        self._continue_large(self._large)
        return self._large is None

    def _continue_large(self, large: LargeEvent) -> None:
        try:
            self._pos = large.take(self._view, self._pos, self._end, self._append)
        except LargeEventError as error:
            raise corrupt(self._writer.file, self._at, str(error)) from error
        if not large.complete:
            return
        self._large = None
        if not large.sound:
            raise corrupt(self._writer.file, self._at, f"wrong checksum in an event of type {large.kind}")
        self._last = self._at
        self._at += large.size

    def _grow(self, payload: int) -> bool:
        """Make room for a large event that must be read as a whole; they are rare and bounded."""
        if payload >= wire.PACKET_BYTES_MAX:
            raise corrupt(self._writer.file, self._at, f"an event of {payload} bytes that must be read as a whole")
        self._write()
        left = bytes(self._view[self._pos : self._end])
        self._raw = bytearray(payload + 2 * BUFFER_BYTES)
        self._view = memoryview(self._raw)
        self._view[: len(left)] = left
        self._pos, self._end = 0, len(left)
        return False
