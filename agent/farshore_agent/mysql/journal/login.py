"""The server side of a login: greeting, TLS upgrade, and caching_sha2_password in its fast form only.

The fast form proves knowledge of the password against SHA256(SHA256(password)), so no plaintext is ever asked for or
held. TLS is required; one generated account exists; everybody else gets error 1045. Source: manual, "Connection Phase"
and "Caching_sha2_password"; the exact exchange with a 9.7 replica is recorded in docs/journal.md. This module must not
know what is served after the login.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Final

from farshore_agent.mysql.journal.wire import (
    ER_ACCESS_DENIED,
    ER_SECURE_TRANSPORT_REQUIRED,
    PacketChannel,
    ProtocolError,
)

PLUGIN: Final = b"caching_sha2_password"
SALT_BYTES: Final = 20
SCRAMBLE_BYTES: Final = 32
LOGIN_PACKET_BYTES_MAX: Final = 64 * 1024
_FAST_AUTH_OK: Final = b"\x01\x03"

_CLIENT_SSL: Final = 0x800
_CLIENT_PLUGIN_AUTH: Final = 0x80000
_CLIENT_CONNECT_WITH_DB: Final = 0x8
_SSL_REQUEST_BYTES: Final = 32
# LONG_PASSWORD, FOUND_ROWS, LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_RESULTS,
# PLUGIN_AUTH, PLUGIN_AUTH_LENENC_CLIENT_DATA; never DEPRECATE_EOF, which would change the result sets we write.
_CAPABILITIES: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x20000 | _CLIENT_PLUGIN_AUTH | 0x200000


@dataclass(frozen=True, kw_only=True)
class Account:
    """The one account of a journal server; `stored` is SHA256(SHA256(password))."""

    user: str
    stored: bytes


class LoginRefused(Exception):
    """The peer was told why and must be disconnected; the message is for the log and holds no secret."""


def store_password(password: str) -> bytes:
    """What the server keeps of a password."""
    return hashlib.sha256(hashlib.sha256(password.encode()).digest()).digest()


def proves_password(scramble: bytes, salt: bytes, stored: bytes) -> bool:
    """Check a fast-form scramble: XOR(SHA256(pw), SHA256(SHA256(SHA256(pw)), salt))."""
    if len(scramble) != SCRAMBLE_BYTES:
        return False
    mask = hashlib.sha256(stored + salt).digest()
    first = bytes(left ^ right for left, right in zip(scramble, mask, strict=True))
    return hmac.compare_digest(hashlib.sha256(first).digest(), stored)


def accept_login(
    sock: socket.socket, *, connection_id: int, version: str, account: Account, tls: ssl.SSLContext
) -> tuple[PacketChannel, str]:
    """Run the connection phase; return the channel (over TLS) and the user's name.

    Raises LoginRefused after the peer has its error packet, ProtocolError, OSError (also ssl.SSLError) or EOFError.
    """
    channel = PacketChannel(sock)
    salt = bytes(1 + byte % 126 for byte in os.urandom(SALT_BYTES))  # neither zero nor above 127: it travels as text
    channel.send(_greeting(connection_id, version, salt))
    reply = channel.receive(bytes_max=LOGIN_PACKET_BYTES_MAX)
    if len(reply) != _SSL_REQUEST_BYTES or not _u32(reply) & _CLIENT_SSL:
        channel.send_error(
            ER_SECURE_TRANSPORT_REQUIRED, "Connections using insecure transport are prohibited: set SOURCE_SSL=1"
        )
        raise LoginRefused("the peer did not ask for TLS")
    secured = PacketChannel(tls.wrap_socket(sock, server_side=True))
    secured.sequence = channel.sequence
    try:
        return secured, _authenticate(secured, account, salt)
    except BaseException:
        secured.sock.close()  # the caller only knows the socket that TLS took over
        raise


def _authenticate(secured: PacketChannel, account: Account, salt: bytes) -> str:
    user, scramble, plugin = _parse_login(secured.receive(bytes_max=LOGIN_PACKET_BYTES_MAX))
    if plugin != PLUGIN or len(scramble) != SCRAMBLE_BYTES:
        secured.send(b"\xfe" + PLUGIN + b"\x00" + salt + b"\x00")
        scramble = secured.receive(bytes_max=LOGIN_PACKET_BYTES_MAX)
    proved = proves_password(scramble, salt, account.stored)
    if user != account.user or not proved:
        secured.send_error(ER_ACCESS_DENIED, f"Access denied for user '{user}' to this journal", state="28000")
        raise LoginRefused(f"access denied for user {user!r}")
    secured.send(_FAST_AUTH_OK)
    secured.send_ok()
    return user


def _u32(raw: bytes) -> int:
    if len(raw) < _SSL_REQUEST_BYTES:
        raise ProtocolError("a login packet ends too early")
    return int(struct.unpack_from("<I", raw)[0])


def _greeting(connection_id: int, version: str, salt: bytes) -> bytes:
    capabilities = _CAPABILITIES | _CLIENT_SSL
    utf8mb4, autocommit = 0xFF, 2
    return b"".join(
        (
            b"\x0a",
            version.encode(),
            b"\x00",
            struct.pack("<I", connection_id & 0xFFFFFFFF),
            salt[:8],
            b"\x00",
            struct.pack("<HBHHB", capabilities & 0xFFFF, utf8mb4, autocommit, capabilities >> 16, SALT_BYTES + 1),
            bytes(10),
            salt[8:],
            b"\x00",
            PLUGIN,
            b"\x00",
        )
    )


def _parse_login(reply: bytes) -> tuple[str, bytes, bytes]:
    """Return (user, scramble, plugin) of a HandshakeResponse41."""
    capabilities = _u32(reply)
    try:
        end = reply.index(b"\x00", _SSL_REQUEST_BYTES)
        user = reply[_SSL_REQUEST_BYTES:end].decode("utf-8", "replace")
        length = reply[end + 1]
        at = end + 2 + length
        scramble = reply[end + 2 : at]
        if capabilities & _CLIENT_CONNECT_WITH_DB and at < len(reply):
            at = reply.index(b"\x00", at) + 1
        plugin = reply[at : reply.index(b"\x00", at)] if capabilities & _CLIENT_PLUGIN_AUTH else b""
    except (ValueError, IndexError) as error:
        raise ProtocolError("a login packet ends too early") from error
    return user, scramble, plugin
