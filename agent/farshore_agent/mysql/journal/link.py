"""The connection to the source: login, facts, the choice of the first file, and the start of a dump.

Every error of PyMySQL and of sockets stops here and becomes a StreamStopped with a stable code. This module must not
know files of the journal; it moves bytes from a socket to an Ingest.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pymysql
from pymysql.connections import Connection

from farshore_agent.mysql.journal import events, wire
from farshore_agent.mysql.journal.config import JournalConfig, Source, TlsMode
from farshore_agent.mysql.journal.errors import NEW_HISTORY_HINT, StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.ingest import SYNC_BYTES_MAX, Ingest
from farshore_agent.mysql.journal.wirefaults import SourceSaid, checksum_off

CONNECT_SECONDS: Final = 10.0
QUERY_SECONDS: Final = 30.0
SILENCE_HEARTBEATS: Final = 4
SILENCE_SECONDS_MIN: Final = 5.0
PROBE_PACKETS_MAX: Final = 64
PREVIOUS_GTIDS_BYTES_MAX: Final = 64 << 20

_ACCESS_ERRORS: Final = frozenset({1044, 1045, 1142, 1227, 1396, 1698, 3118, 3955})
"""Access denied in its forms, missing privilege, account locked."""
_FACTS: Final = (
    "server_uuid", "server_id", "version", "gtid_mode", "log_bin", "binlog_checksum", "log_replica_updates",
    "super_read_only", "gtid_executed", "gtid_purged",
)  # fmt: skip
_TEXTS_PURGED: Final = ("purged required binary logs", "Could not find first log file name", "could not find next log")
_TEXTS_BEHIND: Final = ("position > file size", "impossible position")


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What the source said about itself at the dial."""

    server_uuid: str
    server_id: int
    version: str
    log_replica_updates: bool
    super_read_only: bool
    executed: GtidSet
    purged: GtidSet

    @property
    def applies_unlogged(self) -> bool:
        """A standby that applies without logging: what it executes never appears in its binary log."""
        return self.super_read_only and not self.log_replica_updates


@dataclass(frozen=True, kw_only=True)
class FileHead:
    """How a file of the source begins."""

    name: str
    previous: GtidSet
    checksums: bool
    raw: bytes
    """Format description and PREVIOUS_GTIDS, as in the file."""


