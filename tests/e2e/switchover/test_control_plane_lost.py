"""Losing the control plane stops no protection and costs no client an error (I10, R23); it is adopted again (R7)."""

from __future__ import annotations

import contextlib
from typing import Final

import pymysql
import pytest

from farshore_agent import processes
from tests.demo.stage import APPLICATION
from tests.e2e.switchover.parts import kill
from tests.e2e.switchover.rig import Clients, Rig, now
from tests.e2e.switchover.witness import says_primary
from tests.testbed.mysql import MySQLServer
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

TOO_MANY: Final = 1040
"""ER_CON_COUNT_ERROR."""
CONNECTIONS: Final = 80
WRITES: Final = 300
"""Transactions that must come through while something is broken: about two seconds of the load."""


def acknowledged(clients: Clients) -> int:
    """Return how many transactions were answered with OK so far."""
    return sum(each.outcome == "ok" for each in clients.load.records())


def keep_writing(rig: Rig, clients: Clients) -> None:
    """Wait until many more transactions were acknowledged, and are applied on the standby too."""
    before = acknowledged(clients)
    wait_until(lambda: acknowledged(clients) > before + WRITES, "clients go on writing", poll_seconds=0.1)
    active, standby = (rig.server(name) for name in rig.order)
    written = active.gtid_executed()
    question = "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)"
    wait_until(lambda: standby.scalar(question, (written,)), "the standby applies them", poll_seconds=0.1)


def no_errors(clients: Clients, *, decided: int = 0) -> None:
    """Require that no client met an error of any kind, on top of the usual judgement."""
    records = clients.judge(decided=decided)
    assert [each for each in records if each.outcome != "ok"] == []


def test_killing_agent_and_reconciler_is_nothing_to_clients_and_standby(rig: Rig) -> None:
    """Both are killed under load: no client error, the standby goes on applying, probes answer; then all is adopted."""
    rig.note_order()
    with rig.clients() as clients:
        data_path = rig.parts.all()
        kill(rig.parts.agent())
        rig.farshore.kill()
        keep_writing(rig, clients)
        assert rig.parts.agent() is None
        assert rig.parts.all() == data_path
        assert [says_primary(rig.ports[site]) for site in rig.order] == [True, False]
        assert says_primary(rig.ports[rig.order[1]], verb="standby")
        rig.farshore.start()
        rig.protected()
        keep_writing(rig, clients)
        assert rig.parts.all() == data_path, "a data-path process was replaced although nothing was wrong with it"
        no_errors(clients)


def test_ending_the_reconciler_leaves_the_data_path(rig: Rig) -> None:
    """`farshore serve` ends on SIGTERM within seconds, with exit code 0; what protects data goes on (R7)."""
    rig.note_order()
    with rig.clients() as clients:
        data_path, agent = rig.parts.all(), rig.parts.agent()
        assert agent is not None
        assert rig.farshore.stop() == 0
        wait_until(lambda: processes.identity(agent) is None, "the agent ended with it")
        assert rig.parts.all() == data_path
        keep_writing(rig, clients)
        rig.farshore.port = 0  # another port: nothing that is protected knows it
        before = rig.farshore.url
        rig.farshore.start()
        assert rig.farshore.url != before
        rig.protected()
        assert rig.parts.all() == data_path
        no_errors(clients)


def test_a_long_outage_of_the_control_plane_is_caught_up(rig: Rig) -> None:
    """While nobody of the control plane lives, the source restarts and rotates its logs: the data path goes on alone.

    Afterwards everything is adopted, and a switchover is possible.
    """
    rig.note_order()
    active = rig.server(rig.order[0])
    with rig.clients() as clients:
        rig.farshore.kill()
        kill(rig.parts.agent())
        active.execute("FLUSH BINARY LOGS")
        active.restart()
        back = now()
        clients.wait_for_writes(rig.order[0], back)
        active.execute("FLUSH BINARY LOGS")
        keep_writing(rig, clients)
        rig.farshore.start()
        rig.protected()
        clients.judge(decided=0)
    operation = rig.ended(rig.request(rig.order[1]))
    assert operation["state"] == "done", rig.told(operation)
    rig.protected()
    rig.compare()


def test_a_server_without_a_free_connection_is_no_fault(rig: Rig) -> None:
    """All connections of the active server are taken, and the agent dies: no client error, the probe stays 200.

    When the agent is back it works with what it gets, and the pair is protected once connections are free again.
    """
    rig.note_order()
    active = rig.server(rig.order[0])
    limit = active.scalar("SELECT @@GLOBAL.max_connections")
    with rig.clients() as clients, contextlib.ExitStack() as taken:
        active.execute(f"SET GLOBAL max_connections = {CONNECTIONS}")
        taken.callback(active.execute, f"SET GLOBAL max_connections = {limit}")
        take_all(active, taken)
        kill(rig.parts.agent())
        keep_writing(rig, clients)
        assert [says_primary(rig.ports[site]) for site in rig.order] == [True, False]
        wait_until(lambda: rig.parts.agent() is not None, "the agent is started again")
        keep_writing(rig, clients)
        assert says_primary(rig.ports[rig.order[0]])
        taken.close()
        rig.protected()
        no_errors(clients)


def take_all(server: MySQLServer, taken: contextlib.ExitStack) -> None:
    """Open sessions until the server has no more to give to an ordinary client."""
    user, password = APPLICATION
    for _ in range(2 * CONNECTIONS):
        try:
            session = server.connect(host=server.host, user=user, password=password)
        except pymysql.err.OperationalError as error:
            if error.args[0] != TOO_MANY:
                raise
            return
        taken.enter_context(contextlib.closing(session))
    raise AssertionError("the server gives connections without end")


def test_stop_all_leaves_nothing_running_and_serve_brings_everything_back(rig: Rig) -> None:
    """`farshore stop --all` is refused while an agent runs; then it ends every process and nothing else."""
    rig.note_order()
    folder = ("--directory", str(rig.farshore.directory))
    refused = rig.farshore.cli("stop", "--all", *folder)
    assert refused.returncode != 0
    assert "directory_in_use" in refused.stderr, refused.stderr
    assert rig.parts.all()
    rig.farshore.stop()
    ended = rig.farshore.cli("stop", "--all", *folder)
    assert ended.returncode == 0, ended.stderr
    assert "role probes" in ended.stdout
    assert rig.parts.all() == set()
    assert not list(rig.parts.agent_directory.rglob("*.pid"))
    again = rig.farshore.cli("stop", "--all", *folder)
    assert (again.returncode, again.stdout.strip()) == (0, "nothing was running")
    rig.farshore.start()
    rig.protected()
    with rig.clients() as clients:
        keep_writing(rig, clients)
        no_errors(clients)
