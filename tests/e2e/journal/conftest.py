"""Journals of real servers: accounts, streams, replicas, and the comparison of files."""

from __future__ import annotations

import itertools
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from farshore_agent.mysql.journal import client as journal
from farshore_agent.mysql.journal.launch import RECEIVER, SERVER, RolePaths, read_pid
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

Found = TypeVar("Found")

USER = "farshore_repl"
PASSWORD = "r3plication"

_server_ids = itertools.count(900_000_000 + os.getpid() % 50_000 * 1000)


def make_account(server: MySQLServer) -> None:
    """The replication account; it leaves no GTID. A read-only server must have it already."""
    if server.scalar("SELECT COUNT(*) FROM mysql.user WHERE user=%s", (USER,)):
        return
    server.execute(
        "SET sql_log_bin=0",
        f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {USER}@'%'",
    )


@dataclass
class Stream:
    """One journal of one source, with its two processes."""

    source: MySQLServer
    config: journal.JournalConfig
    replicas: list[MySQLServer] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.config.directory

    def receive(self) -> journal.ReceiverClient:
        return journal.ensure_receiver(self.config)

    def serve(self) -> journal.ServerClient:
        return journal.ensure_server(self.config)

    @property
    def receiver(self) -> journal.ReceiverClient:
        return journal.ReceiverClient(self.directory)

    @property
    def server(self) -> journal.ServerClient:
        return journal.ServerClient(self.directory)

    def pid(self, role: str) -> int:
        found = read_pid(RolePaths(self.directory, role))
        assert found is not None
        return found

    def kill(self, role: str) -> None:
        """kill -9, and wait until the process is gone."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"{role} {pid} is gone")

    def until(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait, and on failure say what the receiver says."""
        try:
            return wait_until(condition, what)
        except AssertionError as error:
            log = self.receiver.log_file.read_text()[-2000:]
            raise AssertionError(f"{error}\n{self.receiver.state()}\n{log}") from error

    def caught_up(self) -> None:
        """Wait until everything that the source has committed is durable in the journal."""
        wanted = self.source.gtid_executed()
        assert self.receiver.wait_contains(wanted, 60), f"{wanted} not in {self.receiver.state()}"

    def stopped_as(self, code: journal.StopCode) -> journal.StopReason:
        """Wait until the stream says that it stopped for this reason."""

        def stopped() -> journal.StopReason | None:
            reason = self.receiver.state().stopped
            return reason if reason and reason.code is code else None

        found = self.until(stopped, f"stopped as {code}")
        assert found is not None
        return found

    def mode(self, mode: journal.Mode) -> journal.ReceiverState:
        """Wait until the receiver is in this mode."""
        self.until(lambda: self.receiver.state().mode is mode, f"the receiver is {mode}")
        return self.receiver.state()

    def segment_directory(self) -> Path:
        return self.directory / "segments" / self.receiver.state().segment

    def files(self) -> list[Path]:
        """Binary log files of the newest segment, in order."""
        names = (self.segment_directory() / "index").read_text().split()
        return [self.segment_directory() / name.removeprefix("./") for name in names]

    def assert_files_equal_the_source_s(self) -> None:
        """Closed files are byte-identical; the last one differs at most in its end and the in-use flag."""
        files = self.files()
        for path in files[:-1]:
            assert path.read_bytes() == (self.source.datadir / path.name).read_bytes(), path.name
        mine, theirs = files[-1].read_bytes(), bytearray((self.source.datadir / files[-1].name).read_bytes())
        theirs[21] &= 0xFE  # in use, while the source is up
        assert bytes(theirs[: len(mine)]) == mine

    def follow(self, replica: MySQLServer, *, tls: str = "verify", **settings: Any) -> None:
        """Point a real replica's channel at this journal and start it."""
        at, login = self.server.state(), self.server.credentials()
        values = {
            "SOURCE_HOST": at.host,
            "SOURCE_PORT": at.port,
            "SOURCE_USER": login.user,
            "SOURCE_PASSWORD": login.password_file.read_text().strip(),
            "SOURCE_AUTO_POSITION": 1,
            "SOURCE_SSL": int(tls != "off"),
            "SOURCE_SSL_CA": str(login.ca_file) if tls == "verify" else "",
            "SOURCE_SSL_VERIFY_SERVER_CERT": int(tls == "verify"),
            "SOURCE_HEARTBEAT_PERIOD": 1,
            "SOURCE_CONNECT_RETRY": 1,
            **settings,
        }
        words = ", ".join(f"{name}={value!r}" for name, value in values.items())
        replica.execute("STOP REPLICA", f"CHANGE REPLICATION SOURCE TO {words}", "START REPLICA")

    def applied_by(self, replica: MySQLServer) -> None:
        """Wait until the replica has applied everything that the source has committed."""
        wanted = self.source.gtid_executed()
        late = replica.scalar("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", (wanted,))
        assert late == 0, (replica_errors(replica), self.server.state())

    def stop(self) -> None:
        self.receiver.stop()
        self.server.stop()


def replica_errors(replica: MySQLServer) -> list[tuple[Any, ...]]:
    return replica.query(
        "SELECT last_error_number, last_error_message FROM performance_schema.replication_connection_status"
    ) + replica.query(
        "SELECT last_error_number, last_error_message FROM performance_schema.replication_applier_status_by_worker "
        "WHERE last_error_number"
    )


def fresh_standby(replica: MySQLServer) -> None:
    """Empty, without any GTID, and read-only, as a standby is before its first transaction."""
    replica.execute(
        "SET GLOBAL super_read_only=0",
        "RESET BINARY LOGS AND GTIDS",
        "SET GLOBAL super_read_only=1",
    )


MakeStream = Callable[..., Stream]


def stream_factory(tmp: Path) -> Iterator[MakeStream]:
    made: list[Stream] = []

    def make(source: MySQLServer, *, name: str = "journal", **settings: Any) -> Stream:
        """A stream of `source`; `settings` replace those of the configuration."""
        make_account(source)
        password = tmp / f"{name}.password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        config = journal.JournalConfig(
            directory=tmp / name,
            pair="orders",
            epoch=2,
            source=journal.Source(
                host="127.0.0.1",
                port=source.port,
                user=USER,
                password_file=password,
                expected_server_uuid=source.scalar("SELECT @@server_uuid"),
            ),
            server_id=next(_server_ids),
            server_uuid=str(uuid.uuid4()),
            heartbeat_seconds=0.5,
            start_gtid_set="",
        )
        stream = Stream(source, replace(config, **settings))
        made.append(stream)
        return stream

    yield make
    for stream in made:
        stream.stop()


@pytest.fixture
def make_stream(tmp_path: Path) -> Iterator[MakeStream]:
    """A factory of streams; their processes end with the test."""
    yield from stream_factory(tmp_path)


@pytest.fixture(scope="module")
def make_stream_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStream]:
    yield from stream_factory(tmp_path_factory.mktemp("journals"))


__all__ = ["RECEIVER", "SERVER"]
