"""The stops that the bytes of a stream give cause for. This module must not know how they are read."""

from __future__ import annotations

from farshore_agent.mysql.journal.errors import NEW_HISTORY_HINT, StopCode, StreamStopped


class SourceSaid(Exception):
    """The source ended the dump with an error packet."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"error {number}: {message}")
        self.number = number
        self.message = message


def checksum_off() -> StreamStopped:
    return StreamStopped(
        StopCode.CHECKSUM_OFF,
        "the source writes its binary log without checksums",
        hint="SET PERSIST binlog_checksum = 'CRC32' on the source; the stream goes on by itself.",
    )


def corrupt(file: str, at: int, why: str) -> StreamStopped:
    return StreamStopped(
        StopCode.CORRUPT_EVENT,
        f"the stream is damaged at {file}:{at}: {why}",
        hint="If it comes again after a new connection, check the source's binary log with mysqlbinlog "
        "--verify-binlog-checksum.",
        evidence={"file": file, "offset": str(at)},
    )


def differs(file: str, at: int) -> StreamStopped:
    """The source's file of this name holds something else than ours at `at`."""
    return StreamStopped(
        StopCode.HISTORY_RESET,
        f"the source's {file} differs from the journal's at offset {at}",
        hint=NEW_HISTORY_HINT,
        evidence={"file": file, "offset": str(at)},
    )


def gap(file: str, at: int, kind: int, start: int) -> StreamStopped:
    """The next event does not start where our file ends."""
    return StreamStopped(
        StopCode.GAP,
        f"the journal's {file} ends at {at} but the source sent an event of type {kind} that starts at "
        f"{start & 0xFFFFFFFF} (low 32 bits)",
        hint=NEW_HISTORY_HINT,
    )
