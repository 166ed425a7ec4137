"""End every process that an agent directory ever started, and no other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from farshore_agent import lock, processes
from farshore_schema.errors import FarshoreError

AGENT_WAIT_SECONDS: Final = 10.0
ENDED_AT_ONCE: Final = 32  # each may take its time to end cleanly


def stop_all(directory: Path) -> list[str]:
    """End all data-path and probe processes of an agent's directory; return one line for each that was running.

    Protection and role probes stop with them. Raises Permanent("directory_in_use") while an agent runs there: it would
    start them again. A pid that was recycled since is never touched.
    """
    if not directory.exists():
        return []
    with lock.only_agent(directory, wait_seconds=AGENT_WAIT_SECONDS), ThreadPoolExecutor(ENDED_AT_ONCE) as threads:
        files = sorted(directory.rglob(f"*{processes.PID_SUFFIX}"))
        return [line for line in threads.map(_end, files) if line]


def _end(path: Path) -> str:
    """End what a pid file names; return a line about it, "" when nothing ran."""
    try:
        process = processes.find(path)
    except FarshoreError as error:
        return f"left alone: {error.message}"
    ended = process is not None and processes.end(process)
    path.unlink(missing_ok=True)
    return processes.describe(process) if process is not None and ended else ""
