"""The sessions of clients on a server: which there are, which may still commit, and how they are ended.

Spared are our own sessions, dump threads (they only read) and the server's own threads. `super_read_only` does not stop
everything: a session that wrote inside an XA transaction before may still XA PREPARE it, and anybody may XA COMMIT a
prepared one (measured on 9.7.4). So a fence is complete only when the sessions inside an XA transaction are gone and
none is left prepared.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from farshore_agent.mysql.connections import NO_SUCH_THREAD, PROGRAM, Rejected, Session
from farshore_schema.errors import FarshoreError, Permanent, Transient

GONE_SECONDS: Final = 10.0
"""How long killed sessions may take to go; a rollback of a big transaction happens in that time."""
GONE_POLL_SECONDS: Final = 0.002
PREPARED_SECONDS: Final = 2.0
"""How long transaction managers are given to finish what they prepared: a two-phase commit takes milliseconds."""
PREPARED_POLL_SECONDS: Final = 0.02
SWEEP_DELAY_SECONDS: Final = 0.15
NAMED_MAX: Final = 5
"""So many sessions or transactions are named in a message."""

_CLIENTS_SQL: Final = (
    "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_COMMAND, t.PROCESSLIST_INFO, x.STATE, x.XA_STATE,"
    " t.INSTRUMENTED = 'YES' AND"
    " (SELECT ENABLED FROM performance_schema.setup_consumers WHERE NAME = 'events_transactions_current') = 'YES' AND"
    " (SELECT ENABLED FROM performance_schema.setup_instruments WHERE NAME = 'transaction') = 'YES',"
    " (SELECT ATTR_VALUE FROM performance_schema.session_connect_attrs a"
    " WHERE a.PROCESSLIST_ID = t.PROCESSLIST_ID AND a.ATTR_NAME = 'program_name')"
    " FROM performance_schema.threads t LEFT JOIN performance_schema.events_transactions_current x USING (THREAD_ID)"
    " WHERE t.PROCESSLIST_ID IS NOT NULL AND t.PROCESSLIST_ID <> CONNECTION_ID() AND t.PROCESSLIST_USER IS NOT NULL"
    # The threads of a channel carry the user of whoever started it.
    " AND t.NAME NOT LIKE 'thread/sql/replica%'"
    " AND t.PROCESSLIST_USER NOT IN ('system user', 'event_scheduler', 'mysql.session')"
    " AND t.PROCESSLIST_COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon')"
)


class Client(NamedTuple):
    """One session of somebody else."""

    id: int
    user: str
    command: str
    statement: str
    in_transaction: bool
    in_xa: bool  # it may still XA PREPARE after the fence; True also where the server is not instrumented to tell

    @property
    def words(self) -> str:
        """The session for people; the statement is cut short."""
        return f"session {self.id} of {self.user} ({self.statement[:80] or self.command})"


def clients(session: Session, ours: frozenset[str]) -> list[Client]:
    """Return the sessions that are neither the server's own, nor dumps, nor ours; `ours` are our accounts' users."""
    return [
        Client(
            id=int(number),
            user=str(user),
            command=str(command),
            statement=str(statement or ""),
            in_transaction=state == "ACTIVE",
            in_xa=not instrumented or (state == "ACTIVE" and xa_state not in (None, "NOTXA")),
        )
        for number, user, command, statement, state, xa_state, instrumented, program in session.rows(_CLIENTS_SQL)
        if not (user in ours and str(program or "").startswith(PROGRAM))
    ]


def kill(session: Session, ids: Iterable[int]) -> None:
    """End sessions; those that are gone already do not matter."""
    for number in ids:
        try:
            session.run(f"KILL {number:d}")
        except Rejected as error:
            if error.number != NO_SUCH_THREAD:
                raise


def end_xa_sessions(session: Session, ours: frozenset[str]) -> None:
    """End every session inside an XA transaction and return when all of them are gone.

    Raises Transient("timeout") naming those that stay.
    """
    deadline = time.monotonic() + GONE_SECONDS
    killed: set[int] = set()
    while still := [client for client in clients(session, ours) if client.in_xa]:
        fresh = [client.id for client in still if client.id not in killed]
        kill(session, fresh)
        killed.update(fresh)
        if time.monotonic() > deadline:
            names = ", ".join(client.words for client in still[:NAMED_MAX])
            raise Transient("timeout", f"sessions that could still commit do not end: {names}")
        time.sleep(GONE_POLL_SECONDS)


def await_no_prepared(session: Session) -> None:
    """Return when no XA transaction is prepared: anybody could commit one, also on a read-only server.

    Raises Permanent("not_possible_now") that names them when they are not finished within `PREPARED_SECONDS`.
    """
    deadline = time.monotonic() + PREPARED_SECONDS
    while prepared := session.rows("XA RECOVER CONVERT XID"):
        if time.monotonic() > deadline:
            names = ", ".join(str(row[3]) for row in prepared[:NAMED_MAX])
            raise Permanent(
                "not_possible_now",
                f"{len(prepared)} XA transactions are prepared and undecided at {session.address.host}:"
                f"{session.address.port} (xid {names}); a read-only server still lets anybody commit them",
                hint="finish them there with XA COMMIT or XA ROLLBACK (XA RECOVER lists them), then repeat",
            )
        time.sleep(PREPARED_POLL_SECONDS)


class Sweep:
    """Ends all client sessions in the background: it costs the server 1-2 ms each and a switchover need not wait.

    It begins after `SWEEP_DELAY_SECONDS`, when the other side is usually open already, and makes one pass: sessions
    inside a transaction first. What fails is left: a read-only server answers the clients that stay, and `stream` ends
    open transactions again before it applies anything.
    """

    def __init__(self, dial: Callable[[], Session], ours: frozenset[str]) -> None:
        self._dial, self._ours = dial, ours
        self._thread = threading.Thread(target=self._run, name="farshore-sweep", daemon=True)

    def start(self) -> Sweep:
        """Begin, and return at once."""
        self._thread.start()
        return self

    @property
    def over(self) -> bool:
        """Whether it was started and has ended."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        time.sleep(SWEEP_DELAY_SECONDS)
        with contextlib.suppress(FarshoreError), self._dial() as session:
            found = sorted(clients(session, self._ours), key=lambda client: not client.in_transaction)
            kill(session, (client.id for client in found))
