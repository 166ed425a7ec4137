"""From what went wrong to the reason that state reports. This module must not know how the stream runs."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal.errors import Corrupt, JournalError, Permanent, StopCode, StopReason, StreamStopped

_DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def reason_of(error: Exception, directory: Path) -> StopReason:
    """Every exception has a reason. OSError means the journal's disk: connections have errors of their own."""
    if isinstance(error, StreamStopped):
        return _reason(error.stop, error.message, error.hint, error.evidence)
    if isinstance(error, Corrupt):
        evidence = {"file": error.file, "offset": str(error.offset)}
        return _reason(StopCode.CORRUPT_EVENT, error.message, error.hint, evidence)
    if isinstance(error, OSError):
        return _of_disk(error, directory)
    if isinstance(error, JournalError):
        hint = error.hint if isinstance(error, Permanent) else "See the log."
        return _reason(StopCode.INTERNAL, error.message, hint)
    return _reason(StopCode.INTERNAL, f"{type(error).__name__}: {error}", "Report it together with the log.")


def _of_disk(error: OSError, directory: Path) -> StopReason:
    if error.errno in _DISK_FULL_ERRNOS:
        return _reason(
            StopCode.DISK_FULL,
            f"no space left for the journal in {directory}",
            "Free space or lower the retention; the stream resumes by itself.",
        )
    return _reason(
        StopCode.DISK_FAILED,
        f"the disk under {directory} failed: {error}",
        "Check the disk. What it really holds is read back before each retry; nothing unsynced was ever published.",
    )


def _reason(code: StopCode, message: str, hint: str, evidence: dict[str, str] | None = None) -> StopReason:
    return StopReason(code=code, message=message, hint=hint, evidence=evidence or {}, since_unix=time.time())
