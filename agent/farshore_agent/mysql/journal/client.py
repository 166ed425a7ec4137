"""What the agent calls: the two processes of a journal, found or started, and what can be asked of them.

Every call opens its own short connection, so a client outlives restarts of the process and of the agent. Errors are
Transient (`NotRunning`, `NoAnswer`) or Permanent with a hint. This module must not know the agent.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_agent.mysql.journal import launch
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.certificates import ensure_credentials
from farshore_agent.mysql.journal.config import JournalConfig, Retention, Source, Tls, TlsMode, encode, encode_listening
from farshore_agent.mysql.journal.credentials import Credentials, credentials_of
from farshore_agent.mysql.journal.disk import PRIVATE_FILE
from farshore_agent.mysql.journal.errors import Corrupt, Permanent, StopCode, StopReason
from farshore_agent.mysql.journal.launch import RECEIVER, SERVER, RolePaths
from farshore_agent.mysql.journal.opensegment import segment_open
from farshore_agent.mysql.journal.scan import FileScan, damaged, scan_file
from farshore_agent.mysql.journal.state import Mode, ReceiverState, ServerState

__all__ = [
    "Corrupt",
    "Credentials",
    "JournalConfig",
    "Mode",
    "Permanent",
    "ReceiverClient",
    "ReceiverState",
    "Removed",
    "Retention",
    "SegmentRecord",
    "ServerClient",
    "ServerState",
    "Source",
    "StopCode",
    "StopReason",
    "Tls",
    "TlsMode",
    "adopt_receiver",
    "adopt_server",
    "catalogue",
    "ensure_receiver",
    "ensure_server",
    "verify",
]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What a purge removed."""

    files: tuple[str, ...]
    """As segment/file."""
    bytes: int
    uncovered: str
    """GTID set that no mark covered; only with consent. Whoever lacks it must be seeded again."""


class _Client:
    role = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._paths = RolePaths(directory, self.role)

    def _call(self, command: str, *, wait_seconds: float = 0.0, **arguments: Any) -> dict[str, Any]:
        with closing(launch.connect(self._paths)) as connection:
            return connection.call(command, wait_seconds=wait_seconds, **arguments)

    def stop(self) -> None:
        """End the process cleanly and wait for it. Idempotent. Starting it again continues where it was."""
        launch.stop(self._paths)

    @property
    def log_file(self) -> Path:
        return self._paths.log


class ReceiverClient(_Client):
    """The receiving process of one journal."""

    role = RECEIVER

    def state(self) -> ReceiverState:
        return ReceiverState.decode(self._call("state"))

    def end(self) -> str:
        """GTID set: everything a reader has who has read the whole journal up to now."""
        return str(self._call("end")["end"])

    def wait_contains(self, gtid_set: str, timeout: float) -> bool:
        """Wait up to `timeout` seconds until every transaction in `gtid_set` is durable in the journal."""
        answer = self._call("wait_end", wait_seconds=timeout, gtid_set=gtid_set, timeout_seconds=timeout)
        return bool(answer["contained"])

    def detach(self) -> str:
        """Stop receiving, durably: no restart of any process dials the source again. Returns the end. Idempotent."""
        return str(self._call("detach", wait_seconds=60.0)["end"])

    def attach(self) -> None:
        """Receive again, also after a final stop whose cause was removed. Idempotent."""
        self._call("attach")

    def refresh_start(self) -> str:
        """Take in now what a standby applied without logging; call it before that standby is opened for writes.

        Returns the start set. Publishing its first own transaction does the same by itself, one round trip later.
        """
        return str(self._call("refresh_start", wait_seconds=60.0)["start"])

    def seal(self) -> SegmentRecord:
        """Detach and end the segment for ever (role change). Returns its record with its end. Idempotent."""
        return SegmentRecord(**self._call("seal", wait_seconds=60.0))

    def set_retention_mark(self, gtid_set: str, *, segment: str | None = None) -> None:
        """Say what every reader that may still come has *durably*: read before a flush of its engine logs.

        Without a mark nothing is removed. `segment` sets the mark of one segment (a sealed one: the old side's).
        Kept in memory: set it again after a restart.
        """
        self._call("set_retention_mark", gtid_set=gtid_set, segment=segment)

    def purge(self, *, drop_uncovered: bool = False) -> Removed:
        """Apply retention now; it also runs by itself. `drop_uncovered`: consent to remove what no mark covers."""
        answer = self._call("purge", wait_seconds=60.0, drop_uncovered=drop_uncovered)
        return Removed(
            files=tuple(f"{item['segment']}/{item['file']}" for item in answer["removed"]),
            bytes=sum(item["bytes"] for item in answer["removed"]),
            uncovered=answer["uncovered"],
        )


