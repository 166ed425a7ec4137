"""Switchovers that are refused: with the reason, and with nothing changed; never tried again by themselves (R11, R15).

The pair of this module is watched from its declaration on, because one of the reasons is that it is still being copied.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import httpx
import pytest

from tests.conftest import require_installed
from tests.e2e.switchover.parts import PAIR
from tests.e2e.switchover.rig import SIDE, Rig
from tests.testbed.haproxy import haproxy_program
from tests.testbed.load import DATABASE
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_install import MySQLInstallation

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

Plain = dict[str, Any]
AT_ONCE: Final = 8
"""Requests that race for one switchover."""
DUPLICATE: Final = 424_242
HELD_UP: Final = 424_243


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Rig]:
    """Servers and a reconciler; nothing is declared."""
    require_installed(haproxy_program)
    made = Rig(tmp_path_factory.mktemp("refused"))
    with made.stage:
        made.begin()
        yield made


@pytest.fixture
def rig(fresh: Rig) -> Rig:
    """The same, protected and with HAProxy in front."""
    fresh.heal()
    fresh.protected()
    if not hasattr(fresh, "proxy"):
        fresh.route()
    return fresh


def unchanged(rig: Rig, act: Callable[[], httpx.Response], *, code: str, why_not: str | None) -> Plain:
    """Require that a request is refused with this reason and changes neither declaration, role nor any operation."""

    def truth() -> Plain:
        view = rig.farshore.answer("GET", f"/v1/pairs/{PAIR}")
        status = view["status"]
        kept = {name: view[name] for name in ("document", "generation", "incarnation")}
        return {**kept, "role": status["role"], "operations": rig.operations()}

    records = [rig.parts.record(side)._replace(intents=(), base="none") for side in SIDE.values()]
    before = truth()
    answered = act()
    assert answered.status_code == 409, answered.text
    error: Plain = answered.json()["error"]
    assert error["code"] == code, error
    assert error["message"]
    assert error["hint"]
    if why_not is not None:
        assert error["current"]["why_not"] == why_not
    assert truth() == before
    assert [rig.parts.record(side)._replace(intents=(), base="none") for side in SIDE.values()] == records
    return error


def ask(rig: Rig, to: str) -> Callable[[], httpx.Response]:
    """A switchover by the API."""
    body = {"verb": "switchover", "to_site": to}
    return lambda: rig.farshore.api("POST", f"/v1/pairs/{PAIR}/operations", json=body)


def declare(rig: Rig, to: str) -> Callable[[], httpx.Response]:
    """A switchover by the declaration."""
    return lambda: rig.farshore.api("PUT", f"/v1/pairs/{PAIR}", json={"document": declaration(rig, to)})


def declaration(rig: Rig, to: str) -> Plain:
    """The declaration of the pair with another `primary_site`."""
    document: Plain = rig.farshore.answer("GET", f"/v1/pairs/{PAIR}")["document"]
    return {**document, "primary_site": to}


def by_command(rig: Rig, to: str, *, exit_code: int, words: str) -> None:
    """Require that the command line says the same."""
    done = rig.farshore.cli("switchover", PAIR, "--to", to, "--yes")
    assert done.returncode == exit_code, done
    assert words in done.stderr, done.stderr


@contextmanager
def copying(rig: Rig) -> Iterator[None]:
    """Keep the first copy from ending: somebody holds a table of the source, so that no snapshot can be taken."""
    with closing(rig.server("tokyo").connect()) as session, session.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {DATABASE}.appended WRITE")
        yield


def test_it_is_refused_while_the_standby_is_being_copied_and_not_done_later(fresh: Rig) -> None:
    """A switchover during the first copy is refused, asked or declared; when the copy is there, nothing happens."""
    rig = fresh
    with copying(rig):
        rig.stage.declare(primary_site="tokyo")
        rig.eventually(lambda: rig.status()["replication"]["seed"] is not None, "the copy has begun")
        unchanged(rig, ask(rig, "osaka"), code="operation_open", why_not=None)
        unchanged(rig, declare(rig, "osaka"), code="operation_open", why_not=None)
        by_command(rig, "osaka", exit_code=5, words="still open")
    rig.protected()
    for _ in range(2):
        assert rig.active == "tokyo"
        assert len(rig.operations()) == 1  # the one that protects
        rig.farshore.kill()
        rig.farshore.start()
        rig.protected()
    rig.compare()


def test_of_many_at_once_one_is_done(rig: Rig) -> None:
    """Eight requests race: one switchover is accepted and done, seven are told that one is open; roles move once."""
    source, target, epoch, before = rig.active, rig.standby, rig.next_epoch, rig.operations()
    ready = threading.Barrier(AT_ONCE)

    def race(_number: int) -> httpx.Response:
        ready.wait()
        return ask(rig, target)()

    with rig.clients() as clients:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(race, range(AT_ONCE)))
        accepted = [each.json()["id"] for each in answers if each.is_success]
        refused = {each.json()["error"]["code"] for each in answers if not each.is_success}
        assert len(accepted) == 1
        # One that came after the end is told that the target is active already.
        assert refused <= {"operation_open", "not_possible_now"}
        assert rig.ended(accepted[0])["state"] == "done"
        assert (rig.active, rig.epoch) == (target, epoch)
        rig.protected()
        clients.judge(decided=1)
    assert len(rig.operations()) == len(before) + 1
    unchanged(rig, ask(rig, target), code="not_possible_now", why_not="already_active")
    assert rig.standby == source


def plant(server: MySQLServer, statement: str) -> None:
    """Change a standby behind everybody's back: not logged, and open for a moment only."""
    server.execute(
        "SET sql_log_bin = 0",
        "SET GLOBAL super_read_only = OFF",
        "SET GLOBAL read_only = OFF",
        statement,
        "SET GLOBAL super_read_only = ON",
    )


