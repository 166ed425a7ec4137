"""Start child processes that never outlive the test run, and tell which are left.

Every child inherits one environment variable with the run's token, and so do its own children; a watchdog process
kills whatever carries the token when the run is gone (it also dies with kill -9, where no exit handler runs). This
module must not know what the children do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.testbed.watchdog import MARK, end_all, marked

__all__ = ["end", "end_all", "spawn", "survivors", "watch_run"]

REAP_SECONDS = 20.0


class _Run:
    """This process as the root of a run: its token and its watchdog."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        # Every child inherits it, also those that are started past this module. A run inside a run keeps both.
        around = os.environ.get(MARK)
        os.environ[MARK] = f"{around}:{self.token}" if around else self.token

    def watch(self) -> None:
        with self._lock:
            if self._watchdog is not None and self._owner == os.getpid():
                return
            # Not marked itself; in its own session, so that Ctrl-C at the terminal does not reach it.
            environment = {name: value for name, value in os.environ.items() if name != MARK}
            self._owner = os.getpid()
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("watchdog.py")), self.token, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
            atexit.register(self._finish)

    def _finish(self) -> None:
        if self._watchdog is not None and self._owner == os.getpid() and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError):
                self._watchdog.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._watchdog.wait(REAP_SECONDS)
            self._watchdog = None


_RUN = _Run()


def spawn(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    token: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, so that a signal to the test run's group does not reach it.

    `environment` replaces this process's own; the run's mark is always added. With a `token` of its own,
    `end_all(token)` ends the child and everything it ever started.
    """
    _RUN.watch()
    marks = {MARK: f"{os.environ[MARK]}:{token}" if token else os.environ[MARK]}
    return subprocess.Popen(
        list(command),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        env={**(os.environ if environment is None else environment), **marks},
    )


def watch_run() -> None:
    """Start the watchdog now, for runs whose children are started by the code under test."""
    _RUN.watch()


def survivors() -> list[tuple[int, str]]:
    """Return (pid, command line) of every process of this run that still runs, but this one and its ancestors."""
    own = {os.getpid(), *_ancestors(os.getpid())}
    left: list[tuple[int, str]] = []
    for pid in marked(_RUN.token):
        if pid not in own:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                left.append((pid, words.strip()))
    return left


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rsplit(")", 1)[1].split()[1])  # proc(5): the 4th field, after the name in brackets
        found.append(pid)
    return found


def end(process: subprocess.Popen[bytes], *, seconds: float = REAP_SECONDS, kill: bool = False) -> int:
    """Ask `process` to end (or kill it), wait for it, and return its exit code.

    Raises TimeoutExpired when it has not ended in `seconds`; it is killed then.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)
            raise
    return process.returncode
