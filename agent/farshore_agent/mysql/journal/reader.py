"""The reading end of a journal: which file a replica starts in, and how far each file may be read.

Nothing beyond the published position is ever read, so nothing served can be taken back. Readers take no lock and hold
no state of the writer: the documents are replaced atomically and files only grow or go. This module must not know
connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from farshore_agent.mysql.journal import events
from farshore_agent.mysql.journal.catalogue import JournalDirectory, SegmentRecord, file_number
from farshore_agent.mysql.journal.errors import Permanent
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.position import PositionReader, Published
from farshore_agent.mysql.journal.scan import read_previous

PREVIOUS_CACHE_MAX: Final = 4096
TEXT_CHARACTERS_MAX: Final = 400
"""MySQL cuts the texts of errors off at about 500."""


class NotServable(Permanent):
    """The journal cannot bring this requester up to date; the text is shown by the replica."""

    code = "NotServable"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file of the journal."""

    segment: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    position: int
    """Bytes that may be served."""
    closed: bool
    """No more will follow in this file."""
    start_generation: int
    """Of the place's segment, as far as it is the published one; else 0."""


class JournalReader:
    """One reader per thread, or guarded by its owner: the cache is not shared safely otherwise."""

    def __init__(self, journal: JournalDirectory) -> None:
        """Raises FormatTooNew or Permanent when this is no journal of ours."""
        journal.check_format()
        self.journal = journal
        self._positions: PositionReader | None = None
        self._previous: dict[Place, GtidSet] = {}
        self._sealed: set[str] = set()

    # ---- how far

    def published(self) -> Published | None:
        """The published position; None before the first segment. Raises Corrupt."""
        if self._positions is None:
            try:
                self._positions = PositionReader(self.journal.position)
            except FileNotFoundError:
                return None
        return self._positions.read()

    def limit(self, place: Place) -> Limit:
        """How far `place` may be read now. Raises OSError when retention removed it, Corrupt."""
        published = self.published()
        if published is None:
            return Limit(position=0, closed=False, start_generation=0)
        if published.segment == place.segment and published.file == place.file:
            return Limit(
                position=published.position,
                closed=published.sealed,
                start_generation=published.start_generation,
            )
        if not self._complete(place, published):
            return Limit(position=0, closed=False, start_generation=0)
        size = (self.journal.segment(place.segment) / place.file).stat().st_size
        return Limit(position=size, closed=True, start_generation=0)

    def _complete(self, place: Place, published: Published) -> bool:
        """Whether every byte of a file that is not the published one was published: a file before it, since rotation
        syncs the old file before it publishes the new one, or one of a sealed segment."""
        if place.segment == published.segment:
            return bool(published.file) and file_number(place.file) < file_number(published.file)
        if place.segment not in self._sealed and self.journal.record(place.segment).sealed:
            self._sealed.add(place.segment)
        return place.segment in self._sealed

    def places(self) -> list[Place]:
        """Every file that may be served, in serving order: up to the published one."""
        published = self.published()
        segments = self.journal.catalogue().segments
        if published is None or published.segment not in segments:
            return []
        found: list[Place] = []
        for segment in segments:
            places = [Place(segment=segment, file=file) for file in self.journal.files(segment)]
            if segment != published.segment:
                found += places
                continue
            here = Place(segment=segment, file=published.file)
            return found + places[: places.index(here) + 1 if here in places else 0]
        return found

    def after(self, place: Place) -> Place | None:
        """The file that follows `place`; None while there is none. Raises FileNotFoundError when `place` is gone."""
        places = self.places()
        if place not in places:
            raise FileNotFoundError(f"retention removed {place.file}")
        follower = places.index(place) + 1
        return places[follower] if follower < len(places) else None

    # ---- where to start

    def choose(self, held: GtidSet) -> Place:
        """Return the newest file that lacks nothing that a requester with `held` needs. Raises NotServable.

        The requester must hold what came before the file, and what the source executed before the segment without
        logging it (`start`): PREVIOUS_GTIDS alone does not show that when the source runs log_replica_updates=OFF.
        """
        places = self.places()
        records = {record.name: record for record in self.journal.records()}
        closest: GtidSet | None = None
        for place in reversed(places):
            previous = self._previous_of(place)
            if previous is None or place.segment not in records:
                continue
            missing = GtidSet.parse(records[place.segment].start).union(previous).subtract(held)
            if not missing:
                return place
            if closest is None or missing.count() < closest.count():
                closest = missing
        raise NotServable(
            "the journal starts after transactions that the requester lacks: " + _short(closest)
            if closest
            else "the journal holds no file yet",
            hint="Seed the requester again, or fill it from the journal that holds these transactions.",
        )

    def check_start(self, segment: str, have: GtidSet) -> SegmentRecord:
        """Return the segment's record when a reader with `have` may read on in it. Raises NotServable."""
        record = self.journal.record(segment)
        missing = GtidSet.parse(record.start).subtract(have)
        if missing:
            raise NotServable(
                f"the journal's segment {segment} needs transactions that are not in this journal: {_short(missing)}",
                hint="Fill the requester from the other site's journal, or seed it again.",
            )
        return record

    def close(self) -> None:
        if self._positions is not None:
            self._positions.close()

    def _previous_of(self, place: Place) -> GtidSet | None:
        found = self._previous.get(place)
        if found is None:
            if self.limit(place).position <= events.FIRST_POSITION:
                return None
            try:
                found = read_previous(self.journal.segment(place.segment) / place.file)
            except FileNotFoundError:
                return None  # retention was faster
            if found is not None:
                if len(self._previous) >= PREVIOUS_CACHE_MAX:
                    self._previous.clear()
                self._previous[place] = found
        return found


def _short(gtids: GtidSet) -> str:
    """A set for an error text."""
    text = str(gtids)
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[:TEXT_CHARACTERS_MAX] + "..."
