"""Is it the same server with the same history? The proofs before a stream continues, apart from how it runs.

This module must not know sockets: facts in, verdict out.
"""

from __future__ import annotations

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


def head(writer: SegmentWriter) -> bytes:
    """The first two events of the tail's file, for tails without an overlap: they carry the time the file was made."""
    at = events.FIRST_POSITION
    for _ in range(2):
        header = writer.read(at, events.HEADER_BYTES)
        if at >= writer.boundary or len(header) < events.HEADER_BYTES:
            break
        at += events.read_header(header, 0).size
    return writer.read(events.FIRST_POSITION, min(at, writer.boundary) - events.FIRST_POSITION)


def other_history(writer: SegmentWriter, why: str) -> StreamStopped:
    """The stop for a source whose file of the same name is not the one we have a part of."""
    return StreamStopped(
        StopCode.HISTORY_RESET,
        f"the source's {writer.file} is not the file that the journal holds a part of: {why}",
        hint=NEW_HISTORY_HINT,
        evidence={"file": writer.file, "offset": str(writer.boundary), "journal_end": str(writer.end())},
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
