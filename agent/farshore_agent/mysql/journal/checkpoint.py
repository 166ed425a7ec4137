"""A place in a segment's last file from which recovery may start reading, so that it need not read a whole gigabyte.

It is a hint with proof: written only after everything before it was synced, replaced atomically, and useless when
damaged (recovery then reads the whole file). This module must not know how recovery works.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from farshore_agent.mysql.journal.disk import Disk, encode_json


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    file: str
    position: int
    """End of a whole transaction."""
    last_event: int
    received: str
    """GTID set: everything the segment received up to `position`."""


def write(disk: Disk, directory: Path, checkpoint: Checkpoint) -> None:
    document = asdict(checkpoint)
    disk.replace(directory / "checkpoint.json", encode_json({**document, "crc32": _crc(document)}))


def read(directory: Path) -> Checkpoint | None:
    """Return the checkpoint, or None when there is none that can be trusted."""
    try:
        document = json.loads((directory / "checkpoint.json").read_bytes())
        crc = document.pop("crc32")
        return Checkpoint(**document) if crc == _crc(document) else None
    except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _crc(document: dict[str, object]) -> int:
    return zlib.crc32(encode_json(document))
