"""The receiving half of a journal: keeps the stream running, retries what heals, stops with a code otherwise, and takes
commands from any thread.

One thread runs the link and is the only one that appends. Commands change what it should do and wait until it does.
This module must not know sockets, processes or retention.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from farshore_agent.mysql.journal.acks import AckPolicy, NoAcks
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.config import JournalConfig
from farshore_agent.mysql.journal.control import CONTROL_VERSION
from farshore_agent.mysql.journal.errors import Corrupt, Permanent, StopCode, StopReason, Transient
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.ingest import Ingest
from farshore_agent.mysql.journal.opensegment import OpenSegment
from farshore_agent.mysql.journal.reasons import reason_of
from farshore_agent.mysql.journal.retention import disk_bytes
from farshore_agent.mysql.journal.state import Mode, ReceiverState
from farshore_agent.mysql.journal.store import SegmentWriter
from farshore_agent.mysql.journal.stream import Stream
from farshore_agent.mysql.journal.watch import Watch

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 5.0
WIRE_FAULT_ATTEMPTS: Final = 3
"""Dials in a row without progress, each ended by a damaged or broken stream, before it counts as the source's own."""
DISK_RESERVE_BYTES: Final = 4 << 20
"""After a full disk, the stream resumes when this much is free: a few batches and the journal's own documents."""
COMMAND_SECONDS: Final = 30.0
HALT_POLL_SECONDS: Final = 0.02

_WIRE_FAULTS: Final = frozenset({StopCode.CORRUPT_EVENT, StopCode.GAP})

log = logging.getLogger("journal.receiver")


