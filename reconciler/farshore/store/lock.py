"""One process per directory: an advisory lock that the kernel drops with its holder, however that one ends.

flock(2) belongs to the open file, so it survives neither kill -9 nor exec (Python's descriptors are close-on-exec), and
child processes that outlive us do not keep it.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

from farshore_schema.errors import Permanent

LOCK_FILE: Final = "lock"


class DirectoryLock:
    """The right to be the one reconciler on a directory, held until `release`."""

    def __init__(self, directory: Path) -> None:
        """Take the lock or raise Permanent("directory_in_use") that names the holder's process id."""
        path = directory / LOCK_FILE
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise Permanent(
                "directory_in_use",
                f"another reconciler (process {holder}) runs on {directory}",
                hint="end that process first, or serve from another directory (`farshore serve --directory DIR`)",
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        self._file.close()
