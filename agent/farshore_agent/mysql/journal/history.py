"""Is it the same server with the same history? The proofs before a stream continues, apart from how it runs.

This module must not know sockets: facts in, verdict out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.errors import NEW_HISTORY_HINT, StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.store import SegmentWriter

OVERLAP_BYTES_MAX: Final = 8 << 20
"""Beyond it only the head of the file is compared."""

_CONTRADICTIONS: Final = frozenset(
    {StopCode.SOURCE_PURGED, StopCode.GAP, StopCode.CORRUPT_EVENT, StopCode.HISTORY_RESET, StopCode.UNKNOWN_EVENT}
)


def overlap(writer: SegmentWriter) -> bytes:
    """The last event of the tail, which the source must send again byte for byte; empty when it proves nothing.

    A format description is made anew for each connection, and a huge event is not worth sending twice (see `head`).
    """
    tail = writer.tail()
    size = tail.position - tail.last_event
    if tail.last_event <= events.FIRST_POSITION or size > OVERLAP_BYTES_MAX:
        return b""
    return writer.read(tail.last_event, size)


def head(path: Path) -> bytes:
    """The first two events of a file of ours: they carry the time at which the source made it. Raises OSError."""
    with path.open("rb") as file:
        file.seek(events.FIRST_POSITION)
        found = b""
        for _ in range(2):
            raw = file.read(events.HEADER_BYTES)
            if len(raw) < events.HEADER_BYTES:
                break
            found += raw + file.read(events.read_header(raw, 0).size - events.HEADER_BYTES)
        return found


def file_to_prove(writer: SegmentWriter, files: list[str]) -> str:
    """The newest file with bytes in it, for tails without an overlap; empty when there is none."""
    if writer.boundary:
        return writer.file
    return files[-2] if len(files) > 1 else ""


def other_history(writer: SegmentWriter, file: str, why: str) -> StreamStopped:
    """The stop for a source whose file of the same name is not the one we have."""
    return StreamStopped(
        StopCode.HISTORY_RESET,
        f"the source's {file} is not the file that the journal has under this name: {why}",
        hint=NEW_HISTORY_HINT,
        evidence={"file": file, "offset": str(writer.boundary), "journal_end": str(writer.end())},
    )


def not_contained(asked: GtidSet, executed: GtidSet) -> StreamStopped:
    """The stop for a new segment whose start the source does not contain (R3: diverged)."""
    return StreamStopped(
        StopCode.HISTORY_RESET,
        "the source's gtid_executed does not contain the start of the new segment",
        hint=NEW_HISTORY_HINT,
        evidence={
            "start": str(asked),
            "source_executed": str(executed),
            "missing_at_source": str(asked.subtract(executed)),
        },
    )


def doubt(writer: SegmentWriter, executed: GtidSet) -> StreamStopped | None:
    """Compare the journal's end with the source's gtid_executed; raise when they contradict each other.

    Transactions that the source has logged and sent but not yet committed are missing from its gtid_executed for a
    moment (under semi-sync: until acknowledged). So when only received ones are missing, the stream itself must decide:
    the returned error is the verdict should it not continue byte for byte (see `contradicts`).
    """
    end = writer.end()
    missing = end.subtract(executed)
    if not missing:
        return None
    verdict = StreamStopped(
        StopCode.HISTORY_RESET,
        "the source's gtid_executed does not contain the journal's end",
        hint=NEW_HISTORY_HINT,
        evidence={
            "journal_end": str(end),
            "source_executed": str(executed),
            "missing_at_source": str(missing),
        },
    )
    if missing.subtract(writer.received) or not overlap(writer):
        raise verdict
    return verdict


def contradicts(stop: StreamStopped) -> bool:
    """Whether the end of a stream in doubt settles it against the source: it refused the position, or differed."""
    return stop.stop in _CONTRADICTIONS or "source_error" in stop.evidence


def unlogged(purged: GtidSet, server_uuid: str) -> GtidSet:
    """What a server without log_replica_updates applied from others: it counts as purged and is in no binary log.

    The server's own transactions are always logged, so its purged ones are left out: if the journal lacks one of those,
    that is a gap and not a start.
    """
    own = server_uuid.replace("-", "").lower()
    found = GtidSet()
    for key, low, high in purged.intervals():
        if key[0].hex() != own:
            found.add_interval(key, low, high)
    return found
