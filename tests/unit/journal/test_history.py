"""The proofs before a stream continues, as a table: same history, other history, and transactions still in flight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.errors import StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.history import contradicts, doubt, file_to_prove, head, overlap, unlogged
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.crash import QuickDisk
from tests.unit.journal.segments import OpenSegment, feed, ingest_into, open_segment, record

A, B = binlog.UUID, binlog.OTHER_UUID


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[OpenSegment]:
    """Starts after B:1-5, holds A:1-2."""
    made = open_segment(tmp_path / "j", disk=QuickDisk(), make=record(start=f"{B}:1-5"))
    file = BinlogFile("bin.000001")
    file.transaction(1)
    file.transaction(2)
    made.writer.rotate(file.name)
    feed(ingest_into(made), binlog.dump([file]))
    yield made
    made.close()


@pytest.mark.parametrize("executed", [f"{A}:1-2,{B}:1-5", f"{A}:1-9,{B}:1-9"])
def test_a_source_that_contains_the_end_is_not_doubted(segment: OpenSegment, executed: str) -> None:
    assert doubt(segment.writer, GtidSet.parse(executed)) is None


def test_received_transactions_may_still_be_in_flight(segment: OpenSegment) -> None:
    """Logged, sent, and not yet in gtid_executed: the stream decides, and the verdict is ready with both histories."""
    verdict = doubt(segment.writer, GtidSet.parse(f"{A}:1,{B}:1-5"))
    assert verdict is not None
    assert verdict.stop is StopCode.HISTORY_RESET
    assert verdict.evidence["missing_at_source"] == f"{A}:2"


@pytest.mark.parametrize("executed", ["", f"{A}:1-2", f"{A}:1-2,{B}:1-4"])
def test_what_was_executed_before_us_cannot_be_in_flight(segment: OpenSegment, executed: str) -> None:
    """A source that lacks a part of the start has another history, whatever its files are called."""
    with pytest.raises(StreamStopped) as caught:
        doubt(segment.writer, GtidSet.parse(executed))
    assert caught.value.stop is StopCode.HISTORY_RESET


def test_without_a_small_last_event_doubt_is_final(segment: OpenSegment) -> None:
    """Nothing could be compared, so nothing is assumed."""
    segment.writer.last_event = 0
    assert overlap(segment.writer) == b""
    with pytest.raises(StreamStopped):
        doubt(segment.writer, GtidSet.parse(f"{A}:1,{B}:1-5"))


def test_the_head_of_a_file_is_its_first_two_events(segment: OpenSegment) -> None:
    """Format description and PREVIOUS_GTIDS, or what there is of them."""
    path = segment.writer.directory / "bin.000001"
    file = BinlogFile("bin.000001")
    assert head(path) == b"".join(file.events[:2])
    path.write_bytes(file.data[: file.boundaries[0]])
    assert head(path) == file.events[0]
    path.write_bytes(b"")
    assert head(path) == b""


def test_which_file_is_compared(segment: OpenSegment) -> None:
    """The tail's own, or the one before it while the tail is empty; none in a new segment."""
    writer = segment.writer
    assert file_to_prove(writer, ["bin.000001"]) == "bin.000001"
    writer.rotate("bin.000002")
    assert file_to_prove(writer, ["bin.000001", "bin.000002"]) == "bin.000001"
    assert file_to_prove(writer, ["bin.000002"]) == ""


@pytest.mark.parametrize(
    ("code", "evidence", "settles"),
    [
        (StopCode.GAP, {}, True),
        (StopCode.HISTORY_RESET, {}, True),
        (StopCode.SOURCE_UNREACHABLE, {"source_error": "1236"}, True),
        (StopCode.SOURCE_UNREACHABLE, {}, False),
        (StopCode.AUTH_FAILED, {}, False),
        (StopCode.CHECKSUM_OFF, {}, False),
    ],
)
def test_what_settles_a_doubt(code: StopCode, evidence: dict[str, str], settles: bool) -> None:
    """A refusal or a difference does; a broken connection leaves the question open for the next dial."""
    assert contradicts(StreamStopped(code, "x", hint="y", evidence=evidence)) is settles


def test_only_foreign_transactions_count_as_unlogged() -> None:
    """The server's own are always in its binary log: if they are purged there and not here, that is a gap."""
    purged = GtidSet.parse(f"{A}:1-50:tag:1-3,{B}:1-40")
    assert str(unlogged(purged, A.upper())) == f"{B}:1-40"
