"""What a replica is sent: the journal's events as packets, without those it has, and an end when it must not go on."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.errors import JournalError
from farshore_agent.mysql.journal.feed import Feed
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.reader import JournalReader, NotServable
from farshore_agent.mysql.journal.wake import Sleeper
from farshore_agent.mysql.journal.wire import PacketChannel
from tests.testbed.waiting import wait_until
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.crash import QuickDisk
from tests.unit.journal.segments import OpenSegment, feed, ingest_into, open_segment, rest_of_dump, three_files

A, B = binlog.UUID, binlog.OTHER_UUID
FULL = 0xFFFFFF


@dataclass
class Replica:
    """The other end of a feed: collects events until told to stop."""

    segment: OpenSegment
    events: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    ended: bool = False
    feed: Feed | None = None

    def start(self, held: str, *, heartbeat_seconds: float = 30.0) -> None:
        ours, self.sock = socket.socketpair()
        self.ours = ours
        self.reader = JournalReader(self.segment.journal)
        self.sleeper = Sleeper(self.segment.journal.run / "server.wake")
        gtids = GtidSet.parse(held)
        self.feed = Feed(
            PacketChannel(ours), self.reader, self.sleeper, held=gtids, heartbeat_seconds=heartbeat_seconds,
            heartbeat_v2=False,
        )  # fmt: skip
        place = self.reader.choose(gtids)
        self.threads = [threading.Thread(target=self._serve, args=(place,)), threading.Thread(target=self._collect)]
        for thread in self.threads:
            thread.start()

    def _serve(self, place: object) -> None:
        assert self.feed is not None
        try:
            self.feed.run(place, ended=lambda: self.ended)  # type: ignore[arg-type]
        except (JournalError, OSError) as error:
            self.error = error
        finally:
            self.ours.close()

    def _collect(self) -> None:
        """Packets as the manual says, joined at 2^24 - 1, each with its sequence number in step."""
        payload, sequence = b"", 0
        with self.sock.makefile("rb") as stream:
            while header := stream.read(4):
                assert header[3] == sequence & 0xFF
                sequence += 1
                length = int.from_bytes(header[:3], "little")
                payload += stream.read(length)
                if length < FULL:
                    assert payload[:1] == b"\0"
                    self.events.append(payload[1:])
                    payload = b""

    def stop(self) -> None:
        self.ended = True
        for thread in self.threads:
            thread.join()
        self.sock.close()
        self.reader.close()
        self.sleeper.close()

    def sent(self) -> list[bytes]:
        """Without the events that only announce a file."""
        return [event for event in self.events if event[4] != 4 or event[:4] != bytes(4)]


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[OpenSegment]:
    made = open_segment(tmp_path / "j", disk=QuickDisk())
    yield made
    made.close()


def receive(segment: OpenSegment, files: list[BinlogFile]) -> None:
    writer = segment.writer
    if not writer.file:
        writer.rotate(files[0].name)
    feed(ingest_into(segment), rest_of_dump(files, writer.file, max(writer.boundary, 4)))


@pytest.fixture
def replica(segment: OpenSegment) -> Iterator[Replica]:
    made = Replica(segment)
    yield made
    made.stop()


def test_everything_from_the_start_and_then_the_tail(segment: OpenSegment, replica: Replica) -> None:
    """Every event of every file in order, each file announced; what comes later is sent when it is published."""
    files = three_files()
    receive(segment, files)
    replica.start("")
    expected = [event for file in files for event in file.events]
    wait_until(lambda: len(replica.sent()) == len(expected), "the files")
    assert replica.sent() == expected
    announced = [event for event in replica.events if event not in expected]
    assert [event[27:-4] for event in announced] == [file.name.encode() for file in files]
    files[2].transaction(10)
    receive(segment, files)
    wait_until(lambda: len(replica.sent()) == len(expected) + 5, "the new transaction")
    assert replica.sent()[-5:] == files[2].events[-5:]


def test_transactions_that_the_replica_has_are_left_out(segment: OpenSegment, replica: Replica) -> None:
    """Whole transactions and only those, also a large one; the file's other events are sent."""
    files = three_files()
    receive(segment, files)
    replica.start(f"{A}:2:5:7-8")

    def numbers() -> list[int]:
        return [int.from_bytes(event[36:44], "little") for event in replica.sent() if event[4] == 33]

    wait_until(lambda: len(numbers()) == 6, "six transactions")
    assert numbers() == [1, 3, 4, 1, 6, 9]
    assert sum(event[4] == 16 for event in replica.sent()) == 6


@pytest.mark.parametrize("size", [FULL - 2, FULL - 1, FULL, 2 * FULL - 1])
def test_large_events_are_split_as_a_source_splits_them(segment: OpenSegment, replica: Replica, size: int) -> None:
    """At and around 2^24 - 1 bytes, with the empty packet where the payload is an exact multiple."""
    file = BinlogFile("bin.000001")
    file.transaction(1, payload=b"L" * (size - 23))
    file.transaction(2)
    receive(segment, [file])
    replica.start("")
    wait_until(lambda: len(replica.sent()) == len(file.events), "all events")
    assert replica.sent() == file.events


def test_a_start_that_grows_under_a_connection_ends_it(segment: OpenSegment, replica: Replica) -> None:
    """A replica that connected while the source was a standby, and lacks what that standby applied since, is not sent
    the standby's first own transaction."""
    file = BinlogFile("bin.000001")
    receive(segment, [file])
    replica.start("")
    wait_until(lambda: len(replica.sent()) == 2, "the head of the file")
    segment.writer.grow_start(GtidSet.parse(f"{B}:1-40"))
    file.transaction(1)
    receive(segment, [file])
    wait_until(lambda: replica.error, "the connection ended")
    assert isinstance(replica.error, NotServable)
    assert f"{B}:1-40" in replica.error.message
    assert len(replica.sent()) == 2


def test_damage_ends_it_after_everything_in_front(segment: OpenSegment, replica: Replica) -> None:
    """Events in front of a flipped byte are sent, none behind; the error names file and offset."""
    file = BinlogFile("bin.000001")
    for gno in range(1, 6):
        file.transaction(gno)
    receive(segment, [file])
    path = segment.writer.directory / file.name
    raw = bytearray(file.data)
    raw[file.boundaries[4] + 60] ^= 1  # in the first event of the fourth transaction
    path.write_bytes(bytes(raw))
    replica.start("")
    wait_until(lambda: replica.error, "the connection ended")
    assert getattr(replica.error, "file", "") == str(path)
    assert getattr(replica.error, "offset", 0) == file.boundaries[4]
    wait_until(lambda: len(replica.sent()) == 17, "what was in front")
    assert replica.sent() == file.events[:17]


def test_heartbeats_carry_the_position(segment: OpenSegment, replica: Replica) -> None:
    """While nothing is published, at the asked pace, with the file and the place the replica stands at."""
    file = BinlogFile("bin.000001")
    receive(segment, [file])
    replica.start("", heartbeat_seconds=0.05)
    wait_until(lambda: sum(event[4] == 27 for event in replica.events) >= 3, "heartbeats")
    beat = next(event for event in replica.events if event[4] == 27)
    assert struct.unpack_from("<I", beat, 13) == (file.size,)
    assert beat[19:-4] == b"bin.000001"
