"""Where a requester starts, how far it may read, and who is refused: the rules apart from any connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.reader import JournalReader, NotServable, Place
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.crash import QuickDisk
from tests.unit.journal.segments import OpenSegment, feed, ingest_into, open_segment, record, three_files

A, B = binlog.UUID, binlog.OTHER_UUID


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[OpenSegment]:
    """Three files of A (with one transaction of B)."""
    made = open_segment(tmp_path / "j", disk=QuickDisk())
    files = three_files()
    made.writer.rotate(files[0].name)
    feed(ingest_into(made), binlog.dump(files))
    yield made
    made.close()


@pytest.fixture
def reader(segment: OpenSegment) -> Iterator[JournalReader]:
    made = JournalReader(segment.journal)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("held", "file"),
    [
        ("", "bin.000001"),
        (f"{A}:1-3", "bin.000001"),
        (f"{A}:1-4", "bin.000002"),
        (f"{A}:1-6", "bin.000002"),
        (f"{A}:1-6,{B}:1", "bin.000003"),
        (f"{A}:1-500,{B}:1-9", "bin.000003"),
    ],
)
def test_the_newest_file_that_lacks_nothing(reader: JournalReader, held: str, file: str) -> None:
    """As a source chooses: the newest file before which the requester has everything; more than we have is no harm."""
    assert reader.choose(GtidSet.parse(held)).file == file


def test_what_came_before_the_segment_is_required(segment: OpenSegment, reader: JournalReader) -> None:
    """PREVIOUS_GTIDS of the first file is empty here, as on a source that applied from others without logging: only the
    start set tells that a requester lacks something."""
    segment.writer.grow_start(GtidSet.parse(f"{B}:1-40"))
    with pytest.raises(NotServable, match=f"{B}:2-40"):
        reader.choose(GtidSet())
    with pytest.raises(NotServable, match=f"{B}:21-40"):
        reader.choose(GtidSet.parse(f"{A}:1-9,{B}:1-20"))
    assert reader.choose(GtidSet.parse(f"{B}:1-40")).file == "bin.000001"
    assert reader.choose(GtidSet.parse(f"{A}:1-4,{B}:2-40")).file == "bin.000002"


def test_nothing_beyond_the_published_position(segment: OpenSegment, reader: JournalReader) -> None:
    """Bytes that were appended and not published are not there for a reader; older files are complete."""
    name = segment.writer.record.name
    published = segment.writer.boundary
    segment.writer.append(b"x" * 500)
    limit = reader.limit(Place(segment=name, file="bin.000003"))
    assert (limit.position, limit.closed) == (published, False)
    first = reader.limit(Place(segment=name, file="bin.000001"))
    assert (first.position, first.closed) == (three_files()[0].size, True)


def test_the_next_file_and_the_next_segment(segment: OpenSegment, reader: JournalReader, tmp_path: Path) -> None:
    """Reading goes from file to file and from a sealed segment into the one after it; the tail has no follower."""
    name = segment.writer.record.name
    places = [Place(segment=name, file=f"bin.00000{number}") for number in (1, 2, 3)]
    assert [reader.after(place) for place in places] == [*places[1:], None]
    assert not reader.limit(places[2]).closed
    end = segment.writer.seal().end
    assert reader.limit(places[2]).closed
    following = open_segment(tmp_path / "j", disk=QuickDisk(), make=record(epoch=4, start=end or ""))
    file = BinlogFile("bin.000003", previous=((A, 1, 9), (B, 1, 1)))
    following.writer.rotate(file.name)
    feed(ingest_into(following), binlog.dump([file]))
    place = reader.after(places[2])
    assert place == Place(segment=following.writer.record.name, file="bin.000003")
    reader.check_start(following.writer.record.name, GtidSet.parse(end or ""))
    with pytest.raises(NotServable, match="not in this journal"):
        reader.check_start(following.writer.record.name, GtidSet.parse(f"{A}:1-9"))
    following.positions.close()


def test_a_removed_place_is_gone(segment: OpenSegment, reader: JournalReader) -> None:
    """A reader whose file retention removed is told, instead of waiting at its end for ever."""
    gone = Place(segment=segment.writer.record.name, file="bin.000000")
    with pytest.raises(FileNotFoundError):
        reader.after(gone)
    with pytest.raises(FileNotFoundError):
        reader.limit(gone)


def test_an_empty_journal_serves_nothing(tmp_path: Path) -> None:
    """Before the first file there is nothing to choose, and it says so."""
    made = open_segment(tmp_path / "empty", disk=QuickDisk())
    reader = JournalReader(made.journal)
    with pytest.raises(NotServable, match="no file yet"):
        reader.choose(GtidSet())
    reader.close()
    made.close()


def test_a_position_that_speaks_of_nothing_known_serves_nothing(segment: OpenSegment, reader: JournalReader) -> None:
    """After a power cut the position may be old: of a segment or a file that is gone. Until recovery has published
    again, nothing is served, since bytes behind what is known to be whole may be torn."""
    name = segment.writer.record.name
    last = Place(segment=name, file="bin.000003")
    for old_segment, old_file in (("000000-gone", "bin.000009"), (name, "bin.000001"), (name, "")):
        segment.positions.publish(segment=old_segment, file=old_file, position=10, start_generation=0, sealed=False)
        assert last not in reader.places()
        assert reader.limit(last).position == 0
