"""A disk that remembers every change, and builds the directory that a crash after any of them would leave behind.

kill -9 keeps every change. A power cut keeps what was synced; of the rest it keeps any prefix of each file's bytes,
maybe with garbage behind, and any of each directory's changes, in no order.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farshore_agent.mysql.journal.disk import Disk
from farshore_agent.mysql.journal.position import PositionWriter

Change = tuple[Any, ...]


class QuickDisk(Disk):
    """Leaves out the syncs, which only a power cut would notice."""

    def sync_data(self, fd: int) -> None:
        """Nothing."""

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync_directory(self, path: Path) -> None:
        """Nothing."""


class RecordingDisk(QuickDisk):
    """Changes files below `root`, and keeps the list of changes, syncs included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changes: list[Change] = []
        self._inodes: dict[int, int] = {}
        self._next = 0

    def _path(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def _note(self, *change: Any) -> None:
        self.changes.append(change)

    def make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self._note("mkdir", self._path(path))
            self._note("syncdir", self._path(path.parent))
        super().make_directory(path)

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._next += 1
        self._inodes[fd] = self._next
        self._note("create", self._path(path), self._next)
        return fd

    def open(self, path: Path) -> int:
        fd = super().open(path)
        names = {change[1]: change[2] for change in self.changes if change[0] in ("create", "link")}
        self._inodes[fd] = names[self._path(path)]
        return fd

    def append(self, fd: int, data: bytes | memoryview) -> None:
        self._note("append", self._inodes[fd], bytes(data))
        super().append(fd, data)

    def sync_data(self, fd: int) -> None:
        self._note("sync", self._inodes[fd])
        super().sync_data(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._note("truncate", self._inodes[fd], size)
        super().truncate(fd, size)

    def sync_directory(self, path: Path) -> None:
        self._note("syncdir", self._path(path))
        super().sync_directory(path)

    def remove(self, path: Path) -> None:
        self._note("unlink", self._path(path))
        super().remove(path)

    def rename(self, old: Path, new: Path) -> None:
        inode = next(change[2] for change in reversed(self.changes) if change[:2] == ("create", self._path(old)))
        self._note("unlink", self._path(old))
        self._note("link", self._path(new), inode)
        super().rename(old, new)


class RecordingPositions(PositionWriter):
    """Publishes for real, and notes when."""

    def __init__(self, path: Path, disk: RecordingDisk) -> None:
        super().__init__(path)
        self._disk = disk

    def publish(self, **position: Any) -> None:
        super().publish(**position)
        self._disk.changes.append(("publish", position))


@dataclass
class _Model:
    """Names and bytes, as the kernel has them and as the disk has them."""

    content: dict[int, bytes] = field(default_factory=dict)
    synced: dict[int, bytes] = field(default_factory=dict)
    names: list[tuple[str, str, int | None]] = field(default_factory=list)
    """(directory, path, inode or None for a removal), not yet synced"""
    durable: dict[str, int] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    def apply(self, change: Change) -> None:
        match change:
            case ("mkdir", path):
                self.directories.append(path)
            case ("create" | "link", path, inode):
                self.content.setdefault(inode, b"")
                self.synced.setdefault(inode, b"")
                self.names.append((str(Path(path).parent), path, inode))
            case ("unlink", path):
                self.names.append((str(Path(path).parent), path, None))
            case ("append", inode, data):
                self.content[inode] += data
            case ("sync", inode):
                self.synced[inode] = self.content[inode]
            case ("truncate", inode, size):
                self.content[inode] = self.synced[inode] = self.content[inode][:size]
            case ("syncdir", directory):
                kept = [name for name in self.names if name[0] != directory]
                for name in self.names:
                    if name[0] == directory:
                        self._name(self.durable, name)
                self.names = kept

    def _name(self, names: dict[str, int], change: tuple[str, str, int | None]) -> None:
        _, path, inode = change
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode

    def surviving_names(self, rng: random.Random | None) -> dict[str, int]:
        """With `rng` some of the unsynced changes of directories survive; without, all do."""
        names = dict(self.durable)
        for change in self.names:
            if rng is None or rng.random() < 0.5:
                self._name(names, change)
        return names

    def surviving_bytes(self, inode: int, rng: random.Random | None) -> bytes:
        held, safe = self.content[inode], self.synced[inode]
        if rng is None or not held.startswith(safe):
            return held
        keep = rng.randint(len(safe), len(held))
        torn = rng.random() < 0.3 and keep < len(held)
        return held[:keep] + (rng.randbytes(rng.randint(1, len(held) - keep)) if torn else b"")


def after_crash(changes: list[Change], target: Path, *, rng: random.Random | None) -> None:
    """Build below `target` what a crash right after `changes` leaves: kill -9 without `rng`, a power cut with it."""
    model = _Model()
    positions = []
    for change in changes:
        if change[0] == "publish":
            positions.append(change[1])
        else:
            model.apply(change)
    target.mkdir(parents=True)
    for directory in model.directories:
        (target / directory).mkdir(parents=True)
    for path, inode in model.surviving_names(rng).items():
        (target / path).write_bytes(model.surviving_bytes(inode, rng))
    kept = positions if rng is None else positions[: rng.randint(0, len(positions))]
    if kept:
        writer = PositionWriter(target / "position")
        writer.publish(**kept[-1])
        writer.close()
