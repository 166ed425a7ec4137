"""What the loop promises about protection itself: its beginning, its gaps, its end, and what it says meanwhile."""

import pytest

from farshore import operations
from farshore.admission import delete_pair
from farshore.gaps import BY
from farshore.loop import START_SECONDS
from farshore.orders import BACKOFF_MAX_SECONDS
from farshore.report import overlay
from farshore.store import keys
from farshore.store.records import ServerRecord, put
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import SeedProgress, StreamMeasurements
from farshore_schema.roles import Consent, Role, Side
from tests.unit.loop.world import PAIR, World

FIRST = ["enrol a 2", "promote a 2", "enrol b 2", "seed b 2", "fence b 2"]


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_pair_is_decided_enrolled_opened_copied_fenced_and_followed(world: World) -> None:
    """Under the operation `protect`, each step once, ending in `protected`."""
    world.declare()
    assert world.settle() == FIRST
    assert world.role() == Role("a", 2, "initial")
    assert world.ended("op-1").state == "done"
    assert world.status().phase == "protected"
    assert world.status().replication.rpo_class == "async"
    assert [world.condition(name) for name in ("Protected", "PeerReady", "ConfigInSync", "FenceHolds")] == ["True"] * 4
    assert world.condition("Verified") == "Unknown"


@pytest.mark.parametrize("visits", range(12))
def test_a_restart_at_any_visit_of_the_first_protection_changes_nothing(world: World, visits: int) -> None:
    """The end is the same, whenever the reconciler died."""
    world.declare()
    for number in range(visits):
        world.loop.visit(PAIR)
        if number % 2:
            world.answer()
    world.agents.sent.clear()
    world.restart()
    world.settle()
    assert world.role() == Role("a", 2, "initial")
    assert world.status().phase == "protected"


def test_primary_site_chooses_the_first_active_side(world: World) -> None:
    """R8: a new pair's active side is `primary_site` where it is given."""
    world.declare(primary_site="osaka", consent=False)
    world.visit()
    assert world.role() == Role("b", 2, "initial")


def test_nothing_is_decided_before_both_servers_are_known_and_bound(world: World) -> None:
    """R1, R8: a pair is not started half blind."""
    world.agents.change("b", server="")
    world.declare()
    world.visit()
    assert world.role() is None
    assert world.agents.sent == []
    operation = world.operation()
    assert operation is not None
    assert operation.waiting_for == "unknown_server"
    world.agents.change("b", server="server-b")
    world.settle()
    bound = world.records.servers(PAIR)
    assert bound is not None
    assert (bound.value.a, bound.value.b) == ("server-a", "server-b")
    claimed = world.records.read(keys.server("server-b"), ServerRecord)
    assert claimed is not None
    assert claimed.value == ServerRecord(pair=PAIR, side="b")


def test_a_server_of_another_pair_is_never_touched(world: World) -> None:
    """R1: one server is an endpoint of one pair; the loop holds and says which pair has it."""
    world.store.txn([], [put(keys.server("server-b"), ServerRecord(pair="invoices", side="a"))])
    world.declare()
    world.visit()
    assert world.agents.sent == []
    assert world.role() is None
    assert any(each.code == "server_in_other_pair" and "invoices" in each.message for each in world.status().findings)
    operation = world.operation()
    assert operation is not None
    assert operation.waiting_for == "server_in_other_pair"
    assert "invoices" in operation.waiting_hint


def test_both_endpoints_leading_to_one_server_is_noticed(world: World) -> None:
    """R1, found by identity, whatever the names say."""
    world.agents.change("b", server="server-a")
    world.declare()
    world.visit()
    assert world.agents.sent == []
    assert any(each.code == "same_server" for each in world.status().findings)


def test_a_replaced_server_holds_everything_that_would_touch_or_follow_it(world: World) -> None:
    """R3: a changed identity stops the work there until it is bound anew."""
    world.protect()
    world.agents.change("a", server="server-x", writable=True)
    world.agents.change("b", receiving=False)
    world.visit()
    assert world.agents.sent == []
    assert any(each.code == "source_replaced" and "server-x" in each.message for each in world.status().findings)
    assert world.status().phase == "stopped"


