"""Durable records: what was saved is there after any crash, and what cannot be trusted is never taken for nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from farshore_agent import durable
from farshore_agent.durable import WritePoint
from farshore_agent.records import FileKeeper, read_record, side_directory
from farshore_schema.errors import FarshoreError, Permanent, Transient
from farshore_schema.roles import Receipt, Record

OLD = Record(token=3, epoch=4, fenced_epoch=2, promoted_epoch=4, base="complete", enrolled=True, intents=("one",))
NEW = OLD._replace(
    epoch=6, fenced_epoch=6, receipt=Receipt("a", 6, "uuid:1-9"), intents=("one", "two"), seeded_for="op1"
)


class Killed(BaseException):
    """The process is gone at this point."""


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field of a record survives the way through the disk into another process's hands."""
    FileKeeper(tmp_path, "orders", "a").save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == NEW
    assert FileKeeper(tmp_path, "orders", "b").load() == Record()
    assert (side_directory(tmp_path, "orders", "a")).stat().st_mode & 0o777 == 0o700
    assert FileKeeper(tmp_path, "orders", "a").path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("point", "survives"), [("written", OLD), ("synced", OLD), ("renamed", NEW)])
def test_a_crash_at_any_point_of_a_save_leaves_one_whole_record(
    tmp_path: Path, point: WritePoint, survives: Record
) -> None:
    """Killed while saving, the old or the new record is there, whole; and the next save works."""
    FileKeeper(tmp_path, "orders", "a").save(OLD)

    def fault(at: WritePoint) -> None:
        if at == point:
            raise Killed

    with pytest.raises(Killed):
        FileKeeper(tmp_path, "orders", "a", fault=fault).save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == survives
    FileKeeper(tmp_path, "orders", "a").save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == NEW


def test_a_save_that_failed_is_not_believed(tmp_path: Path) -> None:
    """After a failed save the same keeper says what the disk says, not what it wanted to write."""

    def full(at: WritePoint) -> None:
        if at == "written":
            raise OSError(28, "No space left on device")

    FileKeeper(tmp_path, "orders", "a").save(OLD)
    keeper = FileKeeper(tmp_path, "orders", "a", fault=full)
    with pytest.raises(Transient) as refused:
        keeper.save(NEW)
    assert refused.value.code == "disk_full"
    assert keeper.load() == OLD
    assert list(keeper.path.parent.iterdir()) == [keeper.path]


def test_every_record_that_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """A process that saves and then prints each epoch is killed: the last one printed is on disk, or the next one."""
    script = """
import sys
from pathlib import Path
from farshore_agent.records import FileKeeper
from farshore_schema.roles import Record
keeper = FileKeeper(Path(sys.argv[1]), "orders", "a")
for epoch in range(1, 100000):
    keeper.save(Record(epoch=epoch, enrolled=True))
    print(epoch, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(40):
        line = child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split()
    child.stdout.close()
    child.wait()
    acknowledged = int(rest[-1] if rest else line)
    assert acknowledged <= FileKeeper(tmp_path, "orders", "a").load().epoch <= acknowledged + 1


def broken(path: Path) -> dict[str, bytes]:
    good = path.read_bytes()
    outer = json.loads(good)
    swapped = json.loads(good)
    swapped["content"]["epoch"] = 2
    newer = {**outer, "format": 2}
    return {
        "empty": b"",
        "torn": good[: len(good) // 2],
        "garbage": b"\x00" * 200,
        "one value changed": json.dumps(swapped).encode(),
        "no object": b"[]",
        "newer": json.dumps(newer).encode(),
    }


@pytest.mark.parametrize("damage", ["empty", "torn", "garbage", "one value changed", "no object", "newer"])
def test_a_damaged_or_newer_record_is_refused_and_not_taken_for_none(tmp_path: Path, damage: str) -> None:
    """A side whose record cannot be trusted raises, with the file's name and what to do, and the file is left alone."""
    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.save(OLD)
    raw = broken(keeper.path)[damage]
    keeper.path.write_bytes(raw)
    with pytest.raises(Permanent) as refused:
        FileKeeper(tmp_path, "orders", "a").load()
    assert refused.value.code == ("newer_format" if damage == "newer" else "corrupt_record")
    assert str(keeper.path) in refused.value.message
    assert refused.value.hint
    assert keeper.path.read_bytes() == raw


def test_a_record_of_another_side_is_refused(tmp_path: Path) -> None:
    """A record copied from the other side or another pair is not this side's (R5)."""
    ours, theirs = FileKeeper(tmp_path, "orders", "a"), FileKeeper(tmp_path, "orders", "b")
    ours.save(OLD)
    theirs.save(OLD)
    theirs.path.write_bytes(ours.path.read_bytes())
    with pytest.raises(Permanent, match="belongs to"):
        FileKeeper(tmp_path, "orders", "b").load()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", -1),
        ("epoch", "6"),
        ("token", True),
        ("base", "half"),
        ("enrolled", 1),
        ("receipt", ["a", 2]),
        ("intents", "x"),
    ],
)
def test_fields_of_the_wrong_kind_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """A file with a right checksum and wrong fields (another program wrote it) is no record."""
    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.save(OLD)
    content = durable.read(keeper.path)
    assert content is not None
    durable.write(keeper.path, {**content, field: value})
    with pytest.raises(FarshoreError) as refused:
        read_record(keeper.path, "orders", "a")
    assert refused.value.code == "corrupt_record"


@pytest.mark.parametrize("name", ["../up", "a/b", "", "UPPER", "x" * 64, "a b", "ä"])
def test_a_name_that_is_a_path_never_becomes_one(tmp_path: Path, name: str) -> None:
    """Pair names end up in paths; what is not a name is refused before it touches the disk."""
    with pytest.raises(ValueError, match="does not name a side"):
        side_directory(tmp_path, name, "a")
