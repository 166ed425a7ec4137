"""The journal server: listens, lets one generated account in over TLS, and serves each replica in a thread of its own.

It only reads: the journal's writer is another process, and killing either does not disturb the other. This module must
not know how events are read or sent.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from contextlib import closing
from typing import Final

from farshore_agent.mysql.journal import wire
from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.config import Listening
from farshore_agent.mysql.journal.control import CONTROL_VERSION
from farshore_agent.mysql.journal.credentials import Credentials, server_key_file
from farshore_agent.mysql.journal.disk import write_private
from farshore_agent.mysql.journal.errors import Corrupt, JournalError, Permanent
from farshore_agent.mysql.journal.login import Account, store_password
from farshore_agent.mysql.journal.reader import JournalReader
from farshore_agent.mysql.journal.session import Conversation, Identity, LoginRefused, Session
from farshore_agent.mysql.journal.state import Damage, ServerState
from farshore_agent.mysql.journal.wake import Sleeper
from farshore_agent.mysql.journal.wire import PacketChannel

CONNECTIONS_MAX: Final = 64
ACCEPT_BACKLOG: Final = 64
BIND_ATTEMPTS: Final = 20
BIND_RETRY_SECONDS: Final = 0.1

log = logging.getLogger("journal.server")


class Server:
    """One listening journal. Construct, `start`, `close`."""

    def __init__(self, journal: JournalDirectory, listening: Listening, credentials: Credentials) -> None:
        """Bind and load credentials. Raises Permanent (port in use, damaged secrets) and FormatTooNew."""
        journal.check_format()
        self._journal = journal
        self._listening = listening
        self._account = Account(
            user=credentials.user, stored=store_password(credentials.password_file.read_text().strip())
        )
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.load_cert_chain(credentials.certificate_file, server_key_file(journal))
        self._sleeper = Sleeper(journal.run / "server.wake")
        self._listener = self._listen()
        self.port: int = self._listener.getsockname()[1]
        self._sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._last = 0
        self._refused = 0
        self._damage: Damage | None = None
        self._ending = False

    def _listen(self) -> socket.socket:
        """Bind the configured port, or the one chosen at the first start: replicas know it."""
        kept = self._journal.run / "server.port"
        port = self._listening.port or (int(kept.read_text()) if kept.exists() else 0)
        listener = self._bind(port)
        if listener is None and not self._listening.port:
            log.warning("the kept port is taken port=%d", port)
            listener = self._bind(0)
        if listener is None:
            raise Permanent(
                f"port {port} of {self._listening.host} cannot be bound",
                hint="Choose another listen_port, or end what uses it.",
                code="PortInUse",
            )
        if not self._listening.port:
            write_private(kept, f"{listener.getsockname()[1]}\n")
        return listener

    def _bind(self, port: int) -> socket.socket | None:
        pause = threading.Event()
        for _ in range(BIND_ATTEMPTS):
            listener = socket.socket(socket.AF_INET6 if ":" in self._listening.host else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self._listening.host, port))
                listener.listen(ACCEPT_BACKLOG)
            except OSError:
                listener.close()
                pause.wait(BIND_RETRY_SECONDS)
            else:
                return listener
        return None

    def start(self) -> None:
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def _accept(self) -> None:
        while not self._ending:
            try:
                sock, address = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                self._last += 1
                session = Session(number=self._last, sock=sock, address=f"{address[0]}:{address[1]}")
                room = len(self._sessions) < CONNECTIONS_MAX
                if room:
                    self._sessions[session.number] = session
            if room:
                threading.Thread(target=self._run, args=(session,), name=f"replica-{self._last}", daemon=True).start()
            else:
                _turn_away(sock)

    def _run(self, session: Session) -> None:
        """One connection, to its end; the net for everything that happens in it."""
        try:
            self._converse(session)
        except LoginRefused as refused:
            with self._lock:
                self._refused += 1
            log.warning("login refused address=%s reason=%s", session.address, refused)
        except Corrupt as damage:
            log.error("damaged journal: %s", damage.message)
            with self._lock:
                self._damage = Damage(file=damage.file, offset=damage.offset, message=damage.message)
        except (JournalError, OSError, EOFError) as ended:
            log.info("connection ended number=%d address=%s reason=%s", session.number, session.address, ended)
        except Exception:
            log.exception("defect in connection %d", session.number)
        finally:
            session.sock.close()
            with self._lock:
                self._sessions.pop(session.number, None)

    def _converse(self, session: Session) -> None:
        with closing(JournalReader(self._journal)) as reader:
            conversation = Conversation(
                session,
                identity=self._identity(),
                account=self._account,
                tls=self._tls,
                reader=reader,
                sleeper=self._sleeper,
            )
            conversation.login()
            request = conversation.answer()
            self._replace_older(session)
            conversation.dump(request)

    def _identity(self) -> Identity:
        """The newest segment's source. Without a segment there is nothing to be: the replica tries again."""
        records = self._journal.records()
        if not records:
            raise EOFError("the journal has no segment yet")
        last = records[-1]
        return Identity(server_uuid=last.from_uuid, server_id=last.server_id, version=last.server_version)

    def _replace_older(self, session: Session) -> None:
        """A replica that comes again ends its older connection, which may hang half-open (as a source does)."""
        with self._lock:
            older = [
                other
                for other in self._sessions.values()
                if other is not session and session.replica_uuid and other.replica_uuid == session.replica_uuid
            ]
        for other in older:
            log.info("replaced connection=%d by=%d", other.number, session.number)
            other.end()
        self._sleeper.rouse()

    def state(self) -> ServerState:
        with self._lock:
            served = [session.served() for session in self._sessions.values()]
            return ServerState(
                host=self._listening.host,
                port=self.port,
                connections=tuple(item for item in served if item is not None),
                refused_logins=self._refused,
                damage=self._damage,
                pid=os.getpid(),
                version=CONTROL_VERSION,
            )

    def close(self) -> None:
        """Stop listening and disconnect every replica; they come again by themselves."""
        self._ending = True
        self._listener.close()
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end()
        self._sleeper.close()


def _turn_away(sock: socket.socket) -> None:
    with sock:
        try:
            sock.settimeout(1.0)
            PacketChannel(sock).send_error(wire.ER_TOO_MANY_CONNECTIONS, "Too many connections", state="08004")
        except OSError:
            return  # it has gone already
