"""`farshore-agent`: settings, enrolment and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farshore_agent import lock, processes, settings, stop
from farshore_agent.main import app
from farshore_agent.settings import Settings
from farshore_schema.errors import Permanent

CODE = "ABCD-1234"


class Redeemer(BaseHTTPRequestHandler):
    """Redeems one code."""

    asked: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        good = body["code"] == CODE
        answer: dict[str, object] = {"agent": body["agent"], "credential": "own-credential", "sites": ["osaka"]}
        if not good:
            answer = {"error": {"code": "unauthenticated", "message": "the code was used", "hint": "make a new one"}}
        raw = json.dumps(answer).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    Redeemer.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Redeemer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_code_piped_in_becomes_the_agent_s_own_credential(tmp_path: Path, url: str) -> None:
    """The credential lies in a private file, what it is for beside it, and neither is printed."""
    directory = tmp_path / "agent"
    done = CliRunner().invoke(app, ["enrol", "--url", url, "-d", str(directory), "--name", "gw"], input=CODE + "\n")
    assert done.exit_code == 0, done.output
    assert "osaka" in done.output
    assert "own-credential" not in done.output
    assert Redeemer.asked == [("/v1/agents/redeem", {"code": CODE, "agent": "gw"})]
    enrolment, credential = settings.enrolled(directory)
    assert (credential, enrolment.sites, enrolment.url, enrolment.agent) == ("own-credential", ("osaka",), url, "gw")
    assert (directory / "credential").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_keeps_its_enrolment_unless_it_is_replaced_on_purpose(tmp_path: Path, url: str) -> None:
    """A second code does not silently take the first site away; the code is not used up by the refusal."""
    asked = ["enrol", "--url", url, "-d", str(tmp_path / "agent"), "--code", CODE]
    assert CliRunner().invoke(app, [*asked, "--name", "first"]).exit_code == 0
    refused = CliRunner().invoke(app, [*asked, "--name", "second"])
    assert (refused.exit_code, "--again" in refused.output, len(Redeemer.asked)) == (5, True, 1)
    assert CliRunner().invoke(app, [*asked, "--name", "second", "--again"]).exit_code == 0
    assert settings.enrolled(tmp_path / "agent")[0].agent == "second"


def test_a_refused_code_changes_nothing(tmp_path: Path, url: str) -> None:
    """The reconciler's own words and hint are shown, with its exit code."""
    directory = tmp_path / "agent"
    done = CliRunner().invoke(app, ["enrol", "--url", url, "-d", str(directory), "--code", "WRONG"])
    assert done.exit_code == 3
    assert "the code was used" in done.output
    assert "make a new one" in done.output
    assert not directory.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run"], 9, "farshore-agent enrol"),
        (["run", "--embedded"], 2, "--credential-fd"),
        (["enrol", "--url", "http://reconciler.example", "--code", "X"], 7, "https"),
        (["enrol", "--url", "ftp://127.0.0.1", "--code", "X"], 2, "no http"),
        (["enrol", "--url", "http://127.0.0.1:9", "--code", "X"], 9, "does not answer"),
        (["enrol", "--url", "http://127.0.0.1:9"], 2, "standard input"),
    ],
)
def test_what_cannot_work_is_refused_with_its_exit_code_and_the_next_command(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    """Nothing is written and nothing started."""
    directory = tmp_path / "agent"
    done = CliRunner().invoke(app, [*arguments, "-d", str(directory)])
    assert done.exit_code == code, done.output
    assert words in done.output
    assert not directory.exists()


def test_a_probe_port_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    """SITE=PORT, and a port that exists."""
    directory = tmp_path / "agent"
    CliRunner().invoke(app, ["enrol", "--url", url, "-d", str(directory), "--code", CODE])
    for wrong in ("tokyo", "tokyo=", "tokyo=0", "tokyo=70000", "=1", "tokyo=x"):
        done = CliRunner().invoke(app, ["run", "-d", str(directory), "--probe-port", wrong])
        assert (done.exit_code, "SITE=PORT" in done.output) == (2, True)


def test_an_embedded_agent_reads_its_credential_from_a_pipe() -> None:
    """One line through an inherited pipe, also while the other end stays open; an empty pipe is refused."""
    reading, writing = os.pipe()
    os.write(writing, b"the-credential\n")
    assert settings.read_credential(reading) == "the-credential"
    os.close(writing)
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(Permanent, match="inherited pipe"):
        settings.read_credential(reading)


def test_the_session_s_address_never_carries_a_credential_in_the_clear_to_another_machine() -> None:
    """Loopback may be http; everything else is https, unless a test bed says otherwise."""

    def of(url: str, plain: bool = False) -> str:
        return settings.session_url(Settings(directory=Path("/x"), url=url, agent="a", plain_http=plain))

    assert of("http://127.0.0.1:8600") == "ws://127.0.0.1:8600/v1/agents/session"
    assert of("http://[::1]:8600/") == "ws://[::1]:8600/v1/agents/session"
    assert of("https://far.example/base/") == "wss://far.example/base/v1/agents/session"
    assert of("http://10.0.0.1", plain=True) == "ws://10.0.0.1/v1/agents/session"
    with pytest.raises(Permanent) as refused:
        of("http://10.0.0.1")
    assert refused.value.code == "tls_mismatch"


def test_a_directory_belongs_to_one_agent_and_is_free_when_it_dies(tmp_path: Path) -> None:
    """The lock names its holder, and a killed holder leaves nothing behind."""
    script = """
import sys, pathlib
from farshore_agent import lock
with lock.only_agent(pathlib.Path(sys.argv[1]), wait_seconds=0):
    print("mine", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with pytest.raises(Permanent) as refused, lock.only_agent(tmp_path, wait_seconds=0):
            pass
        assert (refused.value.code, f"pid {holder.pid}" in refused.value.message) == ("directory_in_use", True)
        holder.kill()
    with lock.only_agent(tmp_path, wait_seconds=5):
        pass


def test_stop_ends_processes_of_both_kinds_of_pid_files_and_no_stranger(tmp_path: Path) -> None:
    """A pid file of `spawn`, a bare number of a process that names its directory, and a bare number of a stranger."""
    directory = tmp_path / "agent" / "sides" / "orders" / "a" / "engine" / "journal"
    (directory / "run").mkdir(parents=True)
    sleep = "import time; time.sleep(600)"
    ours = processes.spawn([sys.executable, "-c", sleep], pid_file=directory / "one.pid", what="role probes")
    with (
        subprocess.Popen([sys.executable, "-c", sleep, str(directory)]) as bare,
        subprocess.Popen([sys.executable, "-c", sleep]) as stranger,
    ):
        (directory / "run" / "receiver.pid").write_text(f"{bare.pid}\n")
        (directory / "run" / "server.pid").write_text(f"{stranger.pid}\n")
        (directory / "run" / "torn.pid").write_text("{")
        done = CliRunner().invoke(app, ["stop", "-d", str(tmp_path / "agent")])
        assert done.exit_code == 0, done.output
        assert "role probes" in done.output
        assert f"receiver of {directory / 'run'} (pid {bare.pid})" in done.output
        assert "left alone" in done.output
        assert bare.wait(10) is not None
        assert not ours.alive
        assert stranger.poll() is None
        stranger.kill()
    assert stop.stop_all(tmp_path / "nowhere") == []