class Receiver:
    """The stream of one journal. Construct, `start`, then command it from any thread; `close` at the end."""

    def __init__(self, journal: JournalDirectory, config: JournalConfig, *, acks: AckPolicy | None = None) -> None:
        """Open the directory and recover the open segment, without dialling. The caller holds DIR/lock.

        Raises FormatTooNew, or Permanent when the last segment is of another stream. A damaged segment is no error: the
        process lives to say so.
        """
        self._journal = journal
        self._config = config
        self._detached = journal.create(pair=config.pair).detached
        self._segment = OpenSegment(journal, config)
        self.changed = self._segment.changed
        self._stream = Stream(
            journal, config, self._segment, acks or NoAcks(), stopping=self._stopping, attached=self._attached
        )
        self._ingest: Ingest | None = None
        self._mode = Mode.STARTING
        self._stopped: StopReason | None = None
        self._ending = False
        self._wake = threading.Event()
        self._commands = threading.Lock()
        self._bytes = self._transactions = 0
        self._last_commit = 0.0
        self._last_arrival: float | None = None
        self._faults = 0
        self._adopt()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._watch = Watch(config, progress=self._progress, end=self._segment.end, redial=self._redial)

    def _adopt(self) -> None:
        try:
            record = self._segment.adopt()
        except Corrupt as damage:
            self._stop(reason_of(damage, self._config.directory))
            return
        except BaseException:
            self._segment.close()
            raise
        if record is None and self._detached:  # that was said of a stream that is sealed now
            self._journal.set_detached(False)
            self._detached = False
        if record is not None and record.sealed:
            self._mode = Mode.SEALED
        elif self._detached:
            self._mode = Mode.DETACHED

    def start(self) -> None:
        """Let the stream run."""
        self._thread.start()
        self._watch.start()

    # ---- the link thread

    def _run(self) -> None:
        backoff = BACKOFF_SECONDS_MIN
        while not self._ending:
            self._wake.clear()
            if self._idle():
                self._wake.wait()
                continue
            heard = self._attempt()
            backoff = BACKOFF_SECONDS_MIN if heard else min(backoff * 2, BACKOFF_SECONDS_MAX)
            if not self._idle():
                self._wake.wait(backoff)

    def _idle(self) -> bool:
        return self._stopping() or self._mode in (Mode.STOPPED, Mode.SEALED)

    def _stopping(self) -> bool:
        return self._ending or self._detached

    def _attempt(self) -> bool:
        """One life of the link, to its end; True when the source said anything. The one net for all that can happen."""
        before, reason = self._tail(), None
        try:
            self._wait_for_space()
            self._stream.run()
        except Exception as error:
            reason = reason_of(error, self._config.directory)
            if isinstance(error, OSError):
                self._segment.doubtful = self._segment.writer is not None
            if reason.code is StopCode.INTERNAL:
                log.exception("defect")
        heard = self._count()
        if before != self._tail():
            self._faults = 0
        if reason is not None:
            self._stop(reason)
        return heard

    def _tail(self) -> object:
        writer = self._segment.writer
        return writer.tail() if writer else None

    def _wait_for_space(self) -> None:
        if self._stopped and self._stopped.code is StopCode.DISK_FULL:
            free = shutil.disk_usage(self._journal.path).free
            if free < DISK_RESERVE_BYTES:
                raise OSError(errno.ENOSPC, "still full")

    def _stop(self, reason: StopReason) -> None:
        self._faults += reason.code in _WIRE_FAULTS
        on_wire = reason.code in _WIRE_FAULTS and not self._segment.doubtful
        again = reason.retried or (on_wire and self._faults < WIRE_FAULT_ATTEMPTS)
        with self.changed:
            if self._stopping():
                return  # ended on command: that is no reason
            before = self._stopped
            if before and before.code is reason.code:
                reason = replace(reason, since_unix=before.since_unix)
            else:
                log.warning("stopped code=%s again=%s message=%s", reason.code, again, reason.message)
            self._stopped = reason
            self._mode = Mode.WAITING if again else Mode.STOPPED
            self.changed.notify_all()

    def _attached(self, ingest: Ingest, non_blocking: bool) -> None:
        self._count()
        with self.changed:
            self._ingest = ingest
            self._mode = Mode.CATCHING_UP if non_blocking else Mode.FOLLOWING
            self._stopped = None
            self.changed.notify_all()

    def _count(self) -> bool:
        """Add the finished connection to the totals; True when anything came over it."""
        with self.changed:
            ingest, self._ingest = self._ingest, None
            if ingest is None:
                return False
            self._bytes += ingest.bytes
            self._transactions += ingest.transactions
            self._last_commit = ingest.last_commit_unix or self._last_commit
            self._last_arrival = ingest.last_arrival
        return ingest.events_seen

    # ---- the watch thread

    def _progress(self) -> int | None:
        """Bytes on the current connection while following."""
        ingest = self._ingest
        return ingest.bytes if ingest is not None and self._mode is Mode.FOLLOWING else None

    def _redial(self) -> None:
        log.warning("the source commits and the stream is silent: dialling again")
        self._stream.close()

    # ---- commands, from any thread

    def detach(self) -> GtidSet:
        """Stop receiving, durably, and return the end. Idempotent."""
        with self._commands:
            return self._detach()

    def _detach(self) -> GtidSet:
        if not self._detached:
            self._journal.set_detached(True)
            with self.changed:
                self._detached = True
        self._halt()
        with self.changed:
            if self._mode is not Mode.SEALED:
                self._mode = Mode.DETACHED
        return self.end()

    def _halt(self) -> None:
        """Wait until the link thread has taken what had arrived and let go of the segment."""
        deadline = time.monotonic() + COMMAND_SECONDS
        while not self._stream.busy.acquire(timeout=HALT_POLL_SECONDS):
            self._stream.close()
            if time.monotonic() > deadline:
                raise Transient("the link does not end", retry_seconds=1.0, code="Busy")
        self._stream.busy.release()

    def attach(self) -> None:
        """Receive again, also after a stop that was final. Idempotent."""
        with self._commands:
            if self._mode is Mode.SEALED:
                raise Permanent("the segment is sealed", hint="Start a stream with a newer epoch.", code="Sealed")
            if self._detached:
                self._journal.set_detached(False)
            with self.changed:
                self._faults = 0
                self._detached = False
                if self._mode in (Mode.STOPPED, Mode.DETACHED):
                    self._mode = Mode.STARTING
                    self._stopped = None
            self._wake.set()

    def seal(self) -> SegmentRecord:
        """End the segment for ever; returns its record. Idempotent."""
        with self._commands:
            self._detach()
            if self._segment.doubtful:
                self._segment.adopt()
            writer = self._segment.writer
            if writer is None:
                raise Permanent("there is no segment to seal", hint="Nothing was ever received.", code="NoSegment")
            record = writer.seal()
            with self.changed:
                self._mode = Mode.SEALED
                self._stopped = None
            return record

    def refresh_start(self) -> GtidSet:
        """Ask the source now for what it applied without logging, before it is opened for writes; returns the start."""
        writer = self._segment.writer
        if writer is None:
            raise Permanent("there is no segment yet", hint="Wait until the stream follows.", code="NoSegment")
        self._stream.refresh_start(writer)
        return writer.start

    @contextmanager
    def removing(self) -> Iterator[SegmentWriter | None]:
        """Hold the segments still while retention removes files: no sealing meanwhile."""
        with self._commands:
            yield self._segment.writer

    def end(self) -> GtidSet:
        """Everything a reader has who has read the whole journal. Raises Permanent when damage hides it."""
        if self._segment.writer is None and self._segment.doubtful:
            why = self._stopped.message if self._stopped else "its tail cannot be read"
            raise Permanent(
                f"the end of the journal is not known: {why}", hint="Mend the journal first.", code="CorruptEvent"
            )
        return self._segment.end()

    def wait_contains(self, wanted: GtidSet, seconds: float) -> bool:
        """Wait until every transaction in `wanted` is durable here; False when it is not by then."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not wanted.issubset(self.end()):
                left = deadline - time.monotonic()
                if left <= 0 or self._ending:
                    return False
                self.changed.wait(left)
            return True

    def state(self) -> ReceiverState:
        usage = shutil.disk_usage(self._journal.path)
        stored = disk_bytes(self._journal)
        with self.changed:
            writer, ingest = self._segment.writer, self._ingest
            record = writer.record if writer else None
            arrival = ingest.last_arrival if ingest else self._last_arrival
            return ReceiverState(
                mode=self._mode,
                connected=ingest is not None and ingest.events_seen,
                segment=record.name if record else "",
                epoch=record.epoch if record else self._config.epoch,
                sealed=record.sealed if record else False,
                source_uuid=record.from_uuid if record else self._config.source.expected_server_uuid,
                start_gtid_set=str(writer.start) if writer else "",
                end_gtid_set=str(self._segment.end()),
                file=writer.file if writer else "",
                position=writer.boundary if writer else 0,
                bytes=self._bytes + (ingest.bytes if ingest else 0),
                transactions=self._transactions + (ingest.transactions if ingest else 0),
                disk_bytes=stored,
                disk_free_bytes=usage.free,
                stopped=self._stopped,
                last_event_age=None if arrival is None else time.monotonic() - arrival,
                last_commit_unix=(ingest.last_commit_unix if ingest else 0.0) or self._last_commit,
                dials=self._stream.dials,
                pid=os.getpid(),
                version=CONTROL_VERSION,
            )

    def close(self) -> None:
        """End the stream cleanly; the next start continues where it was."""
        with self.changed:
            self._ending = True
            self.changed.notify_all()
        self._watch.close()
        self._wake.set()
        self._halt()
        self._segment.close()
