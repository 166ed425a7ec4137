"""Binary log events: headers, the few bodies the journal must read, the few events it must make, and the allow-list.

Layouts are those of mysql-server libs/mysql/binlog/event (control_events, codecs) and of the manual's "Binary Log
Event" pages. Every event here ends with a CRC32 over all its other bytes: the journal refuses a source without them.
This module must not know connections, packets or files; it reads any buffer at any offset and copies only what it
returns.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from farshore_agent.mysql.journal.gtid import GtidSet, Key

Buffer = bytes | bytearray | memoryview

MAGIC: Final = b"\xfebin"
HEADER_BYTES: Final = 19
CHECKSUM_BYTES: Final = 4
EVENT_BYTES_MIN: Final = HEADER_BYTES + CHECKSUM_BYTES
FIRST_POSITION: Final = len(MAGIC)

CRC_RESIDUE: Final = 0x2144DF1C
"""CRC32 of any bytes followed by their own CRC32, little-endian: one pass checks an event without taking it apart."""

HEADER: Final = struct.Struct("<IBIIIH")
"""timestamp, type, server_id, size, log_pos (low 32 bits), flags"""

# Event types (mysql-server: Log_event_type).
QUERY: Final = 2
STOP: Final = 3
ROTATE: Final = 4
FORMAT_DESCRIPTION: Final = 15
XID: Final = 16
INCIDENT: Final = 26
HEARTBEAT: Final = 27
GTID: Final = 33
ANONYMOUS_GTID: Final = 34
PREVIOUS_GTIDS: Final = 35
XA_PREPARE: Final = 38
TRANSACTION_PAYLOAD: Final = 40
HEARTBEAT_V2: Final = 41
GTID_TAGGED: Final = 42

FLAG_BINLOG_IN_USE: Final = 0x01
FLAG_ARTIFICIAL: Final = 0x20
FLAG_IGNORABLE: Final = 0x80
"""A reader that does not know the type may pass the event on unread."""

CHECKSUM_ALG_CRC32: Final = 1

_PLAIN_TYPES: Final = (
    QUERY,
    5,  # INTVAR
    9,  # APPEND_BLOCK
    11,  # DELETE_FILE
    13,  # RAND
    14,  # USER_VAR
    XID,
    17,  # BEGIN_LOAD_QUERY
    18,  # EXECUTE_LOAD_QUERY
    19,  # TABLE_MAP
    23,  # WRITE_ROWS, version 1
    24,  # UPDATE_ROWS, version 1
    25,  # DELETE_ROWS, version 1
    28,  # IGNORABLE
    29,  # ROWS_QUERY
    30,  # WRITE_ROWS
    31,  # UPDATE_ROWS
    32,  # DELETE_ROWS
    XA_PREPARE,
    39,  # PARTIAL_UPDATE_ROWS
    TRANSACTION_PAYLOAD,
)
BEGINS: Final = 2
PASSES: Final = bytes(BEGINS if kind in (GTID, GTID_TAGGED) else int(kind in _PLAIN_TYPES) for kind in range(256))
"""PASSES[type] is 1 for events inside transactions, which pass through unread, BEGINS for those that begin one, else 0:
one look-up for almost every event."""

STRUCTURAL: Final = frozenset(
    {
        STOP,
        ROTATE,
        FORMAT_DESCRIPTION,
        INCIDENT,
        HEARTBEAT,
        GTID,
        ANONYMOUS_GTID,
        PREVIOUS_GTIDS,
        HEARTBEAT_V2,
        GTID_TAGGED,
    }
)
"""Types that the journal reads itself."""

_GTID_BODY: Final = struct.Struct("<16sQ")
_U64: Final = struct.Struct("<Q")
_GTID_BODY_AT: Final = HEADER_BYTES + 1
_GTID_TIMESTAMP_AT: Final = HEADER_BYTES + 42
_TIMESTAMP_BYTES: Final = 7
_TWO_TIMESTAMPS: Final = 1 << 55
"""Set in the immediate commit timestamp when an original one follows."""


class EventSyntaxError(ValueError):
    """The body of an event does not read as its type says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    timestamp: int
    kind: int
    server_id: int
    size: int
    log_pos: int
    flags: int

    @property
    def artificial(self) -> bool:
        """Made by the sender for this connection; not a part of any file."""
        return bool(self.flags & FLAG_ARTIFICIAL) or self.log_pos == 0


