"""Roles and declarations under the real Pulumi engine, on two real MySQL servers: who moves what, and who refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require_installed
from tests.demo.stage import Stage
from tests.e2e.provider.conftest import PROGRAM
from tests.testbed.mysql_install import mysql_installation
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.pulumi_build import pulumi_installation
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.pulumi, pytest.mark.mysql]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two servers and a reconciler with its embedded agent."""
    require_installed(mysql_installation)
    require_installed(pulumi_installation)
    with Stage(tmp_path_factory.mktemp("roles") / "stage") as made:
        made.servers()
        made.tokyo.server.execute("CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
        made.reconciler()
        yield made


@pytest.fixture(scope="module")
def stack(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The pair `orders`, declared and protected."""
    engine = PulumiEngine(tmp_path_factory.mktemp("roles-pulumi"), environment=stage.farshore.environment)
    made = engine.stack("prod", template=PROGRAM)
    declare(stage, made, primary_site="tokyo", wait_for="protected", wait_timeout="5m")
    made.up().ok()
    stage.farshore.wait_for_phase("orders", "protected", seconds=5)
    return made


def declare(stage: Stage, stack: Stack, **more: Any) -> None:
    """Write the pair into the program's configuration."""
    document = {key: value for key, value in stage.declaration(**more).items() if key not in ("kind", "version")}
    stack.config_set("pairs", json.dumps([document]))


def role(stage: Stage) -> tuple[str, int]:
    found = stage.farshore.status("orders")["role"]
    return found["active_site"], found["epoch"]


def declared_site(stage: Stage) -> str:
    return str(stage.farshore.answer("GET", "/v1/pairs/orders")["document"]["primary_site"])


def state_of(stack: Stack) -> dict[str, Any]:
    return next(each for each in stack.resources() if each["urn"].endswith("::orders"))


def switch_by_hand(stage: Stage, site: str) -> None:
    """Move the active side with the command line, beside the declaration."""
    done = stage.farshore.cli("switchover", "orders", "--to", site, "--yes", "--reason", "INC-7")
    assert done.returncode == 0, done.stderr
    stage.farshore.wait_for_phase("orders", "protected")


def test_a_move_by_hand_is_shown_refused_adopted_or_acknowledged(stage: Stage, stack: Stack) -> None:
    """The old value in code is not work: preview says who moved it, and both ways on do what they say."""
    first = role(stage)
    switch_by_hand(stage, "osaka")
    assert "orders" in stack.refresh().ok().stdout
    assert state_of(stack)["outputs"]["active_site"] == "osaka"
    for attempt in (stack.preview(), stack.up()):
        assert attempt.exit_code != 0
        assert "osaka" in attempt.text
        assert "acknowledge_epoch" in attempt.text
    assert role(stage)[0] == "osaka"

    refused = stack.destroy()
    assert refused.exit_code != 0
    assert "[failed_over]" in refused.text
    assert "Traceback" not in refused.text
    stage.farshore.wait_for_phase("orders", "protected", seconds=10)

    # Adopt: the declaration follows the fact, and nothing moves.
    moved = role(stage)
    assert moved[1] > first[1]
    declare(stage, stack, primary_site="osaka")
    stack.up().ok()
    assert role(stage) == moved
    assert "unchanged" in stack.up().ok().stdout

    # Acknowledge: the fact follows the declaration, as a planned switchover.
    switch_by_hand(stage, "tokyo")
    declare(stage, stack, primary_site="osaka", acknowledge_epoch=role(stage)[1])
    stack.up().ok()
    assert role(stage)[0] == "osaka"
    stage.farshore.wait_for_phase("orders", "protected")


def test_a_declared_switchover_that_is_refused_fails_and_is_not_retried(stage: Stage, stack: Stack) -> None:
    """The update fails with the reason, the old value stays in state and declaration; only a new `up` tries again."""
    before = role(stage)
    assert before[0] == "osaka"
    tokyo, osaka = stage.tokyo.server, stage.osaka.server
    # Something in the way of the standby's applier.
    tokyo.execute("SET GLOBAL super_read_only = OFF", "SET sql_log_bin = 0", "CREATE TABLE shop.late (id INT)")
    tokyo.execute("SET GLOBAL super_read_only = ON")
    osaka.execute("CREATE TABLE shop.late (id INT PRIMARY KEY)")
    stage.farshore.wait_for_phase("orders", "stopped")

    declare(stage, stack, primary_site="tokyo")
    assert stack.preview().exit_code != 0
    refused = stack.up()
    assert refused.exit_code != 0
    assert "shop" in refused.text or "applier" in refused.text
    assert "Traceback" not in refused.text
    assert role(stage) == before
    assert declared_site(stage) == "osaka"
    assert state_of(stack)["outputs"]["primary_site"] == "osaka"

    # The cause is removed: the pair heals, and still nobody moves it.
    tokyo.execute("SET GLOBAL super_read_only = OFF", "SET sql_log_bin = 0", "DROP TABLE shop.late")
    tokyo.execute("SET GLOBAL super_read_only = ON", "START REPLICA FOR CHANNEL 'farshore'")
    stage.farshore.wait_for_phase("orders", "protected")
    assert role(stage) == before

    stack.up().ok()
    assert role(stage)[0] == "tokyo"


def test_destroy_ends_protection_and_keeps_both_databases(stage: Stage, stack: Stack) -> None:
    """Both servers keep every row; the active one takes writes, the standby stays read-only; twice is a success."""
    wait_until(lambda: role(stage)[0] == "tokyo", "tokyo is active")
    stage.farshore.wait_for_phase("orders", "protected")
    stage.tokyo.server.execute("INSERT INTO shop.orders VALUES (1)")
    position = stage.tokyo.server.gtid_executed()
    wait_until(lambda: stage.osaka.server.gtid_executed() == position, "the standby has the row")
    stack.destroy().ok()
    assert stage.farshore.api("GET", "/v1/pairs/orders").status_code == 404
    for site in (stage.tokyo, stage.osaka):
        assert site.server.scalar("SELECT COUNT(*) FROM shop.orders") == 1
    stage.tokyo.server.execute("INSERT INTO shop.orders VALUES (2)")
    assert stage.osaka.server.scalar("SELECT @@GLOBAL.super_read_only") == 1
    assert stage.osaka.server.query("SHOW REPLICA STATUS") == []
    stack.destroy().ok()
