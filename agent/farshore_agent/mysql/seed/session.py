"""One session with a MySQL server, down to its packets: the only module that touches PyMySQL and its private parts.

PyMySQL logs in and encrypts; what the seed needs beyond that is below its public interface: answers as raw bytes,
many questions sent before the first answer is read (a source may be a wide-area round trip away), a result set
forwarded as it comes, and a file sent to LOAD DATA LOCAL out of memory. The version of PyMySQL is pinned for it.

Errors leave as ConnectionLost and StatementFailed. It must not know what the statements are for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pymysql
from pymysql.connections import Connection
from pymysql.constants import COMMAND
from pymysql.protocol import OKPacketWrapper

from farshore_agent.mysql.seed.errors import ConnectionLost, Side, StatementFailed
from farshore_agent.mysql.seed.framing import RowFramer, RowsBroken

PIPELINE_STATEMENTS = 32
"""Statements sent ahead of their answers; their text must fit the socket's buffers, or both ends would wait."""
PIPELINE_BYTES_MAX = 32 * 1024
READ_BYTES = 256 * 1024
LOAD_PACKET_BYTES_MAX = 0xFFFFF0
"""Below the greatest packet, so that no piece of a file is ever continued by the next one."""
SMALL_PACKET_BYTES = 64 * 1024
"""Up to here one copy is cheaper than a second system call."""
KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 4

LOST_CODES = frozenset({0, 1053, 1077, 1079, 1080, 1152, 1184, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 3169, 4031})
"""Shutdown in progress, aborted, gone, lost, killed, timed out: errors that end a session (errmsg-utf8.txt)."""


class NullRow(Exception):
    """A row came as NULL: its CONCAT was longer than max_allowed_packet of the source."""


