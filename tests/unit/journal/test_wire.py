"""Packets: the 16 MiB split in both directions, answers, and dump requests."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from farshore_agent.mysql.journal import wire
from tests.unit.journal.binlog import packets

FULL = 0xFFFFFF


@pytest.mark.parametrize("length", [0, 1, FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 5])
def test_frame_splits_as_the_manual_says(length: int) -> None:
    """A payload whose length is a multiple of 2^24 - 1 ends with an empty packet; sequence numbers wrap at 256."""
    payload = b"x" * length
    framed, following = wire.frame(payload, 254)
    assert framed == packets(payload, 254)
    assert following == 254 + length // FULL + 1


@pytest.fixture
def channels() -> Iterator[tuple[wire.PacketChannel, wire.PacketChannel]]:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(20)
        right.settimeout(20)
        yield wire.PacketChannel(left), wire.PacketChannel(right)


@pytest.mark.parametrize("length", [3, FULL - 1, FULL, FULL + 1])
def test_channel_round_trip(channels: tuple[wire.PacketChannel, wire.PacketChannel], length: int) -> None:
    """What one end sends the other receives, at and around the packet limit, with sequence numbers in step."""
    left, right = channels
    payload = b"y" * length
    sender = threading.Thread(target=left.send, args=(payload,))
    sender.start()
    assert right.receive(bytes_max=1 << 26) == payload
    sender.join()
    assert right.sequence == left.sequence & 0xFF


def test_channel_bounds_what_it_receives(channels: tuple[wire.PacketChannel, wire.PacketChannel]) -> None:
    """A peer that announces more than is allowed is refused before a byte of it is read."""
    left, right = channels
    left.sock.sendall(wire.packet_header(1000, 0))
    with pytest.raises(wire.ProtocolError):
        right.receive(bytes_max=999)


def test_channel_notices_the_end(channels: tuple[wire.PacketChannel, wire.PacketChannel]) -> None:
    """A peer that goes in the middle of a packet is an end, not a short packet."""
    left, right = channels
    left.sock.sendall(wire.packet_header(10, 0) + b"half")
    left.sock.close()
    with pytest.raises(EOFError):
        right.receive(bytes_max=100)


def test_dump_requests_read_back() -> None:
    """File, 64-bit position and GTID set stand where the server looks for them."""
    raw = wire.dump_request(flags=7, server_id=42, file="bin.000009", position=5 << 32, gtid_set=b"abc")
    code, flags, server_id, length = struct.unpack_from("<BHII", raw)
    assert (code, flags, server_id, length) == (0x1E, 7, 42, 10)
    assert raw[11:21] == b"bin.000009"
    assert struct.unpack_from("<QI", raw, 21) == (5 << 32, 3)
    assert wire.parse_dump_request(raw) == (7, 42, b"abc")
    with pytest.raises(wire.ProtocolError):
        wire.parse_dump_request(raw[:15])


def test_register_request() -> None:
    """COM_REGISTER_REPLICA: id, host, empty user and password, port."""
    raw = wire.register_request(server_id=42, host="10.0.0.1", port=3307)
    assert raw == b"\x15" + struct.pack("<I", 42) + b"\x0810.0.0.1\x00\x00" + struct.pack("<HII", 3307, 0, 0)


def test_errors_read_back() -> None:
    """Number and message of an error packet, with and without a state."""
    assert wire.read_error(b"\xff\xd4\x04#HY000gone") == (1236, "gone")
    assert wire.read_error(b"\xff\xd4\x04gone") == (1236, "gone")


@pytest.mark.parametrize("length", [0, 250, 251, 65535, 65536])
def test_lenenc_bytes(length: int) -> None:
    """Lengths in one, three and four bytes."""
    raw = wire.lenenc_bytes(b"z" * length)
    first = raw[0]
    start = {252: 3, 253: 4}.get(first, 1)
    said = first if start == 1 else int.from_bytes(raw[1:start], "little")
    assert (said, len(raw) - start) == (length, length)
