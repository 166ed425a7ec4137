"""Events are read as the manual lays them out; the few that we make are read back by an independent hand."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.gtid import GtidSet
from tests.unit.journal import binlog

KEY = (uuid.UUID(binlog.UUID).bytes, "")


@given(st.integers(1, (1 << 63) - 2), st.integers(1, 1 << 40), st.booleans(), st.integers(0, 7))
def test_gtid_event(gno: int, length: int, two_times: bool, offset: int) -> None:
    """Number, transaction length in all its encodings, and the immediate commit time, at any offset of a buffer."""
    raw = bytes(offset) + binlog.gtid(4, gno, length, two_times=two_times)
    assert events.read_gtid(raw, offset) == (KEY, gno, length, binlog.COMMIT_TIME)


def test_gtid_event_without_a_length_is_refused() -> None:
    """Without the transaction's length no boundary is known: a source before 8.0.2 is not guessed at."""
    with pytest.raises(events.EventSyntaxError):
        events.read_gtid(binlog.gtid(4, 1, 0), 0)


def varlen(number: int) -> bytes:
    """mysql::serialization: n further bytes are announced by n low one-bits."""
    for extra in range(8):
        if number < 1 << (7 * (extra + 1)):
            return (number << (extra + 1) | ((1 << extra) - 1)).to_bytes(extra + 1, "little")
    return b"\xff" + number.to_bytes(8, "little")


def tagged(gno: int, length: int, tag: str, *, original: bool) -> bytes:
    body = b"".join(map(varlen, (1, 200, 8)))
    body += varlen(0) + varlen(1)
    body += varlen(1) + b"".join(varlen(byte) for byte in KEY[0])
    body += varlen(2) + varlen(gno << 1)
    body += varlen(3) + varlen(len(tag)) + tag.encode()
    body += varlen(4) + varlen(5 << 1) + varlen(5) + varlen(6 << 1)
    body += varlen(6) + varlen(binlog.COMMIT_TIME)
    if original:
        body += varlen(7) + varlen(binlog.COMMIT_TIME - 9)
    body += varlen(8) + varlen(length) + varlen(9) + varlen(90704)
    return binlog.event(42, body, 4)


@given(st.integers(1, (1 << 62) - 1), st.integers(1, 1 << 40), st.sampled_from(["a", "blue", "t" * 32]), st.booleans())
def test_tagged_gtid_event(gno: int, length: int, tag: str, original: bool) -> None:
    """The self-describing form of tagged GTIDs, with and without the optional original commit time."""
    raw = tagged(gno, length, tag, original=original)
    assert events.read_gtid(raw, 0) == ((KEY[0], tag), gno, length, binlog.COMMIT_TIME)


@given(st.binary(max_size=120), st.sampled_from([33, 42]))
def test_any_gtid_body_is_read_or_refused(body: bytes, kind: int) -> None:
    """A body that is no GTID raises the one documented error, never anything else."""
    raw = binlog.event(kind, body, 4)
    try:
        events.read_gtid(raw, 0)
    except events.EventSyntaxError:
        return


@given(st.integers(0, (1 << 64) - 1))
def test_varlen_numbers(number: int) -> None:
    """Numbers of every length, up to the nine-byte form."""
    assert events.read_varlen(varlen(number), 0)[0] == number


def test_checksums() -> None:
    """One flipped bit anywhere is found; the in-use flag of a format description is not an error."""
    event = binlog.event(2, b"BEGIN", 4)
    assert events.checksum_ok(event)
    for at in range(len(event)):
        assert not events.checksum_ok(event[:at] + bytes([event[at] ^ 4]) + event[at + 1 :])
    described = bytearray(binlog.format_description())
    assert events.format_checksum_ok(described)
    described[17] |= 1
    assert events.format_checksum_ok(described)
    described[30] ^= 1
    assert not events.format_checksum_ok(described)


def test_bodies() -> None:
    """ROTATE, PREVIOUS_GTIDS and the checksum algorithm of a format description."""
    assert events.read_rotate(binlog.rotate(4, "bin.000002")) == ("bin.000002", 4)
    found = events.read_previous_gtids(binlog.previous_gtids(4, [(binlog.UUID, 1, 9)]))
    assert found == GtidSet.parse(f"{binlog.UUID}:1-9")
    assert events.has_crc32(binlog.format_description())
    assert not events.has_crc32(binlog.format_description(checksum=0))


def test_made_rotate_is_artificial_and_sound() -> None:
    """The event that announces a file: no time, no position, artificial, with a checksum."""
    made = events.make_rotate(server_id=9, name="bin.000003")
    timestamp, kind, server, size, log_pos, flags = struct.unpack_from("<IBIIIH", made)
    assert (timestamp, kind, server, size, log_pos, flags) == (0, 4, 9, len(made), 0, 0x20)
    assert zlib.crc32(made[:-4]) == int.from_bytes(made[-4:], "little")
    assert made[19:-4] == struct.pack("<Q", 4) + b"bin.000003"


def test_made_heartbeats() -> None:
    """Version 1 has the low 32 bits in its header; version 2 carries all 64 in its body."""
    first = events.make_heartbeat(server_id=9, name="b.000001", position=400, second_version=False)
    assert (first[4], int.from_bytes(first[13:17], "little"), first[19:-4]) == (27, 400, b"b.000001")
    position = 5 << 32
    second = events.make_heartbeat(server_id=9, name="b.000001", position=position, second_version=True)
    assert second[4] == 41
    assert second[19:-4] == b"\x01\x08b.000001" + b"\x02\x09\xfe" + struct.pack("<Q", position) + b"\x00"


def test_every_type_is_plain_structural_or_unknown() -> None:
    """No type is both passed unread and read by the journal, and the dangerous ones are not plain."""
    plain = {kind for kind in range(256) if events.PASSES[kind] == 1}
    assert {kind for kind in range(256) if events.PASSES[kind] == events.BEGINS} == {33, 42}
    assert not plain & events.STRUCTURAL
    assert not plain & {0, 1, 26, 34, 36, 37, 43, 99, 160, 255}