def read_header(raw: Buffer, at: int) -> Header:
    timestamp, kind, server_id, size, log_pos, flags = HEADER.unpack_from(raw, at)
    return Header(timestamp=timestamp, kind=kind, server_id=server_id, size=size, log_pos=log_pos, flags=flags)


def checksum_ok(event: Buffer) -> bool:
    """Whether the event's last four bytes are the CRC32 of the others."""
    return zlib.crc32(event) == CRC_RESIDUE


def format_checksum_ok(event: Buffer) -> bool:
    """The same for a format description, whose CRC leaves out the in-use flag (mysql-server: event_checksum_test)."""
    if not event[17] & FLAG_BINLOG_IN_USE:
        return checksum_ok(event)
    closed = bytearray(event)
    closed[17] &= ~FLAG_BINLOG_IN_USE & 0xFF
    return checksum_ok(closed)


# ---- GTID events


def read_gtid(raw: Buffer, at: int) -> tuple[Key, int, int, int]:
    """Return (key, number, transaction length in bytes, immediate commit time in Unix microseconds).

    `at` is the offset of a GTID or GTID_TAGGED event. The length counts from the first byte of this event to the last
    of the transaction, as in the file. Raises EventSyntaxError, also when the length is absent (source before 8.0.2).
    """
    try:
        if raw[at + 4] != GTID:
            key, gno, length, committed = _read_tagged(raw, at)
        else:
            owner, gno = _GTID_BODY.unpack_from(raw, at + _GTID_BODY_AT)
            key = (owner, "")
            (committed,) = _U64.unpack_from(raw, at + _GTID_TIMESTAMP_AT)  # seven bytes, and one of what follows
            at += _GTID_TIMESTAMP_AT + _TIMESTAMP_BYTES
            if committed & _TWO_TIMESTAMPS:
                at += _TIMESTAMP_BYTES
            committed &= _TWO_TIMESTAMPS - 1
            length = raw[at]
            if length >= 251:
                length = _read_length(raw, at)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise EventSyntaxError("a GTID event ends too early") from error
    if length <= 0:
        raise EventSyntaxError("a GTID event without the length of its transaction (written by a server before 8.0.2)")
    return key, gno, length, committed


def _read_length(raw: Buffer, at: int) -> int:
    """A length-encoded integer of more than one byte."""
    if raw[at] == 252:
        return raw[at + 1] | raw[at + 2] << 8
    if raw[at] == 253:
        return raw[at + 1] | raw[at + 2] << 8 | raw[at + 3] << 16
    return int(_U64.unpack_from(raw, at + 1)[0])


_UUID_FIELD, _GNO_FIELD, _TAG_FIELD, _COMMITTED_FIELD, _LENGTH_FIELD = 1, 2, 3, 6, 8
_SIGNED_FIELDS = frozenset({_GNO_FIELD, 4, 5})  # gno, last_committed, sequence_number: lowest bit is the sign