class Connect(Protocol):
    """Opens a session with one server, as the account made for it; the caller closes it.

    `program_name` must reach the server as a connection attribute: sessions that a dead seed left behind are found by
    it. `local_infile` is PyMySQL's argument of that name. Errors are pymysql's.
    """

    def __call__(self, *, program_name: str, local_infile: bool) -> Connection[Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a server answered to one statement."""

    rows: tuple[tuple[bytes | None, ...], ...] = ()
    """Columns as the server sent them; nothing is converted."""
    affected: int = 0
    warnings: int = 0

    def text(self) -> str:
        """Return the only value of the only row as text."""
        return decoded(self.rows[0][0])

    def number(self) -> int:
        """Return the only value of the only row as a whole number; NULL is 0."""
        return int(self.rows[0][0] or 0)

    def names(self) -> list[tuple[str, ...]]:
        """Return all rows as text; NULL is ''."""
        return [tuple(decoded(value) for value in row) for row in self.rows]


def decoded(value: bytes | None) -> str:
    """Return a value as text; bytes that are no UTF-8 survive a way there and back."""
    return (value or b"").decode("utf-8", "surrogateescape")


class Session:
    """A session in autocommit mode. Not for use by two threads at once, except `abort`."""

    def __init__(self, connect: Connect, side: Side, *, program_name: str) -> None:
        self.side: Side = side
        self._link: Any = None
        self._unfinished: RowFramer | None = None  # of a result set whose end was not read yet
        self.broken = False
        """Whether it was broken off; the server may not know yet."""
        try:
            self._link = connect(program_name=program_name, local_infile=side == "target")
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, "log in") from error
        self.id = int(self._link.thread_id())
        self._keep_alive()

    def ask(self, statement: str | bytes) -> Answer:
        """Run one statement and return the whole answer."""
        self.send(statement)
        return self.receive(statement)

    def ask_all(self, statements: Sequence[str | bytes]) -> Iterator[Answer]:
        """Run statements with few round trips and yield their answers in order.

        Stops at the first that fails; those sent ahead of it have then run too. For reading only.
        """
        waiting: list[str | bytes] = []
        for statement in statements:
            if len(waiting) >= PIPELINE_STATEMENTS or sum(map(len, waiting)) + len(statement) > PIPELINE_BYTES_MAX:
                yield from self._answers(waiting)
                waiting = []
            waiting.append(statement)
        yield from self._answers(waiting)

    def send(self, statement: str | bytes) -> None:
        """Send one statement; exactly one `receive` belongs to it."""
        octets = statement.encode("utf-8", "surrogateescape") if isinstance(statement, str) else statement
        self._command(octets, statement)

    def receive(self, statement: str | bytes = "") -> Answer:
        """Read the answer to the oldest unanswered statement; `statement` only names it in an error."""
        try:
            return self._answer()
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, statement) from error

    def rows(self, statement: str) -> Iterator[tuple[bytes | None, ...]]:
        """Run a SELECT and yield its rows one by one as they arrive; only the current row is in memory.

        When the caller stops in the middle, `drop_rows` makes the session usable again.
        """
        self.send(statement)
        try:
            columns = self._columns()
            self._unfinished = RowFramer()
            while True:
                packet = self._link._read_packet()
                if packet.is_eof_packet():
                    self._unfinished = None
                    return
                yield tuple(packet.read_length_coded_string() for _ in range(columns))
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, statement) from error

    def raw_rows(self, statement: str, framer: RowFramer) -> Iterator[bytes]:
        """Run a SELECT of one string column and yield its packets as they arrive, ready to be forwarded.

        `framer.rows` counts them. Raises NullRow for a row too long for CONCAT; as after any other exception in the
        middle, `drop_rows` makes the session usable again.
        """
        self.send(statement)
        try:
            self._columns()
            self._unfinished = framer
            stream = self._link._rfile
            while not framer.ended:
                octets = stream.read1(READ_BYTES)
                if not octets:
                    raise ConnectionLost(self.side, "the server closed it in the middle of a result")
                forward = framer.feed(octets)
                if framer.null_rows:
                    raise NullRow
                if forward:
                    yield forward
        except RowsBroken as error:
            self._unfinished = None
            raise self._failed(error.code, error.text, statement) from error
        except (pymysql.err.MySQLError, OSError, ValueError) as error:
            raise self._translated(error, statement) from error
        self._unfinished = None

    @property
    def sending(self) -> bool:
        """Whether the server is in the middle of a result set that nobody reads any more."""
        return self._unfinished is not None

    def drop_rows(self) -> None:
        """Read away the rest of a result whose reader stopped, up to its end or to the error that ended it."""
        framer, self._unfinished = self._unfinished, None
        stream = self._link._rfile
        try:
            while framer is not None and not framer.ended:
                octets = stream.read1(READ_BYTES)
                if not octets:
                    raise ConnectionLost(self.side, "the server closed it")
                framer.feed(octets)
        except RowsBroken:
            return
        except (OSError, ValueError) as error:
            raise ConnectionLost(self.side, str(error)) from error

    def load(self, statement: str, pieces: Iterator[bytes]) -> Answer:
        """Run LOAD DATA LOCAL and give it `pieces` as its file.

        When `pieces` raises, the session is closed without the empty packet that ends a file, so that the server
        rolls the statement back; the exception goes on.
        """
        self.send(statement)
        try:
            packet = self._link._read_packet()
            if not packet.is_load_local_packet():
                raise self._failed(0, "the server did not ask for the rows of LOAD DATA LOCAL", statement)
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, statement) from error
        try:
            sequence = self._send_file(pieces)
        except OSError as error:
            self.abort()
            raise ConnectionLost(self.side, f"{type(error).__name__} while rows were sent") from error
        except BaseException:
            self.abort()
            raise
        self._link._next_seq_id = (sequence + 1) % 256
        try:
            packet = self._link._read_packet()
            done = OKPacketWrapper(packet)
            return Answer(affected=done.affected_rows, warnings=done.warning_count)
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, statement) from error

    def abort(self) -> None:
        """End the session at once, from any thread: whoever waits in it gets ConnectionLost."""
        self.broken = True
        link = None if self._link is None else self._link._sock
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                link.close()

    def close(self) -> None:
        """Log off when that is possible, and release the socket in any case; a second call does nothing."""
        with contextlib.suppress(pymysql.err.MySQLError, OSError, ValueError, AttributeError):
            self._link.close()
        with contextlib.suppress(OSError):
            self._link._force_close()

    def _command(self, octets: bytes, statement: str | bytes) -> None:
        try:
            self._link._result = None  # else PyMySQL would read on in an answer that was taken raw
            self._link._execute_command(COMMAND.COM_QUERY, octets)
        except (pymysql.err.MySQLError, OSError) as error:
            raise self._translated(error, statement) from error

    def _answers(self, statements: Sequence[str | bytes]) -> list[Answer]:
        for statement in statements:
            self.send(statement)
        found: list[Answer] = []
        failure: StatementFailed | None = None
        for statement in statements:
            try:
                answer = self.receive(statement)
            except StatementFailed as error:
                failure = failure or error
            else:
                found.append(answer)
        if failure is not None:
            raise failure
        return found

    def _answer(self) -> Answer:
        self._link._next_seq_id = 1  # each answer counts from its own command
        packet = self._link._read_packet()
        if packet.is_ok_packet():
            done = OKPacketWrapper(packet)
            return Answer(affected=done.affected_rows, warnings=done.warning_count)
        columns = packet.read_length_encoded_integer()
        self._skip_columns(columns)
        rows: list[tuple[bytes | None, ...]] = []
        while True:
            packet = self._link._read_packet()
            if packet.is_eof_packet():
                return Answer(rows=tuple(rows))
            rows.append(tuple(packet.read_length_coded_string() for _ in range(columns)))

    def _columns(self) -> int:
        columns = int(self._link._read_packet().read_length_encoded_integer())
        self._skip_columns(columns)
        return columns

    def _skip_columns(self, columns: int) -> None:
        for _ in range(columns + 1):  # the definitions and the packet that ends them
            self._link._read_packet()

    def _send_file(self, pieces: Iterator[bytes]) -> int:
        link = self._link._sock
        sequence = 2  # after the command (0) and the server's request (1)
        for piece in pieces:
            for start in range(0, len(piece), LOAD_PACKET_BYTES_MAX):
                part = piece[start : start + LOAD_PACKET_BYTES_MAX] if len(piece) > LOAD_PACKET_BYTES_MAX else piece
                header = struct.pack("<I", len(part) | sequence << 24)
                if len(part) < SMALL_PACKET_BYTES:
                    link.sendall(header + part)
                else:
                    link.sendall(header)
                    link.sendall(part)
                sequence = (sequence + 1) % 256
        link.sendall(struct.pack("<I", sequence << 24))
        return sequence

    def _keep_alive(self) -> None:
        """Let the kernel notice a dead peer also while a statement runs for hours."""
        link = self._link._sock
        if link.family == socket.AF_UNIX:
            return
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    def _translated(self, error: Exception, statement: str | bytes) -> ConnectionLost | StatementFailed:
        self._unfinished = None
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if isinstance(error, pymysql.err.MySQLError) and code not in LOST_CODES:
            return self._failed(code, str(error.args[1]) if len(error.args) > 1 else "", statement)
        self.abort()
        return ConnectionLost(self.side, f"{type(error).__name__} {code or ''}".strip())

    def _failed(self, code: int, text: str, statement: str | bytes) -> StatementFailed:
        if isinstance(statement, bytes):
            statement = statement.decode("utf-8", "replace")
        # Of an INSERT only its head: the rest is somebody's data.
        return StatementFailed(self.side, code, text, statement=statement.partition(" VALUES ")[0])
