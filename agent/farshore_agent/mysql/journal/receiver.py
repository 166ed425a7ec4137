"""The stream: dial the source, catch up, follow, and start again after anything that heals; stop with a code otherwise.

One thread runs the link and is the only one that appends. Commands come from other threads: they change what the link
thread should do and wait until it does. Every dial proves first that the source is the same server with the same
history (server_uuid, gtid_executed, and our last event sent again byte for byte). This module must not know sockets of
the control side, processes or retention.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.acks import AckPolicy, NoAcks
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.config import JournalConfig
from farshore_agent.mysql.journal.control import CONTROL_VERSION
from farshore_agent.mysql.journal.errors import Corrupt, Permanent, StopCode, StopReason, StreamStopped, Transient
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.history import contradicts, doubt, head, other_history, overlap, unlogged
from farshore_agent.mysql.journal.ingest import Ingest, checksum_off
from farshore_agent.mysql.journal.link import SourceFacts, SourceLink
from farshore_agent.mysql.journal.position import PositionWriter
from farshore_agent.mysql.journal.reasons import reason_of
from farshore_agent.mysql.journal.retention import disk_bytes
from farshore_agent.mysql.journal.state import Mode, ReceiverState
from farshore_agent.mysql.journal.store import SegmentWriter
from farshore_agent.mysql.journal.wake import Waker
from farshore_agent.mysql.journal.watch import Watch

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 5.0
WIRE_FAULT_ATTEMPTS: Final = 3
"""Dials in a row that end in a damaged or broken stream before it counts as the source's own."""
CAUGHT_UP_SECONDS: Final = 0.5
"""A catch-up shorter than this leaves so little that following may begin."""
CATCH_UP_PASSES_MAX: Final = 20
DISK_RESERVE_BYTES: Final = 4 << 20
"""After a full disk, the stream resumes when this much is free: a few batches and the journal's own documents."""
COMMAND_SECONDS: Final = 30.0

_WIRE_FAULTS: Final = frozenset({StopCode.CORRUPT_EVENT, StopCode.GAP})

log = logging.getLogger("journal.receiver")