def test_a_replaced_standby_is_not_fenced_because_it_may_be_somebody_elses(world: World) -> None:
    """R3: a writable server behind the standby's address that is not ours is left alone, and shown."""
    world.protect()
    world.agents.change("b", server="server-x", writable=True, receiving=False, applying=False)
    world.visit()
    assert world.agents.sent == []
    assert any(each.code == "source_replaced" and each.side == "b" for each in world.status().findings)


def test_a_consented_copy_onto_a_new_server_binds_it_and_frees_the_old_one(world: World) -> None:
    """R3, R9: the operator's reprotect names the server; from then on it is the pair's."""
    world.protect()
    world.agents.change("b", server="server-n", base="none", receiving=False, applying=False, stream_epoch=0)
    world.agents.change("b", enrolled=False, epoch=0, token=0, fenced_epoch=0, receipt=None)
    world.request("reprotect", consent=Consent("b", "server-n", 2, "ann", True))
    assert "seed b 2" in world.settle()
    bound = world.records.servers(PAIR)
    assert bound is not None
    assert bound.value.b == "server-n"
    assert world.store.get(keys.server("server-b")) is None
    assert world.status().phase == "protected"


def test_without_consent_nothing_is_copied(world: World) -> None:
    """R9: the operation waits and says what is missing."""
    world.declare(consent=False)
    steps = world.settle()
    operation = world.operation()
    assert not any("seed" in step for step in steps)
    assert operation is not None
    assert operation.waiting_for == "no_consent"


def test_a_seed_that_fails_is_tried_on_with_its_reason_shown(world: World) -> None:
    """What a person must mend is shown; once it is mended the copy goes on by itself."""
    world.agents.fails["seed"] = ErrorBody(code="target_has_data", message="schema shop", hint="empty it")
    world.declare()
    world.settle()
    operation = world.operation()
    assert operation is not None
    assert (operation.waiting_for, operation.waiting_hint) == ("target_has_data", "schema shop; empty it")
    assert world.status().phase == "waiting"
    del world.agents.fails["seed"]
    world.sleep(BACKOFF_MAX_SECONDS)
    world.settle()
    assert world.status().phase == "protected"


def test_a_long_seed_is_polled_in_reports_and_never_sent_twice(world: World) -> None:
    """`running`, then progress in measurements; visits in between send nothing and write nothing."""
    world.declare()
    while not any(command.step == "seed" for command in world.agents.sent):
        world.visit()
        if not any(command.step == "seed" for command in world.agents.sent):
            world.answer()
    seed = world.agents.sent.pop()
    world.agents.change("b", enrolled=True, seeding=True, base="incomplete", seed=SeedProgress(phase="tables"))
    world.visit()
    assert world.status().phase == "seeding"
    assert world.status().replication.rpo_class == "seeding"
    before = world.store.snapshot()
    for done in range(30):
        progress = SeedProgress(phase="tables", rows_done=done, rows_total=100)
        world.agents.change("b", seed=progress)
        world.clock.seconds += 0.1
        world.visit()
    assert world.store.snapshot() == before
    assert world.agents.sent == []
    view = overlay(world.status(), world.agents.observed(PAIR))
    assert view.replication.seed is not None
    assert view.replication.seed.rows_done == 29
    world.agents.change("b", seeding=False)
    world.loop.heard(world.agents.carry_out(seed))
    world.settle()
    assert world.status().phase == "protected"


def test_on_gap_reseed_opens_one_operation_with_the_declarations_consent(world: World) -> None:
    """R9: a declared standing consent becomes an operation of its own, visible and bounded."""
    world.declare(on_gap="reseed")
    world.settle()
    world.agents.change("b", stopped="source_purged", receiving=False)
    world.agents.fails["seed"] = ErrorBody(code="timeout", message="busy", retry_seconds=1)
    world.visit()
    operation = world.operation()
    assert operation is not None
    assert (operation.verb, operation.by, operation.reason) == ("reprotect", BY, "source_purged")
    assert operation.consent is not None
    assert operation.consent.server == "server-b"
    # an operator takes it back: the same gap does not open it again
    found = world.records.operation(PAIR)
    assert found is not None
    asked = operations.aborting(found.value, "not now")
    assert world.store.txn([found.unchanged()], [put(found.key, asked)]).ok
    world.agents.sent.clear()
    world.settle()
    assert world.operation() is None
    world.sleep(120)
    world.visit()
    assert world.operation() is None
    assert world.status().phase == "stopped"


