"""A first copy that is broken again and again: by the death of the agent, the reconciler, either server, and all of it.

Until it is whole the target is nobody's: closed, not promotable, and it says so. At the end both sides are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.e2e.switchover.parts import PAIR, kill
from tests.e2e.switchover.rig import SIDE, Rig
from tests.testbed.load import DATABASE
from tests.testbed.mysql_install import MySQLInstallation
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql, pytest.mark.timeout(280)]

TABLES: Final = 6
ROWS_EACH: Final = 40_000
"""Enough that each fault meets a copy under way: about a second for each table."""


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Rig]:
    """Servers with something to copy, and a reconciler; nothing is declared."""
    made = Rig(tmp_path_factory.mktemp("copied"))
    with made.stage:
        made.begin()
        tokyo = made.server("tokyo")
        for number in range(TABLES):
            tokyo.execute(
                f"CREATE TABLE {DATABASE}.bulk{number} (id INT PRIMARY KEY, a INT, filler VARCHAR(300), KEY (a))",
                f"SET SESSION cte_max_recursion_depth = {ROWS_EACH + 1}",
                f"INSERT INTO {DATABASE}.bulk{number} SELECT n, n * 7919 % 1000003, REPEAT(SHA2(n, 512), 2) FROM"
                f" (WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS_EACH})"
                " SELECT n FROM s) AS s",
            )
        yield made


def test_a_copy_that_is_broken_everywhere_ends_whole(fresh: Rig) -> None:
    """Agent, reconciler, target, source, and agent with target: each is killed while rows are being copied."""
    rig = fresh
    rig.stage.declare(primary_site="tokyo")
    met = []
    for name, act in FAULTS.items():
        if not copying(rig):
            break
        act(rig)
        rig.heal()
        met.append(name)
    assert met == list(FAULTS), f"the copy was over after {met}: there is too little to copy"
    not_promotable(rig)
    rig.protected()
    rig.compare()
    operation = rig.farshore.answer("GET", f"/v1/pairs/{PAIR}/operations")["items"][0]
    assert (operation["verb"], operation["state"]) == ("protect", "done")
    assert [row[0] for row in rig.server("osaka").query(f"SELECT COUNT(*) FROM {DATABASE}.bulk0")] == [ROWS_EACH]


def copying(rig: Rig) -> bool:
    """Wait until rows are being copied; False when the copy is over."""

    def seen() -> str:
        status = rig.status()
        if status["phase"] in ("catching_up", "protected"):
            return "over"
        seed = status["replication"]["seed"]
        fresh = status["replication"]["measured_age_seconds"] is not None
        return "copying" if fresh and seed is not None and seed["phase"] == "tables" and seed["rows_done"] > 0 else ""

    return wait_until(seen, "rows are being copied", seconds=90, poll_seconds=0.02) == "copying"


def not_promotable(rig: Rig) -> None:
    """Require that the half copy is closed to everybody, known as such on disk, and not switched over to."""
    if rig.status()["phase"] in ("catching_up", "protected"):
        return
    assert rig.parts.record(SIDE["osaka"]).base == "incomplete"
    refused = rig.farshore.api("POST", f"/v1/pairs/{PAIR}/operations", json={"verb": "switchover"})
    assert refused.status_code == 409, refused.text
    assert rig.server("osaka").query("SELECT @@GLOBAL.offline_mode, @@GLOBAL.read_only") == [(1, 1)]


def kill_agent(rig: Rig) -> None:
    """The embedded agent; the reconciler starts it again."""
    kill(rig.parts.agent())


def kill_reconciler(rig: Rig) -> None:
    """The reconciler; its agent goes on copying."""
    not_promotable(rig)
    rig.farshore.kill()


def kill_target(rig: Rig) -> None:
    """The server that is copied to."""
    rig.server("osaka").kill()


def kill_source(rig: Rig) -> None:
    """The server that is copied from."""
    rig.server("tokyo").kill()


def kill_agent_and_target(rig: Rig) -> None:
    """Both: nothing is left that remembers what was under way, but the disk."""
    kill(rig.parts.agent())
    rig.server("osaka").kill()


FAULTS: Final[dict[str, Callable[[Rig], None]]] = {
    "agent": kill_agent,
    "reconciler": kill_reconciler,
    "target MySQL": kill_target,
    "source MySQL": kill_source,
    "agent and target MySQL": kill_agent_and_target,
}