class Receiver:
    """The stream of one journal. Construct, `start`, then command it from any thread; `close` at the end."""

    def __init__(self, journal: JournalDirectory, config: JournalConfig, *, acks: AckPolicy | None = None) -> None:
        """Open the directory and recover the open segment, without dialling. The caller holds DIR/lock.

        Raises Corrupt, FormatTooNew, or Permanent when the directory has an open segment of another stream.
        """
        self._journal = journal
        self._config = config
        self._acks: AckPolicy = acks or NoAcks()
        catalogue = journal.create(pair=config.pair)
        self._positions = PositionWriter(journal.position)
        self._waker = Waker(journal.run / "server.wake")
        self.changed = threading.Condition()
        self.writer: SegmentWriter | None = None
        self._reopen = False
        self._link: SourceLink | None = None
        self._ingest: Ingest | None = None
        self._mode = Mode.STARTING
        self._stopped: StopReason | None = None
        self._detached = catalogue.detached
        self._ending = False
        self._wake = threading.Event()
        self._busy = threading.Lock()
        """Held by the link thread while it may touch the segment; not while it connects."""
        self._commands = threading.Lock()
        self._bytes = self._transactions = self._dials = 0
        self._last_commit = 0.0
        self._last_arrival: float | None = None
        self._faults = 0
        try:
            self._adopt_segment()
        except Corrupt as damage:
            # The process lives on to say so; `attach` looks again.
            self._reopen = True
            self._stop(reason_of(damage, config.directory))
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._watch = Watch(config, progress=self._progress, end=self.end, redial=self._redial)

    def _adopt_segment(self) -> None:
        """Recover the segment that this stream continues, if there is one."""
        records = self._journal.records()
        if not records:
            return
        last, config = records[-1], self._config
        same = last.epoch == config.epoch and last.from_uuid == config.source.expected_server_uuid.lower()
        if not last.sealed and not same:
            raise Permanent(
                f"the segment {last.name} (epoch {last.epoch}, from {last.from_uuid}) is still open",
                hint="Seal it before a stream of another epoch or server starts.",
                code="SegmentOpen",
            )
        if last.sealed and last.epoch > config.epoch:
            raise Permanent(
                f"the journal already holds epoch {last.epoch}; epoch {config.epoch} is older",
                hint="Use the epoch that the store has now.",
                code="EpochTooOld",
            )
        if last.sealed and self._detached:  # that was said of the sealed stream
            self._journal.set_detached(False)
            self._detached = False
        if not last.sealed or same:
            self._open(last)
        if last.sealed and same:
            self._mode = Mode.SEALED
        elif self._detached:
            self._mode = Mode.DETACHED

    def _open(self, record: SegmentRecord) -> SegmentWriter:
        writer = SegmentWriter(self._journal, record, self._positions, self.changed)
        writer.on_published = self._waker.wake
        with self.changed:
            self.writer = writer
            self._reopen = False
            self.changed.notify_all()
        return writer

    def start(self) -> None:
        """Let the link thread run."""
        self._thread.start()
        self._watch.start()

    def _progress(self) -> int | None:
        """For the watch: bytes on the current connection while following."""
        ingest = self._ingest
        return ingest.bytes if ingest is not None and self._mode is Mode.FOLLOWING else None

    def _redial(self) -> None:
        link = self._link
        if link is not None:
            log.warning("the source commits and the stream is silent: dialling again")
            link.close()

    # ---- the link thread

    def _run(self) -> None:
        backoff = BACKOFF_SECONDS_MIN
        while not self._ending:
            self._wake.clear()
            if self._idle():
                self._wake.wait()
                continue
            progressed = self._attempt()
            backoff = BACKOFF_SECONDS_MIN if progressed else min(backoff * 2, BACKOFF_SECONDS_MAX)
            if not self._idle():
                self._wake.wait(backoff)

    def _idle(self) -> bool:
        return self._stopping() or self._mode in (Mode.STOPPED, Mode.SEALED)

    def _stopping(self) -> bool:
        return self._ending or self._detached

    def _attempt(self) -> bool:
        """One life of the link, to its end; True when the source said anything. The one net for all that can happen."""
        before = self.writer.tail() if self.writer else None
        reason = None
        try:
            self._once()
        except Exception as error:
            reason = reason_of(error, self._config.directory)
            if isinstance(error, OSError):
                self._reopen = True
            if reason.code is StopCode.INTERNAL:
                log.exception("defect")
        if self._link is not None:
            self._link.release()
            self._link = None
        heard = self._count()
        if before != (self.writer.tail() if self.writer else None):
            self._faults = 0
        if reason is not None and not self._stopping():
            self._stop(reason)
        return heard

    def _stop(self, reason: StopReason) -> None:
        self._faults += reason.code in _WIRE_FAULTS
        again = reason.retried or (reason.code in _WIRE_FAULTS and self._faults < WIRE_FAULT_ATTEMPTS)
        before = self._stopped
        if before and before.code is reason.code:
            reason = replace(reason, since_unix=before.since_unix)
        else:
            log.warning("stopped code=%s again=%s message=%s", reason.code, again, reason.message)
        with self.changed:
            self._stopped = reason
            self._mode = Mode.WAITING if again else Mode.STOPPED
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

    def _once(self) -> None:
        """Dial, catch up, follow. Returns when told to stop; raises otherwise."""
        self._wait_for_space()
        for _ in range(CATCH_UP_PASSES_MAX):
            began = time.monotonic()
            self._dial(non_blocking=True)
            if self._stopping():
                return
            if time.monotonic() - began < CAUGHT_UP_SECONDS:
                break
        self._dial(non_blocking=False)

    def _wait_for_space(self) -> None:
        if self._stopped and self._stopped.code is StopCode.DISK_FULL:
            free = shutil.disk_usage(self._journal.path).free
            if free < DISK_RESERVE_BYTES:
                raise OSError(errno.ENOSPC, "still full")

    def _dial(self, *, non_blocking: bool) -> None:
        """One connection, to its end. A dead host costs CONNECT_SECONDS, so nothing is held meanwhile."""
        link, facts = self._connect()
        with self._busy:
            if self._stopping():
                return
            writer = self._segment(link, facts)
            if self._link is None:
                link, facts = self._connect()
            try:
                self._stream(link, facts, writer, non_blocking=non_blocking)
            finally:
                if not self._reopen:
                    writer.cut()

    def _connect(self) -> tuple[SourceLink, SourceFacts]:
        if self._link is not None:
            self._link.release()
        self._dials += 1
        link = self._link = SourceLink(self._config)
        return link, link.facts()

    def _segment(self, link: SourceLink, facts: SourceFacts) -> SegmentWriter:
        """The open segment: as it is, recovered again after a disk error, or begun now."""
        if self._reopen:
            self._adopt_segment()
        return self.writer or self._begin(link, facts)

    def _stream(self, link: SourceLink, facts: SourceFacts, writer: SegmentWriter, *, non_blocking: bool) -> None:
        """Prove the source, continue at the tail, and move bytes until the connection's end."""
        suspicion = doubt(writer, facts.executed)
        if facts.applies_unlogged:
            writer.grow_start(unlogged(facts.purged, facts.server_uuid))
        try:
            self._pump(link, facts, writer, non_blocking=non_blocking)
        except StreamStopped as stop:
            if suspicion and contradicts(stop):
                raise suspicion from stop
            if stop.stop not in (StopCode.SOURCE_PURGED, StopCode.CHECKSUM_OFF) or not self._step_over(writer):
                raise

    def _pump(self, link: SourceLink, facts: SourceFacts, writer: SegmentWriter, *, non_blocking: bool) -> None:
        again = overlap(writer)
        refresh = self._refresher(writer) if facts.applies_unlogged else None
        ingest = Ingest(writer, self._acks, overlap=again, before_commit=refresh)
        if not again and writer.boundary:
            link = self._prove_head(link, writer)
        position = max(writer.boundary - len(again), events.FIRST_POSITION)
        link.start(file=writer.file, position=position, non_blocking=non_blocking)
        self._count()
        with self.changed:
            self._ingest = ingest
            self._mode = Mode.CATCHING_UP if non_blocking else Mode.FOLLOWING
            self._stopped = None
            self.changed.notify_all()
        try:
            link.pump(ingest, self._stopping)
        except StreamStopped as stop:
            if ingest.unproved and "source_error" in stop.evidence:
                raise other_history(writer, stop.message) from stop  # it cannot even find our last event
            raise

    def _prove_head(self, link: SourceLink, writer: SegmentWriter) -> SourceLink:
        """Compare how the tail's file begins, where its last event proves nothing; returns a fresh connection."""
        found = link.head_of(writer.file)
        if not found.raw.startswith(head(writer)):
            raise other_history(writer, "it begins differently")
        return self._connect()[0]

    def _step_over(self, writer: SegmentWriter) -> bool:
        """Go on in a later file when those that cannot be had hold no transaction that we lack; False when they do."""
        link, _ = self._connect()
        first = link.first_file(writer.end())
        if not first.checksums or first.previous.subtract(writer.end()):
            return False
        if first.name in self._journal.files(writer.record.name):
            return False
        log.warning("stepped over files without new transactions: next=%s", first.name)
        writer.rotate(first.name)
        return True

    def _begin(self, link: SourceLink, facts: SourceFacts) -> SegmentWriter:
        """Start a segment with the newest file that contains everything after the asked start."""
        asked = self._config.start_gtid_set
        first = link.first_file(facts.executed if asked is None else GtidSet.parse(asked))
        link.release()  # it is in the middle of the dump that found the file
        self._link = None
        if not first.checksums:
            raise checksum_off()
        record = self._journal.add_segment(
            SegmentRecord(
                name="",
                pair=self._config.pair,
                epoch=self._config.epoch,
                from_uuid=facts.server_uuid,
                server_id=facts.server_id,
                server_version=facts.version,
                created_unix=time.time(),
                start=str(first.previous.union(facts.purged)),
            )
        )
        writer = self._open(record)
        writer.rotate(first.name)
        log.info("segment begins name=%s file=%s start=%s", record.name, first.name, record.start)
        return writer

    def _refresher(self, writer: SegmentWriter) -> Callable[[], None]:
        """Before transactions of a standby are published: require everything that it applied without logging.

        Once the source is open for writes it no longer applies (R1), and its start set is final.
        """
        final = False

        def refresh() -> None:
            nonlocal final
            if not final:
                final = not self._refresh(writer).applies_unlogged

        return refresh

    def _refresh(self, writer: SegmentWriter) -> SourceFacts:
        side = SourceLink(self._config)
        try:
            facts = side.facts()
        finally:
            side.release()
        if not facts.log_replica_updates:
            writer.grow_start(unlogged(facts.purged, facts.server_uuid))
        return facts

    # ---- commands, from any thread

    def detach(self) -> GtidSet:
        """Stop receiving, durably, and return the end. Idempotent."""
        with self._commands:
            return self._detach()

    def _detach(self) -> GtidSet:
        if not self._detached:
            self._journal.set_detached(True)
            self._detached = True
        self._halt()
        if self._mode is not Mode.SEALED:
            self._mode = Mode.DETACHED
        return self.end()

    def _halt(self) -> None:
        """Wait until the link thread has let go of the segment."""
        deadline = time.monotonic() + COMMAND_SECONDS
        while not self._busy.acquire(timeout=BACKOFF_SECONDS_MIN):
            link = self._link
            if link is not None:
                link.close()
            if time.monotonic() > deadline:
                raise Transient("the link does not end", retry_seconds=1.0, code="Busy")
        self._busy.release()

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
        """End the segment for ever; returns its record. Idempotent.

        The catalogue is ready for the next stream afterwards: being detached belongs to the sealed one.
        """
        with self._commands:
            self._detach()
            if self._reopen:
                self._adopt_segment()
            if self.writer is None:
                raise Permanent("there is no segment to seal", hint="Nothing was ever received.", code="NoSegment")
            record = self.writer.seal()
            with self.changed:
                self._mode = Mode.SEALED
                self._stopped = None
            self._journal.set_detached(False)
            return record

    def refresh_start(self) -> None:
        """Ask the source now for what it applied without logging; before it is opened for writes (switchover)."""
        if self.writer is None:
            raise Permanent("there is no segment yet", hint="Wait until the stream follows.", code="NoSegment")
        self._refresh(self.writer)

    @contextmanager
    def removing(self) -> Iterator[SegmentWriter | None]:
        """Hold the segments still while retention removes files: no sealing, no new segment."""
        with self._commands:
            yield self.writer

    def end(self) -> GtidSet:
        return self.writer.end() if self.writer else GtidSet()

    def wait_contains(self, wanted: GtidSet, seconds: float) -> bool:
        """Wait until every transaction in `wanted` is durable here; False when it is not by then."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not wanted.issubset(self.end()):
                left = deadline - time.monotonic()
                if left <= 0 or self._ending:
                    return False
                self.changed.wait(min(left, 1.0))
            return True

    def state(self) -> ReceiverState:
        usage = shutil.disk_usage(self._journal.path)
        stored = disk_bytes(self._journal)
        with self.changed:
            writer, ingest = self.writer, self._ingest
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
                end_gtid_set=str(self.end()),
                file=writer.file if writer else "",
                position=writer.boundary if writer else 0,
                bytes=self._bytes + (ingest.bytes if ingest else 0),
                transactions=self._transactions + (ingest.transactions if ingest else 0),
                disk_bytes=stored,
                disk_free_bytes=usage.free,
                stopped=self._stopped,
                last_event_age=None if arrival is None else time.monotonic() - arrival,
                last_commit_unix=(ingest.last_commit_unix if ingest else 0.0) or self._last_commit,
                dials=self._dials,
                pid=os.getpid(),
                version=CONTROL_VERSION,
            )

    def close(self) -> None:
        """End the stream cleanly; the next start continues where it was."""
        self._ending = True
        self._watch.close()
        self._wake.set()
        with self.changed:
            self.changed.notify_all()
        self._halt()
        if self.writer is not None and not self._reopen:
            self.writer.close()
        self._waker.close()
