"""The standby's own native replica, on a channel of our name, fed by the journal's server on this site's gateway.

Statements about the channel write no GTID. It knows neither the source nor the journal's files.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from farshore_agent.mysql.connections import NO_SUCH_CHANNEL, Rejected, Session
from farshore_schema.errors import Permanent

CHANNEL: Final = "farshore"
RETRY_SECONDS: Final = 1
HEARTBEAT_SECONDS: Final = 1
NET_TIMEOUT_SECONDS: Final = 8
"""replica_net_timeout: with heartbeats every second, a journal silent for longer hangs or is cut off."""
ACCESS_DENIED: Final = 1045
STOPPED_FOR_GOOD: Final = 13114  # ER_SERVER_SOURCE_FATAL_ERROR_READING_BINLOG: the IO thread does not try again

_STATUS_SQL: Final = (
    "SELECT c.HOST, c.PORT, c.USER, n.SERVICE_STATE, n.LAST_ERROR_NUMBER, n.LAST_ERROR_MESSAGE, a.SERVICE_STATE,"
    " n.RECEIVED_TRANSACTION_SET, c.AUTO_POSITION,"
    " (SELECT MAX(UNIX_TIMESTAMP(w.LAST_APPLIED_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP))"
    "  FROM performance_schema.replication_applier_status_by_worker w WHERE w.CHANNEL_NAME = c.CHANNEL_NAME),"
    " (SELECT MAX(UNIX_TIMESTAMP(w.LAST_APPLIED_TRANSACTION_END_APPLY_TIMESTAMP))"
    "  FROM performance_schema.replication_applier_status_by_worker w WHERE w.CHANNEL_NAME = c.CHANNEL_NAME)"
    " FROM performance_schema.replication_connection_configuration c"
    " JOIN performance_schema.replication_connection_status n USING (CHANNEL_NAME)"
    " JOIN performance_schema.replication_applier_status a USING (CHANNEL_NAME)"
    " WHERE c.CHANNEL_NAME = 'farshore'"
)
_ERRORS_SQL: Final = (
    "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, APPLYING_TRANSACTION"
    " FROM performance_schema.replication_applier_status_by_worker WHERE CHANNEL_NAME = 'farshore'"
    " AND LAST_ERROR_NUMBER <> 0 UNION ALL SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, ''"
    " FROM performance_schema.replication_applier_status_by_coordinator WHERE CHANNEL_NAME = 'farshore'"
    " AND LAST_ERROR_NUMBER <> 0"
)
_CONSEQUENCES: Final = frozenset({3547, 1756})  # the coordinator or a worker stopped because another worker did


class Feed(NamedTuple):
    """Where the channel gets its transactions: the journal's server."""

    host: str
    port: int
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Feed({self.user}@{self.host}:{self.port})"


class Status(NamedTuple):
    """What the server says of the channel."""

    host: str
    port: int
    user: str
    receiver: str  # ON, CONNECTING, OFF
    receiver_error: int
    receiver_message: str
    applier: str  # ON, OFF
    received: str  # GTID set in the relay logs, of this life of the channel
    auto_position: bool
    newest_commit: float | None  # on the source, of the newest transaction applied since the channel started
    newest_applied: float | None  # when that was done here

    @property
    def applying(self) -> bool:
        """Whether what the journal serves arrives and is applied."""
        return self.receiver == "ON" and self.applier == "ON"


class ApplierError(NamedTuple):
    """Why the applier stopped."""

    number: int
    message: str
    transaction: str


def status(session: Session) -> Status | None:
    """Return the channel's state, None when there is no channel."""
    rows = session.rows(_STATUS_SQL)
    if not rows:
        return None
    host, port, user, receiver, error, message, applier, received, auto, commit, applied = rows[0]
    return Status(
        host=str(host),
        port=int(port),
        user=str(user),
        receiver=str(receiver),
        receiver_error=int(error),
        receiver_message=str(message),
        applier=str(applier),
        received=str(received).replace("\n", ""),
        auto_position=str(auto) == "1",
        newest_commit=float(commit) if commit else None,
        newest_applied=float(applied) if applied else None,
    )


