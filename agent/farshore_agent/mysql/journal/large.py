"""An event larger than the receive buffer, on its way to the file piece by piece.

Its packet continues in further packets after every 16 MiB less one byte; between them stand packet headers that must
not reach the file. This module must not know files: it hands each piece to a function.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from farshore_agent.mysql.journal import events, wire


class LargeEventError(ValueError):
    """The packets of the event do not add up."""


class LargeEvent:
    """The rest of one event; `take` until `complete`."""

    def __init__(self, *, kind: int, size: int, packet_bytes: int, head_bytes: int) -> None:
        """`packet_bytes` is the length of the first packet, of which `head_bytes` stand before the event."""
        if packet_bytes != min(size + head_bytes, wire.PACKET_BYTES_MAX):
            raise LargeEventError(f"a packet of {packet_bytes} bytes carries an event of {size}")
        self.kind = kind
        self.size = size
        self._left = size
        self._packet_left = packet_bytes - head_bytes
        self._another = packet_bytes == wire.PACKET_BYTES_MAX
        self._crc = 0

    @property
    def complete(self) -> bool:
        return not self._packet_left and not self._another

    @property
    def sound(self) -> bool:
        """Whether it arrived as it was sent; valid once complete."""
        return not self._left and self._crc == events.CRC_RESIDUE

    def take(self, view: memoryview, pos: int, end: int, write: Callable[[memoryview], None]) -> int:
        """Use bytes of `view` from `pos`, at most to `end`; return where the unused ones begin.

        Raises LargeEventError.
        """
        while pos < end and not self.complete:
            if self._packet_left:
                stop = min(end, pos + self._packet_left)
                piece = view[pos:stop]
                self._crc = zlib.crc32(piece, self._crc)
                write(piece)
                self._packet_left -= stop - pos
                self._left -= stop - pos
                pos = stop
            elif end - pos < wire.PACKET_HEADER_BYTES:
                return pos
            else:
                self._next_packet(int.from_bytes(view[pos : pos + 3], "little"))
                pos += wire.PACKET_HEADER_BYTES
        return pos

    def _next_packet(self, length: int) -> None:
        if length != min(self._left, wire.PACKET_BYTES_MAX):
            raise LargeEventError("the packets of an event do not add up")
        self._packet_left = length
        self._another = length == wire.PACKET_BYTES_MAX
