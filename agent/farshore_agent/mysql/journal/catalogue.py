"""The journal directory: its format, its segments in order, and each segment's record.

    DIR/format.json                    {"format": 1}; a newer number is refused
    DIR/catalogue.json                 the pair, the order of segments, whether the stream is detached
    DIR/segments/<epoch>-<uuid8>/      one stream from one server in one role epoch
        meta.json                      the record below
        index                          names of the binary log files, as in a server's .index file
        checkpoint.json                a place from which recovery may start reading (see store)
        <source's file names>          the files, byte for byte as at the source
    DIR/position                       how far whole transactions are durable (see position)
    DIR/run/, DIR/secrets/             sockets, logs, settings and credentials of the processes

Whoever changes any of this holds DIR/lock. Readers take no lock: every document is replaced atomically. This module
must not know events or connections.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.disk import Disk, encode_json
from farshore_agent.mysql.journal.errors import Corrupt, FormatTooNew, Permanent

FORMAT: Final = 1
_FORMAT_KIND: Final = "farshore mysql journal"
_BINLOG_NAME: Final = re.compile(r"[^/\x00-\x20.][^/\x00-\x1f]{0,200}\.[0-9]{6,10}")


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """One stream from one server in one role epoch. GTID sets are text."""

    name: str
    pair: str
    epoch: int
    from_uuid: str
    server_id: int
    """The source's; replicas see it in the events that the journal server makes."""
    server_version: str
    created_unix: float
    start: str
    """What a reader must already have: everything the source executed that is not in this segment's files. Grows when
    retention drops files, and while the source is a standby that applies without logging."""
    start_generation: int = 0
    """Counts the changes of `start`, so that a server notices them cheaply."""
    sealed: bool = False
    end: str | None = None
    """`start` and everything received; valid once sealed."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    pair: str
    segments: tuple[str, ...] = ()
    """Names in the order in which they are served."""
    detached: bool = False
    """The stream must not dial the source, also after a restart."""


class JournalDirectory:
    """Paths of one journal, and its documents."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self.disk = disk or Disk()
        self.segments = path / "segments"
        self.run = path / "run"
        self.secrets = path / "secrets"
        self.position = path / "position"
        self.lock = path / "lock"
        self._editing = threading.Lock()

    def segment(self, name: str) -> Path:
        return self.segments / name

    # ---- the directory itself

    def create(self, *, pair: str) -> Catalogue:
        """Make the directory ready for `pair` and return its catalogue. Idempotent; continues after any crash.

        Raises FormatTooNew, or Permanent when the directory belongs to another pair or to something else.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.path / "format.json").exists():
            if (self.path / "catalogue.json").exists():
                raise Permanent(
                    f"{self.path} has a catalogue but no format.json", hint="Restore the file or use a new directory."
                )
            self.disk.replace(self.path / "format.json", encode_json({"format": FORMAT, "kind": _FORMAT_KIND}))
        self.check_format()
        for directory in (self.segments, self.run, self.secrets):
            self.disk.make_directory(directory)
        if not (self.path / "catalogue.json").exists():
            self._write_catalogue(Catalogue(pair=pair))
        catalogue = self.catalogue()
        if catalogue.pair != pair:
            raise Permanent(
                f"the journal in {self.path} belongs to the pair {catalogue.pair!r}, not {pair!r}",
                hint="Give every pair a journal directory of its own.",
            )
        return catalogue

    def check_format(self) -> None:
        """Raise FormatTooNew when this version must not touch the directory."""
        document = _read_json(self.path / "format.json")
        found = document.get("format")
        if document.get("kind") != _FORMAT_KIND or not isinstance(found, int):
            raise Permanent(f"{self.path} holds no journal of ours", hint="Name another directory for the journal.")
        if found > FORMAT:
            raise FormatTooNew(
                f"the journal in {self.path} has format {found}; this version reads up to {FORMAT}",
                hint="Upgrade Farshore on this host, or move the directory away to start a new journal.",
            )

    def exists(self) -> bool:
        return (self.path / "catalogue.json").exists()

    # ---- catalogue

    def catalogue(self) -> Catalogue:
        document = _read_json(self.path / "catalogue.json")
        return Catalogue(
            pair=str(document["pair"]),
            segments=tuple(map(str, document["segments"])),
            detached=bool(document["detached"]),
        )

    def edit_catalogue(self, change: Callable[[Catalogue], Catalogue]) -> None:
        """Replace the catalogue by `change` of it; threads of one process take turns."""
        with self._editing:
            self._write_catalogue(change(self.catalogue()))

    def set_detached(self, detached: bool) -> None:
        self.edit_catalogue(lambda catalogue: replace(catalogue, detached=detached))

    def _write_catalogue(self, catalogue: Catalogue) -> None:
        self.disk.replace(self.path / "catalogue.json", encode_json(asdict(catalogue)))

    # ---- segments

    def records(self) -> list[SegmentRecord]:
        """All segments, in order."""
        return [self.record(name) for name in self.catalogue().segments]

    def record(self, name: str) -> SegmentRecord:
        path = self.segment(name) / "meta.json"
        document = _read_json(path)
        try:
            return SegmentRecord(**document)
        except TypeError as error:
            raise _unreadable(path, "has unknown or missing fields") from error

    def write_record(self, record: SegmentRecord) -> None:
        self.disk.replace(self.segment(record.name) / "meta.json", encode_json(asdict(record)))

    def add_segment(self, record: SegmentRecord) -> SegmentRecord:
        """Add a segment at the end under a name that is free; returns the record with its name.

        The directory comes first and the catalogue last: after a crash in between, the directory is no segment and the
        next call empties and reuses its name.
        """
        record = replace(record, name=_free_name(record, self.catalogue().segments))
        directory = self.segment(record.name)
        if directory.exists():
            self._remove_files(directory)
        self.disk.make_directory(directory)
        self.disk.replace(directory / "index", b"")
        self.write_record(record)
        self.edit_catalogue(lambda before: replace(before, segments=(*before.segments, record.name)))
        return record

    def drop_segment(self, name: str) -> None:
        """Forget a segment, then remove its files."""
        self.edit_catalogue(
            lambda before: replace(before, segments=tuple(other for other in before.segments if other != name))
        )
        directory = self.segment(name)
        self._remove_files(directory)
        self.disk.remove_directory(directory)
        self.disk.sync_directory(self.segments)

    def _remove_files(self, directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            self.disk.remove(path)

    # ---- index of a segment

    def files(self, name: str) -> list[str]:
        """Names of the binary log files of a segment, in order. Raises Corrupt."""
        path = self.segment(name) / "index"
        try:
            files = [line.removeprefix("./") for line in path.read_bytes().decode("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise _unreadable(path, "is no text") from error
        if not all(map(is_binlog_name, files)):
            raise _unreadable(path, "lists what is no binary log file")
        return files

    def write_files(self, name: str, files: list[str]) -> None:
        self.disk.replace(self.segment(name) / "index", "".join(f"./{file}\n" for file in files).encode())


def is_binlog_name(name: str) -> bool:
    """Whether `name`, which comes from the network, can be the name of a file in a segment."""
    return _BINLOG_NAME.fullmatch(name) is not None


def file_number(name: str) -> int:
    """The number at the end of a binary log file's name."""
    return int(name.rpartition(".")[2])


def _free_name(record: SegmentRecord, taken: tuple[str, ...]) -> str:
    base = f"{record.epoch:06d}-{record.from_uuid[:8]}"
    name, again = base, 1
    while name in taken:
        again += 1
        name = f"{base}-{again}"
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise _unreadable(path, "is no JSON") from error
    except FileNotFoundError as error:
        raise Permanent(
            f"{path} does not exist", hint="Name a journal directory, or start its receiver first."
        ) from error
    if not isinstance(document, dict):
        raise _unreadable(path, "is no JSON object")
    return document


def _unreadable(path: Path, why: str) -> Corrupt:
    return Corrupt(
        f"{path} {why}",
        file=str(path),
        offset=0,
        hint="Restore the file from the peer's copy of the catalogue, or start a new journal and keep this directory.",
    )