@contextmanager
def stopped_applier(rig: Rig) -> Iterator[None]:
    """Let the standby stop at a row that it holds already; mended as the pair itself says, at the end."""
    source, target = rig.server(rig.active), rig.server(rig.standby)
    row = f"{DATABASE}.appended (id, filler) VALUES ({DUPLICATE}, 'planted')"
    plant(target, f"INSERT INTO {row}")
    source.execute(f"INSERT INTO {row}")
    try:
        rig.eventually(lambda: bool(rig.status()["phase"] == "stopped"), "the applier stops")
        yield
    finally:
        plant(target, f"DELETE FROM {DATABASE}.appended WHERE id = {DUPLICATE}")
        target.execute("START REPLICA FOR CHANNEL 'farshore'")


def adopted(rig: Rig) -> None:
    """Let the declaration name the site that is active, as a person does after a move by command."""
    answered = declare(rig, rig.active)()
    assert answered.is_success, answered.text
    assert answered.json()["operation"] is None


def test_it_is_refused_behind_a_stopped_applier_and_not_done_later(rig: Rig) -> None:
    """A standby that cannot apply a transaction says which and why; a switchover is refused until it is mended.

    The declared one is refused too and is not tried again by itself.
    """
    adopted(rig)
    source, target = rig.active, rig.standby
    before = rig.operations()
    with stopped_applier(rig):
        story = rig.status()["replication"]["stopped"]
        assert story["code"] == "applier_stopped"
        assert "1062" in story["message"]
        assert f"{DATABASE}.appended" in story["message"], story
        assert "START REPLICA" in story["hint"]
        unchanged(rig, ask(rig, target), code="not_possible_now", why_not="applier_stopped")
        unchanged(rig, declare(rig, target), code="not_possible_now", why_not="applier_stopped")
        by_command(rig, target, exit_code=5, words="applier")
        allowed = {each["verb"]: each for each in rig.status()["allowed_operations"]}
        assert not allowed["switchover"]["allowed"]
        assert allowed["switchover"]["why_not"].startswith("applier_stopped: ")
        preview = rig.farshore.answer("POST", "/v1/plan", json={"document": declaration(rig, target)})
        assert [each["code"] for each in preview["failures"]] == ["not_possible_now"], json.dumps(preview)
    rig.protected()
    rig.farshore.kill()
    rig.farshore.start()
    rig.protected()
    assert rig.operations() == before
    assert rig.active == source
    rig.compare()


def test_a_declared_one_that_was_aborted_waits_for_a_new_declaration(rig: Rig) -> None:
    """A declared switchover that is aborted is taken out of the declaration, and stays aborted over restarts (R11)."""
    adopted(rig)
    source, target = rig.active, rig.standby
    with closing(rig.server(target).connect()) as session, session.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")  # so that it does not drain before it is aborted
        rig.server(source).execute(f"INSERT INTO {DATABASE}.appended (id, filler) VALUES ({HELD_UP}, 'held up')")
        accepted = declare(rig, target)()
        assert accepted.is_success, accepted.text
        operation = accepted.json()["operation"]
        rig.eventually(lambda: int(rig.operation(operation)["step"]) >= 4, "the drain is under way")
        rig.farshore.answer("POST", f"/v1/pairs/{PAIR}/operations/{operation}/abort", json={"reason": "a test"})
        ended = rig.ended(operation)
    assert ended["state"] == "aborted", rig.told(ended)
    assert rig.active == source
    rig.protected()
    # The declaration says again what is: nothing is left in it that somebody could try to make true (R11).
    assert declaration(rig, source) == rig.farshore.answer("GET", f"/v1/pairs/{PAIR}")["document"]
    known = rig.operations()
    rig.farshore.kill()
    rig.farshore.start()
    rig.protected()
    assert rig.operations() == known
    again = rig.insisted(declare(rig, target))
    assert again.is_success, again.text
    assert again.json()["operation"] not in known
    assert rig.ended(again.json()["operation"])["state"] == "done"
    assert rig.active == target
    rig.protected()
    rig.compare()
