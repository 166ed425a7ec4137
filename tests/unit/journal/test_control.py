"""The control socket: a token, one JSON object a line, errors with code and hint, bounded in everything."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farshore_agent.mysql.journal.control import CONNECTIONS_MAX, ControlConnection, ControlServer, socket_address
from farshore_agent.mysql.journal.errors import Permanent, Transient


@dataclass
class Desk:
    path: Path
    token_file: Path

    def connect(self) -> ControlConnection:
        return ControlConnection(self.path, self.token_file, timeout_seconds=20)


def fail(_: dict[str, Any]) -> dict[str, Any]:
    raise Permanent("no", hint="do this", code="Refused")


def wait(_: dict[str, Any]) -> dict[str, Any]:
    raise Transient("later", retry_seconds=2.5, code="Later")


def broken(_: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("gtid_set")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A server below a path far longer than a socket address may be."""
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "token").write_text("s3cret\n")
    server = ControlServer(
        deep / "x.sock",
        token="s3cret",
        hello={"role": "test"},
        commands={"echo": lambda request: {"text": request["text"]}, "fail": fail, "wait": wait, "broken": broken},
    )
    reader, writer = os.pipe()
    thread = threading.Thread(target=server.serve, args=(reader,))
    thread.start()
    yield Desk(deep / "x.sock", deep / "token")
    os.write(writer, b"\0")
    thread.join()
    server.close()
    os.close(reader)
    os.close(writer)
    assert not (deep / "x.sock").exists()


def test_commands_and_errors(desk: Desk) -> None:
    """Answers belong to their request; both kinds of error come back as they were raised; a defect is Transient."""
    connection = desk.connect()
    assert connection.hello["role"] == "test"
    assert connection.hello["pid"] == os.getpid()
    assert connection.call("echo", text="höst")["text"] == "höst"
    with pytest.raises(Permanent) as refused:
        connection.call("fail")
    assert (refused.value.code, refused.value.hint) == ("Refused", "do this")
    with pytest.raises(Transient) as later:
        connection.call("wait")
    assert (later.value.code, later.value.retry_seconds) == ("Later", 2.5)
    with pytest.raises(Transient):
        connection.call("broken")
    with pytest.raises(Permanent) as unknown:
        connection.call("selfdestruct")
    assert unknown.value.code == "UnknownCommand"
    assert connection.call("echo", text="still here")["text"] == "still here"
    connection.close()


def test_a_wrong_token_gets_nothing(desk: Desk) -> None:
    """Not even a command that exists: the connection ends after the refusal, which does not show the token."""
    desk.token_file.write_text("guess\n")
    with pytest.raises(Permanent) as caught:
        desk.connect()
    assert caught.value.code == "WrongToken"
    with socket.socket(socket.AF_UNIX) as sock:
        with socket_address(desk.path) as address:
            sock.connect(address)
        sock.sendall(b'{"do": "echo", "text": "x"}\n')
        stream = sock.makefile("rb")
        answer = stream.readline()
        assert json.loads(answer)["error"]["code"] == "WrongToken"
        assert b"s3cret" not in answer
        assert stream.readline() == b""
        stream.close()


def test_the_socket_is_private(desk: Desk) -> None:
    """Only its owner may even connect."""
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("garbage", [b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"half a line"])
def test_garbage_ends_its_connection_only(desk: Desk, garbage: bytes) -> None:
    """A client that does not speak the protocol is disconnected; others do not notice."""
    with socket.socket(socket.AF_UNIX) as sock:
        with socket_address(desk.path) as address:
            sock.connect(address)
        sock.sendall(b'{"token": "s3cret"}\n' + garbage)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    connection = desk.connect()
    assert connection.call("echo", text="x") == {"text": "x"}
    connection.close()


def test_connections_are_bounded(desk: Desk) -> None:
    """Too many at once are turned away, and there is room again when some have gone."""
    held = [desk.connect() for _ in range(CONNECTIONS_MAX)]
    with pytest.raises((Transient, Permanent)):
        desk.connect()
    for connection in held:
        connection.close()
    for _ in range(1000):
        try:
            desk.connect().close()
        except (Transient, Permanent):
            continue
        break
    else:
        raise AssertionError("no room again")


def test_nobody_there(tmp_path: Path) -> None:
    """No socket, or one that a dead process left, is NotRunning and worth another try."""
    (tmp_path / "token").write_text("t")
    for left in (False, True):
        if left:
            _leave_socket(tmp_path / "x.sock")
        with pytest.raises(Transient) as caught:
            ControlConnection(tmp_path / "x.sock", tmp_path / "token", timeout_seconds=5)
        assert caught.value.code == "NotRunning"


def _leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, socket_address(path) as address:
        sock.bind(address)
