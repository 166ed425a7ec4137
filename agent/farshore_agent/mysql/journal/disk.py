"""The one door through which the journal changes files, so that tests can crash at every step of it.

Each method is one system call or a fixed sequence of them with the syncs that make it durable. A file's bytes survive a
power cut after `sync_data`; its name survives after `sync_directory`. This module must not know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.errors import Busy

PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700
TEMPORARY_SUFFIX: Final = ".new"


_SYNC_FILE_RANGE_WRITE: Final = 2
_sync_file_range: Final = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Disk:
    """Changes to files. All errors are OSError."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and make its name durable; an existing one is fine."""
        if path.is_dir():
            return
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        self.sync_directory(path.parent)

    def create(self, path: Path) -> int:
        """Create an empty file, or empty an existing one, and return a descriptor for appending."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)

    def open(self, path: Path) -> int:
        """Open an existing file for reading and appending."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def append(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of `data` at the end; on an error a part of it may be there."""
        done = os.write(fd, data)
        if done < len(data):
            rest = memoryview(data)
            while done < len(rest):
                done += os.write(fd, rest[done:])

    def sync_data(self, fd: int) -> None:
        os.fdatasync(fd)

    def start_writeback(self, fd: int, at: int, count: int) -> None:
        """Let the kernel begin to write a range, without waiting: the next `sync_data` then has less to do.

        Promises nothing, and is nothing where the C library has no sync_file_range(2).
        """
        if _sync_file_range is not None:
            _sync_file_range(fd, at, count, _SYNC_FILE_RANGE_WRITE)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file and make the cut durable, together with everything before it."""
        os.ftruncate(fd, size)
        os.fsync(fd)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """Unlink a file; one that is gone is fine. Not durable by itself."""
        path.unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory; one that is gone is fine. Not durable by itself."""
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()

    def replace(self, path: Path, content: bytes) -> None:
        """Put `content` in place of a file: after a crash it is all old or all new, and new once this returned."""
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        fd = self.create(temporary)
        try:
            self.append(fd, content)
            self.sync_data(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)


def encode_json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def write_private(path: Path, content: str) -> None:
    """Put a file of mode 0600 in place atomically, for settings and secrets that are made again when lost."""
    Disk().replace(path, content.encode())


class DirectoryLock:
    """An exclusive lock that ends with the process; taken by whoever changes the files it guards."""

    def __init__(self, path: Path, *, purpose: str) -> None:
        """Take the lock now or raise Busy."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise Busy(
                f"another process holds {path} ({purpose})",
                hint="Only one process may write a journal: talk to the running one, or stop it first.",
            ) from error

    def release(self) -> None:
        os.close(self._fd)
