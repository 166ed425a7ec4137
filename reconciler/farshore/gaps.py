"""The one operation that the loop opens by itself: a new copy where the declaration says `on_gap: reseed` (R9)."""

from typing import Final

from farshore import operations
from farshore.admission.desk import Desk
from farshore.plan import gap_consent, operation_epoch
from farshore.snapshot import Snapshot
from farshore.store import keys
from farshore.store.records import Records
from farshore_schema.roles import Consent
from farshore_schema.status import OperationView

BY: Final = "on_gap: reseed"


def reseed(desk: Desk, snapshot: Snapshot) -> OperationView | None:
    """Return the operation that copies the standby anew with the declaration's standing consent, None when not due.

    One that ended without a copy is not repeated for the same server: somebody took it back.
    """
    role = snapshot.decided()
    consent = gap_consent(role, snapshot.core(), snapshot.seen, snapshot.policy)
    if consent is None or _was_taken_back(desk.records, snapshot.pair, consent):
        return None
    facts = snapshot.seen[consent.side]
    return operations.birth(
        id=desk.new_operation_id(),
        pair=snapshot.pair,
        verb="reprotect",
        to=consent.side,
        to_site=snapshot.site(consent.side),
        epoch=operation_epoch("reprotect", role),
        created=desk.clock.now(),
        by=BY,
        reason=facts.stopped if facts else "",
        consent=consent,
    )


def _was_taken_back(records: Records, pair: str, consent: Consent) -> bool:
    history = records.store.list(keys.operations(pair)).items
    if not history:
        return False
    newest = records.parsed(history[-1], OperationView).value
    given = newest.consent
    same = given is not None and (given.side, given.server) == (consent.side, consent.server)
    return newest.by == BY and newest.state != "done" and same
