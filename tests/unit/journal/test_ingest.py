"""From packets to the segment: exact bytes, the last boundary inside a batch, and nothing that must not be appended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farshore_agent.mysql.journal.errors import StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.history import overlap
from farshore_agent.mysql.journal.ingest import Ingest
from farshore_agent.mysql.journal.wirefaults import SourceSaid
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.crash import QuickDisk, RecordingDisk
from tests.unit.journal.segments import Acks, OpenSegment, feed, ingest_into, open_segment, stored, three_files

FULL = 0xFFFFFF


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[OpenSegment]:
    made = open_segment(tmp_path / "journal", disk=QuickDisk())
    yield made
    made.close()


def started(segment: OpenSegment, file: BinlogFile, **arguments: Any) -> Ingest:
    """An ingest whose segment has just begun `file`."""
    segment.writer.rotate(file.name)
    return ingest_into(segment, **arguments)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.integers(1, 900), max_size=60), buffer_bytes=st.sampled_from([400, 5000, 1 << 16]))
def test_any_chunking_gives_the_source_s_bytes(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[int], buffer_bytes: int
) -> None:
    """However the network cuts the stream, files are byte-identical and every GTID is counted once."""
    files = three_files()
    segment = open_segment(tmp_path_factory.mktemp("chunks") / "j", disk=QuickDisk())
    ingest = started(segment, files[0], buffer_bytes=buffer_bytes)
    feed(ingest, binlog.dump(files), chunks=chunks)
    assert ingest.ended
    assert ingest.transactions == 10
    assert stored(segment) == {file.name: file.data for file in files}
    assert segment.writer.end() == GtidSet.parse(f"{binlog.UUID}:1-9,{binlog.OTHER_UUID}:1")
    segment.close()


def test_the_last_boundary_inside_a_batch_is_published(segment: OpenSegment) -> None:
    """A batch "whole A and half of B", then the end: A is durable and received, B is cut and nothing of A with it."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    whole = file.size
    file.transaction(2)
    ingest = started(segment, file)
    head = binlog.stream([binlog.fake_rotate(file.name), *file.events[:2]])
    feed(ingest, head)
    batch = binlog.stream(file.events[2:-2])  # all of 1 and most of 2 in one piece
    feed(ingest, batch)
    writer = segment.writer
    assert (writer.boundary, writer.size > whole) == (whole, True)
    assert str(writer.received) == f"{binlog.UUID}:1"
    writer.cut()
    assert stored(segment)[file.name] == file.data[:whole]


def test_an_acknowledgement_follows_sync_and_publication(tmp_path: Path) -> None:
    """I2: when the source is told, the disk has been told to sync the very bytes and they are published; the
    acknowledged position is that of the newest flagged event, once for many."""
    disk = RecordingDisk(tmp_path / "j")
    segment = open_segment(tmp_path / "j", disk=disk)
    file = BinlogFile("bin.000001")
    for gno in (1, 2, 3):
        file.transaction(gno)
    segment.writer.rotate(file.name)

    def look() -> None:
        kinds = [change[0] for change in disk.changes]
        assert kinds[-1] == "sync"
        assert segment.writer.boundary == file.size

    acks = Acks(when=look)
    ingest = Ingest(segment.writer, acks, buffer_bytes=1 << 16)
    flags = [0, 0, 0] + [0, 0, 0, 0, 1] * 3
    feed(ingest, binlog.stream([binlog.fake_rotate(file.name), *file.events], flags=flags))
    assert acks.seen == [(file.name, file.size)]
    assert stored(segment)[file.name] == file.data
    segment.close()


