"""MySQL packets in both roles: framing, the 16 MiB split, login messages of a server, and small result sets.

Source: manual, "MySQL Packets", "Protocol::HandshakeV10", "Caching_sha2_password". This module must not know binlog
events or files; it works on bytes and on a connected socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from farshore_agent.mysql.journal.errors import Permanent

PACKET_BYTES_MAX: Final = 0xFFFFFF
"""A payload of this many bytes or more continues in the next packet; the last one is shorter, maybe empty."""
PACKET_HEADER_BYTES: Final = 4

COM_QUIT: Final = 0x01
COM_QUERY: Final = 0x03
COM_PING: Final = 0x0E
COM_BINLOG_DUMP: Final = 0x12
COM_REGISTER_REPLICA: Final = 0x15
COM_BINLOG_DUMP_GTID: Final = 0x1E

DUMP_NON_BLOCK: Final = 0x01
DUMP_HEARTBEAT_V2: Final = 0x02
"""In the flags of a dump request: the requester understands heartbeats of version 2."""
DUMP_THROUGH_GTID: Final = 0x04

OK: Final = 0x00
EOF: Final = 0xFE
ERROR: Final = 0xFF

ER_ACCESS_DENIED: Final = 1045
ER_TOO_MANY_CONNECTIONS: Final = 1040
ER_UNKNOWN_COMMAND: Final = 1047
ER_NOT_SUPPORTED: Final = 1235
ER_SOURCE_FATAL: Final = 1236
"""ER_SOURCE_FATAL_ERROR_READING_BINLOG: the replica's receiver stops on it and shows our text."""
ER_SECURE_TRANSPORT_REQUIRED: Final = 3159

_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class ProtocolError(Permanent):
    """The other end does not speak the protocol as agreed; the connection is closed."""

    code = "ProtocolError"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Check that the other end is a MySQL server or replica of a supported version.")


def packet_header(length: int, sequence: int) -> bytes:
    return _U32.pack(length | (sequence & 0xFF) << 24)


def frame(payload: bytes, sequence: int) -> tuple[bytes, int]:
    """Return `payload` as packets starting at `sequence`, and the next sequence number."""
    parts: list[bytes] = []
    at = 0
    while True:
        piece = payload[at : at + PACKET_BYTES_MAX]
        parts += (packet_header(len(piece), sequence), piece)
        sequence += 1
        at += len(piece)
        if len(piece) < PACKET_BYTES_MAX:
            return b"".join(parts), sequence


class PacketChannel:
    """Whole packets over a blocking socket, with the sequence number that both ends count."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sequence = 0

    def send(self, payload: bytes) -> None:
        framed, self.sequence = frame(payload, self.sequence)
        self.sock.sendall(framed)

    def receive(self, *, bytes_max: int) -> bytes:
        """Return the next payload; raises ProtocolError beyond `bytes_max` and EOFError when the peer has gone."""
        payload = b""
        while True:
            header = self._read(PACKET_HEADER_BYTES)
            length = int.from_bytes(header[:3], "little")
            if len(payload) + length > bytes_max:
                raise ProtocolError(f"a packet is larger than {bytes_max} bytes")
            self.sequence = (header[3] + 1) & 0xFF
            payload += self._read(length)
            if length < PACKET_BYTES_MAX:
                return payload

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            got = self.sock.recv(count - len(parts))
            if not got:
                raise EOFError("the peer closed the connection")
            parts += got
        return bytes(parts)

    # ---- answers of a server

    def send_ok(self) -> None:
        self.send(b"\x00\x00\x00\x02\x00\x00\x00")

    def send_error(self, number: int, message: str, *, state: str = "HY000") -> None:
        self.send(bytes([ERROR]) + _U16.pack(number) + b"#" + state.encode() + message.encode())

    def send_eof(self) -> None:
        self.send(b"\xfe\x00\x00\x02\x00")

    def send_value(self, value: str | None, *, column: str) -> None:
        """A result set of one row and one column; None is SQL NULL."""
        name = lenenc_bytes(column.encode())
        utf8mb4_general_ci, var_string, bytes_max = 45, 253, 1 << 20
        definition = struct.pack("<BHIBHBH", 0x0C, utf8mb4_general_ci, bytes_max, var_string, 0, 0, 0)
        self.send(b"\x01")
        self.send(lenenc_bytes(b"def") + lenenc_bytes(b"") * 3 + name * 2 + definition)
        self.send_eof()
        self.send(b"\xfb" if value is None else lenenc_bytes(value.encode()))
        self.send_eof()


def lenenc_bytes(raw: bytes) -> bytes:
    """`raw` with its length in front (length-encoded string)."""
    length = len(raw)
    if length < 251:
        return bytes([length]) + raw
    if length < 1 << 16:
        return b"\xfc" + _U16.pack(length) + raw
    if length < 1 << 24:
        return b"\xfd" + length.to_bytes(3, "little") + raw
    return b"\xfe" + _U64.pack(length) + raw


def dump_request(*, flags: int, server_id: int, file: str, position: int, gtid_set: bytes) -> bytes:
    """COM_BINLOG_DUMP_GTID. With a file name the source starts there and leaves out only what `gtid_set` holds; without
    one it finds the file by the set. Positions are 64-bit here, unlike COM_BINLOG_DUMP (mysql-server:
    sql/rpl_source.cc com_binlog_dump_gtid, sql/rpl_binlog_sender.cc check_start_file)."""
    name = file.encode()
    head = struct.pack("<BHII", COM_BINLOG_DUMP_GTID, flags, server_id, len(name))
    return head + name + _U64.pack(position) + _U32.pack(len(gtid_set)) + gtid_set


def register_request(*, server_id: int, host: str, port: int) -> bytes:
    """COM_REGISTER_REPLICA: makes the journal visible in SHOW REPLICAS; user and password stay empty."""
    name = host.encode()[:60]
    head = struct.pack("<BI", COM_REGISTER_REPLICA, server_id)
    return head + bytes([len(name)]) + name + b"\x00\x00" + struct.pack("<HII", port & 0xFFFF, 0, 0)


def parse_dump_request(payload: bytes) -> tuple[int, int, bytes]:
    """Return (flags, server_id, encoded GTID set) of a COM_BINLOG_DUMP_GTID; file and position are not used by us."""
    try:
        flags, server_id, name_bytes = struct.unpack_from("<HII", payload, 1)
        at = 11 + name_bytes + 8
        (length,) = _U32.unpack_from(payload, at)
    except struct.error as error:
        raise ProtocolError("a dump request ends too early") from error
    return flags, server_id, payload[at + 4 : at + 4 + length]


def read_error(payload: bytes | memoryview) -> tuple[int, str]:
    """Return (number, message) of an error packet."""
    raw = bytes(payload)
    (number,) = _U16.unpack_from(raw, 1)
    text = raw[9:] if raw[3:4] == b"#" else raw[3:]
    return number, text.decode("utf-8", "replace")
