"""The login of the journal server against a real client library: the generated account over TLS, and nobody else."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
import pytest

from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.certificates import ensure_credentials
from farshore_agent.mysql.journal.credentials import Credentials, server_key_file
from farshore_agent.mysql.journal.login import (
    Account,
    LoginRefused,
    accept_login,
    proves_password,
    store_password,
)
from farshore_agent.mysql.journal.wire import ProtocolError

HOST = "127.0.0.1"


@dataclass
class Door:
    """Accepts one login after another, and keeps how each ended."""

    journal: JournalDirectory
    credentials: Credentials
    listener: socket.socket
    ended: list[str] = field(default_factory=list)
    heard: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def password(self) -> str:
        return self.credentials.password_file.read_text().strip()

    def run(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.credentials.certificate_file, server_key_file(self.journal))
        account = Account(user=self.credentials.user, stored=store_password(self.password))
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(20)
            try:
                channel, user = accept_login(sock, connection_id=7, version="9.7.4-x", account=account, tls=context)
            except (LoginRefused, ProtocolError, OSError, EOFError) as error:
                self.ended.append(type(error).__name__)
                sock.close()
            else:
                self.ended.append(user)
                channel.receive(bytes_max=1 << 16)  # SET NAMES
                channel.send_ok()
                channel.sock.close()
            self.heard.release()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    journal = JournalDirectory(tmp_path / "j")
    journal.create(pair="orders")
    with socket.create_server((HOST, 0)) as listener:
        made = Door(journal, ensure_credentials(journal, host=HOST), listener)
        thread = threading.Thread(target=made.run)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def connect(door: Door, **settings: object) -> None:
    values: dict[str, object] = {
        "host": HOST,
        "port": door.listener.getsockname()[1],
        "user": door.credentials.user,
        "password": door.password,
        "ssl": ssl.create_default_context(cafile=str(door.credentials.ca_file)),
        "autocommit": None,
        **settings,
    }
    session = pymysql.connect(**values)  # type: ignore[call-overload]
    session._force_close()


def test_the_account_gets_in_with_a_verified_certificate(door: Door) -> None:
    """Name and authority of the generated certificate verify, and the password is proved in the fast form."""
    connect(door)
    assert door.heard.acquire(timeout=20)
    assert door.ended == [door.credentials.user]


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"user": "root"}, 1045),
        ({"password": "guess"}, 1045),
        ({"password": ""}, 1045),
        ({"ssl": None, "ssl_disabled": True}, 3159),
    ],
)
def test_nobody_else_does(door: Door, settings: dict[str, object], number: int) -> None:
    """Another user, a wrong or empty password, and any password without TLS are refused with MySQL's own numbers."""
    with pytest.raises(pymysql.err.OperationalError) as caught:
        connect(door, **settings)
    assert caught.value.args[0] == number
    assert door.heard.acquire(timeout=20)
    assert door.ended == ["LoginRefused"]


@pytest.mark.parametrize(
    "garbage", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x05\x00\x00\x01abcde", b"\xff\xff\xff\x01" + bytes(64)]
)
def test_garbage_ends_the_connection(door: Door, garbage: bytes) -> None:
    """What is no login is an ended connection, and the next client is served."""
    with socket.create_connection(door.listener.getsockname()) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # it does not read what follows the first packet
            while sock.recv(4096):
                pass
    assert door.heard.acquire(timeout=20)
    connect(door)
    assert door.heard.acquire(timeout=20)
    assert door.ended[-1] == door.credentials.user


def test_the_password_is_stored_twice_hashed() -> None:
    """What is kept does not let anybody log in, and proves the right scramble only."""
    stored = store_password("secret")
    assert stored == hashlib.sha256(hashlib.sha256(b"secret").digest()).digest()
    salt = bytes(range(1, 21))
    first = hashlib.sha256(b"secret").digest()
    mask = hashlib.sha256(stored + salt).digest()
    scramble = bytes(left ^ right for left, right in zip(first, mask, strict=True))
    assert proves_password(scramble, salt, stored)
    assert not proves_password(scramble, salt[::-1], stored)
    assert not proves_password(scramble[:-1], salt, stored)
    assert not proves_password(stored, salt, stored)


def test_credentials_are_made_once(tmp_path: Path) -> None:
    """Password and authority never change by themselves; the certificate follows the host; files are private; the
    password fits into CHANGE REPLICATION SOURCE."""
    journal = JournalDirectory(tmp_path)
    journal.create(pair="orders")
    first = ensure_credentials(journal, host="10.0.0.1")
    content = [path.read_bytes() for path in (first.password_file, first.ca_file, first.certificate_file)]
    assert ensure_credentials(journal, host="10.0.0.1") == first
    assert [path.read_bytes() for path in (first.password_file, first.ca_file, first.certificate_file)] == content
    ensure_credentials(journal, host="db.osaka.example")
    assert first.certificate_file.read_bytes() != content[2]
    assert [first.password_file.read_bytes(), first.ca_file.read_bytes()] == content[:2]
    assert len(first.password_file.read_text().strip()) == 32
    assert all(path.stat().st_mode & 0o077 == 0 for path in journal.secrets.iterdir())