def _read_tagged(raw: Buffer, at: int) -> tuple[Key, int, int, int]:
    """Fields in mysql::serialization form: after three header numbers, pairs of field id and value in rising order."""
    end = at + HEADER.unpack_from(raw, at)[3] - CHECKSUM_BYTES
    at += HEADER_BYTES
    for _ in ("version", "serialized size", "last field that may not be ignored"):
        _, at = read_varlen(raw, at)
    owner, tag = b"", ""
    numbers: dict[int, int] = {}
    while at < end and _LENGTH_FIELD not in numbers:
        field, at = read_varlen(raw, at)
        if field == _UUID_FIELD:
            digits = bytearray()
            for _ in range(16):
                digit, at = read_varlen(raw, at)
                digits.append(digit & 0xFF)
            owner = bytes(digits)
        elif field == _TAG_FIELD:
            length, at = read_varlen(raw, at)
            tag = bytes(raw[at : at + length]).decode("ascii")
            at += length
        else:
            number, at = read_varlen(raw, at)
            numbers[field] = number >> 1 if field in _SIGNED_FIELDS else number
    if len(owner) != 16 or _GNO_FIELD not in numbers:
        raise EventSyntaxError("a tagged GTID event without uuid or number")
    return (owner, tag), numbers[_GNO_FIELD], numbers.get(_LENGTH_FIELD, 0), numbers.get(_COMMITTED_FIELD, 0)


def read_varlen(raw: Buffer, at: int) -> tuple[int, int]:
    """Read one unsigned number of mysql::serialization: the count of low one-bits is the count of further bytes."""
    extra = 0
    first = raw[at]
    while first & 1 and extra < 8:
        extra += 1
        first >>= 1
    if extra == 8:
        return int(_U64.unpack_from(raw, at + 1)[0]), at + 9
    if at + extra >= len(raw):
        raise IndexError(at + extra)
    return int.from_bytes(raw[at : at + extra + 1], "little") >> (extra + 1), at + extra + 1


# ---- other bodies


def read_rotate(event: Buffer) -> tuple[str, int]:
    """Return (file name, position) of a ROTATE event."""
    (position,) = _U64.unpack_from(event, HEADER_BYTES)
    return bytes(event[HEADER_BYTES + 8 : len(event) - CHECKSUM_BYTES]).decode("utf-8"), position


def read_previous_gtids(event: Buffer) -> GtidSet:
    """Return the set in a PREVIOUS_GTIDS event; raises GtidSyntaxError."""
    return GtidSet.decode(bytes(event[HEADER_BYTES : len(event) - CHECKSUM_BYTES]))


def has_crc32(format_description: Buffer) -> bool:
    """Whether the file that this format description opens carries CRC32 in every event."""
    return format_description[len(format_description) - CHECKSUM_BYTES - 1] == CHECKSUM_ALG_CRC32


# ---- events of our own


def make_event(*, kind: int, server_id: int, body: bytes, log_pos: int = 0, flags: int = FLAG_ARTIFICIAL) -> bytes:
    """Return one event with its checksum; artificial ones carry no time."""
    size = HEADER_BYTES + len(body) + CHECKSUM_BYTES
    event = HEADER.pack(0, kind, server_id, size, log_pos & 0xFFFFFFFF, flags) + body
    return event + zlib.crc32(event).to_bytes(4, "little")


def make_rotate(*, server_id: int, name: str, position: int = FIRST_POSITION) -> bytes:
    """The artificial ROTATE that tells a replica which file follows."""
    return make_event(kind=ROTATE, server_id=server_id, body=_U64.pack(position) + name.encode())


def make_heartbeat(*, server_id: int, name: str, position: int, second_version: bool) -> bytes:
    """A heartbeat at `position`; version 2 carries 64-bit positions (mysql-server: Heartbeat_event_v2 codec)."""
    if not second_version:
        return make_event(kind=HEARTBEAT, server_id=server_id, body=name.encode(), log_pos=position, flags=0)
    encoded = _packed(position)
    raw_name = name.encode()
    body = _packed(1) + _packed(len(raw_name)) + raw_name + _packed(2) + _packed(len(encoded)) + encoded + _packed(0)
    return make_event(kind=HEARTBEAT_V2, server_id=server_id, body=body, log_pos=0, flags=0)


def _packed(number: int) -> bytes:
    """A length-encoded integer."""
    if number < 251:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + number.to_bytes(2, "little")
    if number < 1 << 24:
        return b"\xfd" + number.to_bytes(3, "little")
    return b"\xfe" + number.to_bytes(8, "little")
