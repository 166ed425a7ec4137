"""Processes that outlive the agent: started apart from it, named by a pid file that a recycled pid cannot satisfy.

Every data-path process, whatever it does, is started by `spawn` and leaves a `*.pid` file below the agent's directory;
that is how a restarted agent finds it again and how `stop_all` ends it. It knows nothing of what the processes do.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from farshore_agent import durable

PID_SUFFIX: Final = ".pid"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
START_TIME_FIELD: Final = 22  # proc(5), /proc/[pid]/stat: in clock ticks since boot
TERM_SECONDS: Final = 10.0
KILL_SECONDS: Final = 5.0


ENVIRONMENT_KEPT: Final = (
    "PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "TESTBED_RUN",
)  # fmt: skip
"""References `env:NAME` are resolved from the agent's environment, so a child sees only what it needs. TESTBED_RUN
marks what a test run started, so that nothing outlives the run."""

_spawned: set[int] = set()
"""Children of this process that nobody has waited for yet."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process for good: its pid, and when it started, so that a later one of the same pid is not taken for it."""

    pid: int
    started: str  # boot id and start time in ticks
    what: str  # in words, for people

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        return identity(self.pid) == self.started


def identity(pid: int) -> str | None:
    """Return what tells a process from any other that ever has its pid; None when there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = BOOT_ID.read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rsplit(")", 1)[1].split()  # the command name before it may hold anything, also brackets
    if fields[0] in ("Z", "X"):
        return None
    return f"{boot}:{fields[START_TIME_FIELD - 3]}"


def spawn(
    command: Sequence[str],
    *,
    pid_file: Path,
    what: str,
    environment: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    output: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start `command` in its own session and write its pid file; no secret may be in `command`.

    The process is not waited for: it may outlive this one. Call `reap` now and then, so that a dead one is not kept as
    a zombie.
    """
    reap()
    child = subprocess.Popen(
        list(command),
        stdin=stdin,
        stdout=output,
        stderr=output,
        start_new_session=True,
        close_fds=True,
        pass_fds=tuple(pass_fds),
        env=None if environment is None else dict(environment),
    )
    child.returncode = 0  # Popen is not to wait for it, nor to warn that nobody does
    _spawned.add(child.pid)
    process = Process(pid=child.pid, started=identity(child.pid) or "", what=what)
    write_pid_file(pid_file, process)
    return process


def reap() -> None:
    """Let go of those of this process's own `spawn`ed children that have ended. Idempotent."""
    for pid in tuple(_spawned):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended == pid:
            _spawned.discard(pid)


def write_pid_file(path: Path, process: Process) -> None:
    """Remember a process in a file."""
    durable.make_directory(path.parent)
    durable.write(path, {"pid": process.pid, "started": process.started, "what": process.what})


def ensure_own_pid_file(path: Path, what: str) -> None:
    """Remember the calling process, unless its starter did already (which may have died right after starting it)."""
    own = Process(pid=os.getpid(), started=identity(os.getpid()) or "", what=what)
    if read_pid_file(path) != own:
        write_pid_file(path, own)


def read_pid_file(path: Path) -> Process | None:
    """Return the process that a pid file names, dead or alive; None when there is no such file."""
    content = durable.read(path)
    if content is None:
        return None
    pid, started, what = content.get("pid"), content.get("started"), content.get("what")
    if type(pid) is not int or not isinstance(started, str) or not isinstance(what, str):
        raise durable.corrupt(path, "names no process")
    return Process(pid=pid, started=started, what=what)


def find(path: Path) -> Process | None:
    """Return the living process that any pid file of ours names: one of `spawn`, or a bare number.

    A bare number counts only while its process was started with the absolute path of the pid file's directory, or of
    one above it, among its arguments: a recycled pid was not.
    """
    try:
        text = path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if not text.strip().isdecimal():
        process = read_pid_file(path)
        return process if process is not None and process.alive else None
    pid = int(text)
    started = identity(pid)
    places = {str(place) for place in path.resolve().parents} - {"/"}
    if started is None or places.isdisjoint(_arguments(pid)):
        return None
    return Process(pid=pid, started=started, what=f"{path.stem} of {path.parent}")


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def child_environment() -> dict[str, str]:
    """Return what a process of ours inherits: nothing that could hold a secret."""
    return {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}


def end(process: Process, *, term_seconds: float = TERM_SECONDS) -> bool:
    """End exactly this process: ask, wait, then kill. Returns whether it was running. Never touches another one."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not process.alive:  # asked after the handle was opened: the handle cannot change its process any more
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not _gone(handle, term_seconds):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            _gone(handle, KILL_SECONDS)
        return True
    finally:
        os.close(handle)


def _gone(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)  # pidfd_open(2): readable once its process has ended
    return bool(poller.poll(seconds * 1000))


def describe(process: Process) -> str:
    """Return one line for people."""
    return json.dumps(process.what)[1:-1] + f" (pid {process.pid})"