def test_half_a_transaction_is_not_acknowledged(segment: OpenSegment) -> None:
    """A flagged event behind the last whole transaction waits for its own boundary."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    segment.writer.rotate(file.name)
    acks = Acks()
    ingest = Ingest(segment.writer, acks, buffer_bytes=1 << 16)
    raw = [binlog.fake_rotate(file.name), *file.events]
    feed(ingest, binlog.stream(raw[:-1], flags=[0] * (len(raw) - 2) + [1]))
    assert acks.seen == []
    feed(ingest, binlog.stream(raw[-1:], flags=[0]))
    assert acks.seen == [(file.name, file.size - len(raw[-1]))]


@pytest.mark.parametrize(
    "size",
    [FULL - 2, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL],
    ids=lambda size: f"{size - FULL:+d}",
)
def test_events_at_the_edges_of_packets(tmp_path: Path, size: int) -> None:
    """An event of n * 2^24 - 1 bytes and its neighbours, streamed through a small buffer, arrive byte for byte."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    file.transaction(2, payload=b"\xef" * (size - 23))
    file.transaction(3)
    assert size in map(len, file.events)
    segment = open_segment(tmp_path / "j", disk=QuickDisk())
    ingest = started(segment, file, buffer_bytes=70_000)
    feed(ingest, binlog.dump([file]), chunks=[4096] * 400)
    assert stored(segment)[file.name] == file.data
    assert ingest.transactions == 3
    segment.close()


def test_a_large_event_is_never_held_in_memory(segment: OpenSegment) -> None:
    """Pieces of a large event are on the file before the event has ended, and none of them is published."""
    file = BinlogFile("bin.000001")
    file.transaction(1, payload=b"x" * 500_000)
    ingest = started(segment, file, buffer_bytes=10_000)
    raw = binlog.dump([file])
    feed(ingest, raw[:300_000])
    assert segment.writer.size > 280_000
    assert segment.writer.boundary == file.boundaries[1]
    feed(ingest, raw[300_000:])
    assert segment.writer.boundary == file.size


def test_a_damaged_large_event_is_cut_again(segment: OpenSegment) -> None:
    """Its checksum is known only at its end; by then its bytes are on the file, and go without a trace."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    good = file.size
    file.transaction(2, payload=b"x" * 50_000)
    raw = bytearray(binlog.dump([file]))
    raw[-200] ^= 1
    ingest = started(segment, file, buffer_bytes=10_000)
    with pytest.raises(StreamStopped) as caught:
        feed(ingest, bytes(raw))
    assert caught.value.stop is StopCode.CORRUPT_EVENT
    segment.writer.cut()
    assert stored(segment)[file.name] == file.data[:good]


@pytest.mark.parametrize("offset", [0, 1, 5, 9, 14, 20, 30, -1])
def test_a_flipped_bit_on_the_wire_stops_the_stream(segment: OpenSegment, offset: int) -> None:
    """Wherever it is in the packets of a transaction, nothing of or behind it is published; what was before stays."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    good = file.size
    file.transaction(2)
    ingest = started(segment, file)
    head = binlog.stream([binlog.fake_rotate(file.name), *file.events[:7]])
    bad = bytearray(binlog.stream(file.events[7:]))
    bad[offset] ^= 0x10
    feed(ingest, head)
    with pytest.raises((StreamStopped, SourceSaid)):
        feed(ingest, bytes(bad) + binlog.stream([binlog.heartbeat(file.name, 4)]) * 3)
    segment.writer.cut()
    assert stored(segment)[file.name] == file.data[:good]


def stopped_by(segment: OpenSegment, file: BinlogFile, *events: bytes) -> StreamStopped:
    ingest = started(segment, file)
    feed(ingest, binlog.stream([binlog.fake_rotate(file.name), *file.events]))
    before = segment.writer.boundary
    with pytest.raises(StreamStopped) as caught:
        feed(ingest, binlog.stream(events))
    ingest.commit()
    assert segment.writer.boundary == before
    return caught.value


