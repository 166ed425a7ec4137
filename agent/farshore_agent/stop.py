"""End every process that an agent directory ever started, and no other."""

from pathlib import Path

from farshore_agent import lock, processes
from farshore_schema.errors import FarshoreError

AGENT_WAIT_SECONDS = 10.0


def stop_all(directory: Path) -> list[str]:
    """End all data-path and probe processes of an agent's directory; return one line for each that was running.

    Protection and role probes stop with them. Raises Permanent("directory_in_use") while an agent runs there: it would
    start them again. A pid that was recycled since is never touched.
    """
    if not directory.exists():
        return []
    with lock.only_agent(directory, wait_seconds=AGENT_WAIT_SECONDS):
        ended: list[str] = []
        for path in sorted(directory.rglob(f"*{processes.PID_SUFFIX}")):
            try:
                process = processes.read_pid_file(path)
            except FarshoreError as error:
                ended.append(f"left alone: {error.message}")
                continue
            if process is not None and processes.end(process):
                ended.append(processes.describe(process))
            path.unlink(missing_ok=True)
        return ended
