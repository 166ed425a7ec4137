"""Planned switchovers that nobody disturbs, under clients that write through HAProxy all the time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farshore_agent import durable
from tests.e2e.switchover.rig import SIDE, Rig, now, other
from tests.testbed.load import outage
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

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


def test_a_reverse_stream_that_cannot_be_attached_ahead_is_attached_afterwards(rig: Rig) -> None:
    """The preparation fails, since the reverse receiver cannot be started; the switchover is done all the same.

    Once the receiver can be started, the pair is protected in the new direction, without a new copy.
    """
    source, target = rig.active, rig.standby
    with rig.clients() as clients:
        with obstructed(rig.parts.journal(SIDE[source]) / "run" / "receiver.lock"):
            operation = rig.request(target)
            wait_until(lambda: rig.active == target, f"{target} is decided")
            clients.wait_for_writes(target, now())
        done = rig.ended(operation)
        assert done["state"] == "done", rig.told(done)
        assert next(line["state"] for line in done["log"] if line["name"] == "prepare") == "failed"
        rig.protected()
        clients.judge(decided=1)


@contextmanager
def obstructed(lock: Path) -> Iterator[None]:
    """Hold the lock that a process must have to start."""
    durable.make_directory(lock.parent)
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
