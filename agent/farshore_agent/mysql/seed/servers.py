"""Open sessions with the two servers of a seed, set up so that nothing of their configuration changes what is copied.

It keeps account of every session, so that on any way out of a seed none is left behind: a reader left behind on the
source holds tables open and blocks the next FLUSH TABLES WITH READ LOCK, and with it all writers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.errors import (
    ConnectionLost,
    Interruption,
    SeedCancelled,
    SeedPermanent,
    SeedTransient,
    Side,
    StatementFailed,
)
from farshore_agent.mysql.seed.session import Connect, Session

PROGRAM_NAME = "farshore-seed"
IDLE_SECONDS_MAX = 120
"""The source ends an idle session after this: if we vanish without a word, our locks are gone after it. Sessions that
are idle on purpose are asked something more often (see `epoch`)."""
NETWORK_STALL_SECONDS_MAX = 600
"""How long a server waits in the middle of an answer or of a file for the other side."""
GONE_SECONDS = 10.0
"""How long to wait for a killed session to end."""
POLL_SECONDS = 0.05
RECONNECT_PAUSE_SECONDS = 0.5
ACCESS_DENIED = frozenset({1044, 1045, 1142, 1143, 1227, 1370, 1401, 1698, 3118, 3879})
"""1401, XAER_RMERR, is what XA RECOVER says to an account without XA_RECOVER_ADMIN."""
BUSY = frozenset({1040, 1203, 1226})
NO_SUCH_THREAD = 1094

_COMMON = (
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode='', time_zone='+00:00', character_set_results=NULL, autocommit=1, completion_type='NO_CHAIN'",
    "SET SESSION sql_select_limit=18446744073709551615, sql_big_selects=1, max_execution_time=0, sql_auto_is_null=0",
    "SET SESSION information_schema_stats_expiry=0, sql_quote_show_create=1, explain_format='TRADITIONAL'",
    "SET SESSION show_gipk_in_create_table_and_information_schema=1, show_create_table_skip_secondary_engine=0",
    f"SET SESSION net_read_timeout={NETWORK_STALL_SECONDS_MAX}, net_write_timeout={NETWORK_STALL_SECONDS_MAX}",
)
READER = (
    *_COMMON,
    f"SET SESSION wait_timeout={IDLE_SECONDS_MAX}, transaction_isolation='REPEATABLE-READ'",
)
WRITER = (
    # First, and before anything could be written: not one byte of a seed may get a GTID of the target.
    "SET SESSION sql_log_bin=0",
    *_COMMON,
    # NO_AUTO_VALUE_ON_ZERO keeps a 0 in an AUTO_INCREMENT column a 0. Zero dates need that no strict mode is on.
    "SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', foreign_key_checks=0, unique_checks=0, max_error_count=65535",
    "SET SESSION innodb_strict_mode=0, sql_require_primary_key=0, sql_generate_invisible_primary_key=0",
    "SET SESSION default_collation_for_utf8mb4='utf8mb4_0900_ai_ci', restrict_fk_on_non_standard_key=0",
    "SET SESSION explicit_defaults_for_timestamp=1, default_storage_engine='InnoDB', default_table_encryption=0",
    "SET SESSION sql_safe_updates=0, transaction_read_only=0, transaction_isolation='READ-COMMITTED', sql_notes=1",
    "SET SESSION wait_timeout=3600, lock_wait_timeout=60, innodb_lock_wait_timeout=60",
)


class Server:
    """One of the two servers of a seed: opens sessions and can end all of them at once."""

    def __init__(self, connect: Connect, side: Side) -> None:
        self.side: Side = side
        self._connect = connect
        self._guard = threading.Lock()
        self._sessions: set[Session] = set()
        self._closed = False

    def open(self, *, also: Sequence[str] = ()) -> Session:
        """Log in and prepare the session; raises ConnectionLost, StatementFailed or SeedPermanent (a missing right)."""
        session = Session(self._connect, self.side, program_name=PROGRAM_NAME)
        with self._guard:
            self._sessions.add(session)
        if self._closed:
            session.abort()
        try:
            for statement in (*(READER if self.side == "source" else WRITER), *also):
                session.ask(statement)
        except StatementFailed as error:
            self.end(session)
            raise explained(error) from error
        except ConnectionLost:
            self.end(session)
            raise
        return session

    def open_within(self, seconds: float, cancelled: Callable[[], bool], *, also: Sequence[str] = ()) -> Session:
        """As `open`, trying again while the server cannot be reached; raises SeedTransient after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.open(also=also)
            except Interruption as error:
                if isinstance(error, StatementFailed) and error.code not in BUSY:
                    raise explained(error) from error
                if time.monotonic() >= deadline:
                    raise SeedTransient(f"the {self.side} cannot be reached: {error}") from error
            if cancelled():
                raise SeedCancelled("cancelled while a server could not be reached")
            time.sleep(RECONNECT_PAUSE_SECONDS)

    def end(self, session: Session) -> None:
        """Close a session that has nothing running; one that was broken off is left for `end_all` to end."""
        session.close()
        if not session.broken:
            with self._guard:
                self._sessions.discard(session)

    def kill(self, *sessions: Session) -> None:
        """End sessions on the server too, and wait until they are gone there.

        Closing our socket is not enough: a server that is sending may notice only after net_write_timeout. A server
        that cannot be reached, or that restarted, has nothing to end.
        """
        for session in sessions:
            session.abort()
            session.close()
        with self._guard:
            self._sessions.difference_update(sessions)
        with contextlib.suppress(Interruption, SeedPermanent):
            control = self.open()
            try:
                kill_ids(control, [session.id for session in sessions])
            finally:
                self.end(control)

    def abort_all(self) -> None:
        """Break off everything that runs, from any thread; no session can be used any more."""
        with self._guard:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.abort()

    def end_all(self) -> None:
        """End every session that is still open, here and on the server. Safe to call at any time, repeatedly."""
        with self._guard:
            sessions = list(self._sessions)
            self._closed = False
        if sessions:
            self.kill(*sessions)