class ServerClient(_Client):
    """The serving process of one journal."""

    role = SERVER

    def state(self) -> ServerState:
        return ServerState.decode(self._call("state"))

    def credentials(self) -> Credentials:
        """The account and the CA for the standby's channel; the password is in a 0600 file."""
        return credentials_of(JournalDirectory(self.directory))


# ---- find or start


def adopt_receiver(directory: Path) -> ReceiverClient | None:
    """Return a client of the running receiver, or None when none runs."""
    return ReceiverClient(directory) if launch.running_digest(RolePaths(directory, RECEIVER)) else None


def adopt_server(directory: Path) -> ServerClient | None:
    """Return a client of the running server, or None when none runs."""
    return ServerClient(directory) if launch.running_digest(RolePaths(directory, SERVER)) else None


def ensure_receiver(config: JournalConfig) -> ReceiverClient:
    """Find the receiver with these settings, or start it (again, when the settings changed). Idempotent.

    Raises Permanent: FormatTooNew, SegmentOpen (another stream's segment must be sealed first), EpochTooOld, Busy.
    """
    client = ReceiverClient(config.directory)
    with _launching(config) as journal:
        records = journal.records()
        last = records[-1] if records else None
        stream = (config.epoch, config.source.expected_server_uuid.lower())
        if last and not last.sealed and (last.epoch, last.from_uuid) != stream:
            raise segment_open(last)
        _ensure(client._paths, encode(config))
    return client


def ensure_server(config: JournalConfig) -> ServerClient:
    """Find the server with these settings, or start it (again, when the settings changed). Idempotent.

    Makes the account and the certificate first when they are missing. Only directory and listening address matter.
    """
    client = ServerClient(config.directory)
    with _launching(config) as journal:
        ensure_credentials(journal, host=config.listen_host)
        _ensure(client._paths, encode_listening(config))
    return client


def _ensure(paths: RolePaths, settings: str) -> None:
    running = launch.running_digest(paths)
    if running == launch.config_digest(settings):
        return
    if running is not None:
        launch.stop(paths)
    launch.start(paths, settings)


@contextmanager
def _launching(config: JournalConfig) -> Iterator[JournalDirectory]:
    """Only one starter at a time; waits for another's start to end."""
    journal = JournalDirectory(config.directory)
    config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(config.directory / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        journal.create(pair=config.pair)
        yield journal
    finally:
        os.close(fd)


# ---- without any process


def catalogue(directory: Path) -> list[SegmentRecord]:
    """The segments of a journal, in order; needs no running process. Raises Permanent when there is no journal."""
    journal = JournalDirectory(directory)
    journal.check_format()
    return journal.records()


def verify(directory: Path) -> list[tuple[Path, FileScan]]:
    """Check every event of every closed file; needs no running process. Returns each file with what was found.

    Raises Corrupt, naming file and offset, at the first file that is not whole. Reads everything: minutes for 100 GB.
    """
    journal = JournalDirectory(directory)
    journal.check_format()
    found = []
    for record in journal.records():
        files = journal.files(record.name)
        for file in files if record.sealed else files[:-1]:
            path = journal.segment(record.name) / file
            scan = scan_file(path)
            if not scan.whole:
                raise damaged(path, scan.damage_at, scan.damage)
            found.append((path, scan))
    return found
