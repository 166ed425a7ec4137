"""Remember on disk what an unfinished seed has made on a target, so that the next one may take it away.

Without it a seed interrupted by the end of its process would find its own half copy, and could not tell it from data
of somebody else, which it must not touch without consent (I5). Written and synced before the first thing is made.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from farshore_agent.mysql.seed.errors import SeedTransient

FILE_NAME = "seed-footprint.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What an unfinished seed made, or was about to make, on the server `target_uuid`."""

    target_uuid: str = ""
    schemas: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    """As text, 'user'@'host'."""


def read_footprint(directory: Path, target_uuid: str) -> Footprint:
    """Return what is known of an unfinished seed of this target; empty when there was none or it cannot be read.

    A footprint that cannot be read gives no right to anything, which is the safe side.
    """
    try:
        content = json.loads((directory / FILE_NAME).read_text())
        found = Footprint(
            target_uuid=str(content["target_uuid"]),
            schemas=tuple(str(name) for name in content["schemas"]),
            accounts=tuple(str(name) for name in content["accounts"]),
        )
        known = content["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return Footprint(target_uuid=target_uuid)
    return found if known and found.target_uuid == target_uuid else Footprint(target_uuid=target_uuid)


def write_footprint(directory: Path, footprint: Footprint) -> None:
    """Write it durably: file, rename and directory synced. Raises SeedTransient when the disk refuses."""
    content = {
        "format": FORMAT,
        "target_uuid": footprint.target_uuid,
        "schemas": list(footprint.schemas),
        "accounts": list(footprint.accounts),
    }
    path = directory / FILE_NAME
    fresh = directory / (FILE_NAME + ".new")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with fresh.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync(directory)
    except OSError as error:
        raise SeedTransient(f"cannot write {path}: {error}") from error


def remove_footprint(directory: Path) -> None:
    """Forget it: the seed is finished. Losing this step is harmless, the engine then never asks again."""
    (directory / FILE_NAME).unlink(missing_ok=True)
    _sync(directory)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
