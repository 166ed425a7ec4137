"""The published position: read by another process at any moment, never torn, never invented."""

from __future__ import annotations

import mmap
import multiprocessing
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.errors import Corrupt
from farshore_agent.mysql.journal.position import PositionReader, PositionWriter

SLOT = 1024


def publish(writer: PositionWriter, number: int) -> None:
    """All fields follow from one number, so that a mixture of two positions would show."""
    writer.publish(
        segment=f"{number % 7:06d}-seg",
        file=f"bin.{number:06d}",
        position=number * 1000,
        start_generation=number,
        sealed=bool(number % 2),
    )


def test_reads_what_was_published(tmp_path: Path) -> None:
    """Also 64-bit positions, and after the writer was opened again: numbering goes on."""
    writer = PositionWriter(tmp_path / "position")
    reader = PositionReader(tmp_path / "position")
    assert reader.read() is None
    for number in (1, 2, 3):
        publish(writer, number)
        found = reader.read()
        assert found is not None
        assert (found.sequence, found.position, found.file, found.sealed) == (
            number, number * 1000, f"bin.{number:06d}", bool(number % 2),
        )  # fmt: skip
    writer.publish(segment="s", file="f" * 200, position=1 << 40, start_generation=0, sealed=False)
    writer.close()
    again = PositionWriter(tmp_path / "position")
    found = reader.read()
    assert found is not None
    assert (found.position, found.file) == (1 << 40, "f" * 200)
    publish(again, 9)
    after = reader.read()
    assert after is not None
    assert after.sequence == 5
    with pytest.raises(ValueError, match="too long"):
        again.publish(segment="s" * 900, file="f" * 200, position=1, start_generation=0, sealed=False)


@pytest.mark.parametrize("at", [0, 8, 30, 60, 500, SLOT - 1])
def test_a_torn_slot_shows_the_position_before(tmp_path: Path, at: int) -> None:
    """Whatever byte of the newest slot is wrong, the reader sees the one before; two bad slots are damage."""
    path = tmp_path / "position"
    writer = PositionWriter(path)
    for number in (1, 2):
        publish(writer, number)
    writer.close()
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF  # slot 0 holds the even, newest number
    path.write_bytes(bytes(raw))
    found = PositionReader(path).read()
    assert found is not None
    assert found.sequence == 1
    raw[SLOT + 20] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(Corrupt):
        PositionReader(path).read()


def test_a_short_file_is_damage(tmp_path: Path) -> None:
    """A position file that lost its end is not read."""
    (tmp_path / "position").write_bytes(b"FSHPOS01")
    with pytest.raises(Corrupt):
        PositionReader(tmp_path / "position")


def _publish_many(path: Path, count: int) -> None:
    writer = PositionWriter(path)
    for number in range(1, count):
        publish(writer, number)
    writer.close()


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    """Another process publishes as fast as it can; every position read is one that was published, in rising order."""
    path = tmp_path / "position"
    PositionWriter(path).close()
    count = 20_000
    process = multiprocessing.get_context("spawn").Process(target=_publish_many, args=(path, count))
    process.start()
    reader = PositionReader(path)
    last = 0
    try:
        while last < count - 1:
            found = reader.read()
            if found is None:
                continue
            number = found.sequence
            assert (found.segment, found.file) == (f"{number % 7:06d}-seg", f"bin.{number:06d}")
            assert (found.position, found.start_generation) == (number * 1000, number)
            assert number >= last
            last = number
            if not process.is_alive():
                break
    finally:
        process.join(60)
    final = reader.read()
    assert final is not None
    assert final.sequence == count - 1
    assert process.exitcode == 0


def test_the_file_has_real_blocks(tmp_path: Path) -> None:
    """A hole would be filled at a store into the map, and on a full disk that is a signal and not an error."""
    PositionWriter(tmp_path / "position").close()
    assert (tmp_path / "position").stat().st_blocks * 512 >= 2 * SLOT
    assert mmap.PAGESIZE % SLOT == 0
