"""`farshore serve` as a process: what it leaves in its directory, whom it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farshore.settings import Settings, is_loopback
from farshore.store.sqlite import FORMAT, STORE_FILE
from farshore_schema.errors import TABLE, Permanent
from tests.testbed.processes import end, spawn
from tests.testbed.reconciler import Reconciler
from tests.testbed.require import require
from tests.testbed.waiting import wait_until
from tests.unit.api.world import document

API_PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"
ALONE = ("--no-embedded-agent",)
SITE = {"version": "farshore/v1", "kind": "Site"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reconciler]:
    """A reconciler without an agent, first started on an empty directory, shared by the tests of this module."""
    running = Reconciler(tmp_path_factory.mktemp("serve") / "farshore", arguments=ALONE)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def alone(started: Reconciler) -> Reconciler:
    """The shared reconciler, running."""
    if started.process is None or started.process.poll() is not None:
        started.start()
    return started


def start_and_fail(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `serve` that must refuse to start."""
    words = [
        sys.executable,
        "-m",
        "farshore",
        "serve",
        "--directory",
        str(directory),
        "--port",
        "0",
        *ALONE,
        *arguments,
    ]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_an_empty_directory_is_enough(alone: Reconciler) -> None:
    """R7: the first start leaves a private token that opens the API as its administrator."""
    path = alone.directory / "admin.token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert alone.directory.stat().st_mode & 0o777 == 0o700
    assert alone.answer("GET", "/v1/whoami")["role"] == "admin"
    written = json.loads((alone.directory / "endpoint.json").read_text())
    assert written["url"] == alone.url
    assert alone.process is not None
    assert written["pid"] == alone.process.pid


def test_it_ends_cleanly_and_goes_on_where_it_was(alone: Reconciler) -> None:
    """SIGTERM ends it with exit code 0; the next start has the same token and everything that was declared."""
    token = alone.token
    for name in ("tokyo", "osaka"):
        alone.declare_site(name)
    made = alone.declare(document().model_dump(mode="json"))
    for number in range(20):
        alone.declare_site(f"site-{number}")
    assert alone.stop() == 0
    assert not (alone.directory / "endpoint.json").exists()
    alone.start()
    assert alone.token == token
    seen = alone.answer("GET", "/v1/pairs/orders")
    assert seen["document"] == made["view"]["document"]
    assert seen["status"]["operation"]["id"] == made["operation"]
    alone.answer("DELETE", "/v1/pairs/orders")


def test_kill_9_loses_nothing_that_was_answered(alone: Reconciler) -> None:
    """What the API acknowledged is there after a crash."""
    for number in range(20):
        alone.declare_site(f"kill-{number}")
    alone.kill()
    alone.start()
    names = {each["document"]["name"] for each in alone.answer("GET", "/v1/sites")["items"]}
    assert names >= {f"kill-{number}" for number in range(20)}