class SourceLink:
    """One connection. Every method raises StreamStopped."""

    def __init__(self, config: JournalConfig) -> None:
        """Connect and log in."""
        self._config = config
        with _as_stops(config.source):
            self._connection = _connect(config.source)
        self.closed = False

    def facts(self) -> SourceFacts:
        """Read the source's identity and history, and refuse one that cannot feed this journal."""
        with _as_stops(self._config.source), self._connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in _FACTS))
            row = cursor.fetchone()
        said = dict(zip(_FACTS, map(str, row or ()), strict=True))
        _check_suitable(said, self._config.source)
        return SourceFacts(
            server_uuid=said["server_uuid"].lower(),
            server_id=int(said["server_id"]),
            version=said["version"],
            log_replica_updates=said["log_replica_updates"] == "1",
            super_read_only=said["super_read_only"] == "1",
            executed=GtidSet.parse(said["gtid_executed"]),
            purged=GtidSet.parse(said["gtid_purged"]),
        )

    def first_file(self, held: GtidSet) -> FileHead:
        """Find the newest file that contains everything after `held`, by asking for a dump and reading its head."""
        self._start_dump(file="", position=events.FIRST_POSITION, held=held, non_blocking=True)
        return self._read_head()

    def head_of(self, file: str) -> FileHead:
        """Read the head of one file. The connection cannot be used for anything else afterwards."""
        self._start_dump(file=file, position=events.FIRST_POSITION, held=GtidSet(), non_blocking=True)
        return self._read_head()

    def _read_head(self) -> FileHead:
        name, described = "", b""
        for _ in range(PROBE_PACKETS_MAX):
            with _as_stops(self._config.source):
                payload = bytes(_packet(self._connection))
            if payload[0] != wire.OK:
                break
            event = payload[1:]
            kind = event[4]
            if kind == events.ROTATE:
                name = events.read_rotate(event)[0]
            elif kind == events.FORMAT_DESCRIPTION:
                described = event
            elif kind == events.PREVIOUS_GTIDS:
                checksums = events.has_crc32(described)
                body = event if checksums else event + bytes(events.CHECKSUM_BYTES)
                previous = events.read_previous_gtids(body)
                return FileHead(name=name, previous=previous, checksums=checksums, raw=described + event)
        raise StreamStopped(
            StopCode.SOURCE_UNREACHABLE, "the source sent no binary log file", hint="It is tried again by itself."
        )

    def start(self, *, file: str, position: int, non_blocking: bool) -> None:
        """Ask for every byte of `file` from `position` on, and of the files after it.

        The GTID set is empty on purpose: with a file name the source then leaves nothing out and checks nothing
        (check_start_file), so the bytes continue ours exactly; what must be checked, the caller checked from `facts`.
        """
        self._start_dump(file=file, position=position, held=GtidSet(), non_blocking=non_blocking)

    def _start_dump(self, *, file: str, position: int, held: GtidSet, non_blocking: bool) -> None:
        config = self._config
        period = int(config.heartbeat_seconds * 1e9)
        with _as_stops(config.source):
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"SET @master_heartbeat_period={period}, @source_heartbeat_period={period}, "
                    "@master_binlog_checksum='CRC32', @source_binlog_checksum='CRC32'"
                )
                cursor.execute("SET @slave_uuid=%s, @replica_uuid=%s", (config.server_uuid, config.server_uuid))
            register = wire.register_request(
                server_id=config.server_id, host=config.listen_host, port=config.listen_port
            )
            self._command(register)
            _packet(self._connection)
            flags = wire.DUMP_HEARTBEAT_V2 | wire.DUMP_THROUGH_GTID | (wire.DUMP_NON_BLOCK if non_blocking else 0)
            self._command(
                wire.dump_request(
                    flags=flags, server_id=config.server_id, file=file, position=position, gtid_set=held.encode()
                )
            )

    def _command(self, payload: bytes) -> None:
        framed, sequence = wire.frame(payload, 0)
        connection: Any = self._connection
        connection._sock.sendall(framed)
        connection._next_seq_id = sequence

    def pump(self, ingest: Ingest, stopping: Callable[[], bool]) -> None:
        """Move bytes into `ingest`; see `pump`."""
        silence = max(SILENCE_SECONDS_MIN, self._config.heartbeat_seconds * SILENCE_HEARTBEATS)
        pump(self._socket(), ingest, stopping=stopping, silence_seconds=silence)

    def _socket(self) -> socket.socket:
        connection: Any = self._connection
        sock: socket.socket = connection._sock
        return sock

    def close(self) -> None:
        """Close now; also ends a `pump` in another thread. Idempotent."""
        self.closed = True
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            _shut_down(sock)

    def release(self) -> None:
        """Free the descriptor; only by the thread that pumps."""
        self.closed = True
        self._connection._force_close()  # type: ignore[attr-defined]  # close() would send COM_QUIT into a dump


def pump(sock: socket.socket, ingest: Ingest, *, stopping: Callable[[], bool], silence_seconds: float) -> None:
    """Move bytes into `ingest` until the source says that this is all, or until `stopping` and nothing is left to read.

    Committed whenever the connection runs dry, and every SYNC_BYTES_MAX while it does not. What had arrived when the
    connection ends, in whatever way, is committed before this returns or raises: at a failover it may be the last of a
    lost site. Raises StreamStopped; OSError comes only from the journal's disk.
    """
    sock.setblocking(False)
    try:
        while not ingest.ended:
            count, dry = _fill(sock, ingest.room())
            if count:
                ingest.take(count)
            if dry:
                ingest.commit()
                if stopping():
                    break
                if not ingest.ended and not _readable(sock, silence_seconds):
                    raise _unreachable(f"the source sent nothing, not even a heartbeat, for {silence_seconds:g} s")
            elif ingest.unsynced_bytes >= SYNC_BYTES_MAX:
                ingest.commit()
            else:
                ingest.hasten()
    except (StreamStopped, SourceSaid) as stop:
        ingest.commit()
        if isinstance(stop, SourceSaid):
            raise _dump_refused(stop) from stop
        raise
    ingest.commit()


