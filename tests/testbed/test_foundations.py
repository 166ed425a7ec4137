"""The promises of what the test bed stands on: nothing outlives a run, ports stay ours, sources are read right."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.debian import Archive, archive
from tests.testbed.places import CHECKOUT, TestBedError, exclusive
from tests.testbed.ports import LOOPBACK, release_port, reserve_port
from tests.testbed.processes import spawn, survivors
from tests.testbed.require import require
from tests.testbed.waiting import wait_until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
A_RUN_THAT_HANGS = """
import subprocess, sys, time
from tests.testbed.processes import spawn
sleeper = [sys.executable, "-c", "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)"]
child = spawn([*sleeper, sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
A_TEST_THAT_LEAVES_ONE_BEHIND = """
import subprocess, sys

def test_leaves_a_process_behind():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""


def test_everything_a_run_started_dies_with_it_even_by_kill_9() -> None:
    """When a run is killed its children and grandchildren end, although each is in a session of its own."""
    run = spawn([sys.executable, "-c", A_RUN_THAT_HANGS], cwd=CHECKOUT, stdout=subprocess.PIPE)
    assert run.stdout is not None
    child = int(run.stdout.readline())
    wait_until(lambda: len(survivors()) >= 3, "the run, its child and its grandchild are there")
    assert child in dict(survivors())
    run.kill()
    run.wait(20)
    run.stdout.close()
    wait_until(lambda: not survivors(), "the watchdog has ended them")


def test_a_test_run_that_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    """A run whose tests pass but leave a process behind says which, ends it, and does not succeed."""
    test = tmp_path / "test_leaves.py"
    test.write_text(A_TEST_THAT_LEAVES_ONE_BEHIND)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(test)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "1 passed" in done.stdout
    assert done.returncode == 1
    assert "LEFT RUNNING by this test run" in done.stderr
    assert survivors() == []


def test_a_child_does_not_feel_the_signals_of_the_run() -> None:
    """Ctrl-C at the terminal goes to the run's process group, and the children are not in it."""
    child = spawn(SLEEPER)
    assert os.getpgid(child.pid) != os.getpgid(0)
    child.send_signal(signal.SIGKILL)
    child.wait(20)


def test_a_reserved_port_is_ours_alone_until_it_is_given_back() -> None:
    """A reserved port can be bound, lies outside the kernel's ephemeral range, and no other run gets it."""
    ports = {reserve_port() for _ in range(50)}
    assert len(ports) == 50
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < low for port in ports) or low < 20000
    port = ports.pop()
    with socket.socket() as server:
        server.bind((LOOPBACK, port))
    code = f"from tests.testbed import ports, places; ports._take(ports._path({port}), {port}) and exit(3)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=CHECKOUT, timeout=60).returncode == 0
    for each in (port, *ports):
        release_port(each)
    assert subprocess.run(command, cwd=CHECKOUT, timeout=60).returncode == 3


def test_a_lock_that_stays_taken_is_an_error_with_its_name(tmp_path: Path) -> None:
    """Two installers never work at once; the one that waits gives up after its time."""
    second = exclusive(tmp_path / "lock", wait_seconds=0.0)
    with exclusive(tmp_path / "lock"), pytest.raises(TestBedError, match="another process"):
        second.__enter__()
    with exclusive(tmp_path / "lock", wait_seconds=0.0):
        assert (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "sources.list.d/debian.sources",
            "# comment\nTypes: deb deb-src\n# in between\nURIs: http://mirror.test/debian/\n"
            "Suites: trixie trixie-updates\nComponents: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n",
        ),
        ("sources.list", "deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.test/debian trixie main"),
    ],
)
def test_the_archive_is_the_one_of_the_machine(tmp_path: Path, name: str, text: str) -> None:
    """Both forms of apt's sources are read; security, updates, disabled and foreign sources are passed over."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.list").write_text(
        "# deb http://old.test/debian buster main\n"
        "deb http://security.test/debian-security trixie-security main\n"
        "deb http://tool.test/apt stable tool\n"
    )
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb\nURIs: http://off.test/debian\nSuites: sid\nComponents: main\nEnabled: no\n"
    )
    (tmp_path / "sources.list.d/c.list.disabled").write_text("deb http://disabled.test/debian sid main\n")
    with pytest.raises(TestBedError, match="no Debian archive"):
        archive(tmp_path)
    (tmp_path / name).write_text(text)
    assert archive(tmp_path) == Archive(
        address="http://mirror.test/debian", suite="trixie", signed_by="/usr/share/keyrings/k.gpg"
    )


def test_what_cannot_be_had_is_skipped_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing need never makes a test pass, and in CI it never makes one disappear."""
    require(True, "is there")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        require(False, "no server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no server"):
        require(False, "no server")