def test_an_open_stream_does_not_keep_it_alive(alone: Reconciler) -> None:
    """Ending is bounded although a client follows events and another one waits for an operation."""
    for name in ("tokyo", "osaka"):
        alone.declare_site(name)
    operation = alone.declare(document("followed").model_dump(mode="json"))["operation"]
    headers = {"Authorization": f"Bearer {alone.token}"}
    path = f"/v1/pairs/followed/operations/{operation}?wait_seconds=30"
    waiting = spawn(
        [sys.executable, "-c", f"import httpx; httpx.get({alone.url + path!r}, headers={headers!r}, timeout=60)"]
    )
    with httpx.stream("GET", f"{alone.url}/v1/events", headers=headers, timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200
        assert alone.stop() == 0
    end(waiting)


def test_every_command_of_the_api_page_works(alone: Reconciler) -> None:
    """What docs/api.md tells people to type is typed here, in its order."""
    require(shutil.which("curl") is not None, "needs curl")
    blocks = re.findall(r"^```sh\n(.*?)^```", API_PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    environment = {
        "PATH": os.environ["PATH"],
        "FARSHORE_DIR": str(alone.directory),
        "FARSHORE_ENDPOINT": alone.url,
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(blocks)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert alone.answer("GET", "/v1/pairs/orders")["document"]["site_b"]["host"] == "mysql.osaka.example"
    assert '"code":"invalid_document"' in done.stdout, "the plan names what is missing"
    alone.answer("DELETE", "/v1/pairs/orders")


def test_a_second_serve_on_the_directory_is_refused_clearly(alone: Reconciler) -> None:
    """It names the process that holds the directory, and the first one is not disturbed."""
    done = start_and_fail(alone.directory)
    assert done.returncode == TABLE["directory_in_use"].exit
    assert alone.process is not None
    assert f"process {alone.process.pid}" in done.stderr
    assert "directory_in_use" in done.stderr
    assert alone.answer("GET", "/healthz")["status"] == "ok"


def test_a_store_written_by_a_newer_release_is_refused(alone: Reconciler) -> None:
    """A downgrade says so and touches nothing."""
    alone.stop()
    database = sqlite3.connect(alone.directory / STORE_FILE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    done = start_and_fail(alone.directory)
    assert done.returncode == TABLE["newer_format"].exit
    assert "format 99" in done.stderr
    database = sqlite3.connect(alone.directory / STORE_FILE)
    database.execute(f"PRAGMA user_version = {FORMAT}")
    database.close()
    alone.start()


def test_a_port_in_use_is_said_so(alone: Reconciler, tmp_path: Path) -> None:
    """The refusal names the address and what to do, and leaves nothing that says it serves."""
    done = start_and_fail(tmp_path / "second", "--port", str(alone.port))
    assert done.returncode == TABLE["invalid_request"].exit
    assert "--port" in done.stderr
    assert not (tmp_path / "second" / "endpoint.json").exists()


def test_off_loopback_it_demands_tls(tmp_path: Path) -> None:
    """Tokens never travel in the clear."""
    done = start_and_fail(tmp_path / "d", "--host", "0.0.0.0")
    assert done.returncode == TABLE["invalid_request"].exit
    assert "--tls-cert" in done.stderr
    assert not (tmp_path / "d").exists()


def test_what_must_not_start_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """Half a TLS configuration, or files that are not there."""
    there = tmp_path / "cert.pem"
    there.write_text("x")
    for wrong in (
        Settings(directory=tmp_path, tls_cert=there),
        Settings(directory=tmp_path, tls_key=there),
        Settings(directory=tmp_path, tls_cert=there, tls_key=tmp_path / "none"),
    ):
        with pytest.raises(Permanent):
            wrong.checked()
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "farshore test")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


def test_with_tls_there_is_a_second_door_for_this_machine(tmp_path: Path) -> None:
    """The network's door speaks TLS only; the command line and the embedded agent come in over loopback."""
    cert, key = self_signed(tmp_path)
    running = Reconciler(tmp_path / "farshore", arguments=(*ALONE, "--tls-cert", str(cert), "--tls-key", str(key)))
    running.start()
    try:
        assert running.url.startswith("http://127.0.0.1:")
        assert running.answer("GET", "/v1/whoami")["role"] == "admin"
        serving = next(json.loads(line) for line in running.log.read_text().splitlines() if '"serving"' in line)
        outside = serving["url"]
        assert outside.startswith("https://127.0.0.1:")
        assert outside.rsplit(":", 1)[1] != str(running.port)
        context = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(f"{outside}/healthz", verify=context, trust_env=False).is_success
        with pytest.raises(httpx.TransportError):
            httpx.get(outside.replace("https:", "http:") + "/healthz", trust_env=False)
    finally:
        running.kill()


def test_a_token_file_of_another_store_is_replaced(alone: Reconciler) -> None:
    """A start that was cut off between file and store, or a revoked token: the next start leaves one that works."""
    alone.stop()
    path = alone.directory / "admin.token"
    path.write_text("fsa_of_another_store\n")
    alone.start()
    assert alone.token != "fsa_of_another_store"
    assert alone.answer("GET", "/v1/whoami")["role"] == "admin"


def test_the_embedded_agent_is_started_again_and_ends_with_us(tmp_path: Path) -> None:
    """It connects without configuration, comes back after kill -9, never shows its credential, and ends with us."""
    running = Reconciler(tmp_path / "farshore")
    with running:
        first = wait_until(lambda: embedded(running), "the embedded agent is connected")
        arguments = Path(f"/proc/{first}/cmdline").read_bytes()
        environment = Path(f"/proc/{first}/environ").read_bytes()
        assert b"fsg_" not in arguments + environment
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: again if (again := embedded(running)) != first else 0, "it is started again")
        assert running.stop() == 0
        assert not Path(f"/proc/{second}").exists()


def test_an_enrolled_agent_takes_its_site_over_and_gives_it_back(tmp_path: Path) -> None:
    """R7: a one-time code makes a stand-alone agent the site's only one; revoking it gives the site back."""
    with Reconciler(tmp_path / "farshore") as running:
        for name in ("tokyo", "osaka"):
            running.declare_site(name)
        wait_until(lambda: served(running) == {"embedded": ("osaka", "tokyo")}, "the embedded agent serves both sites")
        code = running.cli_json("agents", "enrol", "--site", "osaka")["code"]
        home = tmp_path / "agent"
        words = [sys.executable, "-m", "farshore_agent.main"]
        told = [*words, "enrol", "--url", running.url, "--directory", str(home), "--name", "gateway"]
        done = subprocess.run(told, input=f"{code}\n", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        told[told.index(str(home))] = str(tmp_path / "other")
        again = subprocess.run(told, input=f"{code}\n", capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == TABLE["unauthenticated"].exit
        assert "farshore agents enrol" in again.stderr
        agent = spawn([*words, "run", "--directory", str(home)])
        try:
            wait_until(
                lambda: served(running) == {"embedded": ("tokyo",), "gateway": ("osaka",)},
                "osaka has an agent of its own",
            )
            running.answer("DELETE", "/v1/agents/osaka")
            wait_until(lambda: served(running).get("embedded") == ("osaka", "tokyo"), "the embedded agent has it again")
        finally:
            end(agent)
            subprocess.run([*words, "stop", "--directory", str(home)], capture_output=True, timeout=60, check=False)


def test_an_agent_speaks_through_tls_to_the_reconciler_that_its_authority_vouches_for(tmp_path: Path) -> None:
    """It enrols and serves over the network's door; with another authority it says nothing, not even its code."""
    cert, key = self_signed(tmp_path)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other, _ = self_signed(stranger)
    arguments = ("--no-embedded-agent", "--tls-cert", str(cert), "--tls-key", str(key))
    with Reconciler(tmp_path / "farshore", arguments=arguments) as running:
        running.declare_site("osaka")
        serving = next(json.loads(line) for line in running.log.read_text().splitlines() if '"serving"' in line)
        code = running.cli_json("agents", "enrol", "--site", "osaka")["code"]
        words, home = [sys.executable, "-m", "farshore_agent.main"], tmp_path / "agent"
        told = [*words, "enrol", "--url", serving["url"], "--directory", str(home), "--name", "gateway", "--ca-file"]
        for authority, exit_code in ((other, TABLE["reconciler_unreachable"].exit), (cert, 0)):
            done = subprocess.run(
                [*told, str(authority)], input=f"{code}\n", capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == exit_code, done.stderr
        agent = spawn([*words, "run", "--directory", str(home)])
        try:
            wait_until(lambda: served(running) == {"gateway": ("osaka",)}, "the agent speaks through TLS")
        finally:
            end(agent)
            subprocess.run([*words, "stop", "--directory", str(home)], capture_output=True, timeout=60, check=False)


def served(running: Reconciler) -> dict[str, tuple[str, ...]]:
    """Return the connected agents with the sites they serve."""
    listed = running.answer("GET", "/v1/agents")["items"]
    return {each["agent"]: tuple(each["sites"]) for each in listed if each["connected"]}


def embedded(running: Reconciler) -> int:
    """Return the process id of the connected embedded agent, 0 while there is none."""
    listed = running.answer("GET", "/v1/agents")["items"]
    if not any(each["embedded"] and each["connected"] for each in listed):
        return 0
    assert running.process is not None
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    return next(
        (int(pid) for pid in children if b"farshore_agent.main" in Path(f"/proc/{pid}/cmdline").read_bytes()), 0
    )
