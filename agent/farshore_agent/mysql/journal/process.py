"""The life of a data-path process: become independent, lock, log, answer commands, end cleanly on SIGTERM.

    python -m farshore_agent.mysql.journal.process (receiver|server) DIR [--ready-fd N]

Settings are DIR/run/<role>.json; secrets are files named there. Once it serves it writes one JSON line to the ready
descriptor, `{"ready": true}` or an error, and closes it. This module must not know what the roles do, beyond making
them.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.config import decode, decode_listening
from farshore_agent.mysql.journal.control import Answer, Command, ControlServer, error_answer
from farshore_agent.mysql.journal.disk import DirectoryLock, write_private
from farshore_agent.mysql.journal.errors import JournalError, Permanent
from farshore_agent.mysql.journal.launch import RECEIVER, SERVER, RolePaths, config_digest

LOG_BYTES_MAX: Final = 1 << 20
LOG_FILES_KEPT: Final = 3
TOKEN_RANDOM_BYTES: Final = 24

log = logging.getLogger("journal.process")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="farshore-journal", description="A data-path process of a MySQL journal.")
    parser.add_argument("role", choices=(RECEIVER, SERVER))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ready-fd", type=int, default=-1, help="detach, and report here once it serves")
    options = parser.parse_args(arguments)
    if options.ready_fd >= 0:
        _become_independent()
    try:
        run(options.role, options.directory, ready=lambda answer: _report(options.ready_fd, answer))
    except JournalError as error:
        log.error("cannot start: %s", error.message)
        _report(options.ready_fd, error_answer(error))
        return 1
    except OSError as error:
        log.exception("cannot start")
        failed = Permanent(f"{options.role}: {error}", code="CannotStart", hint=f"See {options.directory}/run.")
        _report(options.ready_fd, error_answer(failed))
        return 1
    return 0


def _become_independent() -> None:
    """Leave the starter's session and process tree: its end, or a signal to its group, is nothing to us."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)


def _report(fd: int, answer: Answer) -> None:
    line = json.dumps(answer).encode() + b"\n"
    if fd < 0:
        sys.stderr.write(line.decode())
        return
    try:
        os.write(fd, line)
        os.close(fd)
    except OSError:
        log.info("the starter did not wait for the answer")


def run(role: str, directory: Path, *, ready: Callable[[Answer], None]) -> None:
    """Be the role until told to stop. Raises JournalError and OSError when it cannot start."""
    paths = RolePaths(directory, role)
    _log_to(paths.log)
    with ExitStack() as stack:
        lock = DirectoryLock(paths.lock, purpose=f"the journal's {role}")
        stack.callback(lock.release)
        text = paths.settings.read_text()
        stop_reader, stop_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _stop_on_signals(stop_writer)
        commands, close = _ROLES[role](JournalDirectory(directory), text, stack)
        stack.callback(close)
        commands["stop"] = lambda _: _stop(stop_writer)
        write_private(paths.token, secrets.token_urlsafe(TOKEN_RANDOM_BYTES) + "\n")
        control = ControlServer(
            paths.socket,
            token=paths.token.read_text().strip(),
            hello={"role": role, "config": config_digest(text)},
            commands=commands,
        )
        stack.callback(control.close)
        write_private(paths.pid, f"{os.getpid()}\n")
        stack.callback(paths.pid.unlink, missing_ok=True)
        log.info("serving role=%s pid=%d", role, os.getpid())
        ready({"ready": True, "pid": os.getpid()})
        control.serve(stop_reader)
        log.info("stopping role=%s", role)


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("journal")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def _stop_on_signals(stop_writer: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop_writer))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _stop(stop_writer: int) -> Answer:
    try:
        os.write(stop_writer, b"\0")
    except BlockingIOError:
        return {}  # told often enough
    return {}


# ---- the roles


def _receiver(journal: JournalDirectory, settings: str, stack: ExitStack) -> tuple[dict[str, Command], Any]:
    from farshore_agent.mysql.journal.housekeeping import Housekeeping
    from farshore_agent.mysql.journal.receiver import Receiver
    from farshore_agent.mysql.journal.receiver_commands import receiver_commands

    config = decode(settings)
    journal.create(pair=config.pair)
    lock = DirectoryLock(journal.lock, purpose="writing the journal")
    stack.callback(lock.release)
    receiver = Receiver(journal, config)
    housekeeping = Housekeeping(journal, receiver, config.retention)
    receiver.start()
    housekeeping.start()

    def close() -> None:
        housekeeping.close()
        receiver.close()

    return receiver_commands(receiver, housekeeping), close


def _server(journal: JournalDirectory, settings: str, _: ExitStack) -> tuple[dict[str, Command], Any]:
    from farshore_agent.mysql.journal.credentials import credentials_of
    from farshore_agent.mysql.journal.server import Server

    server = Server(journal, decode_listening(settings), credentials_of(journal))
    server.start()
    return {"state": lambda _: server.state().encode()}, server.close


_ROLES: Final = {RECEIVER: _receiver, SERVER: _server}


def _hook(kind: threading.ExceptHookArgs) -> None:
    log.error("defect in thread %s", kind.thread.name if kind.thread else "?", exc_info=kind.exc_value)


if __name__ == "__main__":
    threading.excepthook = _hook
    sys.exit(main())