def kill_ids(control: Session, ids: Sequence[int]) -> None:
    """KILL the sessions `ids` of the same account and wait until the server has let them go (bounded)."""
    for each in ids:
        try:
            control.ask(f"KILL CONNECTION {each:d}")
        except StatementFailed as error:
            if error.code != NO_SUCH_THREAD:
                raise
    deadline = time.monotonic() + GONE_SECONDS
    wanted = ", ".join(str(each) for each in ids) or "0"
    while time.monotonic() < deadline:
        left = control.ask(
            f"SELECT COUNT(*) FROM performance_schema.threads WHERE processlist_id IN ({wanted})"  # noqa: S608 - numbers
        )
        if not left.number():
            return
        time.sleep(POLL_SECONDS)


def kill_left_behind(control: Session) -> None:
    """End sessions that an earlier seed with the same account left behind (it died, or its network did)."""
    rows = control.ask(
        "SELECT DISTINCT processlist_id FROM performance_schema.session_account_connect_attrs "  # noqa: S608 - a constant
        f"WHERE attr_name='program_name' AND attr_value={sql.text(PROGRAM_NAME)} "
        "AND processlist_id<>CONNECTION_ID()"
    ).rows
    kill_ids(control, [int(row[0] or 0) for row in rows])


def explained(error: StatementFailed) -> Interruption | SeedPermanent:
    """Return what to raise for a failed statement: a missing right is for a person to mend."""
    if error.code in ACCESS_DENIED:
        account = "replication" if error.side == "source" else "admin"
        return SeedPermanent(
            str(error),
            hint=f"check the {account} account of the {error.side}: docs/mysql-accounts.md lists its exact GRANTs",
        )
    return error
