"""The two moves by which a side follows the other: `stream` (receive and apply) and `prepare` (receive ahead).

Before a side joins a stream it is proved that it holds nothing the source lacks; what it holds more is never thrown
away or merged by us. It knows no epochs' meaning: a new epoch is a new segment.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from farshore_agent.mysql import channel, durability, persisted, scope, settings_record
from farshore_agent.mysql.clients import clients, kill
from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.ground import Ground, ServerFacts, of_server, own_facts, peer_facts
from farshore_agent.mysql.journal.gtid import GNO_MAX, GtidSet
from farshore_agent.mysql.journal.state import Mode
from farshore_agent.mysql.journaling import stopped_error
from farshore_agent.mysql.notes import StreamNote
from farshore_agent.mysql.rebinding import contains
from farshore_schema.errors import Permanent
from farshore_schema.roles import Consent

ATTACH_SECONDS: Final = 10.0
"""How long `stream` and `prepare` wait for the receiver to follow, and `stream` for the channel to connect."""
POLL_SECONDS: Final = 0.02
SHOWN_CHARACTERS_MAX: Final = 400


def stream(ground: Ground, epoch: int, consent: Consent | None = None) -> None:
    """Receive from the other side and apply here. Idempotent.

    A server that the consent of a rebind names is followed in a segment of its own, once everything is proved again.
    Raises Permanent: "wrong_direction" on a side that is open for writes, "diverged" with both histories, or what
    stopped the receiver.
    """
    with ground.own.session() as session:
        own = own_facts(ground, session)
        _close(ground, session)
        note = _joined(ground, epoch) or _join(ground, epoch, own, session.local_host, consent)
        ground.journal.open(note)
        apply(ground, session, note, own)
        if not note.joined:
            ground.journal.await_segment(lambda: False)
        await_attached(ground, session)
        ground.notes.save_stream(replace(note, joined=True))


def prepare(ground: Ground, epoch: int) -> None:
    """Attach the receiver to the other side ahead of a switchover; nothing is applied yet. Idempotent."""
    with ground.own.session() as session:
        own = own_facts(ground, session)
        there = peer_facts(ground, own, own_is_active=True)
        note = _known(ground, epoch, there.server) or _fresh(epoch, _all_own(own), there, session.local_host)
        ground.notes.save_stream(note)
        ground.journal.open(note)
        ground.journal.await_segment(lambda: False)
        await_attached(ground, None)
        ground.journal.serve(note)  # so that following later costs no start of a process


def apply(ground: Ground, session: Session, note: StreamNote, own: ServerFacts) -> None:
    """Let the server's own replica follow this site's journal. Idempotent."""
    scope.refuse_partial(session)
    settings_record.record(session, ground.notes, own.server)
    channel.shorten_timeout(session)
    verdict = durability.judge(session, ground.seat.document.standby_durability)
    with ground.durability_lock:
        durability.relax(session, verdict.durability)
    # A client's forgotten transaction holds row locks that would stop the applier.
    kill(session, (client.id for client in clients(session, ground.ours) if client.in_transaction))
    channel.follow(session, ground.journal.serve(note))


def await_attached(ground: Ground, session: Session | None) -> None:
    """Wait a little until the receiver follows and (with a session) the channel applies.

    Returns also when they do not yet: both go on trying by themselves. Raises what stops them for good.
    """
    deadline = time.monotonic() + ATTACH_SECONDS
    while True:
        state = ground.journal.state()
        if state is not None and state.stopped is not None and not state.stopped.retried:
            raise stopped_error(state.stopped)
        status = channel.status(session) if session is not None else None
        if session is not None:
            error = channel.applier_error(session)
            if error is not None:
                raise channel.explain(error)
        follows = state is not None and state.mode in (Mode.FOLLOWING, Mode.CATCHING_UP) and state.connected
        if follows and (status is None or status.applying):
            return
        waits = state is not None and state.stopped is not None
        if time.monotonic() > deadline or (waits and (status is None or status.applying)):
            return
        time.sleep(POLL_SECONDS)


def _close(ground: Ground, session: Session) -> None:
    now = persisted.switches(session)
    if now.writable:
        raise Permanent(
            "wrong_direction",
            f"the server at {ground.own_address.host}:{ground.own_address.port} is open for writes; it follows nobody",
            hint=f"farshore status {ground.pair}: this side must be fenced or seeded first",
        )
    persisted.refuse_unfenceable(now)
    if not now.closed_for_good:
        persisted.close_for_writes(session)
        persisted.stop_scheduler(session)


def _joined(ground: Ground, epoch: int) -> StreamNote | None:
    """Return the note of a stream that was joined in this epoch: it goes on without asking the other side again."""
    note = ground.notes.stream()
    return note if note is not None and note.epoch == epoch and note.joined else None


def _known(ground: Ground, epoch: int, source: str) -> StreamNote | None:
    note = ground.notes.stream()
    return note if note is not None and (note.epoch, note.source_uuid) == (epoch, source) else None


def _join(ground: Ground, epoch: int, own: ServerFacts, listen_host: str, consent: Consent | None = None) -> StreamNote:
    """Return the note of a stream that is to be joined now, once nothing here contradicts it.

    A side that followed this source without a break may hold transactions of its own uuid: FLUSH and its like write
    them even on a read-only server. No client did, so they stop nothing; observation reports them.
    """
    if consent is not None:
        return _rebound(ground, epoch, own, listen_host, consent)
    there = peer_facts(ground, own)
    extra = own.executed.subtract(there.executed)
    before = ground.notes.stream()
    followed = before is not None and before.source_uuid == there.server and (before.joined or before.unbroken)
    if extra and not (followed and extra == of_server(extra, own.server)):
        raise _diverged(ground, own, there)
    note = _known(ground, epoch, there.server)
    if note is None or not ground.journal.has_begun(note):
        # What `prepare` asked of a standby, an open source could not prove: without a segment it is asked afresh.
        note = _fresh(epoch, own.executed.subtract(extra), there, listen_host)
    note = replace(note, unbroken=followed)
    ground.notes.save_stream(note)
    return note


def _rebound(ground: Ground, epoch: int, own: ServerFacts, listen_host: str, consent: Consent) -> StreamNote:
    """Bind this side to the new server, and return the note of the stream from it."""
    there, held = contains(ground, own, consent)
    ground.notes.bind(peer=there.server)
    note = _known(ground, epoch, there.server)
    if note is None or not ground.journal.has_begun(note):
        note = _fresh(epoch, held, there, listen_host)
    ground.notes.save_stream(note)
    return note


def _fresh(epoch: int, held: GtidSet, there: ServerFacts, listen_host: str) -> StreamNote:
    return StreamNote(epoch=epoch, source_uuid=there.server, start_gtid_set=str(held), listen_host=listen_host)


def _all_own(own: ServerFacts) -> GtidSet:
    """Return what the active side never needs from its standby: what it has, and all it will ever commit itself.

    Without the second part a standby without log_replica_updates could not be dialled under load: what it applied since
    we looked counts as purged there.
    """
    held = own.executed.copy()
    uuid = bytes.fromhex(own.server.replace("-", ""))
    tags = {key[1] for key, _, _ in of_server(own.executed, own.server).intervals()}
    for tag in {"", *tags}:
        held.add_interval((uuid, tag), 1, GNO_MAX + 1)
    return held


def _diverged(ground: Ground, own: ServerFacts, there: ServerFacts) -> Permanent:
    extra = str(own.executed.subtract(there.executed))
    error = Permanent(
        "diverged",
        f"the server at {ground.own_address.host}:{ground.own_address.port} holds transactions that the other side "
        f"does not: {extra[:SHOWN_CHARACTERS_MAX]}",
        hint=f"look at them (mysqlbinlog --include-gtids), keep what you need, then seed again: "
        f"farshore reprotect {ground.pair}",
    )
    error.current = {"only_here": extra, "here": str(own.executed), "there": str(there.executed)}
    return error
