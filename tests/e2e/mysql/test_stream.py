"""A stream through what happens to servers and processes, and what is seen of it meanwhile."""

from __future__ import annotations

import os
import signal

import pytest

from farshore_agent.mysql.journaling import Journal
from farshore_schema.errors import Transient
from tests.e2e.mysql.sites import Pair
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.mysql


def follows(pair: Pair, what: str) -> None:
    """The standby receives and applies, nothing is wrong, and a new row arrives."""
    pair.seen(
        pair.standby, lambda seen: (seen.receiving, seen.applying, seen.stopped) == (True, True, ""), f"follows {what}"
    )
    assert pair.sites.write(pair.active, what)
    pair.settled()


def test_what_is_seen_of_an_idle_stream_is_complete_and_exact(pair: Pair) -> None:
    """Everything applied, no lag, nothing behind; both ends say who they are and what they are."""
    follows(pair, "idle")
    seen = pair.seen(pair.standby, lambda seen: seen.stream.lag_seconds == 0.0, "no lag")
    assert (seen.stream.behind_transactions, seen.stream.backlog_seconds) == (0, 0.0)
    assert seen.position == pair.sites.servers[pair.standby].gtid_executed()
    assert (seen.db, seen.writable, seen.fence_holds, seen.durability) == ("up", False, True, "relaxed")
    assert seen.server_version.startswith("9.7")
    assert seen.stream.connected
    assert seen.stream.journal_bytes
    active = pair.engines[pair.active].observe()
    assert (active.db, active.writable, active.fence_holds) == ("up", True, False)
    assert (active.receiving, active.applying, active.stopped) == (False, False, "")
    both = (pair.active, pair.standby)
    ready = [pair.seen(side, lambda seen: seen.peer_ready is not None, "logged in").peer_ready for side in both]
    assert ready == [True, True]


def test_a_backlog_shows_as_lag_and_transactions_behind(pair: Pair) -> None:
    """While the standby cannot apply, what it lacks is counted and ages; then it is gone again."""
    table, standby = "shop.rows", pair.sites.servers[pair.standby]
    with standby.connect() as session, session.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {table} READ")
        for number in range(20):
            assert pair.sites.write(pair.active, f"behind-{number}")
        seen = pair.seen(pair.standby, lambda seen: (seen.stream.behind_transactions or 0) >= 20, "behind")
        assert (seen.stream.lag_seconds or 0) > 0
        cursor.execute("UNLOCK TABLES")
    pair.seen(pair.standby, lambda seen: seen.stream.behind_transactions == 0, "caught up")
    pair.settled()


def test_a_rotation_and_a_crash_of_the_source_are_passed_over(pair: Pair) -> None:
    """FLUSH BINARY LOGS and kill -9 of the source: the stream goes on by itself."""
    source = pair.sites.servers[pair.active]
    source.execute("FLUSH BINARY LOGS")
    follows(pair, "after a rotation")
    source.kill()
    seen = pair.seen(pair.standby, lambda seen: not seen.receiving, "notices that the source is dead")
    assert (seen.db, seen.applying, seen.stopped, seen.writable) == ("up", True, "", False)
    assert pair.engines[pair.active].observe().db == "down"
    source.start()
    follows(pair, "after a crash of the source")


def test_a_crash_of_the_standby_leaves_it_closed_and_one_order_brings_it_back(pair: Pair) -> None:
    """After kill -9 of the standby it is read-only, holds its place, and `stream` goes on where it was."""
    standby = pair.sites.servers[pair.standby]
    standby.kill()
    assert pair.engines[pair.standby].observe().db == "down"
    for number in range(5):
        assert pair.sites.write(pair.active, f"while-it-was-down-{number}")
    standby.start()
    seen = pair.seen(pair.standby, lambda seen: seen.db == "up", "is up")
    assert (seen.writable, seen.fence_holds, seen.applying) == (False, True, False)
    pair.engines[pair.standby].stream(pair.epoch)
    follows(pair, "after a crash of the standby")


def test_a_dead_source_does_not_keep_the_standby_from_applying_what_was_received(pair: Pair) -> None:
    """Standby and source die together; the standby alone comes back, and applies what its journal holds (I10)."""
    source, standby = pair.sites.servers[pair.active], pair.sites.servers[pair.standby]
    standby.kill()
    assert pair.sites.write(pair.active, "only-in-the-journal")
    wait_until(
        lambda: pair.sites.receiver(pair.standby).wait_contains(source.gtid_executed(), 1.0), "the journal has it"
    )
    source.kill()
    standby.start()
    pair.engines[pair.standby].stream(pair.epoch)
    wait_until(lambda: "only-in-the-journal" in pair.sites.rows(pair.standby), "it is applied")
    source.start()
    follows(pair, "after both")


