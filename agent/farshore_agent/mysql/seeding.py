"""The first full copy, as the engine orders it (R8-R10): inspect, receive, copy, close, follow, catch up, reopen.

The copy itself is the seed package's. Here stand the decisions that need the pair: may this server be overwritten,
which accounts are ours, from where on the journal must reach. A repeated seed starts over what it cannot resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pymysql

from farshore_agent.engines import SeedCall
from farshore_agent.mysql import channel, durability, marker, persisted, scope, seed, settings_record
from farshore_agent.mysql.clients import clients
from farshore_agent.mysql.connections import CONNECT_SECONDS, Address, Session, tls_arguments
from farshore_agent.mysql.draining import applied
from farshore_agent.mysql.fencing import position
from farshore_agent.mysql.following import apply, await_attached
from farshore_agent.mysql.ground import Ground, ServerFacts, facts, of_server
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.notes import CopyNote, StreamNote
from farshore_schema.errors import FarshoreError, Permanent, Transient
from farshore_schema.observed import SeedProgress
from farshore_schema.roles import Consent

TAIL_POLL_SECONDS: Final = 0.25
IN_USE_SECONDS: Final = 0.5
"""A target whose gtid_executed grows within this is written to."""
COPY_ANSWER_SECONDS: Final = 3600.0
"""A statement of the copy (an index over a big table) may be silent for so long."""
NAMED_MAX: Final = 5
_JOURNAL_ENDS: Final = frozenset(
    {"source_purged", "history_reset", "source_replaced", "corrupt_journal", "unsuitable_server", "not_possible_now"}
)
"""A receiver that stopped for these cannot continue its segment."""


def run(ground: Ground, call: SeedCall) -> None:
    """Copy the other side here and follow it until the first tail is applied. Blocks; raises our errors only.

    A copy that was complete when its agent died is not made again: the target is still closed then.
    """
    with ground.own.session() as session:
        own = facts(session)
        with ground.dial_peer() as there:
            source = facts(there)
            if source.server == own.server:
                raise Permanent(
                    "same_server", "both endpoints of the pair lead to one server", hint="correct host or port"
                )
            _refuse(ground, session, call, own, source)
            ours = _accounts(session, ground) | _accounts(there, ground)
        settings_record.record(session, ground.notes, own.server)
        first_write = _Once(call.before_first_write)
        copied = _is_copied(ground, session, call, own, source)
        if not copied:
            ground.notes.save_copy(None)
            if channel.status(session) is not None:
                first_write()
                channel.remove(session)
        note = _receive(ground, call, own, source, session.local_host)
    if not copied:
        executed = _copy(ground, call, ours, first_write)
        ground.notes.save_copy(CopyNote(epoch=call.epoch, own=own.server, source=source.server, executed=executed))
    try:
        _catch_up(ground, call, note)
    except Permanent:
        ground.notes.save_copy(None)  # the next seed begins with a new copy
        raise
    try:
        seed.reopen_target(_connect(ground.own_address))
    except seed.SeedError as error:
        raise _translated(error) from error
    ground.notes.save_copy(None)
    _report(call, "catching_up")


def _is_copied(ground: Ground, session: Session, call: SeedCall, own: ServerFacts, source: ServerFacts) -> bool:
    """Whether an earlier call of this seed has copied everything already and nobody touched it since."""
    found = ground.notes.copy()
    return (
        found is not None
        and (found.epoch, found.own, found.source) == (call.epoch, own.server, source.server)
        and persisted.switches(session).offline
        and GtidSet.parse(found.executed).issubset(own.executed)
        and own.executed.issubset(source.executed)
    )


class _Once:
    """Calls through the first time only."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


# ---- may it be overwritten


def _refuse(ground: Ground, session: Session, call: SeedCall, own: ServerFacts, source: ServerFacts) -> None:
    """Raise Permanent: "target_has_data" without a fitting consent, "wrong_direction" for a side that is in use."""
    if call.consent is not None and not _fits(call.consent, ground, call.epoch, own.server):
        raise Permanent(
            "target_has_data",
            f"the consent to overwrite names another server, side or epoch than {own.server} in epoch {call.epoch}",
            hint=f"look again and consent anew: farshore describe {ground.pair}",
        )
    scope.refuse_partial(session)
    persisted.refuse_unfenceable(persisted.switches(session))
    durability.judge(session, ground.seat.document.standby_durability)
    mark = marker.read(session, ground.pair)
    if mark is not None and mark.active_since_epoch >= call.epoch:
        raise _wrong_direction(
            ground, f"its role marker says that it is the active side since epoch {mark.active_since_epoch}"
        )
    if not persisted.switches(session).writable:
        return
    users = [client for client in clients(session, ground.ours) if client.in_transaction]
    before = position(session)
    time.sleep(IN_USE_SECONDS)
    if users or position(session) != before:
        names = ", ".join(client.words for client in users[:NAMED_MAX]) or "somebody who commits transactions"
        raise _wrong_direction(ground, f"it is open for writes and in use by {names}")
    if call.consent is None:
        foreign = _foreign(own, source)
        if foreign:
            raise _wrong_direction(ground, f"it holds transactions that the source lacks: {foreign}")


def _foreign(own: ServerFacts, source: ServerFacts) -> str:
    """Return what the target holds of servers other than itself and the source does not; its own may be set-up work."""
    extra = own.executed.subtract(source.executed)
    return str(extra.subtract(of_server(extra, own.server)))


