"""Connections to the two endpoints of a pair: who logs in where, under which TLS mode, and which error that becomes.

PyMySQL stops here: everything above sees `Session` and our own errors (`Unreachable`, `Rejected`, `Permanent` with the
codes of the errors table). Every wait is bounded. It knows nothing of roles, streams or seeds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

import pymysql
from pymysql.constants import CR, ER

from farshore_schema.documents import Credential, MySQLEndpoint, MySQLPair
from farshore_schema.errors import FarshoreError, Permanent, Transient
from farshore_schema.roles import Side

PROGRAM: Final = "farshore"
"""The program_name of all our sessions; a fence spares the sessions that carry it under one of our accounts."""
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
"""The longest a statement may stay silent; longer work is cut into slices by its caller."""
IDLE_SECONDS: Final = 86400
"""wait_timeout of our sessions: persistent ones must not be dropped while nothing happens."""
LOCK_SECONDS: Final = 5
"""lock_wait_timeout of our sessions: nothing of ours queues behind a customer's lock for long."""
RETRY_SECONDS: Final = 1.0

Purpose = Literal["admin", "replication"]
Row = tuple[Any, ...]

_DENIED: Final = frozenset(
    {
        ER.DBACCESS_DENIED_ERROR,
        ER.ACCESS_DENIED_ERROR,
        1130,  # ER_HOST_NOT_PRIVILEGED
        1251,  # ER_NOT_SUPPORTED_AUTH_MODE
        1698,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
        1820,  # ER_MUST_CHANGE_PASSWORD
        1862,  # ER_MUST_CHANGE_PASSWORD_LOGIN
        3118,  # ER_ACCOUNT_HAS_BEEN_LOCKED
        3955,  # ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
    }
)
_MISSING_PRIVILEGE: Final = frozenset({1142, 1143, 1227, 1370, 1419, 3530})
"""Table, column, specific, routine access; log_bin_trust_function_creators; ER_ROLE_NOT_GRANTED."""
_FULL: Final = frozenset({1021, 1114})  # ER_DISK_FULL, ER_RECORD_FILE_FULL
_GOING: Final = frozenset(
    {
        1040,  # ER_CON_COUNT_ERROR: too many connections
        1053,  # ER_SERVER_SHUTDOWN
        1077,  # ER_NORMAL_SHUTDOWN
        1203,  # ER_TOO_MANY_USER_CONNECTIONS
        1226,  # ER_USER_LIMIT_REACHED
        1317,  # ER_QUERY_INTERRUPTED
        1927,  # ER_CONNECTION_KILLED (MariaDB)
        3032,  # ER_SERVER_OFFLINE_MODE
        3168,  # ER_SERVER_ISNT_AVAILABLE
        4031,  # ER_CLIENT_INTERACTION_TIMEOUT
    }
)
SECURE_TRANSPORT_REQUIRED: Final = 3159  # ER_SECURE_TRANSPORT_REQUIRED
LOCK_WAIT_TIMEOUT: Final = 1205
QUERY_INTERRUPTED: Final = 1317
READ_ONLY: Final = 1290  # ER_OPTION_PREVENTS_STATEMENT
NO_SUCH_THREAD: Final = 1094
NO_SUCH_CHANNEL: Final = 3074  # ER_REPLICA_CHANNEL_DOES_NOT_EXIST
_NUMBERS_MAX: Final = 65535


class Unreachable(Transient):
    """Nothing answered, or the connection broke. `down` tells that the host itself said that no server is there."""

    def __init__(self, message: str, *, down: bool, field: str | None = None) -> None:
        super().__init__(
            "unreachable",
            message,
            retry_seconds=RETRY_SECONDS,
            hint="check that the server runs and that its port is open to the site's gateway",
            field=field,
        )
        self.down = down


class Busy(Transient):
    """The server is there and would not take or keep this session: too many connections, shutdown, offline mode."""

    def __init__(self, message: str, *, number: int, field: str | None = None) -> None:
        super().__init__("unreachable", message, retry_seconds=RETRY_SECONDS, field=field)
        self.number = number


class Rejected(Permanent):
    """The server answered a statement with an error; `number` is MySQL's own."""

    def __init__(self, code: str, message: str, *, number: int, hint: str = "", field: str | None = None) -> None:
        super().__init__(code, message, hint=hint, field=field)
        self.number = number


