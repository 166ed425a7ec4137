"""One life of the link: dial the source, prove it, catch up, follow, until told to stop or stopped by a reason.

Every dial proves that the source is the same server with the same history: server_uuid, gtid_executed, and our last
event sent again byte for byte. This module must not know retries, commands or what is shown to people.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.acks import AckPolicy
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord
from farshore_agent.mysql.journal.config import JournalConfig
from farshore_agent.mysql.journal.errors import StopCode, StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.history import (
    contradicts,
    doubt,
    file_to_prove,
    head,
    not_contained,
    other_history,
    overlap,
    unlogged,
)
from farshore_agent.mysql.journal.ingest import Ingest
from farshore_agent.mysql.journal.link import SourceFacts, SourceLink
from farshore_agent.mysql.journal.opensegment import OpenSegment
from farshore_agent.mysql.journal.store import SegmentWriter
from farshore_agent.mysql.journal.wirefaults import checksum_off

CAUGHT_UP_SECONDS: Final = 0.5
"""A catch-up shorter than this leaves so little that following may begin."""
CATCH_UP_PASSES_MAX: Final = 20

log = logging.getLogger("journal.stream")


class Stream:
    """Runs in the link thread; `close`, `busy` and `refresh_start` are for others."""

    def __init__(
        self,
        journal: JournalDirectory,
        config: JournalConfig,
        segment: OpenSegment,
        acks: AckPolicy,
        *,
        stopping: Callable[[], bool],
        attached: Callable[[Ingest, bool], None],
    ) -> None:
        """`attached` hears of each dump: its ingest, and whether it is one that ends when it has caught up."""
        self._journal = journal
        self._config = config
        self._segment = segment
        self._acks = acks
        self._stopping = stopping
        self._attached = attached
        self._link: SourceLink | None = None
        self.busy = threading.Lock()
        """Held while the segment may be touched; not while connecting, which may take CONNECT_SECONDS."""
        self.dials = 0

    def run(self) -> None:
        """Return when told to stop. Raises StreamStopped, JournalError, and OSError for the journal's disk."""
        try:
            if self._segment.doubtful:
                with self.busy:
                    self._segment.adopt()
            for _ in range(CATCH_UP_PASSES_MAX):
                began = time.monotonic()
                self._dial(non_blocking=True)
                if self._stopping():
                    return
                if time.monotonic() - began < CAUGHT_UP_SECONDS:
                    break
            self._dial(non_blocking=False)
        finally:
            self._release()

    def close(self) -> None:
        """End the current connection; `run` then takes what had arrived and returns or raises."""
        link = self._link
        if link is not None:
            link.close()

    def _release(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.release()

    def _connect(self) -> tuple[SourceLink, SourceFacts]:
        self._release()
        self.dials += 1
        link = self._link = SourceLink(self._config)
        return link, link.facts()

    def _dial(self, *, non_blocking: bool) -> None:
        """One connection, to its end."""
        link, facts = self._connect()
        with self.busy:
            if self._stopping():
                return
            writer = self._segment.writer
            if writer is None or not writer.file:
                writer = self._begin(link, facts)
                link, facts = self._connect()  # the search for the first file used the connection up
            try:
                self._follow(link, facts, writer, non_blocking=non_blocking)
            finally:
                self._segment.cut()

    def _follow(self, link: SourceLink, facts: SourceFacts, writer: SegmentWriter, *, non_blocking: bool) -> None:
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
        """Continue at the tail and move bytes until the connection's end."""
        again = overlap(writer)
        refresh = self._refresher(writer) if facts.applies_unlogged else None
        ingest = Ingest(writer, self._acks, overlap=again, before_commit=refresh)
        if not again:
            link = self._prove_head(link, writer)
        position = max(writer.boundary - len(again), events.FIRST_POSITION)
        link.start(file=writer.file, position=position, non_blocking=non_blocking)
        self._attached(ingest, non_blocking)
        try:
            link.pump(ingest, self._stopping)
        except StreamStopped as stop:
            if ingest.unproved and "source_error" in stop.evidence:
                raise other_history(writer, writer.file, stop.message) from stop  # our last event is not there
            raise

    def _prove_head(self, link: SourceLink, writer: SegmentWriter) -> SourceLink:
        """Compare how the newest file begins, where the last event proves nothing; returns a usable connection."""
        file = file_to_prove(writer, self._journal.files(writer.record.name))
        if not file:
            return link
        try:
            if not link.head_of(file).raw.startswith(head(writer.directory / file)):
                raise other_history(writer, file, "it begins differently")
        except StreamStopped as stop:
            if stop.stop is not StopCode.SOURCE_PURGED or file == writer.file:
                raise
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
        asked = facts.executed if self._config.start_gtid_set is None else GtidSet.parse(self._config.start_gtid_set)
        # A standby lacks what it has not applied yet: the reverse stream is attached to it ahead of a switchover.
        if not facts.super_read_only and not asked.issubset(facts.executed):
            raise not_contained(asked, facts.executed)
        first = link.first_file(asked)
        if not first.checksums:
            raise checksum_off()
        record = SegmentRecord(
            name="",
            pair=self._config.pair,
            epoch=self._config.epoch,
            from_uuid=facts.server_uuid,
            server_id=facts.server_id,
            server_version=facts.version,
            created_unix=time.time(),
            start=str(first.previous.union(facts.purged)),
        )
        writer = self._segment.begin(record, first.name)
        log.info("segment begins name=%s file=%s start=%s", writer.record.name, first.name, record.start)
        return writer

    # ---- the start set of a source that applies without logging

    def _refresher(self, writer: SegmentWriter) -> Callable[[], None]:
        """Before transactions of a standby are published: require everything that it applied without logging.

        Once the source is open for writes it no longer applies (R1), and its start set is final.
        """
        final = False

        def refresh() -> None:
            nonlocal final
            if not final:
                final = not self.refresh_start(writer).applies_unlogged

        return refresh

    def refresh_start(self, writer: SegmentWriter) -> SourceFacts:
        """Ask the source, on a connection of its own, for what it applied without logging. Any thread."""
        side = SourceLink(self._config)
        try:
            facts = side.facts()
        finally:
            side.release()
        if not facts.log_replica_updates:
            writer.grow_start(unlogged(facts.purged, facts.server_uuid))
        return facts
