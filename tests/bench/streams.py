"""Ways for a target to follow a source: directly, which is the peer, and from our journal."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from farshore_agent.mysql.journal.client import (
    JournalConfig,
    ReceiverClient,
    ServerClient,
    Source,
    adopt_receiver,
    adopt_server,
    ensure_receiver,
    ensure_server,
)
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

ACCOUNT = ("bench_stream", "bench-stream-password")
WORKERS = "replica_parallel_workers=4"


def source_account(source: MySQLServer) -> None:
    """Make the account that both ways dial the source with."""
    source.execute(
        "SET sql_log_bin = 0",
        f"CREATE USER {ACCOUNT[0]}@'%' IDENTIFIED BY '{ACCOUNT[1]}'",
        f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {ACCOUNT[0]}@'%'",
    )


class Journal:
    """Receiver and server of one stream."""

    def __init__(self, directory: Path, source: MySQLServer, *, start: str | None = "") -> None:
        self.directory = directory / "journal"
        password = directory / "source.password"
        password.write_text(ACCOUNT[1])
        password.chmod(0o600)
        self.config = JournalConfig(
            directory=self.directory,
            pair="bench",
            epoch=2,
            source=Source(
                host="127.0.0.1",
                port=source.port,
                user=ACCOUNT[0],
                password_file=password,
                expected_server_uuid=str(source.scalar("SELECT @@server_uuid")),
            ),
            server_id=990_000 + os.getpid() % 1000,
            server_uuid=str(uuid.uuid4()),
            start_gtid_set=start,
        )

    def start(self) -> None:
        """Start both processes, or find them."""
        self.receiver: ReceiverClient = ensure_receiver(self.config)
        self.server: ServerClient = ensure_server(self.config)

    def close(self) -> None:
        """End both processes and forget the journal."""
        for found in (adopt_receiver(self.directory), adopt_server(self.directory)):
            if found is not None:
                found.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def follow_directly(target: MySQLServer, source: MySQLServer) -> None:
    """Point the target at the source."""
    _change(target, source.port, ACCOUNT[0], ACCOUNT[1])


def follow_journal(target: MySQLServer, journal: Journal) -> None:
    """Point the target at the journal's server."""
    credentials = journal.server.credentials()
    _change(target, journal.server.state().port, credentials.user, credentials.password_file.read_text().strip())


def _change(target: MySQLServer, port: int, user: str, password: str) -> None:
    target.execute(
        "STOP REPLICA",
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='{user}', "
        f"SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, SOURCE_SSL=1, SOURCE_CONNECT_RETRY=1, "
        "SOURCE_HEARTBEAT_PERIOD=1",
    )


def fresh_target(directory: Path, name: str) -> MySQLServer:
    """Return an empty started target."""
    return MySQLServer.create(directory, name=name, options=[WORKERS])


def wait_applied(target: MySQLServer, position: str, seconds: int = 300) -> None:
    """Wait until the target has applied everything up to a GTID set; raise AssertionError when it has not in time."""
    if target.scalar("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (position, seconds)) != 0:
        raise AssertionError(f"the target did not apply {position} in {seconds} s")


def wait_journaled(journal: Journal, position: str) -> None:
    """Wait until the journal holds everything up to a GTID set."""

    def held() -> bool:
        return journal.receiver.wait_contains(position, 5.0)

    wait_until(held, "the journal holds everything", seconds=300)


def rss_megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def alternately(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each way in turn, `rounds` times."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            measured[name].append(measure())
    return measured
