"""Start a data-path process that outlives its starter, or find the one that runs.

This module must not know what the processes do. It is imported by them too, so it stays small.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.control import ControlConnection
from farshore_agent.mysql.journal.disk import PRIVATE_FILE, write_private
from farshore_agent.mysql.journal.errors import Permanent, Transient

RECEIVER: Final = "receiver"
SERVER: Final = "server"

START_SECONDS: Final = 60.0
"""Includes the recovery of a large last file on a slow disk."""
STOP_SECONDS: Final = 40.0
CALL_SECONDS: Final = 10.0
ERROR_TEXT_BYTES: Final = 2000

_ENVIRONMENT_KEPT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "TESTBED_RUN",
)  # fmt: skip
"""Nothing else of the agent's environment reaches the process: secrets may be there (references `env:NAME`).
TESTBED_RUN marks what a test run started, so that nothing outlives the run."""


class RolePaths:
    """Files of one role's process in DIR/run."""

    def __init__(self, directory: Path, role: str) -> None:
        run = directory / "run"
        self.role = role
        self.directory = directory
        self.settings = run / f"{role}.json"
        self.lock = run / f"{role}.lock"
        self.pid = run / f"{role}.pid"
        self.socket = run / f"{role}.sock"
        self.token = run / f"{role}.token"
        self.log = run / f"{role}.log"
        self.errors = run / f"{role}.err"


def config_digest(text: str) -> str:
    """Identifies the settings a process runs with."""
    return hashlib.sha256(text.encode()).hexdigest()


def connect(paths: RolePaths) -> ControlConnection:
    """Raises Transient (NotRunning) or Permanent."""
    return ControlConnection(paths.socket, paths.token, timeout_seconds=CALL_SECONDS)


def running_digest(paths: RolePaths) -> str | None:
    """The settings of the running process, or None when none answers. Raises Permanent on another control version."""
    try:
        connection = connect(paths)
    except Transient:
        return None
    connection.close()
    return str(connection.hello.get("config"))


def start(paths: RolePaths, settings: str) -> None:
    """Write the settings and start the process; returns when it serves.

    Raises what the process said, or Permanent when it died without a word.
    """
    write_private(paths.settings, settings)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    errors = os.open(paths.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _spawn(paths, writer, errors)
    finally:
        os.close(writer)
        os.close(errors)
    try:
        answer = _read_answer(reader)
    finally:
        os.close(reader)
    if answer is None:
        said = paths.errors.read_bytes()[-ERROR_TEXT_BYTES:].decode("utf-8", "replace").strip()
        raise Permanent(
            f"the journal's {paths.role} did not start: {said or 'no message'}",
            hint=f"See {paths.log}.",
            code="CannotStart",
        )
    if "error" in answer:
        _raise(answer["error"])


def _spawn(paths: RolePaths, writer: int, errors: int) -> None:
    """The child forks again and its first process ends at once, so nobody is left to reap it."""
    command = [sys.executable, "-m", f"{__package__}.process", paths.role, str(paths.directory.resolve())]
    starter = subprocess.Popen(
        [*command, "--ready-fd", str(writer)],
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        pass_fds=(writer,),
        start_new_session=True,
        env=_environment(os.environ),
    )
    try:
        starter.wait(START_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Transient("the journal process is slow to start", retry_seconds=5.0, code="Starting") from error


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    kept = {name: own[name] for name in _ENVIRONMENT_KEPT if name in own}
    package_root = str(Path(__file__).resolve().parents[len(__name__.split(".")) - 1])
    return {**kept, "PYTHONPATH": package_root, "PYTHONUNBUFFERED": "1"}


def _read_answer(reader: int) -> dict[str, Any] | None:
    line = b""
    deadline = time.monotonic() + START_SECONDS
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise Transient("the journal process is still starting", retry_seconds=5.0, code="Starting")
        piece = os.read(reader, 65536)
        if not piece:
            return None
        line += piece
    answer: dict[str, Any] = json.loads(line)
    return answer


def _raise(document: dict[str, Any]) -> None:
    message, code = str(document.get("message")), str(document.get("code"))
    if "retry_seconds" in document:
        raise Transient(message, retry_seconds=float(document["retry_seconds"]), code=code)
    raise Permanent(message, hint=str(document.get("hint", "")), code=code)


def stop(paths: RolePaths) -> None:
    """Ask the process to end and wait until it did. Idempotent. Raises Transient when it does not end in time."""
    try:
        connection = connect(paths)
    except Transient:
        return
    with contextlib.closing(connection):
        pid = int(connection.hello["pid"])
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            with contextlib.suppress(Transient):
                connection.call("stop")  # it may be gone before it has answered
            if not select.select([process], [], [], STOP_SECONDS)[0]:
                raise Transient(
                    f"the journal's {paths.role} (pid {pid}) does not end", retry_seconds=5.0, code="Stopping"
                )
        finally:
            os.close(process)


def read_pid(paths: RolePaths) -> int | None:
    """The pid that the process wrote; it may be gone."""
    try:
        return int(paths.pid.read_text())
    except (FileNotFoundError, ValueError):
        return None
