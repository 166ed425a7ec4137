"""Planned switchovers that nobody disturbs, under clients that write through HAProxy all the time."""

from __future__ import annotations

import pytest

from tests.e2e.switchover.rig import Rig, now, other
from tests.testbed.load import outage

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy]

TIMES = 2


def test_the_active_side_moves_and_comes_back_twice_without_losing_a_transaction(rig: Rig) -> None:
    """There and back, twice: every move is done, everything acknowledged is on both sides, and they are equal."""
    start = rig.active
    with rig.clients() as clients:
        site = start
        for _ in range(2 * TIMES):
            began, site = now(), other(site)
            operation = rig.ended(rig.request(site))
            assert operation["state"] == "done", rig.told(operation)
            assert rig.active == site
            clients.wait_for_writes(site, began)
            rig.protected()
        records = clients.judge(decided=2 * TIMES)
    assert rig.active == start
    assert outage(records).seconds < float("inf")


def test_every_step_is_in_the_journal_of_the_operation(rig: Rig) -> None:
    """The audit trail names each step once, at its site, done; the decision names the epoch."""
    source, target, epoch = rig.active, rig.standby, rig.next_epoch
    operation = rig.ended(rig.request(target))
    assert operation["state"] == "done", rig.told(operation)
    steps = [(line["name"], line["site"]) for line in operation["log"]]
    assert [step for step in steps if step[0] in ("prepare", "fence", "decide", "promote")] == [
        ("prepare", source),
        ("fence", source),
        ("decide", target),
        ("promote", target),
    ]
    assert {line["state"] for line in operation["log"]} == {"done"}
    assert f"epoch {epoch}" in next(line["detail"] for line in operation["log"] if line["name"] == "decide")
    assert rig.epoch == epoch
    rig.protected()
    rig.compare()
