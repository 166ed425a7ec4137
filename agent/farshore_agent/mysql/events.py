"""Scheduled events at a promotion: a replica shows them all as switched off, and the new active side must run them.

A replicated event is REPLICA_SIDE_DISABLED, whether people had it enabled or disabled at the source; what they had
disabled is noted from the active side while it can be asked. Events are switched on with sql_log_bin=0: each server
keeps a status of its own, and the event scheduler decides which of the two runs them.
"""

from __future__ import annotations

from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.notes import Workload

_REPLICA_SIDE = ("REPLICA_SIDE_DISABLED", "SLAVESIDE_DISABLED")


def workload(session: Session) -> Workload:
    """Ask an active side for its scheduler and for the events that people switched off there."""
    scheduler = str(session.scalar("SELECT @@GLOBAL.event_scheduler"))
    rows = session.rows(
        "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME) FROM information_schema.events WHERE STATUS = 'DISABLED'"
        " ORDER BY 1"
    )
    return Workload(event_scheduler=scheduler, disabled_events=tuple(str(row[0]) for row in rows))


def switch_on(session: Session, left_off: frozenset[str]) -> int:
    """Enable the replicated events but those in `left_off`; return how many. Idempotent; writes no GTID."""
    rows = session.rows(
        "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER FROM information_schema.events WHERE STATUS IN (%s, %s)",
        _REPLICA_SIDE,
    )
    wanted = [
        (str(schema), str(name), str(definer)) for schema, name, definer in rows if f"{schema}.{name}" not in left_off
    ]
    if not wanted:
        return 0
    session.run("SET SESSION sql_log_bin = 0")
    try:
        for schema, name, definer in wanted:
            user, _, host = definer.rpartition("@")
            # Without its definer named, the event would become ours.
            session.run(f"ALTER DEFINER = {_text(user)}@{_text(host)} EVENT {_name(schema)}.{_name(name)} ENABLE")
    finally:
        session.run("SET SESSION sql_log_bin = 1")
    return len(wanted)


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