def test_without_on_gap_a_gap_stops_and_asks(world: World) -> None:
    """The default never overwrites anything by itself."""
    world.protect()
    world.agents.change("b", stopped="source_purged", receiving=False)
    world.visit()
    assert world.operation() is None
    assert world.agents.sent == []
    assert world.status().phase == "stopped"
    assert world.status().replication.rpo_class == "none"


def test_removing_a_pair_ends_both_sides_keeps_data_and_leaves_no_key(world: World) -> None:
    """R20: cleanup at the active side, then at the standby; then the pair is history."""
    world.protect()
    world.request("remove")
    assert world.settle() == ["cleanup a 2", "cleanup b 2"]
    assert world.again is None
    assert world.agents.is_gone
    left = [key for key in world.store.snapshot() if key.startswith((keys.PAIRS, keys.SERVERS))]
    assert left == []
    assert world.ended().state == "done"
    assert world.ended().verb == "remove"
    assert world.store.get(keys.grave(PAIR)) is not None


def is_writable(world: World, side: Side) -> bool:
    report = world.agents.facts[side]
    return report is not None and report.writable


def test_a_forced_removal_opens_what_a_switchover_has_closed(world: World) -> None:
    """The source was fenced for a switchover that nobody decided: it is opened again before protection ends there."""
    world.protect()
    world.request("switchover")
    while "fence a 4" not in (steps := (world.visit(), world.answer())[1]):
        assert steps, "the switchover does not come to its fence"
    assert not is_writable(world, "a")
    removed = delete_pair(world.desk, PAIR, by="ann", force=True)
    assert world.settle() == ["promote a 6", "cleanup a 6", "cleanup b 6"]
    assert is_writable(world, "a")
    assert world.ended().state == "aborted"
    assert world.ended(removed.operation or "").state == "done"


def test_a_forced_removal_behind_the_decision_opens_the_new_side(world: World) -> None:
    """The switchover was decided and the new side is not open yet: it is the one that is opened."""
    world.protect()
    world.request("switchover")
    while world.role_record().active == "a":
        world.visit()
        if world.role_record().active == "a":
            assert world.answer(), "the switchover does not come to its decision"
    world.agents.sent.clear()
    delete_pair(world.desk, PAIR, by="ann", force=True)
    assert world.settle() == ["promote b 4", "cleanup b 4", "cleanup a 4"]
    assert is_writable(world, "b")


def test_a_removal_waits_for_a_side_that_does_not_answer(world: World) -> None:
    """The pair stays until both sides are clean, and says whom it waits for."""
    world.protect()
    world.request("remove")
    world.visit()
    world.answer()
    world.agents.facts["b"] = None
    world.visit()
    operation = world.operation()
    assert operation is not None
    assert (operation.state, operation.waiting_for) == ("waiting", "standby_unreachable")
    assert world.status().phase == "removing"


def test_a_pair_without_a_first_decision_is_removed_at_once(world: World) -> None:
    """Nothing was touched, so nothing is to be cleaned up."""
    world.agents.facts = {"a": None, "b": None}
    world.declare()
    world.visit()
    found = world.records.operation(PAIR)
    assert found is not None
    asked = operations.aborting(found.value, "typo")
    world.store.txn([found.unchanged()], [put(found.key, asked)])
    world.visit()
    world.request_first_removal()
    assert world.visit() is None


