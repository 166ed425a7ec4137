"""Moving bytes from a socket: what had arrived is kept, silence is noticed, and errors become stop codes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_agent.mysql.journal import link
from farshore_agent.mysql.journal.acks import NoAcks
from farshore_agent.mysql.journal.errors import StopCode, StreamStopped
from farshore_agent.mysql.journal.ingest import Ingest
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.crash import QuickDisk
from tests.unit.journal.segments import OpenSegment, open_segment, stored

SILENCE_SECONDS = 20.0


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[OpenSegment]:
    made = open_segment(tmp_path / "journal", disk=QuickDisk())
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def long_file() -> BinlogFile:
    file = BinlogFile("bin.000001")
    for gno in range(1, 400):
        file.transaction(gno, payload=b"r" * 300)
    return file


def pump(
    segment: OpenSegment, sock: socket.socket, *, stopping: bool = False, silence: float = SILENCE_SECONDS
) -> None:
    ingest = Ingest(segment.writer, NoAcks(), buffer_bytes=4096)
    link.pump(sock, ingest, stopping=lambda: stopping, silence_seconds=silence)


def test_a_whole_dump(segment: OpenSegment, ends: tuple[socket.socket, socket.socket]) -> None:
    """Everything up to the end that the source says, through a buffer far smaller than the dump."""
    ours, theirs = ends
    file = long_file()
    segment.writer.rotate(file.name)
    sender = threading.Thread(target=theirs.sendall, args=(binlog.dump([file]),))
    sender.start()
    pump(segment, ours)
    sender.join()
    assert stored(segment)[file.name] == file.data


@pytest.mark.parametrize("how", ["told to stop", "shut down", "source gone", "source error"])
def test_what_had_arrived_is_kept_however_it_ends(
    segment: OpenSegment, ends: tuple[socket.socket, socket.socket], how: str
) -> None:
    """Bytes that wait in the socket when the stream ends are received: at a failover they may be a lost site's last."""
    ours, theirs = ends
    file = long_file()
    segment.writer.rotate(file.name)
    raw = binlog.dump([file], end=False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    if how == "source error":
        raw += binlog.packets(b"\xff\xd4\x04#HY000shutting down")
    theirs.settimeout(5)
    theirs.sendall(raw)
    if how == "shut down":
        ours.shutdown(socket.SHUT_RDWR)
    elif how == "source gone":
        theirs.close()
    if how == "told to stop":
        pump(segment, ours, stopping=True)
    else:
        with pytest.raises(StreamStopped):
            pump(segment, ours)
    assert segment.writer.boundary == file.size
    assert segment.writer.received.count() == 399


def test_silence_is_noticed(segment: OpenSegment, ends: tuple[socket.socket, socket.socket]) -> None:
    """A source that does not even send heartbeats is unreachable."""
    with pytest.raises(StreamStopped) as caught:
        pump(segment, ends[0], silence=0.05)
    assert caught.value.stop is StopCode.SOURCE_UNREACHABLE


@pytest.mark.parametrize(
    ("number", "text", "code"),
    [
        (1236, "Could not find first log file name in binary log index file", StopCode.SOURCE_PURGED),
        (1236, "Cannot replicate because the source purged required binary logs.", StopCode.SOURCE_PURGED),
        (1236, "Client requested source to start replication from position > file size", StopCode.HISTORY_RESET),
        (1227, "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s)", StopCode.AUTH_FAILED),
        (1053, "Server shutdown in progress", StopCode.SOURCE_UNREACHABLE),
    ],
)
def test_errors_of_a_dump_have_stable_codes(
    segment: OpenSegment, ends: tuple[socket.socket, socket.socket], number: int, text: str, code: StopCode
) -> None:
    """The texts are MySQL's own; almost all of them come as 1236."""
    ends[1].sendall(binlog.packets(b"\xff" + number.to_bytes(2, "little") + b"#HY000" + text.encode()))
    with pytest.raises(StreamStopped) as caught:
        pump(segment, ends[0])
    assert caught.value.stop is code
    assert text in caught.value.message
