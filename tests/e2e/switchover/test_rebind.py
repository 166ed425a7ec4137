"""Another server behind the active site's endpoint: the customer's own failover inside a site, or a rebuilt host (R3).

Tokyo is reached through a gate. Behind it stand its server and two replicas of it: one that has everything and takes
over, and one that was cut off too early.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.demo.stage import Site
from tests.e2e.switchover.gate import Gate
from tests.e2e.switchover.parts import PAIR
from tests.e2e.switchover.rig import SIDE, Rig
from tests.testbed.load import DATABASE
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_install import MySQLInstallation
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql, pytest.mark.timeout(300)]

Plain = dict[str, Any]


class Replicated(Rig):
    """A rig whose tokyo has replicas of its own behind the gate."""

    gate: Gate

    def lead_to(self, server: MySQLServer) -> None:
        """Let tokyo's endpoint lead to another server, and wait until both gateways have noticed."""
        self.gate.lead_to(server.port)
        self.sites["tokyo"].server = server
        uuid = server_uuid(server)

        def noticed() -> bool:
            status = self.status()
            told = [each["message"] for each in status["findings"] if each["code"] == "source_replaced"]
            stopped = status["replication"]["stopped"]
            return any(uuid in each for each in told) and stopped is not None and uuid in stopped["message"]

        self.eventually(noticed, "another server is noticed at tokyo")

    def rebind(self, *more: str) -> Any:
        """Ask for it as a person does."""
        return self.farshore.cli("rebind", PAIR, "--yes", *more)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Replicated]:
    """A protected pair from tokyo to osaka, with the gate leading to tokyo's first server."""
    made = Replicated(tmp_path_factory.mktemp("rebind"))
    with made.stage:
        made.begin()
        with Gate(made.server("tokyo").port) as made.gate:
            declared = made.stage.declaration()
            declared["site_a"]["port"] = made.gate.port
            for site in made.sites:
                made.farshore.declare_site(site)
            made.farshore.declare(declared)
            made.protected()
            yield made


@pytest.fixture(scope="module")
def replicas(rig: Replicated) -> Iterator[tuple[MySQLServer, MySQLServer]]:
    """Two replicas of tokyo inside its site, with its accounts, that keep a binary log of what they apply."""
    tokyo = rig.sites["tokyo"]
    made: list[MySQLServer] = []
    try:
        for name in ("tokyo-2", "tokyo-3"):
            server = MySQLServer.create(rig.directory / "replicas", name=name, options=["log_replica_updates=ON"])
            made.append(server)
            Site("tokyo", server, admin=tokyo.admin, replication=tokyo.replication).provision()
            server.execute(
                f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={tokyo.server.port},"
                f" SOURCE_USER='farshore_tokyo_repl', SOURCE_PASSWORD='{tokyo.replication}', SOURCE_SSL=1,"
                " SOURCE_AUTO_POSITION=1",
                "START REPLICA",
            )
        yield made[0], made[1]
    finally:
        for server in made:
            server.remove()


