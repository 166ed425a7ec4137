"""Binary logs and dump streams made by hand from the manual's layouts; shares no code with the product."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
OTHER_UUID = "9d3b0c1e-0000-11e1-9e33-c80aa9429562"
SERVER_ID = 77
MAGIC = b"\xfebin"
COMMIT_TIME = 1_700_000_000_123_456


def event(kind: int, body: bytes, position: int, *, timestamp: int = 1_700_000_000, flags: int = 0) -> bytes:
    """One event that starts at `position` of its file."""
    size = 19 + len(body) + 4
    raw = struct.pack("<IBIIIH", timestamp, kind, SERVER_ID, size, (position + size) & 0xFFFFFFFF, flags) + body
    return raw + struct.pack("<I", zlib.crc32(raw))


def format_description(position: int = 4, *, checksum: int = 1, artificial: bool = False) -> bytes:
    body = struct.pack("<H50sIB", 4, b"9.7.4", 0, 19) + bytes(41) + bytes([checksum])
    made = event(15, body, position)
    if not artificial:
        return made
    head = bytearray(made[:-4])
    head[13:17] = bytes(4)
    return bytes(head) + struct.pack("<I", zlib.crc32(bytes(head)))


def previous_gtids(position: int, sets: Sequence[tuple[str, int, int]] = ()) -> bytes:
    """`sets` are (uuid, first, last)."""
    body = struct.pack("<Q", len(sets))
    for owner, low, high in sets:
        body += uuid.UUID(owner).bytes + struct.pack("<QQQ", 1, low, high + 1)
    return event(35, body, position, flags=0x80)


def lenenc(number: int) -> bytes:
    if number < 251:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + struct.pack("<H", number)
    if number < 1 << 24:
        return b"\xfd" + struct.pack("<I", number)[:3]
    return b"\xfe" + struct.pack("<Q", number)


def gtid(position: int, gno: int, length: int, *, owner: str = UUID, two_times: bool = False) -> bytes:
    """`length` is that of the whole transaction, this event included."""
    committed = COMMIT_TIME | (1 << 55 if two_times else 0)
    body = b"\x01" + uuid.UUID(owner).bytes + struct.pack("<QBqq", gno, 2, gno - 1, gno)
    body += struct.pack("<Q", committed)[:7]
    if two_times:
        body += struct.pack("<Q", COMMIT_TIME - 5)[:7]
    body += lenenc(length) + struct.pack("<I", 90704)
    return event(33, body, position)


def transaction(
    position: int, gno: int, *, owner: str = UUID, payload: bytes = b"row", extra: Sequence[tuple[int, bytes]] = ()
) -> list[bytes]:
    """GTID, BEGIN, rows, `extra` events, XID; the GTID says the true length."""
    bodies = [(2, b"\0" * 13 + b"BEGIN"), (19, b"map"), (30, payload), *extra, (16, struct.pack("<Q", gno))]
    rest = sum(23 + len(body) for _, body in bodies)
    head = len(gtid(position, gno, 1, owner=owner))
    for _ in range(3):  # the length is part of the event that says it, in 1 to 9 bytes
        head = len(gtid(position, gno, head + rest, owner=owner))
    made = [gtid(position, gno, head + rest, owner=owner)]
    at = position + head
    for kind, body in bodies:
        made.append(event(kind, body, at))
        at += len(made[-1])
    return made


def rotate(position: int, name: str) -> bytes:
    return event(4, struct.pack("<Q", 4) + name.encode(), position)


def fake_rotate(name: str) -> bytes:
    raw = event(4, struct.pack("<Q", 4) + name.encode(), 0, timestamp=0, flags=0x20)
    head = bytearray(raw[:-4])
    head[13:17] = bytes(4)
    return bytes(head) + struct.pack("<I", zlib.crc32(bytes(head)))


def heartbeat(name: str, position: int) -> bytes:
    body = name.encode()
    raw = struct.pack("<IBIIIH", 0, 27, SERVER_ID, 23 + len(body), position & 0xFFFFFFFF, 0) + body
    return raw + struct.pack("<I", zlib.crc32(raw))


@dataclass
class BinlogFile:
    """A file under construction: `events` in order, `data` its bytes."""

    name: str
    events: list[bytes] = field(default_factory=list)
    boundaries: list[int] = field(default_factory=list)
    """Ends of whole transactions and of events outside them."""
    previous: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        self.add(format_description())
        self.add(previous_gtids(self.size, self.previous))

    @property
    def size(self) -> int:
        return 4 + sum(map(len, self.events))

    @property
    def data(self) -> bytes:
        return MAGIC + b"".join(self.events)

    def add(self, made: bytes) -> None:
        self.events.append(made)
        self.boundaries.append(self.size)

    def transaction(
        self, gno: int, *, owner: str = UUID, payload: bytes = b"row", extra: Sequence[tuple[int, bytes]] = ()
    ) -> None:
        self.events += transaction(self.size, gno, owner=owner, payload=payload, extra=extra)
        self.boundaries.append(self.size)

    def rotate(self, name: str) -> None:
        self.add(rotate(self.size, name))


def packets(payload: bytes, sequence: int = 0) -> bytes:
    """One payload as packets, split at 2^24 - 1."""
    made = []
    while True:
        piece, payload = payload[:0xFFFFFF], payload[0xFFFFFF:]
        made.append(struct.pack("<I", len(piece))[:3] + bytes([sequence & 255]) + piece)
        sequence += 1
        if len(piece) < 0xFFFFFF:
            return b"".join(made)


def stream(events: Sequence[bytes], *, flags: Sequence[int] | None = None) -> bytes:
    """Event packets; with `flags`, each carries the semi-sync header and its flag."""
    if flags is None:
        return b"".join(packets(b"\0" + each) for each in events)
    return b"".join(packets(b"\0\xef" + bytes([flag]) + each) for each, flag in zip(events, flags, strict=True))


EOF = packets(b"\xfe\0\0\x02\0")


def dump(files: Sequence[BinlogFile], *, end: bool = True) -> bytes:
    """A dump of whole files from the first one's start."""
    made = b""
    for file in files:
        made += stream([fake_rotate(file.name), *file.events])
    return made + (EOF if end else b"")
