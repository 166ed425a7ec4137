"""A real agent process against a scripted reconciler: it outlives nothing it should not, and its probes outlive it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from farshore_agent import processes, stop
from farshore_agent.probes import control
from farshore_agent.probes.process import PID_NAME
from farshore_agent.records import FileKeeper
from farshore_schema.messages import PROTOCOL, Welcome
from farshore_schema.roles import SIDES, Consent
from tests.testbed.places import CHECKOUT
from tests.unit.agent.declared import assign, command
from tests.unit.agent.scripted import ScriptedReconciler
from tests.unit.agent.waiting import eventually, soon

PASSWORD = "pa55-w0rd-of-tokyo"
CREDENTIAL = "the-embedded-credential"


class AgentRig:
    """A directory, its scripted reconciler and the agent processes started on it."""

    def __init__(self, root: Path, reconciler: ScriptedReconciler) -> None:
        self.directory, self.sight, self.log = root / "agent", root / "sight", root / "agent.log"
        self.sight.mkdir()
        self.reconciler = reconciler
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, *, through_parent: bool = False) -> subprocess.Popen[bytes]:
        """Start the agent; `through_parent` puts a process between, whose death the agent must notice."""
        reading, writing = os.pipe()
        os.write(writing, f"{CREDENTIAL}\n".encode())
        os.close(writing)
        url = f"http://127.0.0.1:{self.reconciler.port}"
        agent = [sys.executable, "-m", "tests.e2e.agent.fake_agent", str(self.directory), url, str(reading)]
        if through_parent:
            script = "import subprocess, sys; subprocess.run(sys.argv[2:], pass_fds=[int(sys.argv[1])])"
            agent = [sys.executable, "-c", script, str(reading), *agent]
        environment = {**os.environ, "FARSHORE_TEST_PASSWORD": PASSWORD}
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                agent, pass_fds=[reading], env=environment, cwd=CHECKOUT, stdout=log, stderr=log, start_new_session=True
            )
        os.close(reading)
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        stop.stop_all(self.directory)

    # ---- conversation

    async def connected(self, sessions: int = 1) -> None:
        """Wait for a session in which the agent lives; the first one is left at once for the probe ports."""
        await soon(lambda: len(self.reconciler.sessions) >= sessions and self.heard_now("alive"), "a living session")

    def heard_now(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.reconciler.sessions[-1] if message["type"] == kind]

    def hello(self) -> dict[str, Any]:
        return next(message for message in self.reconciler.sessions[-1] if message["type"] == "hello")

    async def do(self, asked: Any) -> dict[str, Any]:
        await self.reconciler.say(asked)

        def ends() -> list[dict[str, Any]]:
            results = self.reconciler.heard("result")
            return [each for each in results if each["intent"] == asked.intent and each["state"] != "running"]

        await soon(ends, f"the end of {asked.step}")
        return ends()[-1]

    async def protect(self) -> None:
        for side in SIDES:
            await self.reconciler.say(assign(side))
        for asked in (
            command("enrol", "a", 2),
            command("enrol", "b", 2),
            command("promote", "a", 2, evidence="initial"),
            command("seed", "b", 2, consent=Consent("b", "server-b", 2, "test")),
            command("fence", "b", 2),
            command("stream", "b", 2),
        ):
            result = await self.do(asked)
            assert result["state"] == "done", result

    # ---- probes

    def sees(self, site: str, what: str) -> None:
        path = self.sight / f"farshore_{site}"
        temporary = path.with_suffix(".new")
        temporary.write_text(what)
        temporary.replace(path)

    def probe(self, site: str, route: str, ports: dict[str, int]) -> tuple[int, str]:
        """Ask a probe; status 0 while nothing listens."""
        try:
            return get(f"http://127.0.0.1:{ports[site]}/{route}/orders")
        except OSError as error:
            return 0, str(error)

    def probe_process(self) -> processes.Process:
        process = processes.read_pid_file(self.directory / "probes" / PID_NAME)
        assert process is not None
        return process


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@asynccontextmanager
async def rigged(root: Path) -> AsyncIterator[AgentRig]:
    reconciler = ScriptedReconciler()
    reconciler.first = lambda session: Welcome(protocol=PROTOCOL, sites=("osaka", "tokyo"))
    async with reconciler.running():
        rig = AgentRig(root, reconciler)
        try:
            yield rig
        finally:
            await asyncio.to_thread(rig.close)


@pytest.mark.asyncio
async def test_probes_outlive_the_agent_and_are_adopted_again(tmp_path: Path) -> None:
    """Agent killed: probes answer on, from record and database; the next agent adopts the same process (R23)."""
    async with rigged(tmp_path) as rig:
        first = rig.start()
        await rig.connected(sessions=2)
        ports = rig.hello()["probe_ports"]
        assert set(ports) == {"osaka", "tokyo"}
        assert ports["osaka"] != ports["tokyo"]
        rig.sees("tokyo", "1")
        await rig.protect()
        await soon(lambda: rig.probe("tokyo", "primary", ports)[0] == 200, "the active side's probe")
        await soon(lambda: rig.probe("osaka", "standby", ports)[0] == 200, "the standby's probe")
        assert rig.probe("osaka", "primary", ports)[0] == 503
        assert rig.probe("tokyo", "standby", ports)[0] == 503
        assert get(f"http://127.0.0.1:{ports['tokyo']}/primary/nobody")[0] == 503
        assert get(f"http://127.0.0.1:{ports['tokyo']}/else")[0] == 404

        process = rig.probe_process()
        first.kill()
        first.wait()
        assert process.alive
        assert rig.probe("tokyo", "primary", ports)[0] == 200
        rig.sees("tokyo", "0")
        await soon(lambda: rig.probe("tokyo", "primary", ports)[0] == 503, "the database's word")
        rig.sees("tokyo", "1")
        await soon(lambda: rig.probe("tokyo", "primary", ports)[0] == 200, "the database's word")
        keeper = FileKeeper(rig.directory, "orders", "a")
        record = keeper.load()
        keeper.save(record._replace(epoch=4, fenced_epoch=4))
        assert rig.probe("tokyo", "primary", ports)[0] == 503  # the very next question
        keeper.save(record)
        assert rig.probe("tokyo", "primary", ports)[0] == 200

        rig.start()
        sessions = len(rig.reconciler.sessions)
        await rig.connected(sessions + 1)
        assert rig.hello()["probe_ports"] == ports
        assert rig.probe_process() == process
        assert rig.probe("tokyo", "primary", ports)[0] == 200
        for side in SIDES:
            await rig.reconciler.say(assign(side))
        fenced = await rig.do(command("fence", "a", 4))
        assert fenced["state"] == "done"
        assert rig.probe("tokyo", "primary", ports)[0] == 503


@pytest.mark.asyncio
async def test_a_restarted_agent_serves_what_it_served_with_no_reconciler(tmp_path: Path) -> None:
    """Killed and started with nobody to talk to, it starts its probes again, from what is on disk (I10)."""
    async with rigged(tmp_path) as rig:
        agent = rig.start()
        await rig.connected(sessions=2)
        ports = rig.hello()["probe_ports"]
        rig.sees("tokyo", "1")
        await rig.protect()
        process = rig.probe_process()
        agent.kill()
        agent.wait()
        os.kill(process.pid, signal.SIGKILL)
        rig.reconciler.status = 503
        rig.start()
        await soon(
            lambda: rig.probe("tokyo", "primary", ports)[0] == 200, "the probe after a restart with nobody there"
        )
        assert rig.probe_process() != process
        assert rig.probe("osaka", "standby", ports)[0] == 200


@pytest.mark.asyncio
async def test_an_embedded_agent_ends_with_its_parent_and_leaves_its_probes(tmp_path: Path) -> None:
    """The reconciler's process is killed: its embedded agent goes, the probes stay; `stop_all` ends them."""
    async with rigged(tmp_path) as rig:
        parent = rig.start(through_parent=True)
        await rig.connected(sessions=2)
        ports = rig.hello()["probe_ports"]
        agent_pid = int((rig.directory / "agent.lock").read_text())
        agent = processes.Process(pid=agent_pid, started=processes.identity(agent_pid) or "", what="agent")
        assert agent.alive
        parent.kill()
        parent.wait()
        await soon(lambda: not agent.alive, "the agent's end")
        process = rig.probe_process()
        assert process.alive
        assert get(f"http://127.0.0.1:{ports['tokyo']}/healthz")[0] == 200
        lines = stop.stop_all(rig.directory)
        assert lines == [processes.describe(process)]
        assert not process.alive
        assert stop.stop_all(rig.directory) == []


