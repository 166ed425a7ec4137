"""Fixtures that every test may use: real MySQL servers, and the promise that a run leaves no process behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_install import MySQLInstallation, mysql_installation
from tests.testbed.places import TestBedError
from tests.testbed.processes import survivors, watch_run
from tests.testbed.require import require

Installed = TypeVar("Installed")
SETTLE_SECONDS = 5.0
"""Children of a test that ended correctly may take a moment to go."""


class MySQLServerFactory(Protocol):
    """Makes a started server; it is ended with the fixture that gave the factory."""

    def __call__(self, *, name: str = "db", options: Sequence[str] = (), start: bool = True) -> MySQLServer:
        """Make the server `name`; names are unique within one factory."""


def require_installed(install: Callable[[], Installed]) -> Installed:
    """Return what `install` gives; skip (in CI fail) with its reason when it cannot be had."""
    try:
        return install()
    except TestBedError as error:
        require(False, str(error))
        raise


@pytest.fixture(scope="session")
def mysql_installed() -> MySQLInstallation:
    """A MySQL server of the tested series is installed."""
    return require_installed(mysql_installation)


@pytest.fixture
def mysql_server(tmp_path: Path, mysql_installed: MySQLInstallation) -> Iterator[MySQLServerFactory]:
    """A factory of real MySQL servers; every server it made is ended with the test."""
    yield from make_servers(tmp_path)


@pytest.fixture(scope="module")
def mysql_server_of_module(
    tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation
) -> Iterator[MySQLServerFactory]:
    """The same for servers that the tests of one module share."""
    yield from make_servers(tmp_path_factory.mktemp("mysql"))


def make_servers(directory: Path) -> Iterator[MySQLServerFactory]:
    """Yield a factory of servers below `directory`, and end and delete all that it made."""
    made: list[MySQLServer] = []

    def make(*, name: str = "db", options: Sequence[str] = (), start: bool = True) -> MySQLServer:
        server = MySQLServer.create(directory, name=name, options=options, start=False)
        made.append(server)
        if start:
            server.start()
        return server

    yield make
    for server in made:
        server.remove()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the watchdog up before any test starts a process past the test bed."""
    watch_run()


def left_running() -> list[tuple[int, str]]:
    """Return what this run started and left, but for Python's own resource tracker, which ends with this process."""
    return [each for each in survivors() if "multiprocessing.resource_tracker" not in each[1]]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when a process that it started is still there, and end that process."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := left_running()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, command in left:
        print(f"\nLEFT RUNNING by this test run: {pid} {command}", file=sys.stderr, flush=True)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    if left and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
