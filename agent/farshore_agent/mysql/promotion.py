"""Opening a side for writes: nothing more is received, everything received is applied, everything applied is durable.

Decisions are made on reports and reports are stale, so all of it is proved here again, at the call. Nothing in here
writes a GTID. What clients need not wait for follows the opening and is repeated with the order until it is done. It
does not know why the other side cannot commit; that was decided before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from farshore_agent.mysql import channel, durability, events, marker, persisted, scope, settings_record
from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.draining import applied, await_applied
from farshore_agent.mysql.ground import Ground, facts, own_facts
from farshore_agent.mysql.marker import Marker
from farshore_agent.mysql.persisted import is_on
from farshore_agent.mysql.rebinding import refuse_closed, refuse_unnamed
from farshore_schema.errors import Permanent
from farshore_schema.roles import Consent, Evidence, Receipt

NEVER_FOLLOWED: Final[frozenset[Evidence]] = frozenset({"initial", "aborted", "rebound"})
"""The side was active before or the pair is new: what a prepared receiver holds was never to be applied here."""


def promote(
    ground: Ground,
    epoch: int,
    evidence: Evidence,
    receipt: Receipt | None,
    still_holds: Callable[[], None],
    consent: Consent | None = None,
) -> None:
    """Open the own server. Idempotent; on one that is open already it completes what a crash left out.

    With the consent of a rebind this side is bound to the server that it names, which nobody but its owners opens.
    """
    if consent is not None:
        ground.own.close()  # a kept session may still lead to the server that was replaced
    with ground.own.session() as session:
        if consent is not None:
            refuse_unnamed(ground.own_address, consent, facts(session).server)
            refuse_closed(ground, session)
        own = own_facts(ground, session, consent)
        now = persisted.switches(session)
        settings_record.record(session, ground.notes, own.server)
        if now.offline:
            raise Permanent(
                "not_possible_now",
                "the server is in offline_mode: it holds an incomplete copy, or was closed by hand",
                hint="let the seed end; or SET PERSIST offline_mode = OFF if it was closed by hand",
            )
        if evidence not in NEVER_FOLLOWED:
            _all_is_applied(ground, session, evidence, receipt, still_holds)
        channel.stop(session)
        scope.refuse_partial(session)
        if not now.open_for_clients:
            with ground.durability_lock:
                durability.make_full(session)
            ground.notes.leave_stream()
            still_holds()
            persisted.open_for_writes(session)
        _complete(ground, session, epoch)


def _all_is_applied(
    ground: Ground, session: Session, evidence: Evidence, receipt: Receipt | None, still_holds: Callable[[], None]
) -> None:
    """Stop receiving, then wait until all of it is applied.

    From a side that was fenced and drained nothing can come any more: there its position is all there is, and the
    receiver is ended after the opening, which clients wait for. Any other evidence says only that the other side cannot
    commit; what of it was never received is the loss that the operator was shown.
    """
    end = receipt.position if evidence == "fenced" and receipt is not None else ground.journal.detach()
    if end and not applied(session, end):
        _let_apply(ground, session)
        await_applied(ground, session, end, still_holds)


def _let_apply(ground: Ground, session: Session) -> None:
    """Have the channel run, for example after a restart of the server: it is the only way to what was received."""
    error = channel.applier_error(session)
    if error is not None:
        raise channel.explain(error)
    note = ground.notes.stream()
    if note is not None:
        channel.follow(session, ground.journal.serve(note))


def _complete(ground: Ground, session: Session, epoch: int) -> None:
    """Do what clients need not wait for: role marker, durable settings, events, the journal's segment (R21)."""
    ground.journal.seal()
    channel.remove(session)
    marker.write(session, Marker(ground.pair, ground.site, epoch))
    now = persisted.switches(session)
    if "ON" in (now.persisted.get("super_read_only"), now.persisted.get("read_only")):
        persisted.open_for_writes(session)  # opened by hand, or we died before the last word
    noted = ground.notes.workload()
    scheduler = noted.event_scheduler or settings_record.original(ground.notes, "event_scheduler") or "OFF"
    if is_on(scheduler):
        events.switch_on(session, frozenset(noted.disabled_events))
        if not is_on(now.event_scheduler):
            persisted.start_scheduler(session)
    if ground.notes.stream() is not None:
        durability.keep_full(session)