def _shut_down(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # also of a TLS socket: no goodbye, just wake the reader
    except OSError:
        return  # already disconnected


def _connect(source: Source) -> Connection[Any]:
    password = source.password_file.read_text().rstrip("\n")
    options: dict[str, Any] = {"ssl_disabled": True}
    if source.tls.mode is not TlsMode.DISABLED:
        options = {"ssl": _tls_context(source)}
    return pymysql.connect(
        host=source.host,
        port=source.port,
        user=source.user,
        password=password.encode(),  # PyMySQL would encode text as latin1
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=QUERY_SECONDS,
        write_timeout=QUERY_SECONDS,
        program_name="farshore-journal",
        **options,
    )


def _tls_context(source: Source) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = source.tls.mode is TlsMode.VERIFY_IDENTITY
    if source.tls.mode is TlsMode.REQUIRED:
        context.verify_mode = ssl.CERT_NONE
    elif source.tls.ca_file is not None:
        context.load_verify_locations(cafile=str(source.tls.ca_file))
    else:
        context.load_default_certs()
    return context


def _packet(connection: Connection[Any]) -> bytes:
    """One whole packet; an error packet raises PyMySQL's exception."""
    reader: Any = connection
    return bytes(reader._read_packet().get_all_data())


def _fill(sock: socket.socket, room: memoryview) -> tuple[int, bool]:
    """Read what is there; return the count and whether the connection ran dry. TLS hands out 16 KiB at a time."""
    count = 0
    while count < len(room):
        try:
            got = sock.recv_into(room[count:])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return count, True
        except OSError as error:
            raise _unreachable(f"the connection to the source broke ({type(error).__name__})") from error
        if not got:
            if count:
                return count, False  # the next read meets the end again
            raise _unreachable("the source closed the connection")
        count += got
    return count, False


def _readable(sock: socket.socket, seconds: float) -> bool:
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | select.POLLERR | select.POLLHUP)
    return bool(poller.poll(seconds * 1000))


def _check_suitable(said: dict[str, str], source: Source) -> None:
    if said["server_uuid"].lower() != source.expected_server_uuid.lower():
        raise StreamStopped(
            StopCode.SOURCE_REPLACED,
            f"{source.host}:{source.port} is now the server {said['server_uuid']}, not {source.expected_server_uuid}",
            hint="If the endpoint was rebuilt or failed over inside its site, run: farshore rebind PAIR",
            evidence={"expected": source.expected_server_uuid.lower(), "found": said["server_uuid"].lower()},
        )
    for name, wanted in (("log_bin", "1"), ("gtid_mode", "ON")):
        if said[name] != wanted:
            raise StreamStopped(
                StopCode.SOURCE_UNSUITABLE,
                f"the source runs with {name}={said[name]}",
                hint=f"Set {name}=ON on the source (a restart for log_bin); then the stream goes on by itself.",
            )
    if said["binlog_checksum"] != "CRC32":
        raise checksum_off()


def _dump_refused(said: SourceSaid) -> StreamStopped:
    """Map an error packet of a dump; the number is 1236 for almost everything, so the text decides."""
    text = said.message
    if any(words in text for words in _TEXTS_PURGED):
        return StreamStopped(
            StopCode.SOURCE_PURGED, f"the source no longer has what comes next: {text}", hint=NEW_HISTORY_HINT
        )
    if any(words in text for words in _TEXTS_BEHIND):
        return StreamStopped(
            StopCode.HISTORY_RESET,
            f"the source's binary log ends before the journal does: {text}",
            hint=NEW_HISTORY_HINT,
        )
    if said.number in _ACCESS_ERRORS:
        return _refused(said.number, text)
    return StreamStopped(
        StopCode.SOURCE_UNREACHABLE,
        f"the source ended the stream: error {said.number}: {text}",
        hint="It is tried again by itself; see the source's error log.",
        evidence={"source_error": str(said.number)},
    )


def _refused(number: int, text: str) -> StreamStopped:
    return StreamStopped(
        StopCode.AUTH_FAILED,
        f"the source refused our account: error {number}: {text}",
        hint="Check the secret; the account needs: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO <account>",
    )


def _unreachable(message: str) -> StreamStopped:
    return StreamStopped(
        StopCode.SOURCE_UNREACHABLE, message, hint="It is tried again by itself; check host, port, network and TLS."
    )


@contextmanager
def _as_stops(source: Source) -> Iterator[None]:
    """Turn the errors of a conversation with the source into stop reasons."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        if number in _ACCESS_ERRORS:
            raise _refused(number, text) from error
        if number == wire.ER_SOURCE_FATAL:
            raise _dump_refused(SourceSaid(number, text)) from error
        raise _unreachable(f"{source.host}:{source.port}: {text or type(error).__name__}") from error
    except FileNotFoundError as error:
        raise StreamStopped(
            StopCode.AUTH_FAILED, f"{error.filename} does not exist", hint="Give the journal its secret again."
        ) from error
    except (OSError, EOFError) as error:
        raise _unreachable(f"{source.host}:{source.port}: {error}") from error
