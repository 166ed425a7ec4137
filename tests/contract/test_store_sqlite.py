"""The store's contract on SQLite, and what only a durable engine can promise: crashes, full disks, other processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from farshore.store import Put, Store, mod_rev
from farshore.store.sqlite import FORMAT, STORE_FILE, SqliteStore
from farshore_schema.errors import FarshoreError, Permanent, Transient
from tests.contract.store_suite import StoreMachine
from tests.testbed.require import require_root

KILLS = 12
WRITER = """
import sys
from pathlib import Path
from farshore.store import Delete, Put
from farshore.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
n = int(store.get("/left").value) if store.get("/left") else 0
while True:
    n += 1
    pad = b"x" * (n % 5000)
    here, gone = f"/turn/{n % 2}", f"/turn/{(n + 1) % 2}"
    value = b"%d" % n
    store.txn((), (Put("/left", value), Put("/pad", pad), Put(here, value), Delete(gone), Put("/right", value)))
    print(n, flush=True)
"""
HOLDER = """
import sys
from pathlib import Path
from farshore.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


class SqliteMachine(StoreMachine):
    """The contract on SQLite, with restarts."""

    def open(self) -> Store:
        self.directory = tempfile.TemporaryDirectory()
        return SqliteStore(Path(self.directory.name), self.clock)

    def reopen(self) -> bool:
        self.store.close()
        self.store = SqliteStore(Path(self.directory.name), self.clock)
        return True

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


def test_sqlite_keeps_the_contract() -> None:
    """Every sequence of calls and restarts answers as the model does."""
    run_state_machine_as_test(SqliteMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


def test_a_killed_writer_loses_nothing_it_acknowledged_and_tears_nothing(tmp_path: Path) -> None:
    """After kill -9 at any moment, every transaction the writer had answered is there, and none is there by half."""
    random = Random(7)
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(random.randint(1, 60)):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.stdout.close()
        writer.wait()
        acknowledged = max([acknowledged, *(int(line) for line in rest.split("\n")[:-1])])
        store = SqliteStore(tmp_path)
        left, pad, right = (store.get(key) for key in ("/left", "/pad", "/right"))
        assert left is not None
        assert pad is not None
        assert right is not None
        assert int(left.value) >= acknowledged
        assert left.value == right.value
        assert [item.value for item in store.list("/turn/").items] == [left.value], "a deletion was torn off"
        assert len(pad.value) == int(left.value) % 5000
        assert left.mod_rev == right.mod_rev == store.list("/").rev
        store.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_holds_the_directory(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """One process per directory; the refusal names the holder, and its kill -9 frees the directory."""
    with pytest.raises(Permanent, match=rf"process {holder.pid}\b") as caught:
        SqliteStore(tmp_path)
    assert caught.value.code == "directory_in_use"
    holder.kill()
    holder.wait()
    SqliteStore(tmp_path).close()


def test_a_child_process_does_not_keep_the_directory(tmp_path: Path) -> None:
    """Data-path processes outlive the reconciler; they must not hold its lock."""
    store = SqliteStore(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    store.close()
    SqliteStore(tmp_path).close()
    child.communicate(b"")


def test_a_store_of_a_newer_release_is_refused_untouched(tmp_path: Path) -> None:
    """A downgrade stops with `newer_format` and changes no byte."""
    SqliteStore(tmp_path).close()
    path = tmp_path / STORE_FILE
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Permanent, match=f"format {FORMAT + 1}") as caught:
        SqliteStore(tmp_path)
    assert caught.value.code == "newer_format"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0short"]
)
def test_a_damaged_store_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    """A file that is no store is an error that names it, and is left as it is."""
    path = tmp_path / STORE_FILE
    path.write_bytes(content)
    with pytest.raises(Permanent, match=STORE_FILE) as caught:
        SqliteStore(tmp_path)
    assert caught.value.code == "store_failed"
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """Only our own files are written to."""
    db = sqlite3.connect(tmp_path / STORE_FILE)
    db.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 1;")
    db.close()
    with pytest.raises(Permanent, match="another program"):
        SqliteStore(tmp_path)


def test_the_store_is_private(tmp_path: Path) -> None:
    """The directory and the file are readable by their owner only."""
    directory = tmp_path / "new"
    SqliteStore(directory).close()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / STORE_FILE).stat().st_mode & 0o777 == 0o600


def fill(store: SqliteStore) -> tuple[FarshoreError, int]:
    """Write until the disk is full; return the error and the last number written."""
    for number in range(2000):
        try:
            store.txn((), (Put("/number", b"%d" % number), Put(f"/fill/{number}", os.urandom(20_000))))
        except FarshoreError as error:
            return error, number - 1
    raise AssertionError("the disk never filled")


def check_full(store: SqliteStore) -> None:
    """A full disk refuses the transaction whole, loses nothing, and writing goes on once there is room."""
    error, last = fill(store)
    assert isinstance(error, Transient)
    assert error.code == "disk_full"
    found = store.get("/number")
    assert found is not None
    assert int(found.value) == last
    assert store.get(f"/fill/{last + 1}") is None
    assert len(store.list("/fill/").items) == last + 1


def test_a_store_at_its_size_limit_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """SQLITE_FULL, here by the engine's own page limit, is `disk_full`; nothing of the transaction is there."""
    store = SqliteStore(tmp_path)
    store._db.execute("PRAGMA max_page_count = 100")
    check_full(store)
    store._db.execute("PRAGMA max_page_count = 10000")
    assert store.txn((), (Put("/after", b"x"),)).ok
    store.close()
    reopened = SqliteStore(tmp_path)
    assert reopened.get("/after") is not None
    reopened.close()


@pytest.mark.root
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """The same on a real file system without room, through a restart on the full disk."""
    require_root()
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
    try:
        store = SqliteStore(place / "store")
        check_full(store)
        number = store.get("/number")
        store.close()
        again = SqliteStore(place / "store")
        assert again.get("/number") == number
        again.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_every_commit_is_synced_to_the_disk(tmp_path: Path) -> None:
    """A killed process proves nothing about a power cut: the log must be synced at each commit, and it is."""
    store = SqliteStore(tmp_path)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: sqlite.org/pragma.html#pragma_synchronous"
    store.close()


def test_a_second_writer_behind_our_back_stops_the_store(tmp_path: Path) -> None:
    """When the file moves under an open store, nothing is written over it and every later call says so."""
    store = SqliteStore(tmp_path)
    store.txn((), (Put("/a", b"ours"),))
    other = sqlite3.connect(tmp_path / STORE_FILE)
    other.execute("UPDATE revision SET rev = rev + 1")
    other.commit()
    other.close()
    for _ in range(2):
        with pytest.raises(Permanent, match="another process") as caught:
            store.txn((), (Put("/a", b"lost"),))
        assert caught.value.code == "store_failed"
    store.close()
    reopened = SqliteStore(tmp_path)
    item = reopened.get("/a")
    assert item is not None
    assert item.value == b"ours"
    reopened.close()


def test_revisions_go_on_after_a_restart(tmp_path: Path) -> None:
    """A revision is never used twice, so a guard read before a restart cannot match a later value."""
    store = SqliteStore(tmp_path)
    before = store.txn((), (Put("/a", b"1"),)).rev
    store.close()
    store = SqliteStore(tmp_path)
    after = store.txn((mod_rev("/a", before),), (Put("/a", b"2"),))
    assert after.ok
    assert after.rev == before + 1
    assert not store.txn((mod_rev("/a", before),), (Put("/a", b"3"),)).ok
    store.close()