def caught_up(replica: MySQLServer, source: MySQLServer) -> None:
    """Wait until a replica has all that its source committed, and make it a server of its own."""
    position = source.gtid_executed()
    wait_until(
        lambda: bool(replica.scalar("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (position,))),
        f"{replica.name} has everything",
        seconds=90,
    )
    replica.execute("STOP REPLICA", "RESET REPLICA ALL")


def server_uuid(server: MySQLServer) -> str:
    """Return who a server is."""
    return str(server.scalar("SELECT @@GLOBAL.server_uuid"))


def write(server: MySQLServer, number: int) -> None:
    """Commit a row as a client would."""
    server.execute(f"INSERT INTO {DATABASE}.appended (id, filler) VALUES ({number}, 'written')")


def arrived(rig: Rig, number: int) -> bool:
    """Return whether osaka has a row."""
    found = rig.server("osaka").scalar(f"SELECT COUNT(*) FROM {DATABASE}.appended WHERE id = {number}")
    return bool(found)


def kept(rig: Rig) -> Plain:
    """Return what a refused rebind must not change: roles, records, both ends."""
    ends = {
        site: (rig.server(site).gtid_executed(), rig.server(site).query("SELECT @@super_read_only, @@read_only"))
        for site in ("tokyo", "osaka")
    }
    records = {
        side: rig.parts.record(side)._replace(intents=(), token=0, seeded_for="")._asdict() for side in SIDE.values()
    }
    return {"role": rig.status()["role"], "ends": ends, "records": records}


def test_the_stream_stops_is_resumed_when_everything_is_proved_and_only_then(
    rig: Replicated, replicas: tuple[MySQLServer, MySQLServer]
) -> None:
    """Three servers answer at tokyo one after the other, and a rebind is asked for each.

    The one that lacks a transaction which osaka has is refused, with nothing changed. The first one again is taken: its
    stream goes on. The one that has everything is taken, with what osaka never received, and nothing was copied anew.
    """
    ahead, behind = replicas
    first = rig.server("tokyo")
    caught_up(behind, first)
    write(first, 910_001)
    rig.eventually(lambda: arrived(rig, 910_001), "the row is at osaka")
    early = rig.farshore.cli("rebind", PAIR, "--yes")
    assert (early.returncode, "not_possible_now" in early.stderr) == (5, True), early

    # one that lacks a transaction
    rig.lead_to(behind)
    assert not allowed(rig, "switchover")
    assert not allowed(rig, "reprotect")
    assert allowed(rig, "rebind")
    before, known = kept(rig), rig.operations()
    shown = rig.farshore.cli("rebind", PAIR, stdin="no\n")
    assert all(server_uuid(each) in shown.stdout for each in (first, behind)), shown
    assert rig.operations() == known
    refused = rig.rebind()
    assert refused.returncode == 8, refused
    assert "diverged" in refused.stderr
    assert f"farshore rebind {PAIR}" in refused.stderr
    assert kept(rig) == before
    assert rig.status()["operation"]["state"] == "failed"
    assert rig.status()["phase"] == "stopped"

    # the one that it had: a failover inside the site that was taken back
    rig.gate.lead_to(first.port)
    rig.sites["tokyo"].server = first
    rig.eventually(lambda: not replaced(rig), "tokyo's first server is seen again")
    epoch = rig.epoch
    done = rig.rebind("--reason", "taken back")
    assert done.returncode == 0, rig.told(rig.status())
    rig.protected()
    assert rig.epoch > epoch

    # the one that has everything, and more than osaka ever received
    rig.gate.close_to(lambda: rig.parts.receiver(SIDE["osaka"]))
    write(first, 910_003)
    caught_up(ahead, first)
    rig.gate.reopen()
    rig.lead_to(ahead)
    write(ahead, 910_004)
    assert not arrived(rig, 910_003)
    copies = seeds(rig)
    done = rig.rebind("--reason", "tokyo failed over to its replica")
    assert done.returncode == 0, rig.told(rig.status())
    rig.protected()
    assert arrived(rig, 910_003)
    assert arrived(rig, 910_004)
    assert seeds(rig) == copies
    assert rig.status()["role"]["evidence"] == "rebound"
    rig.compare()

    # and everything goes on as in any pair: there and back again
    for site in ("osaka", "tokyo"):
        ended = rig.ended(rig.request(site))
        assert ended["state"] == "done", rig.told(ended)
        rig.protected()
    rig.compare()


def test_a_standby_that_cannot_follow_is_given_up_only_when_a_person_says_so(
    rig: Replicated, replicas: tuple[MySQLServer, MySQLServer]
) -> None:
    """The server that lacks what osaka has is taken nevertheless: osaka keeps its data until a reprotect."""
    _, behind = replicas
    rig.lead_to(behind)
    held = rig.server("osaka").gtid_executed()
    done = rig.rebind("--without-standby")
    assert done.returncode == 0, rig.told(rig.status())
    assert f"farshore reprotect {PAIR}" in done.stdout
    assert rig.server("osaka").gtid_executed() == held
    assert rig.server("osaka").query("SELECT @@super_read_only") == [(1,)]
    assert rig.status()["phase"] == "stopped"
    copied = rig.farshore.cli("reprotect", PAIR, "--yes")
    assert copied.returncode == 0, rig.told(rig.status())
    rig.protected()
    rig.compare()


def allowed(rig: Rig, verb: str) -> bool:
    """Return whether the pair says that a verb would be accepted."""
    return next(bool(each["allowed"]) for each in rig.status()["allowed_operations"] if each["verb"] == verb)


def replaced(rig: Rig) -> bool:
    """Return whether the pair says that another server answers than the bound one."""
    return any(each["code"] == "source_replaced" for each in rig.status()["findings"])


def seeds(rig: Rig) -> int:
    """Return how many copies were ever begun."""
    found = rig.farshore.answer("GET", f"/v1/pairs/{PAIR}/operations")["items"]
    return sum(line["name"] == "seed" for each in found for line in each["log"])