def test_killed_journal_processes_are_started_again_where_they_were(pair: Pair) -> None:
    """kill -9 of receiver and server: it is seen, and `stream` of a new agent starts them; nothing is lost or twice."""
    pair.sites.kill_journal(pair.standby)
    assert pair.sites.write(pair.active, "while-the-journal-was-dead")
    pair.seen(pair.standby, lambda seen: not seen.receiving, "sees it")
    engine = pair.restart_agent(pair.standby)
    engine.stream(pair.epoch)
    follows(pair, "after the journal's death")


def test_running_journal_processes_are_adopted_by_a_new_agent(pair: Pair) -> None:
    """A restart of the agent neither stops nor restarts the data path (I10)."""
    before = pair.sites.receiver(pair.standby).state().pid
    engine = pair.restart_agent(pair.standby)
    assert engine.observe().receiving
    engine.stream(pair.epoch)
    assert pair.sites.receiver(pair.standby).state().pid == before
    follows(pair, "with a new agent")


def test_an_applier_that_stops_says_which_transaction_where_why_and_what_to_do(pair: Pair) -> None:
    """Somebody wrote to the standby: the error names it all, nothing is skipped, and the cure works (no skipping)."""
    standby, source = pair.sites.servers[pair.standby], pair.sites.servers[pair.active]
    forged = ("SET SESSION sql_log_bin = 0", "SET GLOBAL super_read_only = OFF")
    standby.execute(*forged, "INSERT INTO shop.rows VALUES ('conflict')", "SET GLOBAL super_read_only = ON")
    assert pair.sites.write(pair.active, "conflict")
    number = source.gtid_executed().rsplit("-", 1)[-1].rsplit(":", 1)[-1]
    seen = pair.seen(pair.standby, lambda seen: seen.stopped == "applier_stopped", "says so")
    story = seen.stopped_error
    assert story is not None
    assert "shop.rows" in story.message
    assert "1062" in story.message
    assert "Duplicate entry" in story.message
    assert f":{number}" in story.message
    assert "START REPLICA FOR CHANNEL 'farshore'" in story.hint
    assert "delete it here" in story.hint
    assert not seen.applying
    standby.execute(*forged, "DELETE FROM shop.rows WHERE name = 'conflict'", "SET GLOBAL super_read_only = ON")
    pair.engines[pair.standby].stream(pair.epoch)
    follows(pair, "after the cure")


def test_what_an_administrator_flushes_on_the_standby_is_reported_and_stops_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUSH writes transactions even on a read-only server: a warning with the cure, also across an aborted switch.

    And when the order to follow again fails on its way and is repeated: the side has followed without a break.
    """
    standby = pair.sites.servers[pair.standby]
    standby.execute("FLUSH PRIVILEGES")
    errant = f"{pair.sites.server(pair.standby)}:"
    seen = pair.seen(
        pair.standby, lambda seen: any(each.code == "errant_transactions" for each in seen.findings), "is told"
    )
    (finding,) = [each for each in seen.findings if each.code == "errant_transactions"]
    assert errant in finding.message
    assert "GTID_NEXT" in finding.hint
    pair.epoch += 2
    pair.engines[pair.active].fence(pair.epoch)
    pair.epoch += 2
    pair.engines[pair.active].promote(pair.epoch, "aborted", None, lambda: None)
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "open", failing)
        with pytest.raises(Transient):
            pair.follow()
    pair.follow()
    follows(pair, "with a transaction of its own")
    pair.switch()
    pair.follow()
    follows(pair, "the other way")
    assert not pair.engines[pair.standby].observe().findings


def failing(*_: object) -> None:
    """What an order meets when a process of the journal is slow to start."""
    raise Transient("timeout", "the journal's receiver is still starting")


def test_a_hung_receiver_is_seen_as_not_receiving(pair: Pair) -> None:
    """SIGSTOP of the receiver: observation does not wait for it, and says so."""
    pid = pair.sites.receiver(pair.standby).state().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = pair.engines[pair.standby].observe()
        assert (seen.db, seen.receiving) == ("up", False)
        assert "journal_silent" in [each.code for each in seen.findings]
    finally:
        os.kill(pid, signal.SIGCONT)
    follows(pair, "after the receiver came back")
