"""Have a MySQL server of the series the product is tested with: the machine's own, or Debian's unpacked here.

`python -m tests.testbed.mysql_install` installs it ahead of the tests and prints its version. This module knows
where programs and their files are; it must not know how a test server is configured.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.debian import Unpacked, unpack
from tests.testbed.places import TestBedError, bed_directory, once, say

SERIES = "9.7"
"""The LTS series that the tests run on."""
SUITE = "sid"
"""The Debian suite that carries it; Debian 12 itself has no MySQL server."""
PACKAGES = ("mysql-server-core", "mysql-client-core")
CLIENT_PROGRAMS = ("mysql", "mysqlbinlog", "mysqldump", "mysqladmin")
VERSION_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class MySQLInstallation:
    """One MySQL, ready to run."""

    version: str
    home: Path
    """Folder of the test bed where templates of this installation are kept."""
    server: tuple[str, ...]
    """Argv prefix of mysqld."""
    server_options: tuple[str, ...]
    """Options that say where the unpacked server finds its own files; in option-file form."""
    unpacked: Unpacked | None
    """None: the programs are on PATH."""

    def program(self, name: str) -> tuple[str, ...]:
        """Return the argv prefix of a client program, for instance `mysqlbinlog`."""
        if self.unpacked is not None:
            return self.unpacked.run(f"usr/bin/{name}")
        path = shutil.which(name)
        if path is None:
            raise TestBedError(f"mysqld is on PATH, but {name} is not: install MySQL's client programs")
        return (path,)

    def charset_option(self) -> tuple[str, ...]:
        """Return the option by which client programs find the character set files."""
        if self.unpacked is None:
            return ()
        return (f"--character-sets-dir={self.unpacked.root / 'usr/share/mysql/charsets'}",)


def mysql_installation() -> MySQLInstallation:
    """Return an installation of the series, installing it first when there is none (about ten seconds, once).

    Raises TestBedError with what to do when it cannot be had.
    """
    home = bed_directory() / "mysql"
    on_path = _on_path(home)
    if on_path is not None:
        return on_path
    done = home / "installed.json"
    once(done, lambda: _install(home, done))
    return _of(Unpacked(root=home / "root"), str(json.loads(done.read_text())["version"]), home)


def _install(home: Path, done: Path) -> None:
    try:
        unpacked = unpack(PACKAGES, home, suite=SUITE)
    except TestBedError as error:
        raise TestBedError(f"{error}\nInstall MySQL {SERIES} so that mysqld is on PATH, then repeat.") from error
    version = _version(unpacked.run("usr/sbin/mysqld"))
    if not version.startswith(f"{SERIES}."):
        raise TestBedError(f"Debian {SUITE} has MySQL {version} now; the tests need {SERIES}.x: put its mysqld on PATH")
    done.write_text(json.dumps({"version": version}))
    say(f"MySQL {version} is ready")


def _of(unpacked: Unpacked, version: str, home: Path) -> MySQLInstallation:
    root = unpacked.root
    return MySQLInstallation(
        version=version,
        home=home,
        server=unpacked.run("usr/sbin/mysqld"),
        server_options=(
            f"basedir={root / 'usr'}",
            f"lc_messages_dir={root / 'usr/share/mysql'}",
            f"character_sets_dir={root / 'usr/share/mysql/charsets'}",
            f"plugin_dir={root / 'usr/lib/mysql/plugin'}",
        ),
        unpacked=unpacked,
    )


def _on_path(home: Path) -> MySQLInstallation | None:
    path = shutil.which("mysqld")
    if path is None:
        return None
    try:
        version = _version((path,))
    except TestBedError:
        return None  # another program of that name, or one that does not start: ours is used
    if not version.startswith(f"{SERIES}."):
        return None
    return MySQLInstallation(version=version, home=home, server=(path,), server_options=(), unpacked=None)


def _version(server: tuple[str, ...]) -> str:
    """Ask the server itself; `mysqld  Ver 9.7.4-... for Linux on x86_64`."""
    done = subprocess.run(
        [*server, "--no-defaults", "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=VERSION_TIMEOUT_SECONDS,
        check=False,
    )
    found = re.search(r"Ver (\d+\.\d+\.\d+)", done.stdout)
    if done.returncode != 0 or found is None or "MariaDB" in done.stdout:
        raise TestBedError(f"{server[-1]} --version failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return found.group(1)


def main() -> int:
    """Install and print the version; exit 1 with the reason."""
    try:
        installation = mysql_installation()
    except TestBedError as error:
        say(str(error))
        return 1
    say(f"MySQL {installation.version} ({'unpacked' if installation.unpacked else 'on PATH'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
