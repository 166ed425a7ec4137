"""Segments for tests: a journal directory with one open segment, and streams fed into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farshore_agent.mysql.journal.acks import AckPolicy, NoAcks
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.disk import Disk
from farshore_agent.mysql.journal.ingest import Ingest
from farshore_agent.mysql.journal.position import PositionWriter
from farshore_agent.mysql.journal.store import SegmentWriter
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile

PAIR = "orders"


def record(*, epoch: int = 2, owner: str = binlog.UUID, start: str = "") -> SegmentRecord:
    return SegmentRecord(
        name="",
        pair=PAIR,
        epoch=epoch,
        from_uuid=owner,
        server_id=binlog.SERVER_ID,
        server_version="9.7.4",
        created_unix=1.0,
        start=start,
    )


@dataclass
class OpenSegment:
    journal: JournalDirectory
    positions: PositionWriter
    writer: SegmentWriter

    def close(self) -> None:
        self.writer.close()
        self.positions.close()


def open_segment(
    path: Path, *, disk: Disk | None = None, make: SegmentRecord | None = None, positions: PositionWriter | None = None
) -> OpenSegment:
    """Open the last segment below `path`, or make one."""
    journal = JournalDirectory(path, disk)
    catalogue = journal.create(pair=PAIR)
    if make is not None or not catalogue.segments:
        journal.add_segment(make or record())
    positions = positions or PositionWriter(journal.position)
    return OpenSegment(journal, positions, SegmentWriter(journal, journal.records()[-1], positions))


@dataclass
class Acks:
    """A semi-sync policy that notes, at each acknowledgement, what the disk had been told by then."""

    header_bytes: int = 2
    seen: list[tuple[str, int]] = field(default_factory=list)
    when: Callable[[], None] = lambda: None

    def durable(self, file: str, position: int) -> None:
        self.when()
        self.seen.append((file, position))


def feed(ingest: Ingest, stream: bytes, *, chunks: Sequence[int] = (), commit: bool = True) -> None:
    """Give `stream` to `ingest` in pieces of the given sizes (then whatever fits), committing after each."""
    sizes = iter(chunks)
    at = 0
    while at < len(stream):
        room = ingest.room()
        count = min(len(room), next(sizes, len(stream)), len(stream) - at)
        room[:count] = stream[at : at + count]
        at += count
        ingest.take(count)
        if commit:
            ingest.commit()


def ingest_into(segment: OpenSegment, *, acks: AckPolicy | None = None, buffer_bytes: int = 1 << 16) -> Ingest:
    return Ingest(segment.writer, acks or NoAcks(), buffer_bytes=buffer_bytes)


def rest_of_dump(files: Sequence[BinlogFile], name: str, position: int) -> bytes:
    """What a source sends to a dial at `position` of file `name`."""
    names = [file.name for file in files]
    first = names.index(name)
    made = binlog.stream([binlog.fake_rotate(name)])
    if position > 4:
        made += binlog.stream([binlog.format_description(artificial=True)])
    at = 4
    for event in files[first].events:
        if at >= position:
            made += binlog.stream([event])
        at += len(event)
    for file in files[first + 1 :]:
        made += binlog.stream([binlog.fake_rotate(file.name), *file.events])
    return made + binlog.EOF


def stored(segment: OpenSegment) -> dict[str, bytes]:
    """Every binary log file of the segment, as it is on disk."""
    names = segment.journal.files(segment.writer.record.name)
    return {name: (segment.writer.directory / name).read_bytes() for name in names}


def three_files() -> list[BinlogFile]:
    """Files with small and large transactions, two servers' GTIDs, and rotations between them."""
    first = BinlogFile("bin.000001")
    for gno in range(1, 5):
        first.transaction(gno, payload=b"r" * (40 * gno))
    first.rotate("bin.000002")
    second = BinlogFile("bin.000002", previous=((binlog.UUID, 1, 4),))
    second.transaction(5, payload=b"L" * 3000)
    second.transaction(1, owner=binlog.OTHER_UUID)
    second.transaction(6)
    second.rotate("bin.000003")
    third = BinlogFile("bin.000003", previous=((binlog.UUID, 1, 6), (binlog.OTHER_UUID, 1, 1)))
    for gno in range(7, 10):
        third.transaction(gno)
    return [first, second, third]
