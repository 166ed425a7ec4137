"""Everything that can stop or disturb a stream, on a real source: a stable code, no gap, and resumption by itself where
the cause can go away."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from farshore_agent.mysql.journal import client as journal
from farshore_agent.mysql.journal.errors import Permanent
from tests.conftest import MySQLServerFactory
from tests.e2e.journal.conftest import PASSWORD, MakeStream, Stream
from tests.testbed.mysql import MySQLServer
from tests.testbed.require import require_root
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql

ONE_ROW = "INSERT INTO app.t (v) VALUES (REPEAT('r', 500))"


@pytest.fixture(scope="module")
def source(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    server = mysql_server_of_module(name="source")
    prepare(server)
    return server


def prepare(server: MySQLServer) -> None:
    server.execute("CREATE DATABASE app", "CREATE TABLE app.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)")


def flows(stream: Stream, transactions: int) -> bool:
    """Whether the receiver has received more than so many transactions."""
    return stream.receiver.state().transactions > transactions


@contextlib.contextmanager
def load(server: MySQLServer) -> Iterator[None]:
    """A client that commits one row after another meanwhile."""
    ending = threading.Event()

    def write() -> None:
        with contextlib.closing(server.connect()) as session, session.cursor() as cursor:
            while not ending.is_set():
                cursor.execute(ONE_ROW)
                ending.wait(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ending.set()
        writer.join()


def test_kill_9_with_torn_tails_under_load(source: MySQLServer, make_stream: MakeStream) -> None:
    """The receiver dies again and again, each time leaving half an event, garbage, or zeros at the end of its file:
    the tail is cut, nothing published is lost, and the files end up byte-identical to the source's."""
    stream = make_stream(source)
    stream.receive()
    rng = random.Random(7)
    with load(source):
        for tail in ("half", "garbage", "zeros", "half", "none"):
            before = stream.receiver.state().transactions
            wait_until(partial(flows, stream, before + 20), "traffic")
            published = stream.receiver.end()
            stream.kill("receiver")
            last = sorted((stream.directory / "segments").glob("*/bin.*"))[-1]
            size = last.stat().st_size
            more = (source.datadir / last.name).read_bytes()[size : size + 700]
            torn = {"half": more[: len(more) // 2], "garbage": rng.randbytes(300), "zeros": bytes(5000), "none": b""}
            with last.open("ab") as file:
                file.write(torn[tail])
            stream.receive()
            assert stream.receiver.wait_contains(published, 0)
    stream.caught_up()
    stream.assert_files_equal_the_source_s()
    assert stream.receiver.state().stopped is None


def test_a_wrong_password_and_its_cure(source: MySQLServer, make_stream: MakeStream) -> None:
    """AuthFailed names the grant; nothing secret is said; the corrected file is used without a restart."""
    stream = make_stream(source)
    stream.config.source.password_file.write_text("not-the-password\n")
    stream.receive()
    reason = stream.stopped_as(journal.StopCode.AUTH_FAILED)
    assert reason.retried
    assert "REPLICATION SLAVE" in reason.hint
    assert "not-the-password" not in f"{stream.receiver.state()}{stream.receiver.log_file.read_text()}"
    stream.config.source.password_file.write_text(PASSWORD + "\n")
    stream.mode(journal.Mode.FOLLOWING)
    stream.caught_up()


def test_a_missing_privilege(source: MySQLServer, make_stream: MakeStream) -> None:
    """An account that may log in but not replicate is AuthFailed with the grant to give."""
    stream = make_stream(source)
    source.execute("SET sql_log_bin=0", "CREATE USER weak@'%' IDENTIFIED BY 'w'")
    stream.config.source.password_file.write_text("w")
    stream.config = replace(stream.config, source=replace(stream.config.source, user="weak"))
    stream.receive()
    assert "GRANT REPLICATION SLAVE" in stream.stopped_as(journal.StopCode.AUTH_FAILED).hint


def test_tls_modes(source: MySQLServer, make_stream: MakeStream) -> None:
    """The right authority is accepted, a wrong one refused before any login, and identity is checked on demand."""
    right = journal.Tls(mode=journal.TlsMode.VERIFY_CA, ca_file=source.ca_file)
    stream = make_stream(source, name="right")
    stream.config = replace(stream.config, source=replace(stream.config.source, tls=right))
    stream.receive()
    stream.mode(journal.Mode.FOLLOWING)
    other = make_stream(source, name="other")
    other.serve()
    strange = journal.Tls(mode=journal.TlsMode.VERIFY_CA, ca_file=other.server.credentials().ca_file)
    other.config = replace(other.config, source=replace(other.config.source, tls=strange))
    other.receive()
    assert "certificate" in other.stopped_as(journal.StopCode.SOURCE_UNREACHABLE).message.lower()
    named = replace(right, mode=journal.TlsMode.VERIFY_IDENTITY)
    stream.config = replace(stream.config, source=replace(stream.config.source, tls=named))
    stream.receive()
    stream.stopped_as(journal.StopCode.SOURCE_UNREACHABLE)


def test_an_unreachable_source(source: MySQLServer, make_stream: MakeStream) -> None:
    """A paused source is noticed by its silence, a dead one at once; both are tried again without end."""
    stream = make_stream(source)
    stream.receive()
    stream.mode(journal.Mode.FOLLOWING)
    source.pause()
    reason = stream.stopped_as(journal.StopCode.SOURCE_UNREACHABLE)
    assert reason.retried
    source.resume()
    source.execute(ONE_ROW)
    stream.mode(journal.Mode.FOLLOWING)
    stream.caught_up()


def test_detaching_is_prompt_and_durable(source: MySQLServer, make_stream: MakeStream) -> None:
    """Detached means detached: also after kill -9 and a new start, until somebody attaches; the end does not move."""
    stream = make_stream(source)
    stream.receive()
    stream.caught_up()
    end = stream.receiver.detach()
    source.execute(ONE_ROW)
    assert stream.receiver.detach() == end
    stream.kill("receiver")
    stream.receive()
    assert stream.mode(journal.Mode.DETACHED).end_gtid_set == end
    assert not stream.receiver.wait_contains(source.gtid_executed(), 0.3)
    stream.receiver.attach()
    stream.caught_up()


def test_purged_ahead_with_and_without_loss(source: MySQLServer, make_stream: MakeStream) -> None:
    """Purged files that hold nothing new are stepped over; purged files with something unread stop the stream for good,
    and an attach does not talk it into a gap."""
    stream = make_stream(source)
    stream.receive()
    stream.caught_up()
    stream.receiver.detach()
    source.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    newest = source.query("SHOW BINARY LOGS")[-1][0]
    source.execute(f"PURGE BINARY LOGS TO '{newest}'")
    stream.receiver.attach()
    source.execute(ONE_ROW)
    stream.caught_up()
    assert stream.files()[-1].name == newest
    stream.receiver.detach()
    end = stream.receiver.end()
    source.execute(ONE_ROW, "FLUSH BINARY LOGS", ONE_ROW)
    source.execute(f"PURGE BINARY LOGS TO '{source.query('SHOW BINARY LOGS')[-1][0]}'")
    for _ in range(2):
        stream.receiver.attach()
        reason = stream.stopped_as(journal.StopCode.SOURCE_PURGED)
        assert not reason.retried
        assert stream.mode(journal.Mode.STOPPED).end_gtid_set == end


def test_first_attach_at_the_present(source: MySQLServer, make_stream: MakeStream) -> None:
    """Without a start set the journal begins at the source's present, and says what a reader must already have."""
    source.execute(ONE_ROW, "FLUSH BINARY LOGS", ONE_ROW)
    before = source.gtid_executed()
    stream = make_stream(source, start_gtid_set=None)
    stream.receive()
    stream.caught_up()
    state = stream.receiver.state()
    assert source.scalar("SELECT GTID_SUBSET(%s, %s)", (state.start_gtid_set, before)) == 1
    assert state.end_gtid_set == source.gtid_executed()
    assert len(stream.files()) == 1


def test_a_full_disk(source: MySQLServer, make_stream: MakeStream, tmp_path: Path) -> None:
    """DiskFull is said, the source does not notice, and the stream resumes by itself when space returns."""
    require_root()
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mount)], check=True)
    stream = make_stream(source, directory=mount / "journal", start_gtid_set=None)
    try:
        stream.receive()
        stream.mode(journal.Mode.FOLLOWING)
        filler = mount / "filler"
        filler.write_bytes(bytes(16 << 20))
        for _ in range(4):
            source.execute("INSERT INTO app.t (v) VALUES (REPEAT('f', 3000000))")
        reason = stream.stopped_as(journal.StopCode.DISK_FULL)
        assert reason.retried
        source.execute(ONE_ROW)
        filler.unlink()
        stream.caught_up()
        stream.assert_files_equal_the_source_s()
        assert stream.receiver.state().stopped is None
    finally:
        stream.stop()
        subprocess.run(["umount", str(mount)], check=True)


