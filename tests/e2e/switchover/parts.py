"""The processes of a running stage, found by the pid files they leave, and the ways to break them.

Every process is ended by its own pid; a pid file that names nobody gives None.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from farshore_agent import processes
from farshore_agent.probes.process import PID_NAME
from farshore_agent.records import RECORD_FILE, read_record, side_directory
from farshore_schema.roles import Record, Side
from tests.testbed.waiting import wait_until

PAIR: Final = "orders"


class Parts:
    """The processes below one directory of `farshore serve`."""

    def __init__(self, directory: Path) -> None:
        self.agent_directory = directory / "agent"

    def agent(self) -> int | None:
        """Return the pid of the living embedded agent."""
        try:
            pid = int((self.agent_directory / "agent.lock").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if processes.identity(pid) is not None else None

    def probes(self) -> int | None:
        """Return the pid of the living probe process."""
        return _living(self.agent_directory / "probes" / PID_NAME)

    def receiver(self, side: Side) -> int | None:
        """Return the pid of the process that receives for a side."""
        return _living(self.journal(side) / "run" / "receiver.pid")

    def server(self, side: Side) -> int | None:
        """Return the pid of the process that serves the journal of a side to its standby."""
        return _living(self.journal(side) / "run" / "server.pid")

    def journal(self, side: Side) -> Path:
        """Return where a side's journal is kept."""
        return side_directory(self.agent_directory, PAIR, side) / "engine" / "journal"

    def all(self) -> set[int]:
        """Return the pids of every living data-path and probe process."""
        found = (processes.find(path) for path in self.agent_directory.rglob(f"*{processes.PID_SUFFIX}"))
        return {each.pid for each in found if each is not None}

    def record(self, side: Side) -> Record:
        """Return what the agent keeps on disk for a side."""
        path = side_directory(self.agent_directory, PAIR, side) / RECORD_FILE
        return read_record(path, PAIR, side) or Record()


def kill(pid: int | None) -> None:
    """Kill a process at once, and return when it is gone; one that is gone already is fine."""
    if pid is None:
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(lambda: processes.identity(pid) is None, f"process {pid} is gone")


def _living(pid_file: Path) -> int | None:
    process = processes.find(pid_file)
    return None if process is None else process.pid
