"""Durable records: what was saved is there after any crash, and what cannot be trusted is never taken for nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farshore_agent import durable, slots
from farshore_agent.records import FileKeeper, encode, read_record, side_directory
from farshore_agent.slots import SLOT_BYTES, WritePoint
from farshore_schema.errors import FarshoreError, Permanent, Transient
from farshore_schema.roles import Receipt, Record

OLD = Record(token=3, epoch=4, fenced_epoch=2, promoted_epoch=4, base="complete", enrolled=True, intents=("one",))
NEW = OLD._replace(
    epoch=6, fenced_epoch=6, receipt=Receipt("a", 6, "uuid:1-9"), intents=("one", "two"), seeded_for="op1"
)


SECTOR = 512


class Killed(BaseException):
    """The process is gone at this point."""


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field of a record survives the way through the disk into another process's hands."""
    FileKeeper(tmp_path, "orders", "a").save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == NEW
    assert FileKeeper(tmp_path, "orders", "b").load() == Record()
    assert (side_directory(tmp_path, "orders", "a")).stat().st_mode & 0o777 == 0o700
    assert FileKeeper(tmp_path, "orders", "a").path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("point", "survives"),
    [("begun", OLD), ("half", OLD), ("written", NEW), ("synced", NEW), ("marked", NEW)],
)
def test_a_crash_at_any_point_of_a_save_leaves_one_whole_record(
    tmp_path: Path, point: WritePoint, survives: Record
) -> None:
    """Killed while saving, the old or the new record is there, whole; and the next save works."""
    FileKeeper(tmp_path, "orders", "a").save(OLD)

    def fault(at: WritePoint) -> None:
        if at == point:
            raise Killed

    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.load()
    keeper = FileKeeper(tmp_path, "orders", "a", fault=fault)
    keeper._file._at, keeper._durable, keeper._newest = slots.read(keeper.path), OLD, OLD  # loaded, without a save
    with pytest.raises(Killed):
        keeper.save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == survives
    FileKeeper(tmp_path, "orders", "a").save(NEW)
    assert FileKeeper(tmp_path, "orders", "a").load() == NEW