@dataclass(frozen=True, kw_only=True)
class Address:
    """One login at one endpoint. The password is asked for at every dial, so that a rotated one is found."""

    side: Side
    purpose: Purpose
    host: str
    port: int
    user: str
    password: Callable[[], str] = field(repr=False, compare=False)
    tls_mode: str = "required"
    tls_ca_file: str | None = None

    @property
    def place(self) -> str:
        """Where this login stands in the declaration, for `field` of errors and findings."""
        return f"site_{self.side}.{self.purpose}"

    @property
    def words(self) -> str:
        """The login for people."""
        return f"{self.user} at {self.host}:{self.port}"


def endpoint(document: MySQLPair, side: Side) -> MySQLEndpoint:
    """Return the endpoint of one side."""
    return document.site_a if side == "a" else document.site_b


def address(document: MySQLPair, side: Side, purpose: Purpose, secret: Callable[[str], str]) -> Address:
    """Return the login of one side: `admin` only on its own gateway, `replication` only on the peer's (R6)."""
    at = endpoint(document, side)
    credential: Credential = at.admin if purpose == "admin" else at.replication
    reference = credential.password
    return Address(
        side=side,
        purpose=purpose,
        host=at.host,
        port=at.port,
        user=credential.user,
        password=lambda: secret(reference),
        tls_mode=at.tls.mode,
        tls_ca_file=at.tls.ca_file,
    )


def dial(to: Address, *, connect_seconds: float = CONNECT_SECONDS, answer_seconds: float = ANSWER_SECONDS) -> Session:
    """Log in. Raises Unreachable, Busy, or Permanent with the code that names what is wrong with the declaration."""
    arguments: dict[str, Any] = {
        "host": to.host,
        "port": to.port,
        "user": to.user,
        "password": to.password().encode(),
        "connect_timeout": connect_seconds,
        "read_timeout": answer_seconds,
        "write_timeout": answer_seconds,
        "charset": "utf8mb4",
        "autocommit": True,
        "program_name": PROGRAM,
        "init_command": f"SET SESSION wait_timeout = {IDLE_SECONDS}, SESSION lock_wait_timeout = {LOCK_SECONDS},"
        " SESSION sql_mode = '', SESSION time_zone = '+00:00'",
        **tls_arguments(to),
    }
    try:
        connection = pymysql.connect(**arguments)
    except pymysql.err.Error as error:
        _raise_dial(to, error)
    except UnicodeError as error:
        raise Permanent("unknown_host", f"{to.host!r} is no host name", field=f"site_{to.side}.host") from error
    return Session(connection, to)


