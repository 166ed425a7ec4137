"""I2 and recovery: a crash at any step of any run leaves a segment that recovers to whole transactions, loses nothing
that was published, and then continues to the source's exact bytes."""

from __future__ import annotations

import contextlib
import errno
import random
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.errors import Permanent
from farshore_agent.mysql.journal.gtid import GtidSet
from tests.unit.journal import binlog
from tests.unit.journal.crash import Change, QuickDisk, RecordingDisk, RecordingPositions, after_crash
from tests.unit.journal.segments import (
    PAIR,
    OpenSegment,
    feed,
    ingest_into,
    open_segment,
    rest_of_dump,
    stored,
    three_files,
)

FILES = three_files()
END = f"{binlog.UUID}:1-9,{binlog.OTHER_UUID}:1"


def recorded_run(path: Path, *, chunks: list[int], buffer_bytes: int) -> tuple[list[Change], list[str]]:
    """Receive three files; return every change of the disk, and the published end set at each of them."""
    disk = RecordingDisk(path)
    segment = open_segment(path, disk=disk, positions=_positions(path, disk))
    ends: list[str] = []
    segment.writer.on_published = lambda: ends.extend(
        [ends[-1] if ends else ""] * (len(disk.changes) - len(ends) - 1) + [str(segment.writer.received)]
    )
    ingest = ingest_into(segment, buffer_bytes=buffer_bytes)
    segment.writer.rotate(FILES[0].name)
    feed(ingest, binlog.dump(FILES), chunks=chunks)
    segment.writer.close()
    ends += [ends[-1]] * (len(disk.changes) - len(ends))
    assert stored(segment) == {file.name: file.data for file in FILES}
    return disk.changes, ends


def _positions(path: Path, disk: RecordingDisk) -> RecordingPositions:
    path.mkdir(parents=True, exist_ok=True)
    return RecordingPositions(path / "position", disk)


def check_recovered(segment: OpenSegment, published: str) -> None:
    """What is there is a prefix of the source's bytes that ends with a whole transaction, and holds all published."""
    found = stored(segment)
    names = [file.name for file in FILES]
    assert list(found) == names[: len(found)]
    for file in FILES[: len(found)]:
        raw = found[file.name]
        assert file.data.startswith(raw)
        assert not raw or len(raw) in file.boundaries
        if file.name != segment.writer.file:
            assert raw == file.data
    expected = _transactions(found)
    assert segment.writer.received == expected
    assert GtidSet.parse(published).issubset(expected)
    assert segment.writer.boundary == len(found.get(segment.writer.file, b""))


def _transactions(found: dict[str, bytes]) -> GtidSet:
    """An independent count: GTID events in the bytes (every transaction there is whole)."""
    made = GtidSet()
    for raw in found.values():
        at = 4
        while at < len(raw):
            size = int.from_bytes(raw[at + 9 : at + 13], "little")
            if raw[at + 4] == 33:
                made.add((raw[at + 20 : at + 36], ""), int.from_bytes(raw[at + 36 : at + 44], "little"))
            at += size
    return made


def continue_to_end(segment: OpenSegment) -> None:
    writer = segment.writer
    if not writer.file:
        writer.rotate(FILES[0].name)
    ingest = ingest_into(segment)
    feed(ingest, rest_of_dump(FILES, writer.file, max(writer.boundary, 4)))
    assert ingest.ended
    assert stored(segment) == {file.name: file.data for file in FILES}
    assert writer.end() == GtidSet.parse(END)


