"""Who serves which side of which pair: one agent each, the site's enrolled one or else the embedded one (R4, R7).

A side changes hands only while no operation of its pair is open and only with its durable record; an enrolled agent
that is away is replaced by nobody. This module knows conversations and assignments, and neither waits nor parses.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from farshore.conversation import Conversation
from farshore.sessions import Standing
from farshore.sightings import Seat, Sightings
from farshore_schema.messages import Assign, Unassign
from farshore_schema.observed import SideReport
from farshore_schema.roles import SIDES, Record, Side


class Directory(Protocol):
    """What must be known of the declarations; answered from the store."""

    def sites(self) -> frozenset[str]:
        """Return every declared site."""
        ...

    def enrolled(self) -> Mapping[str, str]:
        """Return the sites that have an enrolled agent, connected or not, with the hash of its credential."""
        ...

    def assignment(self, seat: Seat) -> Assign | None:
        """Return what the side's agent should be told now, None when the pair is no more."""
        ...

    def hand_over(self, seat: Seat, record: Record) -> None:
        """Keep the record with which a side changes hands, until it was `handed`."""
        ...

    def handed(self, seat: Seat) -> None:
        """The side's agent has a record: what was kept for it is of no use any more. Idempotent and cheap."""
        ...


class _Fingerprint(NamedTuple):
    """What an assignment says; another one must be sent when it differs."""

    incarnation: int
    generation: int
    active: Side | None
    epoch: int


class _Served(NamedTuple):
    by: Conversation
    fingerprint: _Fingerprint


