"""What every move of one side stands on: its seat, its notes, its journal, and the ways to the two servers.

Who may be asked what is decided here once: the own endpoint with `admin`, the other one with `replication` (R4, R6).
It knows no moves.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from farshore_agent.engines import Seat
from farshore_agent.mysql.connections import Address, Line, Session, address, dial, endpoint
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journaling import Journal
from farshore_agent.mysql.notes import Notes
from farshore_schema.errors import Permanent
from farshore_schema.roles import Consent, Side, peer

WATCH_SECONDS: Final = 1.0
"""Observation gives up on a connect or an answer after so long."""


class ServerFacts(NamedTuple):
    """Who a server is and what it holds."""

    server: str  # server_uuid
    version: str
    executed: GtidSet
    super_read_only: bool


class Ground:
    """One side of one pair. Moves come one at a time; observation runs beside them on a line of its own."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.pair, self.side = seat.pair, seat.side
        self.notes = Notes(seat.directory)
        self.own_address: Address = address(seat.document, seat.side, "admin", seat.secret)
        self.peer_address: Address = address(seat.document, peer(seat.side), "replication", seat.secret)
        self.own = Line(self.own_address)
        self.watch = Line(self.own_address, connect_seconds=WATCH_SECONDS, answer_seconds=WATCH_SECONDS)
        self.journal = Journal(
            seat.directory,
            pair=seat.pair,
            settings=seat.document.journal,
            source=self.peer_address,
            notes=self.notes,
        )
        at = endpoint(seat.document, seat.side)
        self.site = at.site
        self.ours = frozenset({at.admin.user, at.replication.user})
        """Users of our accounts on the own server; a fence spares their sessions."""
        self.durability_lock = threading.Lock()
        """Held while durability settings of the own server change: marks are taken beside the moves."""

    def dial_own(self) -> Session:
        """Open one more session at the own server; the caller closes it."""
        return dial(self.own_address)

    def dial_peer(self) -> Session:
        """Open a session at the other server, which only reads; the caller closes it."""
        return dial(self.peer_address)

    def close(self) -> None:
        """Let go of all connections."""
        self.own.close()
        self.watch.close()


def facts(session: Session) -> ServerFacts:
    """Ask a server who it is and what it holds."""
    server, version, executed, closed = session.row(
        "SELECT @@GLOBAL.server_uuid, @@GLOBAL.version, @@GLOBAL.gtid_executed, @@GLOBAL.super_read_only"
    )
    return ServerFacts(str(server).lower(), str(version), GtidSet.parse(str(executed)), bool(closed))


def of_server(executed: GtidSet, server: str) -> GtidSet:
    """Return the part of a GTID set that one server committed itself, under any tag."""
    uuid = bytes.fromhex(server.replace("-", ""))
    found = GtidSet()
    for key, low, high in executed.intervals():
        if key[0] == uuid:
            found.add_interval(key, low, high)
    return found


def own_facts(ground: Ground, session: Session, consent: Consent | None = None) -> ServerFacts:
    """Ask the own server; raises Permanent("source_replaced") when it is not the one this side is bound to (R3).

    A server that the consent of a rebind names becomes the bound one.
    """
    found = facts(session)
    bound = ground.notes.binding().own
    if bound and bound != found.server and not names_server(consent, side=ground.side, server=found.server):
        raise _replaced(ground, ground.own_address, bound, found.server)
    ground.notes.bind(own=found.server)
    return found


def names_server(consent: Consent | None, *, side: Side, server: str) -> bool:
    """Return whether the consent of a rebind, if there is one, is for this server at this side."""
    return consent is not None and (consent.side, consent.server.lower()) == (side, server)


def peer_facts(ground: Ground, own: ServerFacts, *, own_is_active: bool = False) -> ServerFacts:
    """Ask the other server; raises Permanent: "same_server", or "source_replaced" when it is another than before.

    While the own side is active, a replaced standby is taken over when it holds nothing that is not here: no stream
    came from it yet that could be confused.
    """
    with ground.dial_peer() as session:
        found = facts(session)
    if found.server == own.server:
        raise Permanent("same_server", "both endpoints of the pair lead to one server", hint="correct host or port")
    bound = ground.notes.binding().peer
    clean_standby = own_is_active and found.super_read_only and found.executed.issubset(own.executed)
    if bound and bound != found.server and not clean_standby:
        raise _replaced(ground, ground.peer_address, bound, found.server)
    ground.notes.bind(peer=found.server)
    return found


def _replaced(ground: Ground, at: Address, bound: str, found: str) -> Permanent:
    return Permanent(
        "source_replaced",
        f"the server at {at.host}:{at.port} is {found}; this side of {ground.pair} is bound to {bound}",
        hint=f"if it was replaced on purpose: at the active side `farshore rebind {ground.pair}`, at the standby "
        f"`farshore reprotect {ground.pair}`",
    )