def test_a_flipped_byte_on_disk(source: MySQLServer, make_stream: MakeStream) -> None:
    """A damaged file is named with its offset when the receiver starts, and the journal is not continued over it."""
    stream = make_stream(source, start_gtid_set=None)
    stream.receive()
    stream.caught_up()
    for _ in range(20):
        source.execute(ONE_ROW)
    stream.caught_up()
    path = stream.files()[-1]
    stream.kill("receiver")
    (path.parent / "checkpoint.json").unlink(missing_ok=True)
    raw = bytearray(path.read_bytes())
    raw[-2000] ^= 1
    path.write_bytes(bytes(raw))
    stream.receive()
    reason = stream.stopped_as(journal.StopCode.CORRUPT_EVENT)
    assert not reason.retried
    assert reason.evidence["file"] == str(path)
    assert len(raw) - 3000 < int(reason.evidence["offset"]) < len(raw) - 1500
    assert path.read_bytes() == bytes(raw)


def test_one_stream_at_a_time(source: MySQLServer, make_stream: MakeStream) -> None:
    """A second stream into the same directory is refused until the open segment is sealed; an older epoch always."""
    stream = make_stream(source, start_gtid_set=None)
    stream.receive()
    stream.caught_up()
    for other in (replace(stream.config, epoch=4), replace(stream.config, pair="other")):
        with pytest.raises(Permanent):
            journal.ensure_receiver(other)
    first = stream.receiver.seal()
    assert first.sealed
    assert first.end == source.gtid_executed()
    assert stream.receiver.seal() == first
    source.execute(ONE_ROW)
    stream.config = replace(stream.config, epoch=4, start_gtid_set=None)
    stream.receive()
    stream.caught_up()
    assert [record.epoch for record in journal.catalogue(stream.directory)] == [2, 4]
    with pytest.raises(Permanent) as caught:
        journal.ensure_receiver(replace(stream.config, epoch=2))
    assert caught.value.code in ("EpochTooOld", "SegmentOpen")
    stream.receiver.stop()


