"""Whether a MySQL server takes clients' writes right now, for the role probes' own process (R23).

One connection, opened early and kept: a server with too many connections still answers it. It knows no roles.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from farshore_agent.engines.probing import CHECK_SECONDS, ProbeTarget
from farshore_agent.mysql.connections import Address, Session, Unreachable, dial
from farshore_schema.errors import Transient

SPARE_SECONDS: Final = 0.05
"""Kept back from the time of a check for what is not waiting."""
ANSWER_SECONDS: Final = 0.4
"""Connect and answer each, so that login and question together stay within CHECK_SECONDS."""
_SQL: Final = (
    "SELECT @@GLOBAL.read_only OR @@GLOBAL.super_read_only OR @@GLOBAL.offline_mode OR @@GLOBAL.innodb_read_only"
)


class MySQLWritable:
    """A `probing.WritableCheck`."""

    def __init__(self, target: ProbeTarget) -> None:
        """Connect to nothing yet."""
        self._address = Address(
            side="a",  # names the place in a declaration; a probe has none
            purpose="admin",
            host=target.host,
            port=target.port,
            user=target.user,
            password=lambda: target.password,
            tls_mode=target.tls_mode,
            tls_ca_file=target.tls_ca_file,
        )
        self._lock = threading.Lock()
        self._session: Session | None = None

    def writable(self) -> bool:
        """Return whether an ordinary client could commit; raises Transient or Permanent when it cannot tell."""
        began = time.monotonic()
        with self._lock:
            kept = self._session
            if kept is not None and kept.open:
                try:
                    return not kept.scalar(_SQL)
                except Unreachable:
                    kept.close()
                    if time.monotonic() - began > CHECK_SECONDS - 2 * ANSWER_SECONDS - SPARE_SECONDS:
                        raise Transient("unreachable", "the database did not answer in time") from None
            self._session = None
            fresh = dial(self._address, connect_seconds=ANSWER_SECONDS, answer_seconds=ANSWER_SECONDS)
            self._session = fresh
            return not fresh.scalar(_SQL)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None
