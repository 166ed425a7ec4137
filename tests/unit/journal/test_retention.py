"""Retention removes the oldest files and never what a mark does not cover; a crash in it leads no reader over a gap."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.config import Retention
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.reader import JournalReader, NotServable
from farshore_agent.mysql.journal.retention import Marks, StoredFile, plan_removal, remove, stored_files
from tests.unit.journal import binlog
from tests.unit.journal.crash import QuickDisk, RecordingDisk, RecordingPositions, after_crash
from tests.unit.journal.segments import OpenSegment, feed, ingest_into, open_segment, record, three_files

NOW = 1_000_000.0
ALL = GtidSet.parse(f"{binlog.UUID}:1-100,{binlog.OTHER_UUID}:1-100")


def file(number: int, *, age: float = 0.0, low: int, high: int, segment: str = "s") -> StoredFile:
    return StoredFile(
        segment=segment,
        name=f"bin.{number:06d}",
        bytes=100,
        modified_unix=NOW - age,
        contents=GtidSet.parse(f"{binlog.UUID}:{low}-{high}"),
    )


def marks(text: str, **of_segment: str) -> Marks:
    return Marks(
        everywhere=GtidSet.parse(text), of_segment={name: GtidSet.parse(each) for name, each in of_segment.items()}
    )


FILES = [
    file(1, age=300, low=1, high=10),
    file(2, age=200, low=11, high=20),
    file(3, age=100, low=21, high=30),
    StoredFile(segment="s", name="bin.000004", bytes=100, modified_unix=NOW - 900, contents=None),
]


@pytest.mark.parametrize(
    ("limits", "mark", "gone"),
    [
        (Retention(age_seconds=150, bytes=1 << 40), f"{binlog.UUID}:1-30", 2),
        (Retention(age_seconds=1e9, bytes=250), f"{binlog.UUID}:1-30", 2),
        (Retention(age_seconds=1e9, bytes=400), f"{binlog.UUID}:1-30", 0),
        (Retention(age_seconds=0, bytes=0), f"{binlog.UUID}:1-30", 3),
        (Retention(age_seconds=0, bytes=0), f"{binlog.UUID}:1-19", 1),
        (Retention(age_seconds=0, bytes=0), f"{binlog.UUID}:2-30", 0),
        (Retention(age_seconds=0, bytes=0), "", 0),
    ],
)
def test_what_goes(limits: Retention, mark: str, gone: int) -> None:
    """Age or size must be exceeded and the mark must cover the file; oldest first; never the file being written."""
    removal = plan_removal(FILES, limits=limits, marks=marks(mark), now_unix=NOW)
    assert removal.files == tuple(FILES[:gone])
    assert not removal.uncovered


def test_consent_drops_what_no_mark_covers_and_says_so() -> None:
    """With consent the file goes, and the answer names the transactions that are nowhere else for sure."""
    limits = Retention(age_seconds=150, bytes=1 << 40)
    removal = plan_removal(FILES, limits=limits, marks=marks(f"{binlog.UUID}:1-15"), now_unix=NOW, drop_uncovered=True)
    assert removal.files == tuple(FILES[:2])
    assert str(removal.uncovered) == f"{binlog.UUID}:16-20"


def test_a_sealed_segment_has_a_mark_of_its_own() -> None:
    """R21: the sealed segment waits for the old side's mark, whatever the standby has."""
    files = [file(1, age=9, low=1, high=10, segment="old"), file(2, age=9, low=11, high=20, segment="new")]
    limits = Retention(age_seconds=0, bytes=0)
    waiting = plan_removal(files, limits=limits, marks=marks(str(ALL), old=f"{binlog.UUID}:1-9"), now_unix=NOW)
    assert waiting.files == ()
    covered = plan_removal(files, limits=limits, marks=marks(str(ALL), old=f"{binlog.UUID}:1-10"), now_unix=NOW)
    assert covered.files == tuple(files)


def received(path: Path, disk: RecordingDisk | None = None) -> OpenSegment:
    path.mkdir(parents=True, exist_ok=True)
    positions = RecordingPositions(path / "position", disk) if disk else None
    segment = open_segment(path, disk=disk or QuickDisk(), positions=positions)
    files = three_files()
    segment.writer.rotate(files[0].name)
    feed(ingest_into(segment), binlog.dump(files))
    return segment


EVERYTHING = Retention(age_seconds=-1e12, bytes=0)


def test_contents_and_removal_of_an_open_segment(tmp_path: Path) -> None:
    """Files know what they hold; what went is required of every reader from then on, and the end does not change."""
    segment = received(tmp_path / "j")
    files = stored_files(segment.journal)
    assert [str(each.contents) if each.contents else None for each in files] == [
        f"{binlog.UUID}:1-4", f"{binlog.UUID}:5-6,{binlog.OTHER_UUID}:1", None,
    ]  # fmt: skip
    end = segment.writer.end()
    removal = plan_removal(files, limits=EVERYTHING, marks=marks(str(ALL)), now_unix=NOW)
    remove(segment.journal, removal, segment.writer)
    remove(segment.journal, removal, segment.writer)
    assert segment.journal.files(segment.writer.record.name) == ["bin.000003"]
    assert str(segment.writer.start) == f"{binlog.UUID}:1-6,{binlog.OTHER_UUID}:1"
    assert segment.writer.end() == end
    segment.close()
    again = open_segment(tmp_path / "j", disk=QuickDisk())
    assert again.writer.end() == end
    again.positions.close()


def test_a_crash_at_any_step_of_a_removal(tmp_path: Path) -> None:
    """Either the files are there, or their transactions are required: no reader is ever led over a gap."""
    disk = RecordingDisk(tmp_path / "run")
    segment = received(tmp_path / "run", disk)
    before = len(disk.changes)
    removal = plan_removal(stored_files(segment.journal), limits=EVERYTHING, marks=marks(str(ALL)), now_unix=NOW)
    remove(segment.journal, removal, segment.writer)
    rng = random.Random(4)
    for step in range(before, len(disk.changes) + 1):
        for power in (False, True):
            path = tmp_path / f"{step}-{power}"
            after_crash(disk.changes[:step], path, rng=rng if power else None)
            again = open_segment(path, disk=QuickDisk())
            start = again.writer.start
            reader = JournalReader(again.journal)
            place = reader.choose(start)
            reader.check_start(place.segment, start)
            held = GtidSet()
            if place.file != "bin.000001":
                with pytest.raises(NotServable):
                    reader.choose(held)
            assert again.writer.end() == segment.writer.end()
            reader.close()
            again.close()


def test_a_sealed_segment_goes_as_a_whole(tmp_path: Path) -> None:
    """Its last file may go too, and then the segment with it; the next one stays."""
    segment = received(tmp_path / "j")
    segment.writer.seal()
    segment.close()
    following = open_segment(tmp_path / "j", disk=QuickDisk(), make=record(epoch=4, start=str(ALL)))
    files = stored_files(following.journal)
    assert str(files[-1].contents) == f"{binlog.UUID}:7-9"
    removal = plan_removal(files, limits=EVERYTHING, marks=marks(str(ALL)), now_unix=NOW)
    remove(following.journal, removal, following.writer)
    assert [each.epoch for each in following.journal.records()] == [4]
    following.close()
