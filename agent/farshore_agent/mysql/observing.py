"""Seeing one side: what the server, its channel and its journal say right now, never raising and never waiting long.

Unknown never looks good: what could not be asked is False, "" or None. A relaxed standby, a stopped stream and a side
that writes although it should not are facts here; what follows from them is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from farshore_agent.engines import Seen
from farshore_agent.mysql import channel, durability, persisted
from farshore_agent.mysql.channel import STOPPED_FOR_GOOD
from farshore_agent.mysql.connections import Session, Unreachable
from farshore_agent.mysql.ground import Ground, of_server
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.state import Mode, ReceiverState
from farshore_agent.mysql.journaling import stopped_body, stopped_code
from farshore_schema.errors import ErrorBody, FarshoreError, Transient
from farshore_schema.observed import Finding, StreamMeasurements

RATE_WEIGHT: Final = 0.3
"""Of the newest sample in the smoothed apply rate."""
DISK_FREE_BYTES_MIN: Final = 1 << 30
SHOWN_CHARACTERS_MAX: Final = 300
HEARD_SECONDS: Final = 3.0
"""A following receiver that heard from its source within this (heartbeats come every second) has all there is."""

_OWN_SQL: Final = (
    "SELECT @@GLOBAL.server_uuid, @@GLOBAL.version, @@GLOBAL.gtid_executed, @@GLOBAL.sync_binlog,"
    f" @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_replica_updates, {persisted.SWITCHES_COLUMNS}"
)


@dataclass(frozen=True, kw_only=True)
class Sideline:
    """What is found out beside observation, more slowly (see `chores`)."""

    peer_ready: bool | None = None
    findings: tuple[Finding, ...] = ()


class _Own(NamedTuple):
    """What the own server said in one look."""

    server: str
    version: str
    executed: GtidSet
    switches: persisted.Switches
    durability: durability.Durability
    channel: channel.Status | None
    applier_error: channel.ApplierError | None


class Observer:
    """Looks at one side, again and again; keeps only what rates need."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._applied: tuple[float, int] | None = None  # when, how many transactions of others were applied then
        self._rate: float | None = None

    def look(self, sideline: Sideline) -> Seen:
        """Return what is seen now; never raises."""
        receiver = self._receiver()
        try:
            own = self._own()
        except Unreachable as error:
            db = "down" if error.down else "unknown"
            blind = Seen(db="down") if db == "down" else Seen()
            return self._with_stream(blind, receiver, None, sideline, _finding(error))
        except FarshoreError as error:
            seen = self._with_stream(Seen(), receiver, None, sideline, _finding(error))
            if seen.stopped or isinstance(error, Transient):
                return seen
            return replace(seen, stopped=error.code, stopped_error=error.body())
        seen = Seen(
            db="up",
            server=own.server,
            server_version=own.version,
            writable=own.switches.writable,
            fence_holds=own.switches.closed_for_good,
            position=str(own.executed),
            durability=own.durability,
            applying=own.channel is not None and own.channel.applying and own.applier_error is None,
        )
        return self._with_stream(seen, receiver, own, sideline, None)

    def _own(self) -> _Own:
        """Ask the own server; once more on a new connection when the kept one broke."""
        try:
            return self._ask()
        except Unreachable:
            self._ground.watch.close()
            return self._ask()

    def _ask(self) -> _Own:
        with self._ground.watch.session() as session:
            return _own(session)

    def _receiver(self) -> ReceiverState | None:
        try:
            return self._ground.journal.glance()
        except FarshoreError:
            return None

    def _with_stream(
        self,
        seen: Seen,
        receiver: ReceiverState | None,
        own: _Own | None,
        sideline: Sideline,
        finding: Finding | None,
    ) -> Seen:
        """Add what the journal says, and the reason why the stream stands, if it does."""
        stopped, story = _stopped(receiver, own, self._follows())
        connected = receiver is not None and receiver.connected
        return replace(
            seen,
            receiving=connected and not stopped,
            applying=seen.applying and stopped != "applier_stopped",
            peer_ready=sideline.peer_ready,
            stream=self._measure(receiver, own),
            findings=(*sideline.findings, *((finding,) if finding else ()), *self._findings(receiver, own)),
            stopped=stopped,
            stopped_error=story,
        )

    def _findings(self, receiver: ReceiverState | None, own: _Own | None) -> Iterator[Finding]:
        """What goes on working and yet wants somebody."""
        if not self._follows():
            return
        if receiver is None:
            yield Finding(
                code="journal_silent",
                severity="warning",
                message="the journal's receiver does not run or does not answer; it is started again by itself",
            )
            return
        if receiver.disk_free_bytes < DISK_FREE_BYTES_MIN:
            yield Finding(
                code="disk_space",
                severity="warning",
                message=f"the journal's disk has {receiver.disk_free_bytes / 2**30:.1f} GiB left; a full one stops the "
                "stream",
                hint=f"free space below {self._ground.journal.directory}, or lower journal.keep_bytes",
                field="journal.keep_bytes",
            )
        errant = of_server(own.executed, own.server).subtract(GtidSet.parse(receiver.end_gtid_set)) if own else None
        if errant:
            yield Finding(
                code="errant_transactions",
                severity="warning",
                message=f"the standby has {errant.count()} transactions of its own, by FLUSH statements or by an "
                f"administrator's change: {str(errant)[:SHOWN_CHARACTERS_MAX]}",
                hint="if nothing was changed, make them known on the active side, each with: SET GTID_NEXT = 'UUID:N'; "
                "BEGIN; COMMIT; SET GTID_NEXT = AUTOMATIC; otherwise compare both sides",
            )

    def _follows(self) -> bool:
        try:
            note = self._ground.notes.stream()
        except FarshoreError:
            return False
        return note is not None and note.joined

    def _measure(self, receiver: ReceiverState | None, own: _Own | None) -> StreamMeasurements:
        if receiver is None or not receiver.segment or receiver.sealed:
            self._applied = self._rate = None
            return StreamMeasurements(connected=None if receiver is None else receiver.connected)
        measured = StreamMeasurements(
            received_transactions=receiver.transactions,
            received_bytes=receiver.bytes,
            journal_bytes=receiver.disk_bytes,
            journal_segments=self._segments(),
            connected=receiver.connected,
        )
        if own is None or own.channel is None:
            return measured
        end = GtidSet.parse(receiver.end_gtid_set)
        behind = end.subtract(own.executed).count()
        rate = self._apply_rate(end, behind)
        return measured.model_copy(
            update={
                "behind_transactions": behind,
                "apply_rate": rate,
                "backlog_seconds": 0.0 if behind == 0 else (behind / rate if rate else None),
                "lag_seconds": lag_seconds(receiver, own.channel, behind),
            }
        )

    def _apply_rate(self, end: GtidSet, behind: int) -> float | None:
        """Transactions applied per second since the last look, smoothed."""
        now, done = time.monotonic(), end.count() - behind
        before, self._applied = self._applied, (now, done)
        if before is None or done < before[1] or now <= before[0]:
            return self._rate
        sample = (done - before[1]) / (now - before[0])
        self._rate = sample if self._rate is None else RATE_WEIGHT * sample + (1 - RATE_WEIGHT) * self._rate
        return self._rate

    def _segments(self) -> int | None:
        try:
            return self._ground.journal.segments()
        except FarshoreError:
            return None