def tls_arguments(to: Address) -> dict[str, Any]:
    """Return what PyMySQL needs for a declared TLS mode; raises Permanent("tls_mismatch") for an unusable CA file."""
    if to.tls_mode == "disabled":
        return {"ssl_disabled": True}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # MySQL's own generated certificates do not pass OpenSSL's strict reading of RFC 5280.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = to.tls_mode == "verify_identity"
    if to.tls_mode == "required":
        context.verify_mode = ssl.CERT_NONE
        return {"ssl": context}
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(to.tls_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Permanent(
            "tls_mismatch",
            f"the certificate authority file {to.tls_ca_file} cannot be used ({error})",
            hint="name a readable PEM file on the gateway's machine",
            field=f"site_{to.side}.tls.ca_file",
        ) from error
    return {"ssl": context}


class Session:
    """One connection. Used by one thread at a time; every method raises only our errors."""

    def __init__(self, connection: pymysql.Connection[Any], to: Address) -> None:
        self._connection = connection
        self.address = to
        self.id = int(connection.thread_id())  # type: ignore[no-untyped-call]

    def rows(self, sql: str, arguments: tuple[object, ...] | None = None) -> list[Row]:
        """Run one statement and return all of its rows."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, arguments)
                return list(cursor.fetchall())
        except pymysql.err.Error as error:
            raise self._translated(error) from error
        except (OSError, AttributeError) as error:  # PyMySQL on a connection that another thread cut
            self.close()
            raise Unreachable(f"the session of {self.address.words} broke", down=False) from error

    def row(self, sql: str, arguments: tuple[object, ...] | None = None) -> Row:
        """Return the first row; raises Rejected where there is none."""
        found = self.rows(sql, arguments)
        if not found:
            raise Rejected("unsuitable_server", f"the server answered with no row to: {sql[:200]}", number=0)
        return found[0]

    def scalar(self, sql: str, arguments: tuple[object, ...] | None = None) -> Any:
        """Return the first column of the first row."""
        return self.row(sql, arguments)[0]

    def run(self, sql: str, arguments: tuple[object, ...] | None = None) -> None:
        """Run one statement and drop what it returns."""
        self.rows(sql, arguments)

    def records(self, sql: str, arguments: tuple[object, ...] | None = None) -> list[dict[str, Any]]:
        """Run one statement and return its rows by column name."""
        try:
            with self._connection.cursor(pymysql.cursors.DictCursor) as cursor:
                cursor.execute(sql, arguments)
                return list(cursor.fetchall())
        except pymysql.err.Error as error:
            raise self._translated(error) from error

    def alive(self) -> bool:
        """Whether the server still answers on this connection."""
        try:
            self._connection.ping(reconnect=False)
        except (pymysql.err.Error, OSError, AttributeError):
            self.close()
            return False
        return True

    @property
    def local_host(self) -> str:
        """The address by which the server sees this gateway."""
        peer: Any = self._connection
        return str(peer._sock.getsockname()[0])

    @property
    def open(self) -> bool:
        """Whether the connection was not closed, by us or by a failure."""
        return bool(self._connection.open)

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        with contextlib.suppress(pymysql.err.Error, OSError):
            if self._connection.open:
                self._connection.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def _translated(self, error: pymysql.err.Error) -> FarshoreError:
        number, words = _number(error), _words(error)
        where = self.address.place
        if number in (CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 0):
            self.close()
            return Unreachable(f"the connection of {self.address.words} broke: {words}", down=False, field=where)
        if number in _GOING:
            return Busy(f"{self.address.host}:{self.address.port}: {words}", number=number, field=where)
        if number in _MISSING_PRIVILEGE or number in _DENIED:
            return Rejected(
                "missing_privilege",
                f"{self.address.words}: {words}",
                number=number,
                hint="run `farshore doctor PAIR`: it prints the exact GRANT",
                field=where,
            )
        if number in _FULL:
            return Rejected("disk_full", f"{self.address.host}:{self.address.port}: {words}", number=number)
        if number == LOCK_WAIT_TIMEOUT:
            return Rejected("timeout", f"{self.address.host}:{self.address.port}: {words}", number=number)
        return Rejected("unsuitable_server", f"{self.address.host}:{self.address.port}: {words}", number=number)


class Line:
    """One persistent connection, dialled when first needed and again after it broke; one user at a time."""

    def __init__(
        self, to: Address, *, connect_seconds: float = CONNECT_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._to = to
        self._connect_seconds, self._answer_seconds = connect_seconds, answer_seconds
        self._lock = threading.Lock()
        self._session: Session | None = None

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Borrow the session; it is proved to answer first. Raises as `dial` does."""
        with self._lock:
            session = self._session
            if session is None or not session.open or not session.alive():
                session = self._session = None
                session = self._session = dial(
                    self._to, connect_seconds=self._connect_seconds, answer_seconds=self._answer_seconds
                )
            yield session

    def close(self) -> None:
        """Let go of the connection; a later use dials again."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None


def _raise_dial(to: Address, error: pymysql.err.Error) -> NoReturn:
    number, words = _number(error), _words(error)
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, socket.gaierror):
        kind = Transient if cause.errno == socket.EAI_AGAIN else Permanent
        raise kind(
            "unknown_host",
            f"the host name {to.host!r} does not resolve ({cause.strerror})",
            hint="correct the host of the endpoint, or the name service of the gateway's machine",
            field=f"site_{to.side}.host",
        ) from error
    if isinstance(cause, ssl.SSLError) or number in (CR.CR_SSL_CONNECTION_ERROR, SECURE_TRANSPORT_REQUIRED):
        raise Permanent(
            "tls_mismatch",
            f"{to.host}:{to.port} does not satisfy TLS mode {to.tls_mode}: {words}",
            hint="correct tls.mode or tls.ca_file of the endpoint, or the server's certificate",
            field=f"site_{to.side}.tls",
        ) from error
    if number in _DENIED or (number == ER.HANDSHAKE_ERROR and cause is None):
        raise Permanent(
            "access_denied",
            f"{to.host}:{to.port} refused {to.user}: {words}",
            hint=f"correct the user or the password that {to.place} refers to, or create the account: "
            "`farshore doctor PAIR` prints the statements",
            field=to.place,
        ) from error
    if number in _GOING:
        raise Busy(f"{to.host}:{to.port}: {words}", number=number, field=to.place) from error
    down = isinstance(cause, ConnectionError) or (number == CR.CR_SERVER_LOST and "timed out" not in words)
    raise Unreachable(
        f"nothing answers at {to.host}:{to.port}: {words}", down=down, field=f"site_{to.side}.host"
    ) from error


def _number(error: pymysql.err.Error) -> int:
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) and 0 <= first <= _NUMBERS_MAX else 0


def _words(error: pymysql.err.Error) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)
