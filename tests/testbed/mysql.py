"""Real MySQL servers for tests: created from a template in about a second, killed, paused and restarted at will.

A server's options are written to an option file of its own. `--no-defaults` is not used because it would also make
the server ignore mysqld-auto.cnf, and with it every SET PERSIST that a test must see survive a restart.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql
import pymysql.connections
from pymysql.constants import CR

from tests.testbed.mysql_content import schema_objects, table_checksums
from tests.testbed.mysql_install import MySQLInstallation, mysql_installation
from tests.testbed.places import TestBedError, exclusive, say
from tests.testbed.ports import LOOPBACK, release_port, reserve_port
from tests.testbed.processes import end, spawn
from tests.testbed.waiting import wait_until

__all__ = ["DEFAULTS", "MySQLServer", "mysql_program", "prepare_template", "schema_objects", "table_checksums"]

START_SECONDS = 120.0
"""Crash recovery of the largest test data set takes about ten seconds on a busy machine."""
STOP_SECONDS = 120.0
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.02
PORT_ATTEMPTS = 5
SOCKET_PATH_BYTES_MAX = 100
"""A Unix socket's path has 107 bytes (unix(7)); MySQL appends `.lock`."""
ERROR_LOG_TAIL_BYTES = 3000

DEFAULTS: Mapping[str, str] = {
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "log_bin": "bin",
    "log_replica_updates": "OFF",
    "binlog_row_image": "FULL",
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_buffer_pool_size": "128M",
    "innodb_redo_log_capacity": "256M",
    "relay_log_recovery": "ON",
    "skip_replica_start": "ON",
    "event_scheduler": "OFF",
    "local_infile": "ON",
    "skip_name_resolve": "ON",
    "max_allowed_packet": "1G",
    "mysqlx": "OFF",
    "bind_address": LOOPBACK,
    "secure_file_priv": "",
    "persisted_globals_load": "ON",
}
"""What a customer's server would have, sized for tests; `options` of a server override it."""

_server_ids = itertools.count(os.getpid() * 64 % 2_000_000_000 + 1)
"""Unique in this run; the pid keeps runs side by side apart."""


