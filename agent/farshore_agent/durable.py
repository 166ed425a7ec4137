"""Small files that survive a crash: written whole or not at all, and refused when they are not what was written.

Each file is one JSON object with a format number and a checksum over its content. It knows nothing of what is kept.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from farshore_schema.errors import Permanent, Transient

FORMAT: Final = 1
FILE_BYTES_MAX: Final = 1024 * 1024
PRIVATE_DIRECTORY: Final = 0o700
PRIVATE_FILE: Final = 0o600
SPACE_RETRY_SECONDS: Final = 5.0

WritePoint = Literal["written", "synced", "renamed"]


def _go_on(_point: WritePoint) -> None:
    """Do nothing: the default of the fault points."""


def make_directory(directory: Path) -> None:
    """Make a private directory with its parents, each durable in its parent."""
    missing: list[Path] = []
    at = directory
    while not at.exists():
        missing.append(at)
        at = at.parent
    for made in reversed(missing):
        made.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        sync_directory(made.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, content: dict[str, object]) -> None:
    """Replace `path` by `content` and return once that is durable. One writer at a time.

    Raises Transient("disk_full") when there is no space and Permanent("corrupt_record") when the disk fails; the file
    then still holds either the old or the new content.
    """
    text = json.dumps({"format": FORMAT, "check": _checksum(content), "content": content}, indent=1, sort_keys=True)
    try:
        replace(path, text.encode() + b"\n")
    except OSError as error:
        raise unwritable(path, error) from error


def replace(path: Path, raw: bytes, *, fault: Callable[[WritePoint], None] = _go_on) -> None:
    """Replace `path` by bytes as a whole and return once that is durable; raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(handle, view) :]
            fault("written")
            os.fsync(handle)
        finally:
            os.close(handle)
        fault("synced")
        temporary.replace(path)
        fault("renamed")
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read(path: Path) -> dict[str, object] | None:
    """Return what was last written to `path`, None when nothing ever was.

    Raises Permanent("newer_format") for a file of a newer release and Permanent("corrupt_record") for one that is not
    what was written: a damaged file is never taken for an absent one.
    """
    try:
        raw = _read_bounded(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise corrupt(path, f"cannot be read ({error.strerror})") from error
    return decode(raw, path)


def decode(raw: bytes, path: Path) -> dict[str, object]:
    """Return the content of a file's bytes; raises as `read` does. `path` only names it."""
    try:
        outer = json.loads(raw)
        version = outer["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise corrupt(path, "is not what was written") from error
    if not isinstance(version, int) or version > FORMAT:
        raise Permanent(
            "newer_format",
            f"{path} has format {version!r}; this release knows {FORMAT}",
            hint="install the newer release of Farshore again; nothing was changed",
        )
    content = outer.get("content")
    if not isinstance(content, dict) or outer.get("check") != _checksum(content):
        raise corrupt(path, "does not match its checksum")
    return content


def corrupt(path: Path, what: str) -> Permanent:
    """Return the error for a file that cannot be trusted."""
    return Permanent(
        "corrupt_record",
        f"{path} {what}",
        hint=f"restore {path} from a backup of the agent's directory; without one, move the agent's directory aside "
        "and enrol the agent again, once no operation of the pair is open",
    )


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(FILE_BYTES_MAX)


def _checksum(content: dict[str, object]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def unwritable(path: Path, error: OSError) -> Transient | Permanent:
    """Return the error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Transient(
            "disk_full",
            f"no space to write {path}",
            retry_seconds=SPACE_RETRY_SECONDS,
            hint=f"free space on the file system of {path.parent}",
        )
    return Permanent(
        "corrupt_record",
        f"{path} cannot be written ({error.strerror})",
        hint=f"check the disk and the permissions of {path.parent}",
    )
