"""Name who stands in the way of a lock on the source, without showing anybody's data.

Statements are shown as the server's digest of them: literals, and with them passwords, are question marks.
"""

# ruff: noqa: S608 - only numbers are put into the text

from __future__ import annotations

from collections.abc import Sequence

from farshore_agent.mysql.seed.errors import StatementFailed
from farshore_agent.mysql.seed.session import Session

BLOCKERS_MAX = 5
DIGEST_CHARACTERS_MAX = 160


def describe_blockers(control: Session, ours: Sequence[int], *, seconds: int) -> str:
    """Return who runs a statement for `seconds` or more, or holds a server-wide metadata lock; '' when nobody does."""
    skip = ", ".join(str(each) for each in ours)
    statement = (
        "SELECT t.processlist_id, t.processlist_user, t.processlist_host, IFNULL(t.processlist_time, 0),"
        " IF(t.processlist_command='Sleep', 'idle in LOCK TABLES or a transaction', LEFT(MAX(s.digest_text), 1000))"
        " FROM performance_schema.threads t"
        " LEFT JOIN performance_schema.events_statements_current s USING (thread_id)"
        " LEFT JOIN performance_schema.metadata_locks m ON m.owner_thread_id=t.thread_id"
        " AND m.object_type IN ('GLOBAL', 'COMMIT', 'BACKUP LOCK') AND m.lock_status='GRANTED'"
        f" WHERE t.processlist_id IS NOT NULL AND t.processlist_id NOT IN ({skip}) AND t.type='FOREGROUND'"
        " AND IFNULL(t.processlist_command, '') NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon')"
        " AND t.processlist_user IS NOT NULL AND t.processlist_user NOT IN ('system user', 'event_scheduler')"
        f" AND (m.object_type IS NOT NULL OR t.processlist_command<>'Sleep') AND t.processlist_time>={seconds:d}"
        " GROUP BY t.processlist_id, t.processlist_user, t.processlist_host, t.processlist_time, t.processlist_command"
        f" ORDER BY t.processlist_time DESC LIMIT {BLOCKERS_MAX}"
    )
    try:
        rows = control.ask(statement).names()
    except StatementFailed:
        return ""  # naming them is a courtesy; performance_schema may be off
    return "; ".join(
        f"session {number} of {user}@{host} for {age} s: {digest[:DIGEST_CHARACTERS_MAX] or 'unknown statement'}"
        for number, user, host, age, digest in rows
    )
