"""Unpack Debian packages into a folder, without root and without touching the machine's own packages.

A private apt state is given one source line. Its archive address and keyring come from the machine's own apt
configuration, so mirrors and proxies keep working; only the suite may differ. The programs then run through the
unpacked loader with the unpacked libraries: no chroot, nothing installed system-wide.

This module must not know which packages are asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.places import TestBedError, say

APT_TIMEOUT_SECONDS = 600
APT_ATTEMPTS = 3
"""Mirrors in the middle of a push answer with hash mismatches for a moment."""
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
NOT_A_RELEASE = ("security", "backports", "updates", "proposed")
"""Words in the suite or address of sources that carry only a part of a release."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One Debian archive, as the machine's own configuration names it."""

    address: str
    suite: str
    signed_by: str | None


def archive(etc: Path = Path("/etc/apt")) -> Archive:
    """Find the archive of whole Debian releases in this machine's apt configuration.

    Raises TestBedError when the machine has none (another distribution, or no `main` component).
    """
    for found in _sources(etc):
        if not any(word in f"{found.suite} {found.address}" for word in NOT_A_RELEASE):
            return found
    raise TestBedError(f"no Debian archive in {etc}: this machine's packages come from somewhere else")


def _sources(etc: Path) -> Iterator[Archive]:
    folder = etc / "sources.list.d"
    extra = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in [etc / "sources.list", *extra]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            yield from _deb822(text)
        elif path.suffix == ".list":
            yield from _one_line(text)


def _deb822(text: str) -> Iterator[Archive]:
    """Read stanzas of `Name: value` lines (sources.list(5), "DEB822-STYLE FORMAT"); comments may stand inside."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    stanza: dict[str, str] = {}
    last = ""
    for line in [*lines, ""]:
        if not line.strip():
            yield from _stanza(stanza)
            stanza = {}
        elif line[0].isspace():
            stanza[last] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            stanza[last] = value.strip()


def _stanza(stanza: dict[str, str]) -> Iterator[Archive]:
    enabled = stanza.get("enabled", "yes").lower() not in ("no", "false", "0")
    components = stanza.get("components", "").split()
    if not enabled or "deb" not in stanza.get("types", "").split() or "main" not in components:
        return
    signed_by = stanza.get("signed-by")
    if signed_by is not None and not signed_by.startswith("/"):
        signed_by = None  # a key pasted into the stanza, or a fingerprint: the keyring of the package is used
    for address in stanza.get("uris", "").split():
        for suite in stanza.get("suites", "").split():
            yield Archive(address=address.rstrip("/"), suite=suite, signed_by=signed_by)


def _one_line(text: str) -> Iterator[Archive]:
    """Read `deb [options] address suite component...` lines (sources.list(5), "ONE-LINE-STYLE FORMAT")."""
    for line in text.splitlines():
        words = line.split("#", 1)[0].strip()
        if not words.startswith("deb "):
            continue
        words = words[4:].strip()
        signed_by = None
        if words.startswith("["):
            options, _, words = words[1:].partition("]")
            for option in options.split():
                if option.startswith("signed-by=/"):
                    signed_by = option.removeprefix("signed-by=").split(",")[0]
        fields = words.split()
        if len(fields) >= 3 and "main" in fields[2:]:
            yield Archive(address=fields[0].rstrip("/"), suite=fields[1], signed_by=signed_by)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A folder with unpacked packages, and how to run the programs in it."""

    root: Path

    def run(self, program: str) -> tuple[str, ...]:
        """Return the argv prefix that runs `program` (a path below the root, as `usr/sbin/mysqld`)."""
        path = self.root / program
        if not path.is_file():
            raise TestBedError(f"{program} is not in the unpacked packages of {self.root}")
        return (str(self._loader()), "--library-path", self.library_path(), str(path))

    def _loader(self) -> Path:
        for folder in ("usr/lib64", "lib64", "usr/lib", "lib"):
            for found in sorted((self.root / folder).glob("ld-linux*.so.*")):
                return found
        raise TestBedError(f"no program loader (libc6) below {self.root}")

    def library_path(self) -> str:
        """Return the folders of shared libraries, in the loader's form."""
        # libc.so.6 tells the folder of this architecture's libraries; a library may be in either of the two.
        folders: list[str] = []
        for top in ("usr/lib", "lib"):
            for libc in sorted((self.root / top).glob("*/libc.so.6")):
                name = libc.parent.name
                folders += [str(self.root / each / name) for each in ("usr/lib", "lib")]
        return ":".join(dict.fromkeys(folders))


def unpack(packages: Sequence[str], directory: Path, *, suite: str | None = None) -> Unpacked:
    """Download `packages` with everything they need and unpack them to `directory`/root; replaces what is there.

    `suite` None is the machine's own release. The caller holds the lock of `directory` and remembers success.
    Raises TestBedError with apt's own words when a package cannot be had.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise TestBedError(f"{tool} is not on PATH: this machine is no Debian")
    source = archive()
    state = _private_state(directory / "apt", source, suite or source.suite)
    say(f"{' '.join(packages)}: reading the package list of Debian {suite or source.suite}")
    _apt(state, ["update"])
    say(f"{' '.join(packages)}: downloading")
    _apt(state, ["-y", "--download-only", "install", *packages])
    archives = sorted((directory / "apt/cache/archives").glob("*.deb"))
    say(f"{' '.join(packages)}: unpacking {len(archives)} packages")
    fresh = directory / "root.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for package in archives:
        _command(["dpkg", "-x", str(package), str(fresh)])
    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    fresh.rename(root)
    shutil.rmtree(directory / "apt", ignore_errors=True)
    return Unpacked(root=root)


def _private_state(state: Path, source: Archive, suite: str) -> list[str]:
    """Lay out an empty apt state and return the options that make apt use it and nothing else."""
    shutil.rmtree(state, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d"):
        (state / folder).mkdir(parents=True)
    (state / "status").write_text("")  # nothing counts as installed: every library comes along
    keyring = source.signed_by or next((str(path) for path in KEYRINGS if path.exists()), None)
    if keyring is None:
        raise TestBedError("no Debian archive keyring: apt-get install debian-archive-keyring")
    (state / "etc/sources.list").write_text(f"deb [signed-by={keyring}] {source.address} {suite} main\n")
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Cache::archives": state / "cache/archives",
        "Dir::Etc": state / "etc",
        "Dir::Etc::sourcelist": state / "etc/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "0",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dpkg::Use-Pty": "0",
        # Hooks of the machine's own configuration work on the machine's own packages.
        "APT::Update::Post-Invoke-Success::": "",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _apt(options: list[str], words: Iterable[str]) -> None:
    command = ["apt-get", *options, "-qq", *words]
    for attempt in range(2, APT_ATTEMPTS + 1):
        try:
            _command(command)
        except TestBedError:
            say(f"apt-get failed, attempt {attempt} of {APT_ATTEMPTS}")
        else:
            return
    _command(command)


def _command(command: list[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=APT_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TestBedError(f"{command[0]} took longer than {APT_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-1500:]
        raise TestBedError(f"{command[0]} {command[-1]} failed ({done.returncode}): {words}")
