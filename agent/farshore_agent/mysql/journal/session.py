"""One connection to the journal server: login, the few questions a replica asks, then the dump.

The exchange with a 9.7 replica is recorded in docs/journal.md. Anything else is answered with an error that says so.
This module must not know listening or other connections, except through the registry it is given.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Final

from farshore_agent.mysql.journal import wire
from farshore_agent.mysql.journal.errors import Corrupt, Permanent
from farshore_agent.mysql.journal.feed import Feed
from farshore_agent.mysql.journal.gtid import GtidSet, GtidSyntaxError
from farshore_agent.mysql.journal.login import Account, LoginRefused, accept_login
from farshore_agent.mysql.journal.reader import JournalReader, NotServable
from farshore_agent.mysql.journal.state import ServedReplica
from farshore_agent.mysql.journal.wake import Sleeper
from farshore_agent.mysql.journal.wire import PacketChannel, ProtocolError

LOGIN_SECONDS: Final = 10.0
COMMAND_BYTES_MAX: Final = 64 << 20
"""A dump request carries the replica's whole GTID set."""
QUERIES_MAX: Final = 200
TCP_KEEPALIVE_IDLE_SECONDS: Final = 10
TCP_KEEPALIVE_INTERVAL_SECONDS: Final = 5
TCP_KEEPALIVE_PROBES: Final = 3

_HEARTBEAT: Final = re.compile(r"HEARTBEAT_PERIOD\s*=\s*(\d+)", re.IGNORECASE)
_UUID: Final = re.compile(r"@(?:REPLICA|SLAVE)_UUID\s*=\s*'([0-9a-f-]{36})'", re.IGNORECASE)

log = logging.getLogger("journal.server")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How the journal presents itself: as the source whose events it serves."""

    server_uuid: str
    server_id: int
    version: str


@dataclass(kw_only=True)
class Session:
    """State of one connection, read by the registry while it runs."""

    number: int
    sock: socket.socket
    address: str
    user: str = ""
    replica_uuid: str = ""
    server_id: int = 0
    requested: str = ""
    heartbeat_seconds: float = 0.0
    since_unix: float = field(default_factory=time.time)
    feed: Feed | None = None
    ended: bool = False

    def end(self) -> None:
        """Disconnect; from any thread."""
        self.ended = True
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def served(self) -> ServedReplica | None:
        """What state reports of it; None before it asks for a dump."""
        feed = self.feed
        if feed is None:
            return None
        return ServedReplica(
            connection=self.number,
            user=self.user,
            address=self.address,
            replica_uuid=self.replica_uuid,
            server_id=self.server_id,
            requested=self.requested,
            segment=feed.place.segment,
            file=feed.place.file,
            position=feed.position,
            since_unix=self.since_unix,
        )


class Conversation:
    """Runs one session from greeting to end."""

    def __init__(
        self, session: Session, *, identity: Identity, account: Account, tls: ssl.SSLContext, reader: JournalReader,
        sleeper: Sleeper,
    ) -> None:  # fmt: skip
        self._session = session
        self._identity = identity
        self._account = account
        self._tls = tls
        self._reader = reader
        self._sleeper = sleeper
        self._channel: PacketChannel | None = None

    def login(self) -> None:
        """Raises LoginRefused, ProtocolError, OSError, EOFError."""
        session = self._session
        session.sock.settimeout(LOGIN_SECONDS)
        _keep_alive(session.sock)
        self._channel, session.user = accept_login(
            session.sock,
            connection_id=session.number,
            version=f"{self._identity.version}-farshore",
            account=self._account,
            tls=self._tls,
        )
        session.sock = self._channel.sock

    def answer(self) -> bytes:
        """Answer questions until the replica asks for a dump; returns the request. Raises as `login`."""
        channel = self._logged_in()
        for _ in range(QUERIES_MAX):
            payload = channel.receive(bytes_max=COMMAND_BYTES_MAX)
            command = payload[0] if payload else wire.COM_QUIT
            if command == wire.COM_BINLOG_DUMP_GTID:
                return payload
            if command == wire.COM_QUIT:
                break
            if command == wire.COM_QUERY:
                self._query(channel, payload[1:].decode("utf-8", "replace"))
            elif command in (wire.COM_REGISTER_REPLICA, wire.COM_PING):
                channel.send_ok()
            elif command == wire.COM_BINLOG_DUMP:
                channel.send_error(wire.ER_SOURCE_FATAL, "this journal serves by GTID only: set SOURCE_AUTO_POSITION=1")
            else:
                channel.send_error(wire.ER_UNKNOWN_COMMAND, f"this journal does not know command {command}")
        raise EOFError("the client left without asking for a dump")

    def _query(self, channel: PacketChannel, text: str) -> None:
        words = text.upper()
        if words.lstrip().startswith("SET"):
            self._note_settings(text)
            channel.send_ok()
            return
        for fragment, value in self._values():
            if fragment in words:
                channel.send_value(value, column=text[7:64].strip() or "value")
                return
        log.info("unknown question connection=%d text=%r", self._session.number, text[:200])
        channel.send_error(wire.ER_NOT_SUPPORTED, "this journal answers only what a replica asks")

    def _values(self) -> tuple[tuple[str, str], ...]:
        return (
            ("UNIX_TIMESTAMP", str(int(time.time()))),
            ("SERVER_UUID", self._identity.server_uuid),
            ("SERVER_ID", str(self._identity.server_id)),
            ("CHECKSUM", "CRC32"),
            ("GTID_MODE", "ON"),
            ("RPL_SEMI_SYNC", "0"),
            ("VERSION()", f"{self._identity.version}-farshore"),
        )

    def _note_settings(self, text: str) -> None:
        session = self._session
        if period := _HEARTBEAT.search(text):
            session.heartbeat_seconds = int(period[1]) / 1e9
        if uuid := _UUID.search(text):
            session.replica_uuid = uuid[1].lower()

    def dump(self, request: bytes) -> None:
        """Serve until the end. Raises Corrupt after telling the replica, OSError, EOFError."""
        channel, session = self._logged_in(), self._session
        flags, session.server_id, encoded = wire.parse_dump_request(request)
        try:
            held = GtidSet.decode(encoded)
            session.requested = str(held)
            feed = Feed(
                channel,
                self._reader,
                self._sleeper,
                held=held,
                heartbeat_seconds=session.heartbeat_seconds,
                heartbeat_v2=bool(flags & wire.DUMP_HEARTBEAT_V2),
            )
            place = self._reader.choose(held)
            session.sock.settimeout(None)
            session.feed = feed
            log.info("dump begins connection=%d replica=%s file=%s", session.number, session.replica_uuid, place.file)
            feed.run(place, ended=lambda: session.ended)
        except (NotServable, Corrupt, GtidSyntaxError) as error:
            channel.send_error(wire.ER_SOURCE_FATAL, _text(error))
            raise

    def _logged_in(self) -> PacketChannel:
        if self._channel is None:
            raise ProtocolError("no login yet")
        return self._channel


def _text(error: Permanent) -> str:
    if isinstance(error, Corrupt):
        return (
            f"Farshore journal: file {error.file.rsplit('/', 1)[-1]} is damaged at offset {error.offset}; see its log"
        )
    return f"Farshore journal: {error.message}"


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TCP_KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, TCP_KEEPALIVE_PROBES)


__all__ = ["Conversation", "Identity", "LoginRefused", "Session"]
