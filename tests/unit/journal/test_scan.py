"""Reading a file back: how far it is whole, and why not further."""

from __future__ import annotations

from pathlib import Path

import pytest

from farshore_agent.mysql.journal.errors import Corrupt
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.scan import WINDOW_BYTES, read_previous, scan_file
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile

EARLIER = ((binlog.UUID, 1, 4),)


@pytest.fixture
def file() -> BinlogFile:
    made = BinlogFile("bin.000002", previous=EARLIER)
    made.transaction(5)
    made.transaction(6, payload=b"x" * (2 * WINDOW_BYTES))
    made.transaction(7)
    made.rotate("bin.000003")
    return made


def write(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "bin.000002"
    path.write_bytes(raw)
    return path


def test_a_whole_file(tmp_path: Path, file: BinlogFile) -> None:
    """Every event is checked, those larger than the window too; what it holds and what came before are known."""
    found = scan_file(write(tmp_path, file.data))
    assert (found.whole, found.damage, found.boundary) == (True, "", file.size)
    assert found.last_event == file.boundaries[-2]
    assert found.received == GtidSet.parse(f"{binlog.UUID}:5-7")
    assert found.previous == GtidSet.parse(f"{binlog.UUID}:1-4")


def test_every_cut_ends_at_the_last_whole_transaction(tmp_path: Path) -> None:
    """Whatever the length of a torn file, the boundary is the last one before the cut."""
    small = BinlogFile("bin.000002", previous=EARLIER)
    for gno in (5, 6):
        small.transaction(gno)
    for length in range(len(small.data)):
        found = scan_file(write(tmp_path, small.data[:length]))
        expected = max((boundary for boundary in small.boundaries if boundary <= length), default=0)
        assert found.boundary == expected
        assert found.received.count() == sum(boundary <= length for boundary in small.boundaries[2:])
        assert found.whole == (length == expected)


def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    """The boundary is before it and the place is named; only the in-use flag of the file may differ."""
    small = BinlogFile("bin.000002", previous=EARLIER)
    small.transaction(5)
    for at in range(len(small.data)):
        if at == 21:
            continue
        raw = bytearray(small.data)
        raw[at] ^= 0x40
        found = scan_file(write(tmp_path, bytes(raw)))
        assert found.boundary <= at
        assert found.damage
        assert found.damage_at <= at


def test_a_flipped_byte_in_a_large_event(tmp_path: Path, file: BinlogFile) -> None:
    """Checked in pieces, found all the same."""
    raw = bytearray(file.data)
    raw[file.boundaries[2] + WINDOW_BYTES] ^= 1
    found = scan_file(write(tmp_path, bytes(raw)))
    assert (found.boundary, found.damage) == (file.boundaries[2], "wrong checksum")


def test_reading_from_a_checkpoint(tmp_path: Path, file: BinlogFile) -> None:
    """From any boundary on, the pass finds the same end and only what lies behind."""
    path = write(tmp_path, file.data)
    found = scan_file(path, start=file.boundaries[2])
    assert (found.boundary, found.previous) == (file.size, None)
    assert found.received == GtidSet.parse(f"{binlog.UUID}:6-7")


def test_unknown_events_end_the_pass(tmp_path: Path) -> None:
    """I8 on disk too: an unknown type is not skipped, an ignorable one is."""
    made = BinlogFile("bin.000002")
    made.add(binlog.event(210, b"?", made.size, flags=0x80))
    good = made.size
    made.add(binlog.event(211, b"?", made.size))
    found = scan_file(write(tmp_path, made.data))
    assert (found.boundary, found.damage) == (good, "unknown event type 211")


def test_previous_gtids_of_a_file(tmp_path: Path, file: BinlogFile) -> None:
    """Known as soon as the event is there, not known before, and damage is named."""
    assert read_previous(write(tmp_path, file.data)) == GtidSet.parse(f"{binlog.UUID}:1-4")
    for length in (0, 3, 20, file.boundaries[0], file.boundaries[1] - 1):
        assert read_previous(write(tmp_path, file.data[:length])) is None
    raw = bytearray(file.data)
    raw[file.boundaries[0] + 25] ^= 1
    path = write(tmp_path, bytes(raw))
    with pytest.raises(Corrupt) as caught:
        read_previous(path)
    assert (caught.value.file, caught.value.offset) == (str(path), file.boundaries[0])