@pytest.mark.parametrize("point", ["written", "synced", "renamed"])
def test_a_crash_while_a_file_is_made_or_outgrown_leaves_one_whole_record(
    tmp_path: Path, point: durable.WritePoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record, and one too large for its slots, are written as a whole file: it is there or it is not."""
    large = OLD._replace(receipt=Receipt("a", 4, "g" * 100_000))
    FileKeeper(tmp_path, "orders", "b").save(OLD)
    real = durable.replace

    def killed(path: Path, raw: bytes) -> None:
        def fault(at: durable.WritePoint) -> None:
            if at == point:
                raise Killed

        real(path, raw, fault=fault)

    monkeypatch.setattr(durable, "replace", killed)
    for side, record in (("a", OLD), ("b", large)):
        with pytest.raises(Killed):
            FileKeeper(tmp_path, "orders", side).save(record)  # type: ignore[arg-type]
    monkeypatch.setattr(durable, "replace", real)
    made = point == "renamed"
    assert FileKeeper(tmp_path, "orders", "a").load() == (OLD if made else Record())
    assert FileKeeper(tmp_path, "orders", "b").load() == (large if made else OLD)
    FileKeeper(tmp_path, "orders", "b").save(large)
    FileKeeper(tmp_path, "orders", "b").save(NEW)
    assert FileKeeper(tmp_path, "orders", "b").load() == NEW


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_leaves_the_last_synced_record_or_the_one_being_written(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever subset of unsynced sectors reached the disk, the file reads as the last record that was acknowledged or
    the one under way; it is never damaged and never older."""
    dice = random.Random(seed)
    images: list[tuple[bytes, bytes]] = []  # what is surely on disk, and what the page cache holds
    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.save(OLD)
    path = keeper.path
    synced, acknowledged = path.read_bytes(), OLD

    def fault(_at: WritePoint) -> None:
        images.append((synced, path.read_bytes()))

    def fdatasync(_handle: int) -> None:
        nonlocal synced
        synced = path.read_bytes()

    keeper._file._fault = fault
    monkeypatch.setattr(os, "fdatasync", fdatasync)  # nothing else puts anything on this disk
    for number in range(12):
        images.clear()
        if dice.random() < 0.4:
            record = acknowledged._replace(intents=(*acknowledged.intents, f"intent-{number}")[-64:])
        else:
            record = acknowledged._replace(
                epoch=acknowledged.epoch + 2, receipt=Receipt("a", 4, "g" * dice.randrange(3000))
            )
        keeper.save(record)
        for before, after in images:
            for _ in range(10):
                cut = mixed(dice, before, after)
                (tmp_path / "cut").write_bytes(cut)
                found = read_record(tmp_path / "cut", "orders", "a")
                assert found is not None
                assert found._replace(intents=()) in (
                    acknowledged._replace(intents=()),
                    record._replace(intents=()),
                )
        if record._replace(intents=()) != acknowledged._replace(intents=()):
            assert read_record(path, "orders", "a") == record
            for _ in range(10):
                (tmp_path / "cut").write_bytes(mixed(dice, synced, path.read_bytes()))
                assert read_record(tmp_path / "cut", "orders", "a") == record
        acknowledged = record


def mixed(dice: random.Random, old: bytes, new: bytes) -> bytes:
    """Return the old bytes with a random choice of the new ones' sectors."""
    share = dice.choice([0.1, 0.5, 0.9])
    return b"".join(
        (new if dice.random() < share else old)[at : at + SECTOR] for at in range(0, max(len(old), len(new)), SECTOR)
    )


def test_a_save_that_failed_is_not_believed(tmp_path: Path) -> None:
    """After a failed save the same keeper says what is known to be on disk, not what it wanted to write."""

    def full(at: WritePoint) -> None:
        if at == "written":
            raise OSError(28, "No space left on device")

    FileKeeper(tmp_path, "orders", "a").save(OLD)
    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.load()
    keeper._file._fault = full
    with pytest.raises(Transient) as refused:
        keeper.save(NEW)
    assert refused.value.code == "disk_full"
    assert keeper.load() == OLD
    assert list(keeper.path.parent.iterdir()) == [keeper.path]


def test_every_record_that_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """A process that saves and then prints each epoch is killed: the last one printed is on disk, or the next one."""
    script = """
import sys
from collections.abc import Callable
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


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "cut short": lambda good: good[: len(good) // 2],
    "zeros": lambda good: b"\0" * len(good),
    "one value changed": lambda good: good.replace(b'"epoch":4', b'"epoch":2'),
    "newest lost": lambda good: good[:SLOT_BYTES] + b"\0" * SLOT_BYTES + good[2 * SLOT_BYTES :],
    "newest rotten": lambda good: good[: SLOT_BYTES + 200] + b"?" + good[SLOT_BYTES + 201 :],
    "newer format": lambda good: good.replace(b"farshore-record 1", b"farshore-record 2"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_newer_record_is_refused_and_not_taken_for_none(tmp_path: Path, damage: str) -> None:
    """A side whose record cannot be trusted raises, with the file's name and what to do, and the file is left alone.

    Also when an older record is still there, whole: the newest one was acknowledged.
    """
    keeper = FileKeeper(tmp_path, "orders", "a")
    keeper.save(OLD._replace(token=1))
    keeper.save(OLD)
    raw = DAMAGE[damage](keeper.path.read_bytes())
    assert raw != keeper.path.read_bytes()
    keeper.path.write_bytes(raw)
    with pytest.raises(Permanent) as refused:
        FileKeeper(tmp_path, "orders", "a").load()
    assert refused.value.code == ("newer_format" if damage == "newer format" else "corrupt_record")
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
    slots.SlotFile(keeper.path).save({**encode(OLD, "orders", "a"), field: value})
    with pytest.raises(FarshoreError) as refused:
        read_record(keeper.path, "orders", "a")
    assert refused.value.code == "corrupt_record"


@pytest.mark.parametrize("name", ["../up", "a/b", "", "UPPER", "x" * 64, "a b", "ä"])
def test_a_name_that_is_a_path_never_becomes_one(tmp_path: Path, name: str) -> None:
    """Pair names end up in paths; what is not a name is refused before it touches the disk."""
    with pytest.raises(ValueError, match="does not name a side"):
        side_directory(tmp_path, name, "a")
