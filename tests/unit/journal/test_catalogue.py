"""The directory's documents: made once, refused when they are not ours or too new, never half written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from farshore_agent.mysql.journal.catalogue import JournalDirectory, is_binlog_name
from farshore_agent.mysql.journal.disk import DirectoryLock
from farshore_agent.mysql.journal.errors import Busy, Corrupt, FormatTooNew, Permanent
from tests.unit.journal import binlog
from tests.unit.journal.segments import record


def test_a_new_directory(tmp_path: Path) -> None:
    """Made with its parents, private, and the same when made again."""
    journal = JournalDirectory(tmp_path / "a" / "b")
    first = journal.create(pair="orders")
    assert journal.create(pair="orders") == first
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "catalogue.json").stat().st_mode) == 0o600


def test_another_pair_s_directory_is_refused(tmp_path: Path) -> None:
    """Two pairs never share a journal."""
    JournalDirectory(tmp_path).create(pair="orders")
    with pytest.raises(Permanent, match="belongs to the pair 'orders'"):
        JournalDirectory(tmp_path).create(pair="billing")


def test_a_newer_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Nothing is changed in a directory that a newer version wrote."""
    journal = JournalDirectory(tmp_path)
    journal.create(pair="orders")
    newer = (tmp_path / "format.json").read_text().replace('"format": 1', '"format": 7')
    (tmp_path / "format.json").write_text(newer)
    with pytest.raises(FormatTooNew, match="format 7") as caught:
        journal.create(pair="orders")
    assert "Upgrade" in caught.value.hint
    assert (tmp_path / "format.json").read_text() == newer


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "1"}', '{"format": 1, "kind": "something else"}'])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    """A format.json that is not ours, or damaged, is never taken for an old one."""
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(Permanent):
        JournalDirectory(tmp_path).create(pair="orders")


def test_segments_keep_their_order_and_names(tmp_path: Path) -> None:
    """Names say epoch and server; a second one of both gets a number; a dropped one is gone with its files."""
    journal = JournalDirectory(tmp_path)
    journal.create(pair="orders")
    names = [journal.add_segment(record(epoch=epoch)).name for epoch in (2, 4, 4)]
    assert names == [f"{epoch:06d}-{binlog.UUID[:8]}{more}" for epoch, more in ((2, ""), (4, ""), (4, "-2"))]
    assert [each.name for each in journal.records()] == names
    journal.drop_segment(names[0])
    assert [each.name for each in journal.records()] == names[1:]
    assert not journal.segment(names[0]).exists()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """Unknown fields, missing fields and garbage are damage that names the file."""
    journal = JournalDirectory(tmp_path)
    journal.create(pair="orders")
    made = journal.add_segment(record())
    path = journal.segment(made.name) / "meta.json"
    whole = path.read_text()
    for content in (whole[:-20], whole.replace('"epoch"', '"era"'), "[1]"):
        path.write_text(content)
        with pytest.raises(Corrupt) as caught:
            journal.record(made.name)
        assert caught.value.file == str(path)
    index = journal.segment(made.name) / "index"
    for raw in (b"../../etc/passwd\n", b"\xff\xfe\n", b"./index\n"):
        index.write_bytes(raw)
        with pytest.raises(Corrupt):
            journal.files(made.name)


def test_names_of_binary_logs() -> None:
    """What a source may call its files, and what nobody may make us create."""
    assert all(map(is_binlog_name, ["bin.000001", "mysql-bin.1000000", "höst bin.000009"]))
    assert not any(
        map(is_binlog_name, ["", "bin", "bin.1", ".bin.000001", "a/b.000001", "..", "meta.json", "x\n.000001"])
    )


def test_one_writer(tmp_path: Path) -> None:
    """The lock is exclusive, names its purpose, and is free again when its holder lets go."""
    lock = DirectoryLock(tmp_path / "lock", purpose="writing the journal")
    with pytest.raises(Busy, match="writing the journal"):
        DirectoryLock(tmp_path / "lock", purpose="writing the journal")
    lock.release()
    DirectoryLock(tmp_path / "lock", purpose="again").release()