def test_an_unknown_event_stops_and_an_ignorable_one_is_kept(segment: OpenSegment) -> None:
    """I8: a type that is not on the list and not marked ignorable stops the stream; a marked one passes unread."""
    file = BinlogFile("bin.000001")
    file.transaction(1, extra=[(18, b"load")])
    file.add(binlog.event(200, b"future", file.size, flags=0x80))
    stop = stopped_by(segment, file, binlog.event(201, b"future", file.size))
    assert stop.stop is StopCode.UNKNOWN_EVENT
    assert "201" in stop.message
    assert stored(segment)[file.name] == file.data


@pytest.mark.parametrize(
    ("kind", "code"), [(34, StopCode.UNKNOWN_EVENT), (26, StopCode.GAP), (36, StopCode.UNKNOWN_EVENT)]
)
def test_events_that_never_belong_in_a_journal(segment: OpenSegment, kind: int, code: StopCode) -> None:
    """Anonymous transactions, incidents (the source lost events itself) and group replication's own events."""
    file = BinlogFile("bin.000001")
    assert stopped_by(segment, file, binlog.event(kind, b"12345678", file.size)).stop is code


def test_a_gap_and_a_repetition_stop_the_stream(segment: OpenSegment) -> None:
    """The next event must start exactly where the file ends; neither later nor earlier is taken."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    later = binlog.transaction(file.size + 50, 2)
    assert stopped_by(segment, file, *later).stop is StopCode.GAP


def test_a_repeated_event_is_a_gap(segment: OpenSegment) -> None:
    """A source that sends again what we have is not followed."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    assert stopped_by(segment, file, file.events[-1]).stop is StopCode.GAP


def test_transactions_that_do_not_add_up(segment: OpenSegment) -> None:
    """An event that crosses the length its GTID event gave, and one that starts inside another, are damage."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    lying = binlog.gtid(file.size, 2, 100)
    long = binlog.event(2, b"x" * 200, file.size + len(lying))
    following = binlog.gtid(file.size + len(lying) + len(long), 3, 100)
    assert stopped_by(segment, file, lying, long, following).stop is StopCode.CORRUPT_EVENT


def test_a_row_outside_any_transaction_is_damage(segment: OpenSegment) -> None:
    """Without a GTID in front, an event belongs to no transaction that could ever be served."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    stray = binlog.event(2, b"x", file.size)
    following = binlog.gtid(file.size + len(stray), 3, 100)
    assert stopped_by(segment, file, stray, following).stop is StopCode.CORRUPT_EVENT


def test_previous_gtids_prove_that_nothing_is_missing(segment: OpenSegment) -> None:
    """A file whose PREVIOUS_GTIDS name a transaction that never arrived is a gap, with both histories."""
    first = BinlogFile("bin.000001")
    first.transaction(1)
    first.rotate("bin.000002")
    second = BinlogFile("bin.000002", previous=((binlog.UUID, 1, 3),))
    ingest = started(segment, first)
    with pytest.raises(StreamStopped) as caught:
        feed(ingest, binlog.dump([first, second]))
    assert caught.value.stop is StopCode.GAP
    assert caught.value.evidence["missing"] == f"{binlog.UUID}:2-3"