def _fits(consent: Consent, ground: Ground, epoch: int, server: str) -> bool:
    return (consent.side, consent.server.lower(), consent.epoch) == (ground.side, server, epoch)


def _wrong_direction(ground: Ground, why: str) -> Permanent:
    at = ground.own_address
    return Permanent(
        "wrong_direction",
        f"the server at {at.host}:{at.port} is not to be overwritten: {why}",
        hint="check which site is the primary one; stop the clients of the target if the direction is right",
    )


def _accounts(session: Session, ground: Ground) -> frozenset[seed.Account]:
    """Return every account of one of our four users: a seed leaves them alone (R6)."""
    document = ground.seat.document
    users = tuple(login.user for at in (document.site_a, document.site_b) for login in (at.admin, at.replication))
    rows = session.rows("SELECT user, host FROM mysql.user WHERE user IN %s", (users,))
    return frozenset(seed.Account(user=str(user), host=str(host)) for user, host in rows)


# ---- receive, copy, catch up


def _receive(ground: Ground, call: SeedCall, own: ServerFacts, source: ServerFacts, listen_host: str) -> StreamNote:
    """Attach the receiver; the snapshot must contain where its journal starts (R10).

    A stream of this epoch goes on where it is; one that cannot go on is set aside, and a new journal begins.
    """
    _report(call, "starting")
    ground.notes.bind(own=own.server, peer=source.server)
    known = ground.notes.stream()
    if known is not None and (known.epoch, known.source_uuid) == (call.epoch, source.server):
        try:
            return _attach(ground, call, replace(known, joined=False))
        except Permanent as error:
            if error.code not in _JOURNAL_ENDS:
                raise
            ground.journal.end()
    note = StreamNote(
        epoch=call.epoch, source_uuid=source.server, start_gtid_set=str(source.executed), listen_host=listen_host
    )
    return _attach(ground, call, note)


def _attach(ground: Ground, call: SeedCall, note: StreamNote) -> StreamNote:
    ground.notes.save_stream(note)
    ground.journal.open(note)
    ground.journal.await_segment(call.cancelled)
    return note


def _copy(ground: Ground, call: SeedCall, ours: frozenset[seed.Account], first_write: Callable[[], None]) -> str:
    """Make the copy and return the GTID set that it holds."""
    document = ground.seat.document
    settings = seed.SeedSettings(
        workers=document.seed_workers, ddl=document.seed_ddl, skip_accounts=tuple(sorted(ours))
    )
    start = ground.journal.await_segment(call.cancelled).start_gtid_set
    try:
        result = seed.run_seed(
            _connect(ground.peer_address),
            _connect(ground.own_address),
            settings,
            journal_start=start,
            state_directory=_state_directory(ground),
            progress=lambda progress: call.progress(_progress(progress)),
            cancelled=call.cancelled,
            before_first_write=first_write,
            overwrite=call.consent is not None,
        )
    except seed.SeedError as error:
        raise _translated(error) from error
    return result.gtid_executed


def _state_directory(ground: Ground) -> Any:
    directory = ground.seat.directory / "seed"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _catch_up(ground: Ground, call: SeedCall, note: StreamNote) -> None:
    """Close the copy for good, follow, and wait until what the source had meanwhile is applied."""
    _report(call, "catching_up")
    with ground.own.session() as session:
        own = facts(session)
        if not persisted.switches(session).closed_for_good:
            persisted.close_for_writes(session)
            persisted.stop_scheduler(session)
        apply(ground, session, note, own)
        await_attached(ground, session)
        ground.notes.save_stream(replace(note, joined=True))
        with ground.dial_peer() as there:
            tail = str(facts(there).executed)
        while not applied(session, tail, TAIL_POLL_SECONDS):
            if call.cancelled():
                raise Transient("not_possible_now", "the seed was cancelled while it was catching up")
            error = channel.applier_error(session)
            if error is not None:
                raise channel.explain(error)
            _report(call, "catching_up")


def _connect(to: Address) -> seed.Connect:
    """Return how the seed package opens sessions as this account."""

    def connect(*, program_name: str, local_infile: bool) -> Any:
        return pymysql.connect(
            host=to.host,
            port=to.port,
            user=to.user,
            password=to.password().encode(),
            connect_timeout=CONNECT_SECONDS,
            read_timeout=COPY_ANSWER_SECONDS,
            write_timeout=COPY_ANSWER_SECONDS,
            charset="utf8mb4",
            autocommit=True,
            program_name=program_name,
            local_infile=local_infile,
            **tls_arguments(to),
        )

    return connect


def _progress(progress: seed.Progress) -> SeedProgress:
    return SeedProgress(
        phase=progress.phase.value,
        tables_done=progress.tables_done,
        tables_total=progress.tables_total,
        rows_done=progress.rows_done,
        rows_total=progress.rows_total,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        current=", ".join(progress.current[:NAMED_MAX]),
        attempt=progress.epoch,
    )


def _report(call: SeedCall, phase: Any) -> None:
    call.progress(SeedProgress(phase=phase))


def _translated(error: seed.SeedError) -> FarshoreError:
    if isinstance(error, seed.TargetHoldsData):
        return Permanent("target_has_data", str(error), hint=error.hint)
    if isinstance(error, seed.SeedPermanent):
        return Permanent("unsuitable_server", str(error), hint=error.hint)
    if isinstance(error, seed.SeedTransient):
        return Transient("timeout", str(error), retry_seconds=error.retry_seconds)
    return Transient("not_possible_now", str(error))
