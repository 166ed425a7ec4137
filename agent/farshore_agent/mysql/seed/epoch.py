"""One snapshot of the source, seen by several sessions at once, and the exact GTID set it stands for.

The global read lock is held for the time of two round trips, while every session opens its snapshot; then writers go
on. With `ddl="block"` a backup lock keeps definitions as they are until the rows are copied (R10).

A snapshot lives in its sessions only. A session that is cut off is replaced by a spare one; when none is left, or when
the backup lock was lost, the epoch is lost and the seed starts over. It must not know what is copied.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.blockers import describe_blockers
from farshore_agent.mysql.seed.errors import (
    EpochLost,
    Interruption,
    SeedCancelled,
    SeedPermanent,
    SeedTransient,
    StatementFailed,
)
from farshore_agent.mysql.seed.servers import IDLE_SECONDS_MAX, Server, explained, kill_left_behind
from farshore_agent.mysql.seed.session import Session
from farshore_agent.mysql.seed.values import SeedSettings

LOCK_TIMEOUT = 1205
READ_LOCK_IDLE_SECONDS = 5
"""If this process stops in the moment in which it holds the global read lock, the source frees itself after this."""
PING_SECONDS = 20.0
"""Well under IDLE_SECONDS_MAX, after which the source would end an idle session of the snapshot."""
SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
UNTOUCHED = "unread"
"""Name of a savepoint from before anything was read: going back to it frees the metadata locks of what was read since,
on which DDL of others would wait, and keeps the snapshot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instant:
    """What was read while the global read lock was held."""

    gtid_executed: str
    prepared_xa: tuple[str, ...]
    held_seconds: float


class Epoch:
    """The sessions of one snapshot: taken by workers, given back, kept awake, and ended together."""

    def __init__(
        self, source: Server, *, gtid_executed: str, held_seconds: float, lock: Session | None, readers: list[Session]
    ) -> None:
        self.gtid_executed = gtid_executed
        self.held_seconds = held_seconds
        """How long writers were held up by the try that succeeded."""
        self._source = source
        self._lock = lock  # holds the backup lock; None when definitions may change
        self._lock_guard = threading.Lock()
        self._idle = list(readers)
        self._alive = len(readers)
        self._changed = threading.Condition()
        self._broken = ""
        self._asked = time.monotonic()

    def take(self) -> Session:
        """Return a session of the snapshot for the caller alone; waits for one, raises EpochLost when there is none."""
        with self._changed:
            while True:
                if self._broken or not self._alive:
                    raise EpochLost(self._broken or "every session of the snapshot was cut off")
                if self._idle:
                    return self._idle.pop()
                self._changed.wait()

    def give_back(self, session: Session) -> None:
        """Return a session that has nothing running."""
        try:
            session.ask(f"ROLLBACK TO SAVEPOINT {UNTOUCHED}")
        except Interruption:
            self.lose(session)
            return
        with self._changed:
            self._idle.append(session)
            self._changed.notify()

    def lose(self, session: Session) -> None:
        """Forget a session that was cut off, and end it on the source too if it still lives there."""
        self._source.kill(session)
        with self._changed:
            self._alive -= 1
            self._changed.notify_all()

    def keep_awake(self) -> None:
        """Ask every idle session something, now and then; call it every second or so. Never raises."""
        if time.monotonic() - self._asked < PING_SECONDS:
            return
        self._asked = time.monotonic()
        self.still_locked()
        with self._changed:
            sleeping, self._idle = self._idle, []
        for session in sleeping:
            self.give_back(session)  # which asks it something

    def still_locked(self) -> bool:
        """Whether the backup lock was held without a gap until now; if not, the epoch is lost from here on."""
        reason = ""
        with self._lock_guard:
            if self._lock is not None and not self._broken:
                try:
                    self._lock.ask("DO 0")
                except Interruption as error:
                    reason = f"the session that kept definitions from changing was lost: {error}"
        with self._changed:
            self._broken = self._broken or reason
            self._changed.notify_all()
            return not self._broken

    def close(self) -> None:
        """End all sessions and with them the locks; a second call does nothing."""
        with self._changed:
            sessions, self._idle = self._idle, []
            self._broken = self._broken or "it is closed"
            self._changed.notify_all()
        with self._lock_guard:
            if self._lock is not None:
                sessions = [self._lock, *sessions]
                self._lock = None
        for session in sessions:
            self._source.end(session)


