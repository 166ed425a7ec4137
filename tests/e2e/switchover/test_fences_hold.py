"""What is fenced stays fenced through restarts while nobody of ours runs (R13, I1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pymysql
import pytest

from tests.demo.stage import APPLICATION, Site
from tests.e2e.switchover.faults import Attempt, Breaker, held
from tests.e2e.switchover.parts import kill
from tests.e2e.switchover.rig import Rig, now
from tests.testbed.load import DATABASE

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

READ_ONLY: Final = 1290
"""ER_OPTION_PREVENTS_STATEMENT: the server runs with --read-only or --super-read-only."""
POWERFUL: Final = ("operator", "operator-password")
"""An administrator without SUPER, as cloud providers give them; it may even pass `read_only`."""
WRITES: Final = (
    f"INSERT INTO {DATABASE}.witness VALUES (-1, 'must not be')",
    f"UPDATE {DATABASE}.witness SET site = 'must not be'",
    f"CREATE TABLE {DATABASE}.must_not_be (id INT PRIMARY KEY)",
    f"DROP TABLE {DATABASE}.big",
)


@pytest.fixture
def powerful(rig: Rig) -> Iterator[Rig]:
    """The same rig, with the powerful account on both sides."""
    rig.server(rig.active).execute(
        f"CREATE USER IF NOT EXISTS {POWERFUL[0]}@'%' IDENTIFIED BY '{POWERFUL[1]}'",
        f"GRANT ALL ON *.* TO {POWERFUL[0]}@'%' WITH GRANT OPTION",
        f"REVOKE SUPER ON *.* FROM {POWERFUL[0]}@'%'",
    )
    rig.compare()
    yield rig
    rig.heal()
    rig.protected()
    rig.server(rig.active).execute(f"DROP USER {POWERFUL[0]}@'%'")
    rig.compare()


def refuses_writes(site: Site) -> None:
    """Require that nobody can write: an ordinary client, a powerful administrator, our own admin, root."""
    server = site.server
    before = server.gtid_executed()
    logins = (APPLICATION, POWERFUL, (f"farshore_{site.name}", site.admin), None)
    for login in logins:
        where = {} if login is None else {"host": server.host, "user": login[0], "password": login[1]}
        for statement in WRITES:
            with closing(server.connect(**where)) as session, session.cursor() as cursor:
                with pytest.raises(pymysql.err.OperationalError) as refusal:
                    cursor.execute(statement)
                assert refusal.value.args[0] == READ_ONLY, (login and login[0], statement, refusal.value)
    assert server.gtid_executed() == before


def end_all(rig: Rig) -> None:
    """End the reconciler, the agent, and every process that they leave running."""
    rig.farshore.kill()
    for pid in {rig.parts.agent(), *rig.parts.all()}:
        kill(pid)
    assert not rig.parts.all()


def test_a_standby_stays_read_only_through_restarts_with_nobody_of_ours(powerful: Rig) -> None:
    """After a clean restart and after a crash of the standby, every write there fails; the active side serves."""
    rig = powerful
    active, standby = rig.active, rig.sites[rig.standby]
    end_all(rig)
    for restart in (standby.server.stop, standby.server.kill):
        restart()
        standby.server.start()
        refuses_writes(standby)
    rig.server(active).execute(f"INSERT INTO {DATABASE}.witness VALUES ({-int(now() * 1e6)}, 'alone')")


def test_a_fenced_side_stays_read_only_through_crashes_with_nobody_of_ours(powerful: Rig) -> None:
    """Everything of ours dies between fence and decision; both servers crash: neither takes a write.

    When ours is back, the switchover ends and nothing is lost.
    """
    rig = powerful
    source, target = rig.active, rig.standby
    attempt = Attempt(rig, source, target, rig.next_epoch, seed=0)
    with rig.clients() as clients:
        with held(attempt, {"drain"}), Breaker(attempt, "control plane", "drain") as breaker:
            attempt.operation = rig.request(target)
            attempt.asked.set()
            breaker.finish()
        for site in rig.sites.values():
            site.server.kill()
            site.server.start()
        for site in rig.sites.values():
            refuses_writes(site)
        back = now()
        rig.farshore.start()
        operation = rig.ended(attempt.operation)
        assert operation["state"] in ("done", "aborted"), rig.told(operation)
        active = target if operation["state"] == "done" else source
        clients.wait_for_writes(active, back)
        rig.protected()
        clients.judge(decided=int(operation["state"] == "done"))


def test_a_fence_that_somebody_opens_is_seen_and_closed_again(rig: Rig) -> None:
    """A standby that is opened by hand is read-only again within moments, and the pair says what happened."""
    standby = rig.server(rig.standby)
    standby.execute("SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")
    rig.eventually(lambda: standby.query("SELECT @@super_read_only, @@read_only") == [(1, 1)], "it is fenced again")
    assert "fence violated" in rig.log()
    rig.protected()
    rig.compare()
