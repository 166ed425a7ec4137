"""The control socket of a data-path process: JSON lines on a Unix socket of mode 0600, after a hello with a token.

    -> {"v": 1, "token": "..."}                 <- {"ok": true, "v": 1, "role": "receiver", "pid": 4711, ...}
    -> {"id": 1, "do": "state"}                 <- {"id": 1, "ok": {...}}
    -> {"id": 2, "do": "seal", "to": "..."}     <- {"id": 2, "error": {"code": ..., "message": ..., "hint": ...}}

The version counts incompatible changes; an unknown command is answered with code `UnknownCommand`, so a newer client
can tell. This module must not know what the commands do.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.errors import JournalError, Permanent, Transient

CONTROL_VERSION: Final = 1
LINE_BYTES_MAX: Final = 8 << 20
"""GTID sets of very ragged histories are long."""
CONNECTIONS_MAX: Final = 32
HELLO_SECONDS: Final = 5.0
ACCEPT_BACKLOG: Final = 16

Answer = dict[str, Any]
Command = Callable[[Answer], Answer]
"""Takes the request, returns the value of "ok"; raises JournalError."""


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A short name for a socket path of any length (sun_path holds 107 bytes), valid inside the block."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class ControlServer:
    """Serves commands until `close`; one thread per connection, bounded."""

    def __init__(self, path: Path, *, token: str, hello: Answer, commands: dict[str, Command]) -> None:
        """Bind `path`, replacing the leftover of a dead process (the caller holds the role's lock)."""
        self._path = path
        self._token = token
        self._hello = hello
        self._commands = commands
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            with socket_address(path) as address:
                self._listener.bind(address)
        finally:
            os.umask(mask)
        self._listener.listen(ACCEPT_BACKLOG)
        self._open = 0
        self._lock = threading.Lock()

    def serve(self, stop_fd: int) -> None:
        """Accept connections until `stop_fd` becomes readable."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(stop_fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if stop_fd in ready:
                    return
                connection, _ = self._listener.accept()
                self._start(connection)

    def _start(self, connection: socket.socket) -> None:
        with self._lock:
            if self._open >= CONNECTIONS_MAX:
                connection.close()
                return
            self._open += 1
        threading.Thread(target=self._connection, args=(connection,), name="control", daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                connection.settimeout(HELLO_SECONDS)
                if not self._greet(stream):
                    return
                connection.settimeout(None)
                while (request := read_line(stream)) is not None:
                    write_line(stream, self._answer(request))
        except (OSError, ValueError):
            return  # the client has gone, or does not speak the protocol: its connection ends here
        finally:
            with self._lock:
                self._open -= 1

    def _greet(self, stream: Any) -> bool:
        request = read_line(stream) or {}
        if not hmac.compare_digest(str(request.get("token", "")).encode(), self._token.encode()):
            write_line(stream, error_answer(Permanent("wrong token", code="WrongToken", hint="Read the token file.")))
            return False
        write_line(stream, {"ok": True, "v": CONTROL_VERSION, "pid": os.getpid(), **self._hello})
        return True

    def _answer(self, request: Answer) -> Answer:
        number = request.get("id")
        command = self._commands.get(str(request.get("do")))
        if command is None:
            unknown = Permanent(
                f"no command {request.get('do')!r}", code="UnknownCommand", hint="Upgrade or restart the process."
            )
            return {"id": number, **error_answer(unknown)}
        try:
            return {"id": number, "ok": command(request)}
        except JournalError as error:
            return {"id": number, **error_answer(error)}
        except (OSError, KeyError, ValueError, TypeError) as error:
            failed = Transient(f"{type(error).__name__}: {error}", code="CommandFailed", retry_seconds=1.0)
            return {"id": number, **error_answer(failed)}

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


class ControlConnection:
    """The client's end. Every call raises JournalError: Transient when the process cannot be reached."""

    def __init__(self, path: Path, token_file: Path, *, timeout_seconds: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout_seconds)
        self._timeout = timeout_seconds
        self._number = 0
        try:
            token = token_file.read_text().strip()
            with socket_address(path) as address:
                self._sock.connect(address)
            self._stream = self._sock.makefile("rwb")
            write_line(self._stream, {"v": CONTROL_VERSION, "token": token})
            hello = read_line(self._stream)
        except (OSError, ValueError) as error:
            self._sock.close()
            raise _unreachable(path, error) from error
        if hello is None or "error" in hello:
            self.close()
            raise _as_error((hello or {}).get("error") or {"message": "no answer to hello"})
        self.hello = hello
        if hello.get("v") != CONTROL_VERSION:
            self.close()
            raise Permanent(
                f"the process {hello.get('pid')} speaks control version {hello.get('v')}, not {CONTROL_VERSION}",
                hint="Stop it (SIGTERM) and start it again with this version; the stream continues where it was.",
            )

    def call(self, command: str, *, wait_seconds: float = 0.0, **arguments: Any) -> Answer:
        """Run one command; `wait_seconds` is how much longer than usual its answer may take."""
        self._number += 1
        try:
            self._sock.settimeout(self._timeout + wait_seconds)
            write_line(self._stream, {"id": self._number, "do": command, **arguments})
            answer = read_line(self._stream)
        except (OSError, ValueError) as error:
            raise Transient(f"the process does not answer: {error}", retry_seconds=1.0, code="NoAnswer") from error
        if answer is None:
            raise Transient("the process ended", retry_seconds=1.0, code="NoAnswer")
        if "error" in answer:
            raise _as_error(answer["error"])
        value: Answer = answer["ok"]
        return value

    def close(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._stream.close()
        self._sock.close()


def read_line(stream: Any) -> Answer | None:
    """One JSON object, or None at the end. Raises ValueError on anything else."""
    line = stream.readline(LINE_BYTES_MAX)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise ValueError("line too long or cut")
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    return document


def write_line(stream: Any, document: Answer) -> None:
    stream.write(json.dumps(document).encode() + b"\n")
    stream.flush()


def error_answer(error: JournalError) -> Answer:
    document: Answer = {"code": error.code, "message": error.message}
    if isinstance(error, Transient):
        document["retry_seconds"] = error.retry_seconds
    elif isinstance(error, Permanent):
        document["hint"] = error.hint
    return {"error": document}


def _as_error(document: Answer) -> JournalError:
    code, message = str(document.get("code", "JournalError")), str(document.get("message", ""))
    if "retry_seconds" in document:
        return Transient(message, retry_seconds=float(document["retry_seconds"]), code=code)
    return Permanent(message, hint=str(document.get("hint", "See the process's log.")), code=code)


def _unreachable(path: Path, error: Exception) -> Transient:
    return Transient(f"no process answers at {path} ({error})", retry_seconds=1.0, code="NotRunning")