def applier_error(session: Session) -> ApplierError | None:
    """Return the error that stopped the applier, None while there is none."""
    found = [
        ApplierError(int(number), str(message), str(transaction))
        for number, message, transaction in session.rows(_ERRORS_SQL)
    ]
    causes = [error for error in found if error.number not in _CONSEQUENCES] or found
    return causes[0] if causes else None


def follow(session: Session, feed: Feed) -> None:
    """Let the channel follow `feed` and apply; changes only what is not so already. Idempotent.

    An applier that stopped on an error is started again: the error comes back while its cause is there.
    """
    now = status(session)
    fits = (
        now is not None
        and (now.host, now.port, now.user, now.auto_position) == (feed.host, feed.port, feed.user, True)
        and now.receiver_error not in (ACCESS_DENIED, STOPPED_FOR_GOOD)
    )
    if not fits:
        stop(session)
        # Stopping and changing a channel drops its relay logs: they are fetched again from the journal.
        session.run(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s,"
            " SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_CONNECT_RETRY = %s, SOURCE_RETRY_COUNT = 0,"
            f" SOURCE_HEARTBEAT_PERIOD = %s FOR CHANNEL '{CHANNEL}'",
            (feed.host, feed.port, feed.user, feed.password, RETRY_SECONDS, HEARTBEAT_SECONDS),
        )
    if now is None or not fits or now.receiver == "OFF" or now.applier == "OFF":
        session.run(f"START REPLICA FOR CHANNEL '{CHANNEL}'")


def shorten_timeout(session: Session) -> None:
    """Let the server notice a silent journal soon; channels take it over when they start."""
    if int(session.scalar("SELECT @@GLOBAL.replica_net_timeout")) > NET_TIMEOUT_SECONDS:
        session.run(f"SET PERSIST replica_net_timeout = {NET_TIMEOUT_SECONDS}")


def stop(session: Session) -> None:
    """Stop the channel. Idempotent."""
    _unless_absent(session, f"STOP REPLICA FOR CHANNEL '{CHANNEL}'")


def remove(session: Session) -> None:
    """Stop and forget the channel, its relay logs with it. Idempotent."""
    stop(session)
    _unless_absent(session, f"RESET REPLICA ALL FOR CHANNEL '{CHANNEL}'")


_WHERE = re.compile(r"on table (\S+?);|Query: '(.{1,200}?)'", re.DOTALL)
_GTID = re.compile(r"transaction '([0-9a-f-]{36}:[^']{1,80})'")
_MENDS: Final = {
    1032: "a row that the transaction changes is not here: somebody changed the standby, or it was not an exact copy. "
    "Compare the table on both sides; put the row back by hand, or seed again",
    1062: "a row that the transaction inserts is here already: somebody wrote to the standby. Compare it with the "
    "source and delete it here if the source's is right, or seed again",
    1146: "the table is not here: somebody dropped it on the standby. Create it as on the source, or seed again",
    1049: "the schema is not here. Create it as on the source, or seed again",
    1050: "the table is here already: somebody created it on the standby. Drop it here if it is not needed",
    1051: "the table is not here: somebody dropped it on the standby. Create it as on the source, or seed again",
    1114: "the disk or the tablespace is full. Free space",
    1205: "locks were held by another session for too long. End that session",
    1396: "the account is already here, or is not. Make it as on the source",
    1419: "SET PERSIST log_bin_trust_function_creators = ON on the standby",
    3723: "the tablespace is not here. Create it as on the source",
}


def explain(error: ApplierError) -> Permanent:
    """Return the error that people see: which transaction, where, why, and what they can do. Nothing is skipped."""
    found = _WHERE.search(error.message)
    where = (found[1] or found[2]) if found else ""
    named = _GTID.search(error.message)
    transaction = error.transaction or (named[1] if named else "an unknown transaction")
    why = _MENDS.get(error.number, "remove what the message names; the transaction is tried again when it is started")
    return Permanent(
        "applier_stopped",
        f"the standby cannot apply transaction {transaction}"
        + (f" ({where})" if where else "")
        + f": error {error.number}: {error.message}",
        hint=f"{why}; then START REPLICA FOR CHANNEL '{CHANNEL}'. Farshore skips nothing",
    )


def _unless_absent(session: Session, statement: str) -> None:
    try:
        session.run(statement)
    except Rejected as error:
        if error.number != NO_SUCH_CHANNEL:
            raise