RUNS = {
    "one byte at a time at the start, then pieces": ([1] * 200 + [37] * 300, 1 << 16),
    "a buffer smaller than an event, so that events stream": ([113] * 200, 512),
    "everything at once": ([], 1 << 16),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_crash_at_any_step_loses_nothing_published(name: str, tmp_path: Path) -> None:
    """kill -9 and power cuts after every single change of the disk, with torn tails, old positions and lost names."""
    chunks, buffer_bytes = RUNS[name]
    changes, ends = recorded_run(tmp_path / "run", chunks=chunks, buffer_bytes=buffer_bytes)
    first = next(at for at, end in enumerate(ends) if end is not None and changes[at][0] == "publish")
    rng = random.Random(name)
    steps = range(first, len(changes) + 1)
    for step in steps if len(steps) < 120 else sorted(rng.sample(steps, 120)):
        for power in (False, True):
            path = tmp_path / f"{step}-{power}"
            after_crash(changes[:step], path, rng=rng if power else None)
            segment = open_segment(path, disk=QuickDisk())
            check_recovered(segment, ends[step - 1])
            if step % 5 == 0:
                continue_to_end(segment)
            segment.close()


def test_a_crash_while_the_journal_is_made_is_no_obstacle(tmp_path: Path) -> None:
    """Before the first publication nothing is owed; the next start begins cleanly, whatever is half there."""
    changes, _ = recorded_run(tmp_path / "run", chunks=[], buffer_bytes=1 << 16)
    born = next(at for at, change in enumerate(changes) if change[0] == "publish")
    rng = random.Random(1)
    for step in range(born + 1):
        for power in (False, True):
            path = tmp_path / f"{step}-{power}"
            after_crash(changes[:step], path, rng=rng if power else None)
            segment = open_segment(path, disk=QuickDisk())
            assert segment.journal.catalogue().pair == PAIR
            continue_to_end(segment)
            segment.close()


def test_a_second_crash_during_recovery_is_no_obstacle(tmp_path: Path) -> None:
    """Recovery may die at any of its own steps and be repeated."""
    changes, ends = recorded_run(tmp_path / "run", chunks=[61] * 40, buffer_bytes=1 << 16)
    rng = random.Random(2)
    for step in rng.sample(range(len(changes) // 2, len(changes)), 12):
        path = tmp_path / f"{step}"
        after_crash(changes[:step], path, rng=rng)
        again, built = _recovery_changes(path, tmp_path / f"{step}-copy")
        for stop in range(built, len(again) + 1):
            target = tmp_path / f"{step}-{stop}"
            after_crash(again[:stop], target, rng=rng)
            segment = open_segment(target, disk=QuickDisk())
            check_recovered(segment, ends[step - 1])
            segment.close()


def test_what_recovery_publishes_survives_a_power_cut(tmp_path: Path) -> None:
    """After kill -9 the page cache still holds bytes that no sync covered. Recovery vouches for them, by publishing and
    by the position of the next dial, so it must sync them first."""
    rng = random.Random(3)
    for at in range(8):
        path = tmp_path / f"run-{at}"
        disk = RecordingDisk(path)
        killed = open_segment(path, disk=disk, positions=_positions(path, disk))
        killed.writer.rotate(FILES[0].name)
        stream = binlog.dump(FILES[:1], end=False)
        feed(ingest_into(killed), stream[: len(stream) * (at + 1) // 8], commit=False)
        recovered = open_segment(path, disk=disk, positions=RecordingPositions(path / "position", disk))
        published = str(recovered.writer.received)
        after_crash(disk.changes, tmp_path / f"cut-{at}", rng=rng)
        segment = open_segment(tmp_path / f"cut-{at}", disk=QuickDisk())
        check_recovered(segment, published)
        segment.close()


class FullDisk(QuickDisk):
    """Every write from the n-th on fails as on a full disk, the first of them after half of its bytes."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def append(self, fd: int, data: bytes | memoryview) -> None:
        self.left -= 1
        if self.left == 0:
            super().append(fd, bytes(data)[: len(data) // 2])
        if self.left <= 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        super().append(fd, data)


def test_a_disk_that_fills_up_at_any_write(tmp_path: Path) -> None:
    """The run ends with an error, nothing published is lost, and with space again it goes on to the exact bytes."""
    for writes in range(12, 60):
        path = tmp_path / str(writes)
        disk = FullDisk(writes)
        segment = open_segment(path, disk=disk)
        with contextlib.suppress(OSError):
            segment.writer.rotate(FILES[0].name)
            feed(ingest_into(segment), binlog.dump(FILES), chunks=[97] * 200)
            assert disk.left > 0
        published = str(segment.writer.received)
        again = open_segment(path, disk=QuickDisk())
        check_recovered(again, published)
        continue_to_end(again)
        again.close()


def test_a_checkpoint_spares_reading_and_changes_nothing(tmp_path: Path) -> None:
    """With a checkpoint, without one, and with a damaged one, recovery finds the same end and the same last event."""
    segment = open_segment(tmp_path / "j", disk=QuickDisk())
    segment.writer.rotate(FILES[0].name)
    feed(ingest_into(segment), binlog.dump(FILES))
    directory, expected, end = segment.writer.directory, segment.writer.tail(), segment.writer.end()
    assert expected.position == FILES[2].size
    segment.close()
    for change in ("kept", "damaged", "gone"):
        checkpoint = directory / "checkpoint.json"
        if change == "damaged":
            checkpoint.write_text(checkpoint.read_text().replace(":1-9", ":1-8"))
        elif change == "gone":
            checkpoint.unlink()
        again = open_segment(tmp_path / "j", disk=QuickDisk())
        assert (again.writer.tail(), again.writer.end()) == (expected, end)
        again.positions.close()


def _recovery_changes(path: Path, copy: Path) -> tuple[list[Change], int]:
    """The changes that recovery makes, behind those that build its (synced) starting point; and how many those are."""
    disk = RecordingDisk(copy)
    copy.mkdir()
    for found in sorted(path.rglob("*")):
        target = copy / found.relative_to(path)
        if found.is_dir():
            disk.make_directory(target)
        elif found.name != "position":
            fd = disk.create(target)
            disk.append(fd, found.read_bytes())
            disk.sync_data(fd)
            disk.close(fd)
    for directory in [copy, *(each for each in sorted(copy.rglob("*")) if each.is_dir())]:
        disk.sync_directory(directory)
    built = len(disk.changes)
    positions = _positions(copy, disk)
    segment = open_segment(copy, disk=disk, positions=positions)
    segment.close()
    assert len(disk.changes) > built
    return disk.changes, built


@pytest.mark.parametrize("where", ["index", "data"])
def test_the_published_file_missing_is_damage_and_not_a_fresh_start(tmp_path: Path, where: str) -> None:
    """A journal that lost what it had published says so instead of beginning again below it."""
    segment = open_segment(tmp_path / "j")
    segment.writer.rotate(FILES[0].name)
    feed(ingest_into(segment), binlog.dump(FILES))
    directory = segment.writer.directory
    segment.close()
    if where == "index":
        (directory / "index").write_bytes(b"./bin.000001\n")
    else:
        (directory / "bin.000003").write_bytes(FILES[2].data[: FILES[2].boundaries[-2]])
        (directory / "checkpoint.json").unlink()
    with pytest.raises(Permanent) as caught:
        open_segment(tmp_path / "j")
    assert caught.value.code == "CorruptEvent"
