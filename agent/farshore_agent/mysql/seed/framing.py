"""Find the rows in the bytes of a result set without looking into them.

A row of one string column travels as one packet: three bytes of length, one of sequence, the string's own length,
the string (MySQL Internals, "Protocol::ResultsetRow"). The relay forwards the bytes as they are, so only the headers
are read: how many rows passed, where the result ends, and whether the server gave up in the middle.

It knows neither sockets nor SQL.
"""

from __future__ import annotations

HEADER_BYTES = 4
PACKET_BYTES_MAX = 0xFFFFFF
"""A packet of exactly this length is continued by the next one."""
END_OF_ROWS = 0xFE
END_BYTES_MAX = 8
"""0xfe also starts the length of a string over 16 MiB; such a packet is never this short."""
ERROR = 0xFF
NULL = 0xFB


class RowsBroken(Exception):
    """The server ended the result set with an error; `code` and `text` are the server's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class NullRow(Exception):
    """A row is NULL: its CONCAT was longer than max_allowed_packet of the source."""


class RowFramer:
    """Counts rows in a stream of packets and takes out what must not be forwarded.

    Forwarded are the headers too (the reader of the stream knows how to skip what precedes a row), except those
    inside a row: a row of 16 MiB or more is cut into packets, and the inner headers are removed.
    """

    def __init__(self) -> None:
        self.rows = 0
        """Rows seen whole up to their last packet's header."""
        self.ended = False
        """Whether the packet that ends the result was seen."""
        self.null_rows = 0
        """Rows that are NULL: their CONCAT was longer than max_allowed_packet of the source."""
        self._held = b""  # the beginning of a header, or of an end or error packet, not yet decidable
        self._skip = 0  # bytes of the current packet still to come
        self._continued = False  # the packet before was of the greatest length: this one goes on with its row

    def feed(self, data: bytes) -> bytes:
        """Return what to forward of `data`; raise RowsBroken when the server ends the rows with an error.

        Bytes that cannot be judged yet are held back and come out of a later call.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        position = self._skip
        start = 0
        kept: list[bytes] = []  # pieces before `start`, when an inner header was cut out
        continued = self._continued
        rows = self.rows
        # One more byte than the header is needed, the first of the payload. An empty continuation packet has none.
        while position + HEADER_BYTES < size or (continued and position + HEADER_BYTES == size):
            length = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            if continued:
                kept.append(data[start:position])
                start = position + HEADER_BYTES
            else:
                first = data[position + HEADER_BYTES]
                if first == NULL:
                    self.null_rows += 1
                elif first == ERROR or (first == END_OF_ROWS and length <= END_BYTES_MAX):
                    self.rows = rows
                    if position + HEADER_BYTES + length > size:
                        break  # an end or error packet that has not arrived whole
                    self._finish(data[position + HEADER_BYTES : position + HEADER_BYTES + length])
                    return b"".join([*kept, data[start:position]]) if kept else data[start:position]
            continued = length == PACKET_BYTES_MAX
            if not continued:
                rows += 1
            position += HEADER_BYTES + length
        self.rows = rows
        self._continued = continued
        if position >= size:
            self._skip = position - size
            rest = data[start:] if start else data
        else:
            self._skip = 0
            self._held = data[position:]
            rest = data[start:position]
        return b"".join([*kept, rest]) if kept else rest

    def _finish(self, payload: bytes) -> None:
        self.ended = True
        if payload[0] == ERROR:
            text = payload[3:].decode("utf-8", "replace")
            raise RowsBroken(int.from_bytes(payload[1:3], "little"), text[6:] if text.startswith("#") else text)
