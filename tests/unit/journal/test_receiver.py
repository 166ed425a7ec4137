"""The receiver without a source: what it says of a damaged or foreign journal, and a first segment begun twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.config import JournalConfig, Source, decode, encode
from farshore_agent.mysql.journal.errors import Permanent, StopCode
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.opensegment import OpenSegment
from farshore_agent.mysql.journal.receiver import Receiver
from farshore_agent.mysql.journal.state import Mode, ReceiverState
from tests.unit.journal import binlog
from tests.unit.journal.binlog import BinlogFile
from tests.unit.journal.segments import PAIR, feed, ingest_into, open_segment, record


def settings(path: Path, *, epoch: int = 2, owner: str = binlog.UUID) -> JournalConfig:
    return JournalConfig(
        directory=path,
        pair=PAIR,
        epoch=epoch,
        source=Source(host="h", port=1, user="u", password_file=path / "p", expected_server_uuid=owner),
        server_id=1,
        server_uuid=binlog.OTHER_UUID,
    )


def received(path: Path) -> BinlogFile:
    segment = open_segment(path)
    file = BinlogFile("bin.000001")
    for gno in (1, 2, 3):
        file.transaction(gno)
    segment.writer.rotate(file.name)
    feed(ingest_into(segment), binlog.dump([file]))
    segment.close()
    return file


def receiver(config: JournalConfig) -> Receiver:
    return Receiver(JournalDirectory(config.directory), config)


def test_damage_is_reported_and_hides_the_end(tmp_path: Path) -> None:
    """A damaged journal is a stopped stream that names file and offset. Its end is not known, so nobody is told an
    empty one: not when detaching, not when sealing, not when waiting."""
    file = received(tmp_path)
    path = next((tmp_path / "segments").glob("*/bin.000001"))
    raw = bytearray(file.data)
    raw[file.boundaries[2] + 30] ^= 1
    path.write_bytes(bytes(raw))
    (path.parent / "checkpoint.json").unlink()
    found = receiver(settings(tmp_path))
    state = found.state()
    assert state.mode is Mode.STOPPED
    assert state.stopped is not None
    assert (state.stopped.code, state.stopped.retried) == (StopCode.CORRUPT_EVENT, False)
    assert state.stopped.evidence == {"file": str(path), "offset": str(file.boundaries[2])}
    for ask in (found.detach, found.seal, lambda: found.wait_contains(GtidSet(), 0.0)):
        with pytest.raises(Permanent) as caught:
            ask()
        assert caught.value.code == "CorruptEvent"
    found.close()
    assert path.read_bytes() == bytes(raw)
    path.write_bytes(file.data)
    mended = receiver(settings(tmp_path))
    assert str(mended.end()) == f"{binlog.UUID}:1-3"
    assert mended.state().mode is Mode.DETACHED
    mended.close()


@pytest.mark.parametrize(
    ("config", "code"), [({"epoch": 4}, "SegmentOpen"), ({"owner": binlog.OTHER_UUID}, "SegmentOpen")]
)
def test_another_stream_s_open_segment_is_not_touched(tmp_path: Path, config: dict[str, object], code: str) -> None:
    """Another epoch or server needs the old segment sealed first."""
    received(tmp_path)
    with pytest.raises(Permanent) as caught:
        receiver(settings(tmp_path, **config))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_sealing_is_for_ever(tmp_path: Path) -> None:
    """A sealed segment keeps its end and takes nothing more; an older epoch never starts; a newer one is attached,
    though the sealed stream had been detached."""
    received(tmp_path)
    first = receiver(settings(tmp_path))
    sealed = first.seal()
    assert (sealed.sealed, sealed.end) == (True, f"{binlog.UUID}:1-3")
    with pytest.raises(Permanent, match="sealed"):
        first.attach()
    first.close()
    again = receiver(settings(tmp_path))
    assert (again.state().mode, str(again.end())) == (Mode.SEALED, sealed.end)
    assert again.seal() == sealed
    again.close()
    with pytest.raises(Permanent) as caught:
        receiver(settings(tmp_path, epoch=0))
    assert caught.value.code == "EpochTooOld"
    following = receiver(settings(tmp_path, epoch=4))
    assert following.state().mode is Mode.STARTING
    following.close()


def test_a_segment_that_got_no_file_is_begun_again(tmp_path: Path) -> None:
    """A crash between the segment and its first file leaves one segment, with the start that is true then."""
    journal = JournalDirectory(tmp_path)
    journal.create(pair=PAIR)
    journal.add_segment(record(start=f"{binlog.OTHER_UUID}:1-5"))
    segment = OpenSegment(journal, settings(tmp_path))
    segment.adopt()
    writer = segment.begin(record(start=f"{binlog.OTHER_UUID}:1-9"), "bin.000007")
    assert (str(writer.start), writer.file) == (f"{binlog.OTHER_UUID}:1-9", "bin.000007")
    assert len(journal.records()) == 1
    segment.close()


def test_state_and_settings_round_trip(tmp_path: Path) -> None:
    """What crosses the control socket and the settings file reads back as it was."""
    config = settings(tmp_path)
    assert decode(encode(config)) == config
    assert decode(encode(replace(config, start_gtid_set=""))).start_gtid_set == ""
    found = receiver(config)
    state = found.state()
    assert ReceiverState.decode(state.encode()) == state
    found.close()
    for text in ("", "{}", encode(config).replace('"version": 1', '"version": 2')):
        with pytest.raises(Permanent):
            decode(text)