@pytest.mark.asyncio
async def test_a_second_agent_on_the_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one agent lives, another one and `stop_all` are refused with who holds the directory."""
    monkeypatch.setattr(stop, "AGENT_WAIT_SECONDS", 0.1)
    async with rigged(tmp_path) as rig:
        first = rig.start()
        await rig.connected(sessions=2)
        with pytest.raises(Exception, match=f"pid {first.pid}"):
            stop.stop_all(rig.directory)
        second = rig.start()
        code = await asyncio.to_thread(second.wait, 60)
        assert code == 9
        assert f"another agent (pid {first.pid})" in rig.log.read_text()
        first.terminate()
        assert await asyncio.to_thread(first.wait, 30) == 0


def everything_written(rig: AgentRig, agent_pid: int) -> list[str]:
    """Return the arguments of both processes, the probe process's environment, and every file of the agent."""
    probe_pid = rig.probe_process().pid
    kernel = [
        Path(f"/proc/{agent_pid}/cmdline"),
        Path(f"/proc/{probe_pid}/cmdline"),
        Path(f"/proc/{probe_pid}/environ"),
    ]
    files = [path for path in rig.directory.rglob("*") if path.is_file()]
    assert any(path.name == "probe.log" for path in files)
    return [path.read_bytes().decode() for path in (*kernel, *files)]


