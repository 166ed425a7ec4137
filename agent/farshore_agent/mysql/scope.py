"""A pair is one whole server (R1): nothing else feeds it, and nothing is filtered out of what it logs or applies.

The doctor says the same of a declaration; here it is asked again at every move and every minute, because a server is
changed after it was declared. It changes nothing.
"""

from __future__ import annotations

from typing import Final

from farshore_agent.mysql.channel import CHANNEL
from farshore_agent.mysql.connections import Session
from farshore_schema.errors import Permanent

SHOWN_MAX: Final = 5

_OUTSIDE_SQL: Final = (
    "SELECT 'replicates on channel', QUOTE(CHANNEL_NAME) FROM performance_schema.replication_connection_configuration"
    " WHERE CHANNEL_NAME <> %s AND HOST <> ''"
    " UNION ALL SELECT 'filters by', CONCAT(FILTER_NAME, '=', FILTER_RULE)"
    " FROM performance_schema.replication_applier_global_filters WHERE FILTER_RULE <> ''"
    " UNION ALL SELECT 'filters by', CONCAT(FILTER_NAME, '=', FILTER_RULE)"
    " FROM performance_schema.replication_applier_filters WHERE FILTER_RULE <> ''"
    " UNION ALL SELECT 'is in a replication group as', MEMBER_STATE FROM performance_schema.replication_group_members"
    " WHERE MEMBER_STATE NOT IN ('', 'OFFLINE')"
    " UNION ALL SELECT 'executes for each channel', CONCAT('init_replica=', @@GLOBAL.init_replica) FROM DUAL"
    " WHERE @@GLOBAL.init_replica <> ''"
)


def refuse_partial(session: Session) -> None:
    """Raise Permanent("unsuitable_server") naming everything that makes the server less, or more, than one whole."""
    found = [f"{what} {which}" for what, which in session.rows(_OUTSIDE_SQL, (CHANNEL,))]
    for row in session.records("SHOW BINARY LOG STATUS"):
        found += [f"filters by {name}={row[name]}" for name in ("Binlog_Do_DB", "Binlog_Ignore_DB") if row.get(name)]
    if found:
        raise Permanent(
            "unsuitable_server",
            f"{session.address.host}:{session.address.port} {', '.join(found[:SHOWN_MAX])}: a pair is one whole server",
            hint="RESET REPLICA ALL FOR CHANNEL '...', CHANGE REPLICATION FILTER ... = (), or clear the option and "
            "restart; or take the server out of the pair",
        )
