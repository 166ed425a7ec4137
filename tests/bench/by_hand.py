"""The peer of a switchover: the same steps scripted by hand on stock replication, behind the same HAProxy recipe."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pymysql

from tests.testbed.haproxy import Backend, HAProxy
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

REPLICATION = ("by_hand", "by-hand-replication")
APPLIED_SECONDS = 60


class Probe:
    """A hand-made health check: 200 or 503, as the script says."""

    def __init__(self, healthy: bool) -> None:
        self.healthy = healthy
        probe = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if probe.healthy else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing: HAProxy asks ten times a second."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class ByHand:
    """Two servers with native replication and a script that switches over."""

    def __init__(self, directory: Path, *, relaxed: bool) -> None:
        self.relaxed = relaxed
        self.active = MySQLServer.create(directory / "by-hand", name="one")
        self.standby = MySQLServer.create(directory / "by-hand", name="two")
        for server in (self.active, self.standby):
            server.execute(
                "SET sql_log_bin = 0",
                f"CREATE USER {REPLICATION[0]}@'%' IDENTIFIED BY '{REPLICATION[1]}'",
                f"GRANT REPLICATION SLAVE ON *.* TO {REPLICATION[0]}@'%'",
            )
        self.probes = {self.active.name: Probe(True), self.standby.name: Probe(False)}
        self.proxy = HAProxy(
            directory,
            pair="orders",
            first=self._backend(self.active),
            second=self._backend(self.standby),
        )

    def _backend(self, server: MySQLServer) -> Backend:
        return Backend(name=server.name, port=server.port, probe_port=self.probes[server.name].port)

    def start(self) -> None:
        """Attach the standby and open the proxy."""
        self._follow(self.standby, self.active)
        self.proxy.start()
        wait_until(lambda: self.proxy.up().get(self.active.name), "HAProxy sees the active side")

    def _follow(self, standby: MySQLServer, active: MySQLServer) -> None:
        durability = (0, 2) if self.relaxed else (1, 1)
        standby.execute(
            "SET GLOBAL super_read_only = ON",
            f"SET GLOBAL sync_binlog = {durability[0]}",
            f"SET GLOBAL innodb_flush_log_at_trx_commit = {durability[1]}",
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={active.port}, "
            f"SOURCE_USER='{REPLICATION[0]}', SOURCE_PASSWORD='{REPLICATION[1]}', SOURCE_AUTO_POSITION=1, "
            "SOURCE_SSL=1, SOURCE_CONNECT_RETRY=1",
            "START REPLICA",
        )

    def caught_up(self) -> bool:
        """Say whether the standby holds all that the active side has."""
        return bool(self.active.gtid_executed() == self.standby.gtid_executed())

    def switchover(self) -> None:
        """Fence, drain, promote, flip; then attach the other way."""
        old, new = self.active, self.standby
        with old.connect() as fencing, new.connect() as opening:
            fence, promote = fencing.cursor(), opening.cursor()
            self.probes[old.name].healthy = False
            fence.execute("SET GLOBAL super_read_only = ON")
            fence.execute(
                "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() "
                "AND command NOT LIKE 'Binlog Dump%%' AND user NOT IN ('system user', 'event_scheduler')"
            )
            for (connection,) in fence.fetchall():
                with contextlib.suppress(pymysql.err.OperationalError):
                    fence.execute(f"KILL {connection}")
            fence.execute("SELECT @@GLOBAL.gtid_executed")
            (position,) = fence.fetchone() or ("",)
            promote.execute("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (position, APPLIED_SECONDS))
            if promote.fetchone() != (0,):
                raise RuntimeError("the standby did not catch up")
            promote.execute("STOP REPLICA")
            promote.execute("RESET REPLICA ALL")
            promote.execute("SET GLOBAL sync_binlog = 1")
            promote.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
            promote.execute("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
            promote.execute("SET GLOBAL super_read_only = OFF")
            promote.execute("SET GLOBAL read_only = OFF")
            self.probes[new.name].healthy = True
        self._follow(old, new)
        self.active, self.standby = new, old

    def close(self) -> None:
        """End everything."""
        self.proxy.stop()
        for probe in self.probes.values():
            probe.close()
        for server in (self.active, self.standby):
            server.remove()