def test_lag_decides_between_async_and_catching_up_and_is_laid_over_when_read(world: World) -> None:
    """The class is derived from what was measured; the numbers themselves never enter the store."""
    world.protect()
    world.agents.change("b", stream=StreamMeasurements(lag_seconds=600.0, backlog_seconds=30.0))
    world.visit()
    assert world.status().replication.rpo_class == "catching_up"
    assert world.status().replication.lag_seconds is None
    shown = overlay(world.status(), world.agents.observed(PAIR)).replication
    assert (shown.lag_seconds, shown.backlog_seconds, shown.measured_age_seconds) == (600.0, 30.0, 0.0)
    world.agents.change("b", stream=StreamMeasurements(lag_seconds=0.2))
    world.visit()
    assert world.status().replication.rpo_class == "async"
    world.agents.facts["b"] = None
    assert overlay(world.status(), world.agents.observed(PAIR)).replication.lag_seconds is None


def test_a_restart_does_not_write_the_report_that_is_stored_already(world: World) -> None:
    """Ten thousand pairs must not write ten thousand equal reports because a process is new."""
    world.protect()
    before = world.store.get(keys.status(PAIR))
    world.restart()
    world.sleep(30)
    world.visit()
    assert world.store.get(keys.status(PAIR)) == before


def test_the_first_tail_is_caught_up_before_the_class_is_more_than_catching_up(world: World) -> None:
    """R10: while the pair is still being protected its class promises nothing yet."""
    world.declare()
    world.visit()
    world.answer()
    while not any(command.step == "fence" for command in world.agents.sent):
        world.answer()
        world.visit()
    assert world.operation() is not None
    assert world.status().replication.rpo_class == "catching_up"
    assert world.condition("Protected") == "False"


def test_since_stays_while_a_condition_stays(world: World) -> None:
    """A condition says since when it has been so, not since when it was last looked at."""
    world.protect()
    first = {each.type: each.since for each in world.status().conditions}
    world.sleep(30)
    world.agents.change("b", peer_ready=False)
    world.visit()
    second = {each.type: each.since for each in world.status().conditions}
    assert second["PeerReady"] > first["PeerReady"]
    assert {name for name in first if first[name] != second[name]} == {"PeerReady"}
    assert world.condition("PeerReady") == "False"


def test_a_failing_steady_step_is_a_finding(world: World) -> None:
    """Work outside any operation that does not succeed is shown with its mend, and tried on."""
    world.protect()
    world.agents.fails["stream"] = ErrorBody(code="access_denied", message="farshore_osaka_r", hint="ALTER USER")
    world.agents.change("b", receiving=False)
    world.settle()
    found = [each for each in world.status().findings if each.code == "access_denied"]
    assert found
    assert (found[0].hint, found[0].side) == ("ALTER USER", "b")
    world.agents.fails.clear()
    world.sleep(BACKOFF_MAX_SECONDS)
    world.settle()
    assert world.status().findings == ()


def test_an_unknown_version_is_shown_as_a_condition(world: World) -> None:
    """R2: other series are allowed only knowingly, and are seen."""
    world.agents.change("b", server_version="8.4.3")
    world.protect()
    assert world.condition("VersionSupported") == "False"


def test_a_failed_over_pair_follows_only_after_a_reprotect(world: World) -> None:
    """R12: after a failover nothing on the old side is changed but the fence, until somebody asks."""
    world.protect()
    world.request("failover")
    steps = world.settle()
    assert steps == ["fence a 4", "drain b 4", "promote b 4"]
    assert world.status().phase == "stopped"
    world.sleep(120)
    assert world.settle() == []
    world.request("reprotect", id="op-3", consent=Consent("a", "server-a", 4, "ann", True))
    assert world.settle() == ["stream a 4"]
    assert world.status().phase == "protected"


def test_a_restart_does_not_make_a_healthy_pair_unknown_before_agents_could_dial(world: World) -> None:
    """The stored report stays for a moment; if an agent is still not heard then, its side is unknown."""
    world.protect()
    reports, world.agents.facts = world.agents.facts, {"a": None, "b": None}
    world.agents.never_heard = True
    world.restart()
    again = world.visit()
    assert again is not None
    assert again <= START_SECONDS
    assert world.status().phase == "protected"
    world.sleep(START_SECONDS)
    world.visit()
    assert world.status().phase == "unknown"
    world.agents.facts, world.agents.never_heard = reports, False
    world.visit()
    assert world.status().phase == "protected"