def open_epoch(
    source: Server,
    settings: SeedSettings,
    *,
    journal_start: str,
    cancelled: Callable[[], bool],
    before_lock: Callable[[Session], None],
) -> Epoch:
    """Take a snapshot that contains the GTID set `journal_start`.

    `before_lock` is called with a session of the source before every try, with the backup lock held if there is to be
    one. Raises SeedTransient when the lock cannot be had, naming who holds it; SeedPermanent when the source has
    another history than the journal; ConnectionLost.
    """
    opened: list[Session] = []
    try:
        control = source.open()
        opened.append(control)
        kill_left_behind(control)
        _await_journal_start(control, journal_start, settings)
        readers = [source.open() for _ in range(settings.workers + settings.spare_sessions)]
        opened += readers
        lock = source.open(also=(f"SET SESSION lock_wait_timeout={settings.lock_wait_seconds:d}",))
        opened.append(lock)
        instant = _try_to_lock(lock, control, readers, settings, cancelled, before_lock)
        if not control.ask(
            f"SELECT GTID_SUBSET({sql.text(journal_start)}, {sql.text(instant.gtid_executed)})"
        ).number():
            raise _other_history(journal_start)
        for session in readers:
            session.ask(f"SAVEPOINT {UNTOUCHED}")
        source.end(control)
        if settings.ddl == "retry":
            source.end(lock)
        opened.clear()
        return Epoch(
            source,
            gtid_executed=instant.gtid_executed,
            held_seconds=instant.held_seconds,
            lock=lock if settings.ddl == "block" else None,
            readers=readers,
        )
    except StatementFailed as error:
        raise explained(error) from error
    finally:
        if opened:
            source.kill(*opened)


def _await_journal_start(control: Session, journal_start: str, settings: SeedSettings) -> None:
    """Wait until the source has executed what the journal begins with, bounded."""
    wait = f"SELECT WAIT_FOR_EXECUTED_GTID_SET({sql.text(journal_start)}, {settings.journal_wait_seconds:.3f})"
    if control.ask(wait).number() != 0:
        raise _other_history(journal_start)


def _other_history(journal_start: str) -> SeedPermanent:
    return SeedPermanent(
        f"the source has not executed the transactions that the journal starts with ({journal_start})",
        hint="the journal belongs to another history of this server: start a new journal segment, then seed again",
    )


def _try_to_lock(
    lock: Session,
    control: Session,
    readers: list[Session],
    settings: SeedSettings,
    cancelled: Callable[[], bool],
    before_lock: Callable[[Session], None],
) -> Instant:
    """Try for the locks up to `lock_tries` times, with pauses; every failed try may hold writers up."""
    ours = [session.id for session in (lock, control, *readers)]
    blockers = "nobody that can be named"
    backup_locked = settings.ddl == "retry"
    for left in range(settings.lock_tries, 0, -1):
        if cancelled():
            raise SeedCancelled("cancelled while waiting for the global read lock")
        try:
            if not backup_locked:
                lock.ask("LOCK INSTANCE FOR BACKUP")
                backup_locked = True
            before_lock(control)
            running = describe_blockers(control, ours, seconds=settings.lock_wait_seconds)
            # Long statements are waited for at first: a try beside one is lost and would hold writers up for nothing.
            if running and left > settings.lock_tries // 2:
                blockers = running
            else:
                instant = _lock(lock, control, readers)
                if not instant.prepared_xa:
                    lock.ask(f"SET SESSION wait_timeout={IDLE_SECONDS_MAX}")
                    return instant
                blockers = "prepared XA transactions " + ", ".join(instant.prepared_xa)
        except StatementFailed as error:
            if error.code != LOCK_TIMEOUT:
                raise
            blockers = describe_blockers(control, ours, seconds=0) or blockers
        if left > 1:
            _pause(settings.lock_pause_seconds, cancelled)
    raise SeedTransient(
        f"no snapshot of the source after {settings.lock_tries} tries; in the way: {blockers}",
        retry_seconds=settings.lock_pause_seconds * settings.lock_tries,
    )


def _pause(seconds: float, cancelled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not cancelled():
        time.sleep(min(0.1, seconds))


def _lock(lock: Session, control: Session, readers: list[Session]) -> Instant:
    """Hold the global read lock for as long as it takes every reader to open its snapshot."""
    lock.ask(f"SET SESSION wait_timeout={READ_LOCK_IDLE_SECONDS}")
    lock.ask("FLUSH TABLES WITH READ LOCK")
    began = time.monotonic()
    try:
        # All at once: between two sites one round trip for all instead of one for each.
        for session in readers:
            session.send(SNAPSHOT)
        control.send("XA RECOVER CONVERT XID")
        lock.send("SELECT @@GLOBAL.gtid_executed")
        for session in readers:
            session.receive(SNAPSHOT)
        gtid_executed = sql.one_line(lock.receive("SELECT @@GLOBAL.gtid_executed").text())
        prepared = control.receive("XA RECOVER CONVERT XID").names()
    finally:
        with contextlib.suppress(Interruption):
            lock.ask("UNLOCK TABLES")
    return Instant(
        gtid_executed=gtid_executed,
        # A transaction prepared before the snapshot is in its GTID set, but its rows are not in the snapshot; its XA
        # COMMIT would arrive at a target that knows nothing of it.
        prepared_xa=tuple(row[-1] for row in prepared),
        held_seconds=time.monotonic() - began,
    )
