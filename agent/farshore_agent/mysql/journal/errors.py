"""What can go wrong in the journal, in two kinds, and the stable codes of a stopped stream.

    JournalError
    ├── Transient        goes away by itself; `retry_seconds` says when to look again
    └── Permanent        somebody must act; `hint` is the next command to run or the next thing to do
        ├── FormatTooNew the directory was written by a newer version
        ├── Busy         another process of ours owns the directory
        └── Corrupt      bytes on disk or on the wire are not what was written; names the file and the offset

A stream that stops does not raise to anybody: it keeps a `StopReason` that state reports. This module must not know how
errors are shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class JournalError(Exception):
    """Root of all errors of the journal; `code` is stable, the message is for people and carries no secret."""

    code = "JournalError"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class Transient(JournalError):
    """Something that heals without anybody: try again after `retry_seconds`."""

    code = "Transient"

    def __init__(self, message: str, *, retry_seconds: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_seconds = retry_seconds


class Permanent(JournalError):
    """Something that only a person or a decision mends; `hint` says how."""

    code = "Permanent"

    def __init__(self, message: str, *, hint: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.hint = hint


class FormatTooNew(Permanent):
    """The journal on disk was written by a newer version of Farshore."""

    code = "FormatTooNew"


class Busy(Permanent):
    """Another process owns the journal directory."""

    code = "Busy"


class Corrupt(Permanent):
    """Bytes are not what was written; nothing from `offset` of `file` on is used."""

    code = "CorruptEvent"

    def __init__(self, message: str, *, file: str, offset: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.offset = offset


NEW_HISTORY_HINT = (
    "Check what happened to the source; then seal this segment and seed the standby again (consent needed)."
)
"""For every stop after which the stream can not continue this segment."""


class StopCode(StrEnum):
    """Why a stream does not run: stable names for the API, the console and alarms."""

    SOURCE_REPLACED = "SourceReplaced"
    """Another server_uuid answers at the endpoint (R3)."""
    SOURCE_PURGED = "SourcePurged"
    """The source no longer has the binary logs that come next."""
    HISTORY_RESET = "HistoryReset"
    """The source's gtid_executed does not contain the journal's end: RESET BINARY LOGS AND GTIDS, or a lost tail."""
    SOURCE_UNSUITABLE = "SourceUnsuitable"
    """The source's settings cannot feed a journal (gtid_mode, log_bin)."""
    CHECKSUM_OFF = "ChecksumOff"
    """The source writes events without CRC32."""
    UNKNOWN_EVENT = "UnknownEvent"
    """An event type that this version does not know and may not ignore (I8)."""
    CORRUPT_EVENT = "CorruptEvent"
    """An event with a wrong checksum or size, on the wire or on disk."""
    GAP = "Gap"
    """The source's stream does not continue where the journal ends."""
    DISK_FULL = "DiskFull"
    """No space for the next events; resumes by itself."""
    DISK_FAILED = "DiskFailed"
    """The disk reported an I/O error; each retry first reads back what the disk really holds."""
    AUTH_FAILED = "AuthFailed"
    """The source refused our account, or it lacks a privilege."""
    SOURCE_UNREACHABLE = "SourceUnreachable"
    """No connection, TLS refused, or the link fell silent."""
    INTERNAL = "Internal"
    """A defect of ours; the log has the traceback."""


RETRIED = frozenset(
    {
        StopCode.SOURCE_UNREACHABLE,
        StopCode.AUTH_FAILED,
        StopCode.CHECKSUM_OFF,
        StopCode.SOURCE_UNSUITABLE,
        StopCode.DISK_FULL,
        StopCode.DISK_FAILED,
    }
)
"""Reasons under which the receiver keeps trying by itself: the cure is outside and leaves no trace here."""


@dataclass(frozen=True, kw_only=True)
class StopReason:
    """Why the stream does not run now; `retried` tells whether it tries again by itself."""

    code: StopCode
    message: str
    hint: str
    since_unix: float
    evidence: dict[str, str] = field(default_factory=dict)
    """Both sides of the conflict where there is one, for example the two GTID sets (both histories, not only words)."""

    @property
    def retried(self) -> bool:
        return self.code in RETRIED


class StreamStopped(JournalError):
    """Ends one run of the link; the receiver turns it into a StopReason."""

    def __init__(self, stop: StopCode, message: str, *, hint: str, evidence: dict[str, str] | None = None) -> None:
        super().__init__(message, code=stop.value)
        self.stop = stop
        self.hint = hint
        self.evidence = evidence or {}
