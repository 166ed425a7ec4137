"""The two processes without any MySQL: started once, found again, independent of their starter, ended cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farshore_agent.mysql.journal import client as journal
from farshore_agent.mysql.journal.errors import Permanent, Transient
from farshore_agent.mysql.journal.launch import RolePaths, read_pid
from tests.testbed.waiting import wait_until


@pytest.fixture
def config(tmp_path: Path) -> Iterator[journal.JournalConfig]:
    """A journal whose source nobody answers for."""
    (tmp_path / "password").write_text("s3cret-of-the-source")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        made = journal.JournalConfig(
            directory=tmp_path / "journal",
            pair="orders",
            epoch=2,
            source=journal.Source(
                host="127.0.0.1",
                port=unused.getsockname()[1],
                user="repl",
                password_file=tmp_path / "password",
                expected_server_uuid=str(uuid.uuid4()),
            ),
            server_id=4711,
            server_uuid=str(uuid.uuid4()),
        )
        yield made
        journal.ReceiverClient(made.directory).stop()
        journal.ServerClient(made.directory).stop()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_receiver_is_started_once_and_found_again(config: journal.JournalConfig) -> None:
    """Idempotent; other settings start it again; a dead source is a waiting stream and not an error."""
    assert journal.adopt_receiver(config.directory) is None
    receiver = journal.ensure_receiver(config)
    first = receiver.state()
    assert first.end_gtid_set == ""
    assert journal.ensure_receiver(config).state().pid == first.pid
    assert journal.adopt_receiver(config.directory) is not None
    wait_until(lambda: receiver.state().stopped, "the source is unreachable")
    state = receiver.state()
    assert state.mode is journal.Mode.WAITING
    assert state.stopped is not None
    assert (state.stopped.code, state.stopped.retried) == (journal.StopCode.SOURCE_UNREACHABLE, True)
    assert not receiver.wait_contains(f"{uuid.uuid4()}:1", 0.05)
    changed = replace(config, heartbeat_seconds=2.0)
    assert journal.ensure_receiver(changed).state().pid != first.pid
    wait_until(lambda: not alive(first.pid), "the first one is reaped")


def test_a_process_outlives_its_starter(config: journal.JournalConfig) -> None:
    """It is in nobody's session but its own and has no living parent of ours, so the starter's end is nothing to it."""
    script = (
        "import sys, pathlib\n"
        "from farshore_agent.mysql.journal import client, config\n"
        "client.ensure_receiver(config.decode(pathlib.Path(sys.argv[1]).read_text()))\n"
    )
    from farshore_agent.mysql.journal.config import encode

    settings = config.directory.parent / "settings.json"
    settings.write_text(encode(config))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, "-c", script, str(settings)], start_new_session=True, env=environment)
    assert starter.wait(60) == 0
    pid = journal.ReceiverClient(config.directory).state().pid
    assert os.getsid(pid) not in (os.getsid(0), starter.pid)
    # A signal to the starter's session, as at a logout, does not reach it either.
    with pytest.raises(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGTERM)
    assert journal.ensure_receiver(config).state().pid == pid


def test_sigterm_ends_it_cleanly(config: journal.JournalConfig) -> None:
    """Socket and pid file go; the log says so; the journal can be opened again."""
    for role, start in (("receiver", journal.ensure_receiver), ("server", journal.ensure_server)):
        start(config)
        paths = RolePaths(config.directory, role)
        pid = read_pid(paths)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda pid=pid: not alive(pid), f"the {role} ended")  # type: ignore[misc]
        assert not paths.socket.exists()
        assert not paths.pid.exists()
        assert "stopping" in paths.log.read_text()
    with pytest.raises(Transient) as caught:
        journal.ReceiverClient(config.directory).state()
    assert caught.value.code == "NotRunning"


def test_no_secret_in_arguments_environment_state_or_logs(
    config: journal.JournalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: passwords are in files of mode 0600 and nowhere else; the agent's environment is not passed on."""
    monkeypatch.setenv("ORDERS_DB_PASSWORD", "s3cret-in-the-environment")
    receiver, server = journal.ensure_receiver(config), journal.ensure_server(config)
    generated = server.credentials().password_file.read_text().strip()
    wait_until(lambda: receiver.state().stopped, "the source is unreachable")
    said = [str(receiver.state()), str(server.state())]
    for role in ("receiver", "server"):
        paths = RolePaths(config.directory, role)
        process = Path(f"/proc/{read_pid(paths)}")
        said += [(process / part).read_bytes().decode() for part in ("cmdline", "environ")]
        said += [path.read_text() for path in (paths.log, paths.errors, paths.settings)]
        assert paths.token.stat().st_mode & 0o077 == 0
    for secret in ("s3cret-of-the-source", "s3cret-in-the-environment", generated):
        assert not any(secret in text for text in said)
    assert server.credentials().password_file.stat().st_mode & 0o077 == 0


def test_a_kept_port(config: journal.JournalConfig) -> None:
    """The port chosen at the first start stays, because replicas know it; a role change does not restart the server."""
    server = journal.ensure_server(config)
    first = server.state()
    assert journal.ensure_server(replace(config, epoch=4)).state().pid == first.pid
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not alive(first.pid), "killed")
    assert journal.ensure_server(config).state().port == first.port
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Permanent) as caught:
        journal.ensure_server(replace(config, listen_port=other.getsockname()[1]))
    assert caught.value.code == "PortInUse"


def test_what_cannot_start_says_why(config: journal.JournalConfig) -> None:
    """A second writer, and a directory of another pair, are refused by the process itself."""
    journal.ensure_receiver(config)
    with pytest.raises(Permanent, match="belongs to the pair"):
        journal.ensure_receiver(replace(config, pair="other"))
    receiver = RolePaths(config.directory, "receiver")
    script = [sys.executable, "-m", "farshore_agent.mysql.journal.process", "receiver", str(config.directory)]
    done = subprocess.run(
        script, capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert b"another process holds" in done.stderr
    assert read_pid(receiver) is not None
