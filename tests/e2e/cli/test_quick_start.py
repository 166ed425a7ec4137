"""docs/quick-start.md, followed to the letter on two real servers: every block is run as it stands on the page.

Only what belongs to a machine is replaced: hosts and ports of the servers, the folder of the secrets, the reconciler's
directory and port.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farshore_schema.connection import find
from tests.conftest import MySQLServerFactory
from tests.testbed.mysql import MySQLServer
from tests.testbed.processes import end, spawn
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql]

DOCS = Path(__file__).resolve().parents[3] / "docs"
COMMAND_SECONDS = 120.0
SITES = ("tokyo", "osaka")
SHELL_BLOCKS = 6


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody with the page, a terminal and two servers."""

    def __init__(self, home: Path, servers: dict[str, MySQLServer]) -> None:
        self.home = home
        self.servers = servers
        self.secrets = home / "secrets"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FARSHORE_")}
        # The programs of this Python first; wide enough for a sentence to stay on its line.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = inherited | {
            "PATH": path,
            "FARSHORE_DIR": str(home / "state"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def run(self, command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command of the page in a shell."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace("/etc/farshore", str(self.secrets))],
            cwd=self.home,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def follow(self, block: str, typed: str = "") -> str:
        """Run a block line by line, each of which must succeed; return what it all printed."""
        printed = ""
        for command in block.splitlines():
            done = self.run(command, typed)
            assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
        return printed

    def save(self, document: str) -> None:
        """Save the page's declaration with the test's own hosts and ports."""
        for site in SITES:
            there = f"host: db.{site}.example\n  port: 3306\n"
            assert document.count(there) == 1
            server = self.servers[site]
            document = document.replace(there, f"host: {server.host}\n  port: {server.port}\n")
        (self.home / "dr.yaml").write_text(document.replace("/etc/farshore", str(self.secrets)))

    def edit(self, before: str, after: str) -> None:
        """Change one line of the saved declaration."""
        text = (self.home / "dr.yaml").read_text()
        assert text.count(before) == 1
        (self.home / "dr.yaml").write_text(text.replace(before, after))

    def create_accounts(self) -> None:
        """Run the statements of the accounts' page on each server, with the site's name and the saved passwords."""
        for site, server in self.servers.items():
            for kind, block in zip(("admin", "replication"), blocks("mysql-accounts.md", "sql"), strict=True):
                password = (self.secrets / f"{site}-{kind}").read_text().strip()
                text = block.replace("tokyo", site).replace("<password>", password)
                server.execute(*filter(None, (statement.strip() for statement in text.split(";\n"))))


@pytest.fixture
def reader(tmp_path: Path, mysql_server: MySQLServerFactory) -> Reader:
    """A reader whose first server has data already."""
    made = Reader(tmp_path, {site: mysql_server(name=site) for site in SITES})
    made.servers["tokyo"].execute(
        "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders VALUES (1)"
    )
    return made


@pytest.fixture
def serving(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What block 3 starts, in the other terminal; block 6 ends what it leaves running."""
    command = blocks("quick-start.md", "sh")[1].strip()
    assert command == "farshore serve"
    state = Path(reader.environment["FARSHORE_DIR"])
    with (reader.home / "serve.log").open("wb") as log:
        process = spawn([*command.split(), "--port", "0"], environment=reader.environment, stdout=log, stderr=log)
    try:
        wait_until((state / "endpoint.json").exists, "farshore serve says where it listens")
        url = find(directory=state).endpoint
        wait_until(lambda: answers(url), "farshore serve answers")
        yield
    finally:
        end(process)
        reader.follow(blocks("quick-start.md", "sh")[-1])


def answers(url: str) -> bool:
    """Return whether the reconciler is up."""
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def writable(server: MySQLServer) -> bool:
    return bool(server.scalar("SELECT @@GLOBAL.super_read_only") == 0)


def test_the_quick_start_does_what_it_says(reader: Reader, request: pytest.FixtureRequest) -> None:
    """From two servers to a protected pair, there and back again, with nothing but what the page says."""
    tokyo, osaka = reader.servers["tokyo"], reader.servers["osaka"]
    shell = blocks("quick-start.md", "sh")
    assert len(shell) == SHELL_BLOCKS
    secrets, _serve, declare, switchover, home, _stop = shell
    (document,) = blocks("quick-start.md", "yaml")

    made = reader.run(secrets)
    assert made.returncode == 0, made.stderr
    reader.create_accounts()
    request.getfixturevalue("serving")
    reader.save(document)
    told = reader.follow(declare)
    assert "MySQLPair orders: declared" in told
    assert "orders: nothing found" in told or "0 of them must be mended" in told
    assert osaka.query("SELECT id FROM shop.orders") == [(1,)]
    assert writable(tokyo)
    assert not writable(osaka)

    assert "osaka is active now" in reader.follow(switchover, typed="orders\n")
    assert writable(osaka)
    assert not writable(tokyo)
    osaka.execute("INSERT INTO shop.orders VALUES (2)")

    refused = reader.run(home)
    assert refused.returncode == 5
    assert "role_moved" in refused.stderr
    reader.edit("primary_site: tokyo", "primary_site: osaka")
    assert "switched over" not in reader.follow(home)
    assert writable(osaka)
    reader.follow("farshore status --watch --until protected")
    reader.edit("primary_site: osaka", "primary_site: tokyo")
    assert "MySQLPair orders: declared, switched over" in reader.follow(home)
    assert writable(tokyo)
    assert not writable(osaka)
    assert tokyo.query("SELECT id FROM shop.orders ORDER BY id") == [(1,), (2,)]
