"""Make the development environment `.venv`: the locked packages and this checkout, installed editable.

Run by `make setup` with any Python of the machine, so it uses the standard library only. It does nothing when the
locked packages and the project's metadata are what was installed last. On a Debian without `python3-venv` the
installer pip itself is unpacked from Debian's package, without root.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.testbed.debian import unpack
from tests.testbed.places import CHECKOUT, TestBedError, bed_directory, exclusive, say

OLDEST_PYTHON = (3, 11)
VENV = CHECKOUT / ".venv"
INPUTS = ("pyproject.toml", "requirements/dev.txt")
STAMP = VENV / ".installed"
STEP_SECONDS = 900
"""A cold install takes about a minute; a slow mirror several."""


def main() -> int:
    """Make or renew `.venv`; exit 1 with the reason and what to install."""
    try:
        set_up()
    except TestBedError as error:
        say(str(error))
        return 1
    return 0


def set_up() -> None:
    """Bring `.venv` to what the lock says; idempotent, and silent when nothing has changed."""
    if sys.version_info < OLDEST_PYTHON:
        raise TestBedError(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed")
    wanted = _fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    with exclusive(bed_directory() / "environment.lock"):
        if STAMP.exists() and STAMP.read_text() == wanted:
            return
        STAMP.unlink(missing_ok=True)
        _make_venv()
        pip = [str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", "install"]
        say("environment: installing the locked packages into .venv (about a minute, once)")
        _run([*pip, "-r", str(CHECKOUT / "requirements/dev.txt")])
        # The build tools are locked too, so nothing else is downloaded for the editable install.
        _run([*pip, "--no-build-isolation", "--no-deps", "--editable", str(CHECKOUT)])
        STAMP.write_text(wanted)
        say("environment: ready")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def _make_venv() -> None:
    python = VENV / "bin/python"
    if _works(python, "import pip, sys; sys.exit(sys.version_info < (3, 11))"):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    say(f"environment: creating .venv with Python {sys.version.split()[0]}")
    try:
        _run([sys.executable, "-m", "venv", str(VENV)])
    except TestBedError:
        pass  # without ensurepip; any other cause shows again in the next line
    else:
        return
    _run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(VENV)])
    wheel = _pip_wheel()
    _run([str(python), str(wheel / "pip"), "--quiet", "install", "--no-index", str(wheel)])


def _pip_wheel() -> Path:
    """Return Debian's own copy of pip: what `python3-venv` would have installed."""
    try:
        root = unpack(["python3-pip-whl"], bed_directory() / "pip").root
    except TestBedError as error:
        raise TestBedError(f"{error}\nThis Python has no ensurepip: apt-get install python3-venv") from error
    wheels = sorted((root / "usr/share/python-wheels").glob("pip-*.whl"))
    if not wheels:
        raise TestBedError("python3-pip-whl has no pip in it: apt-get install python3-venv")
    return wheels[-1]


def _works(python: Path, code: str) -> bool:
    if not python.exists():
        return False
    done = subprocess.run([str(python), "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise TestBedError(f"{' '.join(command[:4])} took longer than {STEP_SECONDS} s") from None
    if done.returncode != 0:
        raise TestBedError(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout).strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