def test_a_source_that_goes_on_inside_a_transaction_is_refused(segment: OpenSegment) -> None:
    """A new file may not begin before the last transaction of the old one is whole."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    ingest = started(segment, file)
    raw = [binlog.fake_rotate(file.name), *file.events[:-1], binlog.fake_rotate("bin.000002")]
    with pytest.raises(StreamStopped) as caught:
        feed(ingest, binlog.stream(raw))
    assert caught.value.stop is StopCode.GAP


@pytest.mark.parametrize("name", ["../../etc/passwd", "bin", "/bin.000001", "index", "", "a/b.000001", ".x.000001"])
def test_a_file_name_from_the_network_stays_in_its_directory(segment: OpenSegment, name: str) -> None:
    """Only names of binary logs are ever created, whatever the source says."""
    file = BinlogFile("bin.000001")
    ingest = started(segment, file)
    with pytest.raises(Exception, match="binary log file"):
        feed(ingest, binlog.stream([binlog.fake_rotate(file.name), *file.events, binlog.fake_rotate(name)]))
    assert segment.journal.files(segment.writer.record.name) == [file.name]


def test_checksums_switched_off_at_the_source_stop_the_stream(segment: OpenSegment) -> None:
    """A file that opens without CRC32 is not taken: nothing in it could be checked."""
    file = BinlogFile("bin.000001")
    ingest = started(segment, file)
    raw = [binlog.fake_rotate(file.name), binlog.format_description(checksum=0)]
    with pytest.raises(StreamStopped) as caught:
        feed(ingest, binlog.stream(raw))
    assert caught.value.stop is StopCode.CHECKSUM_OFF


def test_the_same_history_continues_and_another_one_does_not(segment: OpenSegment) -> None:
    """A redial asks for the last event again: equal bytes go on, different ones are another history."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    ingest = started(segment, file)
    feed(ingest, binlog.dump([file]))
    last = overlap(segment.writer)
    assert last == file.events[-1]
    file.transaction(2)
    again = Ingest(segment.writer, Acks(header_bytes=0), overlap=last)
    head = [binlog.fake_rotate(file.name), binlog.format_description(artificial=True)]
    feed(again, binlog.stream([*head, *file.events[6:]]))
    assert stored(segment)[file.name] == file.data
    other = Ingest(segment.writer, Acks(header_bytes=0), overlap=overlap(segment.writer))
    stranger = binlog.event(16, b"\7" * 8, file.size - len(file.events[-1]))
    with pytest.raises(StreamStopped) as caught:
        feed(other, binlog.stream([*head, stranger]))
    assert caught.value.stop is StopCode.HISTORY_RESET


def test_the_end_and_errors_of_the_source(segment: OpenSegment) -> None:
    """EOF ends a non-blocking dump; an error packet is passed on with its number and text."""
    file = BinlogFile("bin.000001")
    ingest = started(segment, file)
    feed(ingest, binlog.dump([file]))
    assert ingest.ended
    refused = ingest_into(segment)
    with pytest.raises(SourceSaid) as caught:
        feed(refused, binlog.packets(b"\xff\xd4\x04#HY000purged"))
    assert (caught.value.number, caught.value.message) == (1236, "purged")


def test_positions_beyond_four_gigabytes(segment: OpenSegment) -> None:
    """Headers carry 32 bits of the position; the journal counts all of them."""
    file = BinlogFile("bin.000001")
    ingest = started(segment, file)
    feed(ingest, binlog.dump([file]))
    start = (1 << 32) - 40
    writer = segment.writer
    with (writer.directory / file.name).open("r+b") as sparse:
        sparse.truncate(start)
    writer.size = writer.boundary = start
    writer.last_event = 0
    far = Ingest(writer, Acks(header_bytes=0))
    made = binlog.transaction(start, 1) + binlog.transaction(start + sum(map(len, binlog.transaction(start, 1))), 2)
    feed(far, binlog.stream([binlog.fake_rotate(file.name), binlog.format_description(artificial=True), *made]))
    assert writer.boundary == start + sum(map(len, made)) > 1 << 32
    assert str(writer.received) == f"{binlog.UUID}:1-2"


def test_before_commit_runs_before_transactions_are_published(segment: OpenSegment) -> None:
    """A standby's start set is fresh before its first own transaction is visible; heads of files need no refresh."""
    file = BinlogFile("bin.000001")
    file.transaction(1)
    segment.writer.rotate(file.name)
    seen: list[int] = []
    ingest = Ingest(
        segment.writer, Acks(header_bytes=0), before_commit=lambda: seen.append(segment.writer.received.count())
    )
    feed(ingest, binlog.stream([binlog.fake_rotate(file.name), *file.events[:2]]))
    assert seen == []
    feed(ingest, binlog.stream(file.events[2:]))
    assert seen == [0]
    assert segment.writer.received.count() == 1
