"""Opening a side for writes: nothing more is received, everything received is applied, everything applied is durable.

Decisions are made on reports and reports are stale, so all of it is proved here again, at the call. Nothing in here
writes a GTID. It does not know why the other side cannot commit; that was decided before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from farshore_agent.mysql import channel, durability, events, marker, persisted, settings_record
from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.draining import applied, await_applied, refuse_unapplied
from farshore_agent.mysql.ground import Ground, own_facts
from farshore_agent.mysql.marker import Marker
from farshore_agent.mysql.persisted import Switches, is_on
from farshore_schema.errors import FarshoreError, Permanent
from farshore_schema.roles import Evidence, Receipt

NEVER_FOLLOWED: Final[frozenset[Evidence]] = frozenset({"initial", "aborted"})
"""The side was active before or the pair is new: what a prepared receiver holds was never to be applied here."""


def promote(
    ground: Ground, epoch: int, evidence: Evidence, receipt: Receipt | None, still_holds: Callable[[], None]
) -> None:
    """Open the own server. Idempotent; on one that is open already it completes what a crash left out."""
    with ground.own.session() as session:
        own = own_facts(ground, session)
        now = persisted.switches(session)
        settings_record.record(session, ground.notes, own.server)
        if now.writable and now.open_for_clients:
            _complete(ground, session, epoch)
            return
        if now.offline:
            raise Permanent(
                "not_possible_now",
                "the server is in offline_mode: it holds an incomplete copy, or was closed by hand",
                hint="let the seed end; or SET PERSIST offline_mode = OFF if it was closed by hand",
            )
        if evidence not in NEVER_FOLLOWED:
            _all_is_applied(ground, session, receipt, still_holds)
        else:
            ground.journal.detach()
        channel.remove(session)
        channel.refuse_others(session)
        with ground.durability_lock:
            durability.make_full(session)
        still_holds()
        _open(ground, session, epoch)
        _complete(ground, session, epoch)


def _all_is_applied(ground: Ground, session: Session, receipt: Receipt | None, still_holds: Callable[[], None]) -> None:
    """Stop receiving, then wait until all of it is applied; the fenced side's position must be part of it."""
    end = ground.journal.detach()
    if end is not None and not applied(session, end):
        _let_apply(ground, session)
        await_applied(ground, session, end, still_holds)
    if receipt is not None:
        refuse_unapplied(session, receipt.position, "the position at which the other side was fenced")


def _let_apply(ground: Ground, session: Session) -> None:
    """Have the channel run, for example after a restart of the server: it is the only way to what was received."""
    note, error = ground.notes.stream(), channel.applier_error(session)
    if error is not None:
        raise channel.explain(error)
    if note is not None:
        channel.follow(session, ground.journal.serve(note))


def _open(ground: Ground, session: Session, epoch: int) -> None:
    """The marker is there before any client can write: it is written while only read_only holds."""
    try:
        session.run("SET GLOBAL super_read_only = OFF")
        marker.write(session, Marker(ground.pair, ground.site, epoch))
        persisted.open_for_writes(session)
    except FarshoreError:
        # Half open is worse than closed: nobody would be told.
        with contextlib.suppress(FarshoreError):
            persisted.close_for_writes(session)
        raise


def _complete(ground: Ground, session: Session, epoch: int) -> None:
    """Do what may follow the opening: scheduler, events, marker, and the end of the journal's segment (R21)."""
    marker.write(session, Marker(ground.pair, ground.site, epoch))
    now = persisted.switches(session)
    if _needs_open_persisted(now):
        persisted.open_for_writes(session)
    noted = ground.notes.workload()
    scheduler = noted.event_scheduler or settings_record.original(ground.notes, "event_scheduler") or "OFF"
    if is_on(scheduler) and not is_on(now.event_scheduler):
        events.switch_on(session, frozenset(noted.disabled_events))
        persisted.start_scheduler(session)
    ground.journal.seal()


def _needs_open_persisted(now: Switches) -> bool:
    """Whether a restart would close an open side: it was opened by hand, or we died before the last word."""
    return "ON" in (now.persisted.get("super_read_only"), now.persisted.get("read_only"))