def lag_seconds(receiver: ReceiverState, status: channel.Status, behind: int) -> float | None:
    """Return how old, by the source's clock, the newest thing not yet here may be; None while nothing tells.

    Both commit times are the source's, so the two sites' clocks do not matter. Silence of the source counts as lag once
    its heartbeats are missing.
    """
    silent = receiver.last_event_age
    if silent is None:
        return None
    heard = receiver.mode is Mode.FOLLOWING and receiver.connected and silent < HEARD_SECONDS
    since = 0.0 if heard else silent
    if behind == 0:
        return since
    if not receiver.last_commit_unix or status.newest_commit is None:
        return None
    return max(0.0, receiver.last_commit_unix - status.newest_commit) + since


def _own(session: Session) -> _Own:
    server, version, executed, sync_binlog, flush, logs_updates, *switches = session.row(_OWN_SQL)
    status = channel.status(session)
    return _Own(
        server=str(server).lower(),
        version=str(version),
        executed=GtidSet.parse(str(executed)),
        switches=persisted.switches_of(switches),
        durability=durability.seen(int(sync_binlog), int(flush), logs_updates=bool(logs_updates)),
        channel=status,
        applier_error=None if status is None or status.applier == "ON" else channel.applier_error(session),
    )


def _stopped(receiver: ReceiverState | None, own: _Own | None, follows: bool) -> tuple[str, ErrorBody | None]:
    if own is not None and own.applier_error is not None:
        return "applier_stopped", channel.explain(own.applier_error).body()
    if receiver is not None and receiver.stopped is not None:
        code = stopped_code(receiver.stopped)
        if code:
            return code, stopped_body(receiver.stopped)
    status = own.channel if own is not None else None
    if follows and status is not None and status.receiver_error == STOPPED_FOR_GOOD and status.receiver == "OFF":
        return "source_purged", ErrorBody(
            code="source_purged",
            message=f"this site's journal cannot serve its own standby: {status.receiver_message}",
            hint="the standby lacks what the journal no longer has: seed again",
        )
    return "", None


def _finding(error: FarshoreError) -> Finding:
    return Finding(code=error.code, severity="error", message=error.message, hint=error.hint, field=error.field)