class Seats:
    """The sides and who sits there."""

    def __init__(self, sightings: Sightings, directory: Directory) -> None:
        self._sightings, self._directory = sightings, directory
        self._by_site: dict[str, Conversation] = {}  # enrolled agents
        self._retired: list[Conversation] = []  # revoked ones, whose sides have not changed hands yet
        self._served: dict[Seat, _Served] = {}
        self._standings: dict[str, Standing] = {}  # of every pair that was visited
        self.embedded: Conversation | None = None

    # ---- agents come and go

    def arrive(self, conversation: Conversation) -> None:
        """Let an agent serve its sites from now on; the pairs' next visits assign."""
        if conversation.embedded:
            self.embedded = conversation
        else:
            self._by_site |= dict.fromkeys(conversation.sites, conversation)

    def leave(self, conversation: Conversation) -> list[Seat]:
        """Forget an agent; return the sides it served. Idempotent."""
        if self.embedded is conversation:
            self.embedded = None
        self._free_sites(conversation)
        self._retired = [each for each in self._retired if each is not conversation]
        lost = [seat for seat, served in self._served.items() if served.by is conversation]
        for seat in lost:
            del self._served[seat]
        return lost

    def revoked(self) -> list[Conversation]:
        """Return the enrolled agents whose credential counts for no site any more; their sites are free for others."""
        valid = self._directory.enrolled()
        gone = [
            each
            for each in self.live()
            if not each.embedded and each.credential not in (valid.get(site) for site in each.sites)
        ]
        for each in gone:
            self._retire(each)
        return gone

    def serves_any(self, conversation: Conversation) -> bool:
        """Return whether an agent still serves a side."""
        return any(served.by is conversation for served in self._served.values())

    def rivals(self, sites: Iterable[str], *, embedded: bool) -> list[Conversation]:
        """Return the agents that serve what a newcomer wants to serve."""
        if embedded:
            return [self.embedded] if self.embedded is not None else []
        return [self._by_site[site] for site in sites if site in self._by_site]

    def live(self) -> list[Conversation]:
        """Return every open conversation, in the order of their numbers."""
        found = {*self._by_site.values(), *self._retired}
        if self.embedded is not None:
            found.add(self.embedded)
        return sorted((each for each in found if each.open), key=lambda each: each.number)

    def of_site(self, site: str) -> Conversation | None:
        """Return the live agent that should serve a site now."""
        found = self._by_site.get(site) if site in self._directory.enrolled() else self.embedded
        return found if found is not None and found.open else None

    def _retire(self, conversation: Conversation) -> None:
        self._free_sites(conversation)
        if conversation not in self._retired:
            self._retired.append(conversation)

    def _free_sites(self, conversation: Conversation) -> None:
        for site in [site for site, each in self._by_site.items() if each is conversation]:
            del self._by_site[site]

    # ---- sides

    def by(self, pair: str, side: Side) -> Conversation | None:
        """Return the live agent that serves a side."""
        served = self._served.get((pair, side))
        return served.by if served is not None and served.by.open else None

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation of the declaration that the side's live agent was given, 0 when there is none."""
        served = self._served.get((pair, side))
        return served.fingerprint.generation if served is not None and served.by.open else 0

    def standing(self, pair: str) -> Standing | None:
        """Return what the pair's newest visit said of it."""
        return self._standings.get(pair)

    def pairs_at(self, sites: frozenset[str]) -> Iterator[str]:
        """Return the visited pairs with a side at one of these sites."""
        return (
            pair
            for pair, standing in tuple(self._standings.items())
            if standing.site_a in sites or standing.site_b in sites
        )

    def settle(self, standing: Standing) -> None:
        """Bring both sides' assignments up to date. Idempotent; nothing is sent twice."""
        self._standings[standing.pair] = standing
        for side in SIDES:
            self._settle((standing.pair, side), standing)

    def gone(self, pair: str) -> None:
        """Take both sides back: the pair is no more. Idempotent."""
        for side in SIDES:
            if (pair, side) in self._served:
                self._take_back((pair, side))
            self._directory.handed((pair, side))
        self._standings.pop(pair, None)

    def may_report(self, conversation: Conversation, seat: Seat, incarnation: int) -> bool:
        """Return whether the agent serves the side in this life; a leftover of a pair that is no more is taken back."""
        served = self._served.get(seat)
        if served is not None and served.by is conversation:
            return incarnation == served.fingerprint.incarnation
        if self._directory.assignment(seat) is None:
            conversation.unassign(Unassign(pair=seat[0], side=seat[1], incarnation=incarnation))
        return False

    def _settle(self, seat: Seat, standing: Standing) -> None:
        wanted, served = self.of_site(standing.site(seat[1])), self._served.get(seat)
        if served is not None and served.by is not wanted:
            if wanted is None or standing.busy or not self._may_change_hands(seat, served):
                wanted = served.by
            else:
                self._take_back(seat)
                served = None
        if wanted is None:
            return
        now = _Fingerprint(standing.incarnation, standing.generation, standing.active, standing.epoch)
        if served is None or served.fingerprint != now:
            self._served[seat] = _Served(wanted, now)
            wanted.assign(seat)

    def _may_change_hands(self, seat: Seat, served: _Served) -> bool:
        """Keep the side's record for its next agent; False while the present one, alive, has not reported it."""
        if not served.by.open:
            return True  # it left without a word: whoever comes is enrolled afresh
        observed = self._sightings.observed(seat[0])
        report = observed.a if seat[1] == "a" else observed.b
        if report is None:
            return False
        if report.enrolled:
            self._directory.hand_over(seat, record_of(report))
        return True

    def _take_back(self, seat: Seat) -> None:
        served = self._served.pop(seat)
        served.by.unassign(Unassign(pair=seat[0], side=seat[1], incarnation=served.fingerprint.incarnation))


def record_of(report: SideReport) -> Record:
    """Return the durable record that a report repeats, but for the intents: another agent was never sent those."""
    return Record(
        token=report.token,
        epoch=report.epoch,
        fenced_epoch=report.fenced_epoch,
        promoted_epoch=report.promoted_epoch,
        stream_epoch=report.stream_epoch,
        base=report.base,
        receipt=report.receipt,
        enrolled=report.enrolled,
        seeded_for=report.seeded_for,
    )
