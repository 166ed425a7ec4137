"""A seed as the engine orders it: what refuses it, and what an agent's death in its middle leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pymysql
import pytest

from farshore_agent.engines import SeedCall
from farshore_agent.mysql import seeding
from farshore_schema.errors import FarshoreError, Permanent
from farshore_schema.observed import SeedProgress
from farshore_schema.roles import Consent
from tests.e2e.mysql.sites import APP_PASSWORD, APP_USER, SECRETS, Pair, Sites, still_holds
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql


@pytest.fixture
def fresh(sites: Sites) -> Pair:
    """A pair whose active side is recorded and whose other side is empty."""
    sites.reset()
    sites.fill("first")
    pair = Pair(sites)
    pair.engines["a"].promote(2, "initial", None, still_holds)
    return pair


class Died(Exception):
    """The agent ends here, as with kill -9: nothing of the engine runs after it."""


def call(
    pair: Pair, progress: Callable[[SeedProgress], None], *, cancelled: Callable[[], bool] = lambda: False
) -> SeedCall:
    consent = Consent("b", pair.sites.server("b"), 2, "test")
    return SeedCall(epoch=2, consent=consent, before_first_write=lambda: None, progress=progress, cancelled=cancelled)


def test_a_seed_that_died_at_any_phase_is_ended_by_the_next_one(fresh: Pair) -> None:
    """Stopped in each phase in turn, the target stays closed; the next call makes it whole, nothing is left behind."""
    for phase in ("starting", "tables", "objects", "accounts", "finish"):
        reached: list[str] = []

        def note(progress: SeedProgress, reached: list[str] = reached) -> None:
            reached.append(progress.phase)

        def stop(phase: str = phase, reached: list[str] = reached) -> bool:
            return phase in reached

        with contextlib.suppress(FarshoreError):
            fresh.restart_agent("b").seed(call(fresh, note, cancelled=stop))
        assert not fresh.sites.write("b", "into-a-half-copy")
    fresh.restart_agent("b").seed(call(fresh, lambda _: None))
    fresh.settled()
    assert fresh.sites.rows("b") == {"first"}
    assert fresh.engines["b"].observe().receiving
    theirs = "SELECT COUNT(*) FROM performance_schema.processlist WHERE USER = 'farshore_tokyo_repl' AND COMMAND <> %s"
    wait_until(
        lambda: fresh.sites.servers["a"].scalar(theirs, ("Binlog Dump GTID",)) <= 1, "no session of a seed is left"
    )


def test_a_finished_copy_is_not_made_again_after_the_agents_death(fresh: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that dies between the copy and its first tail costs no second copy."""
    with monkeypatch.context() as patched:

        def die(*_: object) -> None:
            raise Died

        patched.setattr(seeding, "apply", die)
        with pytest.raises(Died):
            fresh.engines["b"].seed(call(fresh, lambda _: None))
    assert fresh.sites.write("a", "meanwhile")
    told: list[SeedProgress] = []
    fresh.restart_agent("b").seed(call(fresh, told.append))
    assert {each.phase for each in told} == {"starting", "catching_up"}
    fresh.settled()
    assert fresh.sites.rows("b") == {"first", "meanwhile"}
    told.clear()
    fresh.restart_agent("b").seed(call(fresh, told.append))
    assert "tables" in {each.phase for each in told}, "a new order to copy copies"
    fresh.settled()


def test_a_target_that_clients_write_to_is_not_overwritten(fresh: Pair) -> None:
    """With consent or without: a server that is open and in use is the wrong one (R8)."""
    server = fresh.sites.servers["b"]
    server.execute(
        "CREATE DATABASE busy", "CREATE TABLE busy.t (id INT PRIMARY KEY)",
        f"CREATE USER {APP_USER}@'%' IDENTIFIED BY '{APP_PASSWORD}'", f"GRANT ALL ON busy.* TO {APP_USER}@'%'",
    )  # fmt: skip
    with (
        contextlib.closing(
            pymysql.connect(host=server.host, port=server.port, user=APP_USER, password=APP_PASSWORD)
        ) as session,
        session.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO busy.t VALUES (1)")
        with pytest.raises(Permanent, match=APP_USER) as refused:
            fresh.engines["b"].seed(call(fresh, lambda _: None))
    assert refused.value.code == "wrong_direction"
    assert server.query("SELECT @@read_only, @@offline_mode") == [(0, 0)]


def test_both_endpoints_on_one_server_are_refused_before_anything_is_touched(fresh: Pair) -> None:
    """The same server through two names would overwrite itself."""
    document = fresh.sites.document
    other_name = document.site_a.model_copy(update={"host": "localhost"})
    fresh.sites.document = document.model_copy(update={"site_b": other_name})
    with pytest.raises(Permanent) as refused:
        fresh.restart_agent("b").seed(call(fresh, lambda _: None))
    assert refused.value.code == "same_server"
    assert fresh.sites.write("a", "untouched")


def test_no_secret_is_in_any_file_but_the_private_ones(fresh: Pair) -> None:
    """What the engine keeps holds no password but in files that only its own user can read."""
    fresh.seed(consent=True)
    for path in fresh.sites.directory.glob("agent-*/**/*"):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        if any(value.encode() in raw for value in SECRETS.values()):
            assert path.name == "source.password"
            assert path.stat().st_mode & 0o077 == 0
