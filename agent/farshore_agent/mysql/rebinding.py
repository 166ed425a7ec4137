"""What is proved before a pair follows the server that took the active one's place (R3); it changes nothing.

Each gateway proves what it alone can see: the active side's, that the new server is in use and suitable; the standby's,
that the new server has all that was received here and still has what comes next. It knows no epochs and binds nobody.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from farshore_agent.mysql import channel, persisted, rules
from farshore_agent.mysql.connections import Address, Session
from farshore_agent.mysql.ground import Ground, ServerFacts, facts, of_server, own_facts
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.portrait import paint
from farshore_schema.errors import Permanent, Transient
from farshore_schema.roles import Consent

SHOWN_CHARACTERS_MAX: Final = 400
RETRY_SECONDS: Final = 1.0


class Proved(NamedTuple):
    """What a proof found: who the new server is, and from where on this side needs it."""

    there: ServerFacts
    held: GtidSet
    """All that is applied here and came from the source."""


def prove(ground: Ground, consent: Consent) -> None:
    """Return when the consented server can be rebound, as far as this side can tell."""
    if consent.side == ground.side:
        with ground.dial_own() as session:
            _suitable(ground, session, consent)
        return
    with ground.own.session() as session:
        contains(ground, own_facts(ground, session), consent)
        error = channel.applier_error(session)
        if error is not None:
            raise channel.explain(error)


def refuse_unnamed(at: Address, consent: Consent, found: str) -> None:
    """Raise Permanent("source_replaced") when another server answers than the one that the consent names."""
    if consent.server.lower() != found:
        raise Permanent(
            "source_replaced",
            f"the server at {at.host}:{at.port} is {found}; the rebind names {consent.server}",
            hint="see which server the endpoint is to lead to, then ask again",
        )


def contains(ground: Ground, own: ServerFacts, consent: Consent) -> Proved:
    """Prove that the new server has everything that was received here, and has not purged what comes next.

    Transactions that a standby which followed without a break wrote itself (FLUSH and its like) stop nothing, as in any
    stream. Raises Permanent: "diverged" with both histories, "source_purged", "source_replaced", "same_server".
    """
    with ground.dial_peer() as session:
        there = facts(session)
        purged = GtidSet.parse(str(session.scalar("SELECT @@GLOBAL.gtid_purged")))
    if there.server == own.server:
        raise Permanent("same_server", "both endpoints of the pair lead to one server", hint="correct host or port")
    refuse_unnamed(ground.peer_address, consent, there.server)
    received = own.executed.union(ground.journal.received())
    extra = received.subtract(there.executed)
    if extra and not (_followed(ground, there.server) and extra == of_server(extra, own.server)):
        raise _diverged(ground, received, there, extra)
    missing = purged.subtract(own.executed)
    if missing.issubset(received) and missing:
        raise Transient(
            "not_possible_now",
            f"this side has not yet applied {missing.count()} transactions that it received and the new server purged",
            retry_seconds=RETRY_SECONDS,
        )
    if missing:
        raise _purged(ground, missing)
    return Proved(there, own.executed.subtract(extra))


def _suitable(ground: Ground, session: Session, consent: Consent) -> None:
    """Judge the new server like one of a new pair; it must be open already, because a rebind opens nothing."""
    refuse_unnamed(ground.own_address, consent, facts(session).server)
    refuse_closed(ground, session)
    for found in rules.of_server(paint(session, ground.pair), ground.seat.document):
        if found.severity == "error":
            raise Permanent(found.code, found.message, hint=found.hint, field=found.field)


def refuse_closed(ground: Ground, session: Session) -> None:
    """Raise Transient while the new server is not open for clients: its own failover may still be under way."""
    if not persisted.switches(session).open_for_clients:
        at = ground.own_address
        raise Transient(
            "not_possible_now",
            f"the new server at {at.host}:{at.port} is not open for clients; a rebind opens nothing",
            retry_seconds=RETRY_SECONDS,
            hint="SET PERSIST super_read_only = OFF, PERSIST read_only = OFF; there, if it is the one in use",
        )


def _followed(ground: Ground, there: str) -> bool:
    """Whether this side followed the old server without a break, or was found fit to follow the new one already."""
    note = ground.notes.stream()
    if note is None:
        return False
    bound = ground.notes.binding().peer
    return (note.joined and note.source_uuid == bound) or (bound == there == note.source_uuid)


def _diverged(ground: Ground, received: GtidSet, there: ServerFacts, extra: GtidSet) -> Permanent:
    error = Permanent(
        "diverged",
        f"the new server at {ground.peer_address.host}:{ground.peer_address.port} lacks {extra.count()} transactions "
        f"that this side received: {str(extra)[:SHOWN_CHARACTERS_MAX]}",
        hint=f"let a server that has them answer there, then farshore rebind {ground.pair}; or look at them "
        f"(mysqlbinlog --include-gtids), and give this side's copy up: farshore rebind {ground.pair} "
        f"--without-standby, then farshore reprotect {ground.pair}",
    )
    error.current = {"only_here": str(extra), "here": str(received), "there": str(there.executed)}
    return error


def _purged(ground: Ground, missing: GtidSet) -> Permanent:
    error = Permanent(
        "source_purged",
        f"the new server at {ground.peer_address.host}:{ground.peer_address.port} has no binary log of "
        f"{missing.count()} transactions that this side never received: {str(missing)[:SHOWN_CHARACTERS_MAX]}",
        hint=f"a new copy is needed: farshore rebind {ground.pair} --without-standby, then farshore reprotect "
        f"{ground.pair}; replicas that may take over keep what they apply with log_replica_updates=ON",
    )
    error.current = {"missing": str(missing)}
    return error