def test_a_journal_of_a_newer_version(source: MySQLServer, make_stream: MakeStream) -> None:
    """A directory that a newer version wrote is refused with the way out, and left as it is."""
    stream = make_stream(source)
    stream.receive()
    stream.receiver.stop()
    path = stream.directory / "format.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(Permanent) as caught:
        stream.receive()
    assert caught.value.code == "FormatTooNew"
    assert "Upgrade" in caught.value.hint


@pytest.fixture(scope="module")
def changeable(mysql_server_of_module: MySQLServerFactory) -> MySQLServer:
    """A source whose history is spoiled by each of its tests, which begin by resetting it."""
    return mysql_server_of_module(name="changeable")


def begin_anew(server: MySQLServer, stream: Stream) -> None:
    server.execute("RESET BINARY LOGS AND GTIDS", "DROP DATABASE IF EXISTS app")
    prepare(server)
    stream.receive()
    stream.caught_up()
    stream.mode(journal.Mode.FOLLOWING)


def test_another_server_at_the_endpoint(changeable: MySQLServer, make_stream: MakeStream) -> None:
    """R3: a changed server_uuid stops the stream as SourceReplaced, though file names and positions would fit."""
    stream = make_stream(changeable)
    begin_anew(changeable, stream)
    end = stream.receiver.end()
    changeable.stop()
    (changeable.datadir / "auto.cnf").unlink()
    changeable.start()
    changeable.execute(ONE_ROW)
    reason = stream.stopped_as(journal.StopCode.SOURCE_REPLACED)
    assert not reason.retried
    assert reason.evidence["found"] == changeable.scalar("SELECT @@server_uuid")
    assert stream.mode(journal.Mode.STOPPED).end_gtid_set == end


