"""The segment that a stream writes: adopted when the process starts, begun at the first attach, recovered again after
the disk failed. This module must not know the source or connections.
"""

from __future__ import annotations

import threading

from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.config import JournalConfig
from farshore_agent.mysql.journal.errors import Permanent
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.position import PositionWriter
from farshore_agent.mysql.journal.store import SegmentWriter
from farshore_agent.mysql.journal.wake import Waker


class OpenSegment:
    """Holds the writer; `changed` guards and announces it."""

    def __init__(self, journal: JournalDirectory, config: JournalConfig) -> None:
        self._journal = journal
        self._config = config
        self._positions = PositionWriter(journal.position)
        self._waker = Waker(journal.run / "server.wake")
        self.changed = threading.Condition()
        self.writer: SegmentWriter | None = None
        """None before the first attach, and while the segment is damaged."""
        self.doubtful = False
        """The disk failed or the segment is damaged: nothing is written before `adopt` has recovered it."""

    def adopt(self) -> SegmentRecord | None:
        """Recover the last segment if this stream continues it, and return its record; None when a new one is to begin.

        Raises Corrupt and OSError, after which the segment stays doubtful, and Permanent when the last segment belongs
        to another stream and is open, or to a newer epoch.
        """
        records = self._journal.records()
        if not records:
            return None
        last, config = records[-1], self._config
        same = last.epoch == config.epoch and last.from_uuid == config.source.expected_server_uuid.lower()
        if not last.sealed and not same:
            raise segment_open(last)
        if last.sealed and last.epoch > config.epoch:
            raise Permanent(
                f"the journal already holds epoch {last.epoch}; epoch {config.epoch} is older",
                hint="Use the epoch that the store has now.",
                code="EpochTooOld",
            )
        if not same:
            return None
        self.doubtful = True
        self._open(last)
        return last

    def begin(self, record: SegmentRecord, first_file: str) -> SegmentWriter:
        """Add a segment with its first, empty file; continues where an earlier try got no file."""
        writer = self.writer
        if writer is None:
            writer = self._open(self._journal.add_segment(record))
        else:
            writer.begin_at(GtidSet.parse(record.start))
        writer.rotate(first_file)
        return writer

    def _open(self, record: SegmentRecord) -> SegmentWriter:
        writer = SegmentWriter(self._journal, record, self._positions, self.changed)
        writer.on_published = self._waker.wake
        with self.changed:
            self.writer = writer
            self.doubtful = False
            self.changed.notify_all()
        return writer

    def cut(self) -> None:
        """Drop half a transaction; leaves a doubtful segment alone, since recovery cuts too. Raises OSError."""
        if self.writer is not None and not self.doubtful:
            self.writer.cut()

    def end(self) -> GtidSet:
        return self.writer.end() if self.writer else GtidSet()

    def close(self) -> None:
        if self.writer is not None and not self.doubtful:
            self.writer.close()
        self._waker.close()
        self._positions.close()


def segment_open(record: SegmentRecord) -> Permanent:
    """The refusal to start a stream beside an open segment of another one."""
    return Permanent(
        f"the segment {record.name} (epoch {record.epoch}, from {record.from_uuid}) is still open",
        hint="Seal it before a stream of another epoch or server starts.",
        code="SegmentOpen",
    )
