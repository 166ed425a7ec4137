"""The relay forwards exactly the rows, whatever the sizes of packets and of what the socket gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farshore_agent.mysql.seed import framing
from farshore_agent.mysql.seed.framing import RowFramer, RowsBroken

MAX = framing.PACKET_BYTES_MAX
END = b"\x05\x00\x00\x09\xfe\x00\x00\x02\x00"


def length_encoded(length: int) -> bytes:
    """Write a length as the protocol does (MySQL internals, Protocol::LengthEncodedInteger)."""
    if length < 0xFB:
        return bytes([length])
    for mark, size in ((0xFC, 2), (0xFD, 3)):
        if length < 1 << 8 * size:
            return bytes([mark]) + length.to_bytes(size, "little")
    return b"\xfe" + length.to_bytes(8, "little")


def packets(payload: bytes, greatest: int) -> list[tuple[bytes, bytes]]:
    """Cut a payload into (header, piece); a piece of the greatest length is followed by another, maybe empty."""
    found: list[tuple[bytes, bytes]] = []
    while True:
        piece, payload = payload[:greatest], payload[greatest:]
        found.append((len(piece).to_bytes(3, "little") + bytes([len(found) % 256]), piece))
        if len(piece) < greatest:
            return found


def wire(row: bytes, greatest: int) -> bytes:
    """A row as it travels."""
    return b"".join(header + piece for header, piece in packets(length_encoded(len(row)) + row, greatest))


def forwarded(row: bytes, greatest: int) -> bytes:
    """A row as it is to be forwarded: its first header, and nothing between its pieces."""
    pieces = packets(length_encoded(len(row)) + row, greatest)
    return pieces[0][0] + b"".join(piece for _, piece in pieces)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a stream into reads of the given sizes, over and over."""
    reads = []
    position = turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        reads.append(stream[position : position + size])
        position, turn = position + size, turn + 1
    return reads


@pytest.fixture(autouse=True)
def small_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets are continued from 40 bytes on, so that every way to be cut is met with few bytes."""
    monkeypatch.setattr(framing, "PACKET_BYTES_MAX", 40)


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(st.binary(max_size=130) | st.integers(0, 130).map(lambda n: b"\xfe\xff\xfb\x00"[: n % 5] * n)),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
)
def test_rows_pass_whole_however_they_are_cut(rows: list[bytes], sizes: list[int]) -> None:
    """For any rows and any sizes of reads: all bytes of all rows, one header each, counted right, and an end."""
    framer = RowFramer()
    stream = b"".join(wire(row, 40) for row in rows) + END
    out = b"".join(framer.feed(read) for read in cut(stream, sizes))
    assert out == b"".join(forwarded(row, 40) for row in rows)
    assert framer.rows == len(rows)
    assert framer.ended
    assert framer.null_rows == 0


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_error_in_the_middle_is_raised_with_its_code(size: int) -> None:
    """The rows before it pass; the error's text comes without its SQL state."""
    payload = b"\xff" + (1317).to_bytes(2, "little") + b"#70100Query execution was interrupted"
    stream = wire(b"abc", 40) + len(payload).to_bytes(3, "little") + b"\x07" + payload
    framer = RowFramer()
    with pytest.raises(RowsBroken) as broken:
        list(map(framer.feed, cut(stream, [size])))
    assert (broken.value.code, broken.value.text) == (1317, "Query execution was interrupted")
    assert framer.rows == 1
    assert framer.ended


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_row_that_is_null_is_counted_and_the_stream_goes_on(size: int) -> None:
    """CONCAT beyond max_allowed_packet is NULL: noticed, and the rest can still be read away."""
    framer = RowFramer()
    for read in cut(wire(b"abc", 40) + b"\x01\x00\x00\x02\xfb" + wire(b"def", 40) + END, [size]):
        framer.feed(read)
    assert framer.null_rows == 1
    assert framer.ended


@pytest.mark.parametrize("length", [MAX - 5, MAX - 4, MAX - 3, MAX, 2 * MAX - 9])
def test_real_packet_edges(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Around 16 MiB, where a packet is just full, a row is continued by an empty packet or by a whole one."""
    monkeypatch.setattr(framing, "PACKET_BYTES_MAX", MAX)
    row = b"r" * length
    framer = RowFramer()
    stream = wire(row, MAX) + wire(b"next", MAX) + END
    out = b"".join(framer.feed(stream[at : at + 262144]) for at in range(0, len(stream), 262144))
    assert out == forwarded(row, MAX) + forwarded(b"next", MAX)
    assert (framer.rows, framer.ended) == (2, True)