def test_reset_behind_our_back(changeable: MySQLServer, make_stream: MakeStream) -> None:
    """A history reset while we were away is found at the dial: when the new log is still short, and also when it has
    grown past our position in a file of the same name."""
    stream = make_stream(changeable)
    begin_anew(changeable, stream)
    end = stream.receiver.detach()
    changeable.execute("RESET BINARY LOGS AND GTIDS")
    stream.receiver.attach()
    reset = stream.stopped_as(journal.StopCode.HISTORY_RESET)
    assert not reset.retried
    assert reset.evidence["journal_end"] == end
    for _ in range(40):
        changeable.execute(ONE_ROW)
    stream.receiver.attach()
    stream.stopped_as(journal.StopCode.HISTORY_RESET)
    assert stream.mode(journal.Mode.STOPPED).end_gtid_set == end


def insert_incompressible(server: MySQLServer) -> None:
    """One transaction whose last event, a compressed payload, is larger than what a dial asks for again."""
    with contextlib.closing(server.connect()) as session, session.cursor() as cursor:
        cursor.execute("SET SESSION binlog_transaction_compression=ON")
        cursor.execute("INSERT INTO app.t (v) VALUES (HEX(%s))", (random.Random(5).randbytes(20 << 20),))


def test_a_last_event_too_large_to_send_again(changeable: MySQLServer, make_stream: MakeStream) -> None:
    """Then the head of the file is the proof: the same file continues, one of another history does not."""
    stream = make_stream(changeable)
    begin_anew(changeable, stream)
    insert_incompressible(changeable)
    stream.caught_up()
    stream.kill("receiver")
    stream.receive()
    stream.mode(journal.Mode.FOLLOWING)
    end = stream.receiver.detach()
    changeable.execute("RESET BINARY LOGS AND GTIDS", ONE_ROW, ONE_ROW)
    insert_incompressible(changeable)
    insert_incompressible(changeable)
    assert changeable.scalar("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (end,)) == 1
    stream.receiver.attach()
    assert "begins differently" in stream.stopped_as(journal.StopCode.HISTORY_RESET).message


def test_reset_under_a_running_stream(changeable: MySQLServer, make_stream: MakeStream) -> None:
    """RESET BINARY LOGS AND GTIDS while the stream follows: it stops and asks, it does not mix two histories."""
    stream = make_stream(changeable)
    begin_anew(changeable, stream)
    end = stream.receiver.end()
    changeable.execute("RESET BINARY LOGS AND GTIDS", "CREATE DATABASE again", "DROP DATABASE again")
    stream.stopped_as(journal.StopCode.HISTORY_RESET)
    assert stream.receiver.end() == end


def test_checksums_switched_off_and_on(changeable: MySQLServer, make_stream: MakeStream) -> None:
    """A source without checksums is not followed. Back on, the stream goes on by itself, over a file without checksums
    that holds no transaction; one that holds a transaction is never stepped over."""
    stream = make_stream(changeable)
    begin_anew(changeable, stream)
    changeable.execute("SET GLOBAL binlog_checksum=NONE")
    assert stream.stopped_as(journal.StopCode.CHECKSUM_OFF).retried
    changeable.execute("SET GLOBAL binlog_checksum=CRC32", ONE_ROW)
    stream.mode(journal.Mode.FOLLOWING)
    stream.caught_up()
    end = stream.receiver.end()
    journal.verify(stream.directory)
    changeable.execute("SET GLOBAL binlog_checksum=NONE", ONE_ROW, "SET GLOBAL binlog_checksum=CRC32", ONE_ROW)
    stream.stopped_as(journal.StopCode.CHECKSUM_OFF)
    assert not stream.receiver.wait_contains(changeable.gtid_executed(), 2.0)
    assert stream.receiver.end() == end