class MySQLServer:
    """One MySQL server on loopback, with a data directory of its own; a context manager that ends and removes it."""

    def __init__(self, directory: Path, *, name: str, options: Sequence[str]) -> None:
        self.name = name
        self.host = LOOPBACK
        self.home = directory / name
        self.datadir = self.home / "data"
        self.error_log = self.home / "mysqld.err"
        self.server_id = next(_server_ids)
        self.port = reserve_port()
        self.options = list(options)
        self.installation = mysql_installation()
        self._scratch: Path | None = None
        self.socket = self._socket_path()
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @classmethod
    def create(
        cls, directory: Path, *, name: str = "db", options: Sequence[str] = (), start: bool = True
    ) -> MySQLServer:
        """Make a server with a fresh data directory in `directory`/`name`, and start it.

        `options` are mysqld options with or without leading dashes (`"log_replica_updates=ON"`); later ones win, and
        all win over DEFAULTS. root needs no password over the socket and does not exist over TCP.
        """
        server = cls(directory, name=name, options=options)
        shutil.rmtree(server.home, ignore_errors=True)
        server.home.mkdir(parents=True)
        _copy_template(server.installation, server.datadir)
        if start:
            server.start()
        return server

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        if self._process is None:
            raise TestBedError(f"MySQL server {self.name} is not running")
        return self._process.pid

    @property
    def ca_file(self) -> Path:
        """The certificate authority that this server made for itself at its first start."""
        return self.datadir / "ca.pem"

    @property
    def running(self) -> bool:
        """Whether the process lives (paused counts)."""
        return self._process is not None and self._process.poll() is None

    def start(self, *extra_options: str) -> None:
        """Start and wait until it answers; `extra_options` hold for this start only.

        Raises TestBedError with the end of the error log when it does not come up.
        """
        if self.running:
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._write_option_file(extra_options)
            seen = self.error_log.stat().st_size if self.error_log.exists() else 0
            self._process = spawn([*self.installation.server, f"--defaults-file={self.home / 'my.cnf'}"], cwd=self.home)
            if self._answers():
                return
            self.kill()
            said = self._error_log_since(seen)
            if "Address already in use" not in said or attempt == PORT_ATTEMPTS:
                raise TestBedError(f"MySQL server {self.name} did not start: {said[-ERROR_LOG_TAIL_BYTES:]}")
            release_port(self.port)
            self.port = reserve_port()

    def stop(self) -> None:
        """Shut down cleanly; a stopped server stays stopped."""
        if self._process is not None:
            self.resume()
            end(self._process, seconds=STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill as a crash of the process does (SIGKILL), and reap it."""
        if self._process is not None:
            end(self._process, kill=True)
            self._process = None
            self._paused = False

    def restart(self, *extra_options: str) -> None:
        """Stop cleanly and start again on the same port and data."""
        self.stop()
        self.start(*extra_options)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers, as with a hung machine.

        Returns when every thread stands still; the signal alone takes effect a moment later.
        """
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True
        tasks = Path(f"/proc/{self.pid}/task")
        wait_until(lambda: set(map(_state, tasks.iterdir())) == {"T"}, f"{self.name} stands still")

    def resume(self) -> None:
        """Let a paused process go on; does nothing to one that runs."""
        if self._paused and self.running:
            os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def connect(self, **arguments: Any) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """Open a session with autocommit, as root over the socket; the caller closes it.

        `arguments` are PyMySQL's. With `user` and `host=server.host` it goes over TCP, as everybody else's does.
        """
        settings = {"user": "root", "autocommit": True, "charset": "utf8mb4", "local_infile": True, **arguments}
        if "host" in settings:
            return pymysql.connect(**{"port": self.port, **settings})
        session = pymysql.connect(**settings, defer_connect=True)
        # PyMySQL leaves its own Unix socket open when nobody listens, and an unclosed socket fails a test.
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(settings.get("connect_timeout", CONNECT_SECONDS))
            link.connect(str(self.socket))
        except OSError as error:
            link.close()
            raise pymysql.err.OperationalError(CR.CR_CONNECTION_ERROR, f"{self.socket}: {error}") from error
        session.connect(link)
        return session

    def query(self, sql: str, arguments: Sequence[Any] | Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement in a session of its own and return its rows."""
        with contextlib.closing(self.connect()) as session, session.cursor() as cursor:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall())

    def scalar(self, sql: str, arguments: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Return the first column of the first row; None when there is no row."""
        rows = self.query(sql, arguments)
        return rows[0][0] if rows else None

    def execute(self, *statements: str) -> None:
        """Run the statements one after another in one session."""
        with contextlib.closing(self.connect()) as session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def gtid_executed(self) -> str:
        """Return the server's gtid_executed on one line."""
        return str(self.scalar("SELECT @@GLOBAL.gtid_executed")).replace("\n", "")

    def remove(self) -> None:
        """Kill the server if it runs and delete its data; option file and error log stay for a look."""
        self.kill()
        shutil.rmtree(self.datadir, ignore_errors=True)
        release_port(self.port)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A clean shutdown costs a second and proves nothing here; a data directory has hundreds of megabytes.
        self.remove()

    def _socket_path(self) -> Path:
        path = self.home / "mysql.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            self._scratch = Path(tempfile.mkdtemp(prefix="farshore-"))
            path = self._scratch / "mysql.sock"
        return path

    def _write_option_file(self, extra_options: Sequence[str]) -> None:
        own = {
            "datadir": str(self.datadir),
            "socket": str(self.socket),
            "pid_file": str(self.home / "mysqld.pid"),
            "log_error": str(self.error_log),
            "port": str(self.port),
            "server_id": str(self.server_id),
        }
        lines = ["[mysqld]", *self.installation.server_options]
        lines += [f"{name}={value}" for name, value in {**DEFAULTS, **own}.items()]
        if os.geteuid() == 0:
            lines.append("user=root")
        lines += [option.removeprefix("--") for option in [*self.options, *extra_options]]
        (self.home / "my.cnf").write_text("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        """Wait until a session opens; False when the process ended or the time is over."""
        deadline = time.monotonic() + START_SECONDS
        while self.running and time.monotonic() < deadline:
            try:
                self.connect(connect_timeout=5).close()
            except pymysql.err.OperationalError:
                time.sleep(POLL_SECONDS)
            else:
                return True
        return False

    def _error_log_since(self, offset: int) -> str:
        if not self.error_log.exists():
            return "it wrote no error log"
        with self.error_log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")


def _state(task: Path) -> str:
    """Return a thread's state letter (proc(5), the 3rd field of stat, after the name in brackets)."""
    return (task / "stat").read_text().rsplit(")", 1)[1].split()[0]


def _copy_template(installation: MySQLInstallation, datadir: Path) -> None:
    template = _template(installation)
    # Shares the blocks where the file system can; sparse files stay sparse.
    subprocess.run(["cp", "-a", "--reflink=auto", str(template), str(datadir)], check=True)


def _template(installation: MySQLInstallation) -> Path:
    """Return an initialised data directory of this version, made once (about three seconds)."""
    template = installation.home / f"template-{installation.version}"
    if template.exists():
        return template
    with exclusive(installation.home / "template.lock"):
        if not template.exists():
            say(f"MySQL {installation.version}: initialising the template data directory")
            fresh = template.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            command = [*installation.server, "--no-defaults", "--initialize-insecure", f"--datadir={fresh}"]
            command += [f"--{option}" for option in installation.server_options]
            command += ["--innodb-redo-log-capacity=8M", "--skip-log-bin"]
            if os.geteuid() == 0:
                command.append("--user=root")
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS, check=False
            )
            if done.returncode != 0:
                words = done.stderr.decode(errors="replace")[-ERROR_LOG_TAIL_BYTES:]
                raise TestBedError(f"mysqld --initialize-insecure failed ({done.returncode}): {words}")
            # Each server makes its own identity and certificates.
            (fresh / "auto.cnf").unlink(missing_ok=True)
            for certificate in fresh.glob("*.pem"):
                certificate.unlink()
            fresh.rename(template)
    return template


def prepare_template() -> None:
    """Have the server installed and its template made, ahead of the first test."""
    _template(mysql_installation())


def mysql_program(name: str) -> list[str]:
    """Return the argv prefix of a client program of the tested MySQL: `mysql`, `mysqldump`, `mysqlbinlog`."""
    return list(mysql_installation().program(name))
