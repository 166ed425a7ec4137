"""Settings of a server that protection changes: recorded before the first change, put back at the end (R20).

What keeps a standby a standby is not put back: `super_read_only`, `read_only`, and there `event_scheduler`.
"""

from __future__ import annotations

from typing import Final

from farshore_agent.mysql import persisted
from farshore_agent.mysql.connections import READ_ONLY, Rejected, Session
from farshore_agent.mysql.notes import Notes, Setting, Settings

CHANGED: Final = ("event_scheduler", "sync_binlog", "innodb_flush_log_at_trx_commit", "replica_net_timeout")
"""Every setting that is ever changed by us and put back; roles are recorded apart, in the switches themselves."""

_PERSISTED_SQL: Final = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.persisted_variables"


def record(session: Session, notes: Notes, server: str) -> None:
    """Remember the settings as they are, unless those of this server are remembered already. Idempotent."""
    known = notes.settings()
    if known.server == server and set(CHANGED) <= set(known.before):
        return
    columns = ", ".join(f"@@GLOBAL.{name}" for name in CHANGED)
    values = session.row(f"SELECT {columns}")
    kept: dict[str, str] = dict(
        session.rows("SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.persisted_variables")
    )
    before = {
        name: Setting(value=str(value), persisted=None if name not in kept else str(kept[name]))
        for name, value in zip(CHANGED, values, strict=True)
    }
    notes.save_settings(Settings(server=server, before=before))


def original(notes: Notes, name: str) -> str | None:
    """Return a setting's value before we changed it, None when it is not known."""
    found = notes.settings().before.get(name)
    return None if found is None else found.value


def restore(session: Session, notes: Notes, server: str) -> None:
    """Put back what was recorded of this server. Idempotent; a record of another server is left alone."""
    recorded = notes.settings()
    if recorded.server != server:
        return
    standby = not persisted.switches(session).writable
    for name, before in recorded.before.items():
        if name not in CHANGED or (name == "event_scheduler" and standby):
            continue
        try:
            session.run(f"SET GLOBAL {name} = %s", (_typed(before.value),))
            if before.persisted is None:
                session.run(f"RESET PERSIST IF EXISTS {name}")
            else:
                session.run(f"SET PERSIST {name} = %s", (_typed(before.persisted),))
        except Rejected as error:
            if error.number != READ_ONLY:  # event_scheduler=DISABLED cannot be set, and never was
                raise


def _typed(value: str) -> str | int:
    return int(value) if value.lstrip("-").isdecimal() else value