@pytest.mark.asyncio
async def test_no_secret_leaves_the_agent(tmp_path: Path) -> None:
    """Password and credential are in no argument list, child's environment, file, log, message or probe answer (I9)."""
    async with rigged(tmp_path) as rig:
        agent = rig.start()
        await rig.connected(sessions=2)
        ports = rig.hello()["probe_ports"]
        rig.sees("tokyo", "down")
        await rig.protect()
        await soon(lambda: "cannot log in" in rig.probe("tokyo", "primary", ports)[1], "the careless driver's words")
        said = [rig.probe("tokyo", "primary", ports)[1], str(rig.reconciler.sessions), rig.log.read_text()]
        said += everything_written(rig, agent.pid)
        for text in said:
            assert PASSWORD not in text
            assert CREDENTIAL not in text


@pytest.mark.asyncio
async def test_a_newer_release_takes_the_probe_ports_over_without_a_refused_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of another release is replaced on its own listeners while clients keep asking: no question fails."""
    from farshore_agent.probes import keeper as keeper_module
    from farshore_agent.probes.keeper import Probes

    command = (sys.executable, "-m", "tests.e2e.agent.fake_probe")
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(keeper_module, "FIRST_PORT", 22000)
    probes = Probes(tmp_path / "agent", specs=list, command=command)
    try:
        probes.open_sites(["tokyo"])
        await asyncio.to_thread(probes.tick)
        port = probes.ports()["tokyo"]
        old = processes.read_pid_file(tmp_path / "agent" / "probes" / PID_NAME)
        assert old is not None
        failures: list[object] = []
        done = asyncio.Event()
        asked = [0]

        async def client() -> None:
            while not done.is_set():
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                    answer = await asyncio.wait_for(reader.read(), 5)
                    writer.close()
                except (OSError, TimeoutError) as error:
                    failures.append(error)
                else:
                    asked[0] += 1
                    if b"200 OK" not in answer:
                        failures.append(answer)

        clients = [asyncio.create_task(client()) for _ in range(3)]
        await soon(lambda: asked[0] > 20)
        real = control.ask

        def as_if_older(directory: Path, body: dict[str, object], descriptors: Any = ()) -> control.Message:
            answer = real(directory, body, descriptors)
            return control.Message({**answer.body, "version": "0.0.1"}, answer.descriptors)

        monkeypatch.setattr(keeper_module, "ask", as_if_older)
        await asyncio.to_thread(probes.tick)
        monkeypatch.setattr(keeper_module, "ask", real)
        new = processes.read_pid_file(tmp_path / "agent" / "probes" / PID_NAME)
        assert new is not None
        assert new != old
        assert new.alive
        assert not old.alive
        before = asked[0]
        await soon(lambda: asked[0] > before + 20)
        done.set()
        await asyncio.gather(*clients)
        assert failures == []
        await asyncio.to_thread(probes.tick)
        assert processes.read_pid_file(tmp_path / "agent" / "probes" / PID_NAME) == new
    finally:
        await asyncio.to_thread(stop.stop_all, tmp_path / "agent")


def test_a_recycled_pid_is_never_ended(tmp_path: Path) -> None:
    """A pid file whose pid belongs to another process now (another start time) ends nothing."""
    directory = tmp_path / "agent" / "sides" / "orders" / "a" / "engine"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        processes.write_pid_file(
            directory / "journal.pid", processes.Process(pid=bystander.pid, started="another boot:12", what="journal")
        )
        assert stop.stop_all(tmp_path / "agent") == []
        assert not processes.end(processes.Process(pid=bystander.pid, started="another boot:12", what="journal"))
        assert bystander.poll() is None
        bystander.kill()
    own = processes.spawn([sys.executable, "-c", "input()"], pid_file=directory / "journal.pid", what="journal")
    eventually(lambda: not own.alive)
    processes.reap()
    assert stop.stop_all(tmp_path / "agent") == []
