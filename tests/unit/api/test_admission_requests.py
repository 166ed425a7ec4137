"""What people may ask of a pair's roles, and take back."""

from __future__ import annotations

import re

from farshore.admission import (
    Look,
    abort_operation,
    bind_server,
    find_operation,
    plan_pair,
    put_pair,
    request_operation,
)
from farshore.store.records import put, unchanged
from farshore_schema.observed import Finding
from farshore_schema.status import OperationRequest, PairPut, StepLog
from tests.unit.api.world import OTHER_STACK, STACK, World, document, endpoint

SEEN = Look(servers={"a": "server-a", "b": "server-b"}, empty={"b": True})
SWITCHOVER = OperationRequest(verb="switchover")
REPROTECT = OperationRequest(verb="reprotect")


def protect(world: World) -> None:
    """Declare, decide and copy `orders`."""
    put_pair(world.desk, "orders", PairPut(document=document(), owner=STACK), by="ann", look=SEEN)
    world.decide("orders", "a", 2)
    world.end("orders")
    world.see_protected("orders", "a", 2)


# ---- requests


def test_a_switchover_by_a_person_is_one_operation_with_its_story(world: World) -> None:
    """Who asked, why, where to, in which epoch; its id sorts by time."""
    protect(world)
    request = OperationRequest(verb="switchover", to_site="osaka", if_epoch=2, reason="maintenance")
    operation = request_operation(world.desk, "orders", request, by="bob")
    assert (operation.verb, operation.to_site, operation.epoch) == ("switchover", "osaka", 4)
    assert (operation.by, operation.reason, operation.generation) == ("bob", "maintenance", 0)
    assert re.fullmatch(r"op-20260101t000000000-[0-9a-f]{4}", operation.id)
    world.refused("operation_open", lambda: request_operation(world.desk, "orders", request, by="bob"))


def test_what_cannot_be_asked_now_is_refused_with_the_way_on(world: World) -> None:
    """Unknown pair, stale epoch, no decision yet, wrong or active site, a silent side."""

    def ask(request: OperationRequest, pair: str = "orders") -> object:
        return request_operation(world.desk, pair, request, by="bob")

    world.refused("not_found", lambda: ask(SWITCHOVER, "nothing"))
    put_pair(world.desk, "orders", PairPut(document=document()), by="ann")
    undecided = world.refused("not_possible_now", lambda: ask(SWITCHOVER))
    assert undecided.current == {"why_not": "not_decided"}
    world.decide("orders", "a", 2)
    world.end("orders")
    world.see_protected("orders", "a", 2)
    stale = world.refused("stale_epoch", lambda: ask(OperationRequest(verb="switchover", if_epoch=0)))
    assert stale.current is not None
    assert stale.current["active_site"] == "tokyo"
    world.refused("invalid_request", lambda: ask(OperationRequest(verb="switchover", to_site="kyoto")))
    active = world.refused("not_possible_now", lambda: ask(OperationRequest(verb="switchover", to_site="tokyo")))
    assert active.current == {"why_not": "already_active"}
    world.facts.clear()
    silent = world.refused("site_unreachable", lambda: ask(SWITCHOVER))
    assert "agent" in silent.hint


def test_a_reprotect_is_a_consent_for_the_server_seen_now(world: World) -> None:
    """R9: after a failover a person consents to a new copy onto exactly the old side's server, in this epoch."""
    protect(world)
    refused = world.refused("not_possible_now", lambda: request_operation(world.desk, "orders", REPROTECT, by="bob"))
    assert refused.current == {"why_not": "already_protected"}
    world.decide("orders", "b", 4, "attested")
    world.see_protected("orders", "b", 4)
    standby = world.facts["orders"].a
    assert standby is not None
    stopped = standby.model_copy(update={"receiving": False, "applying": False, "stream_epoch": 0})
    world.facts["orders"] = world.facts["orders"].model_copy(update={"a": stopped})
    operation = request_operation(world.desk, "orders", REPROTECT, by="bob")
    assert operation.consent is not None
    assert tuple(operation.consent) == ("a", "server-a", 4, "bob", True)
    assert operation.epoch == 4


REBIND = OperationRequest(verb="rebind", if_epoch=2)


def replace_active(world: World, server: str = "server-n") -> None:
    """Let another server answer at tokyo; osaka's stream has stopped."""
    now = world.facts["orders"]
    assert now.a is not None
    assert now.b is not None
    seen = {
        "a": now.a.model_copy(update={"server": server}),
        "b": now.b.model_copy(update={"receiving": False, "stopped": "source_replaced"}),
    }
    world.facts["orders"] = now.model_copy(update=seen)


def test_a_rebind_is_a_consent_for_the_server_seen_at_the_active_site(world: World) -> None:
    """R3: it names that server and an epoch of its own, and permits no copy; other verbs are refused until then."""
    protect(world)

    def ask(request: OperationRequest) -> object:
        return request_operation(world.desk, "orders", request, by="bob")

    refused = world.refused("not_possible_now", lambda: ask(REBIND))
    assert refused.current == {"why_not": "not_replaced"}
    assert "reprotect" in refused.message  # what a replaced standby needs
    replace_active(world)
    for request in (SWITCHOVER, REPROTECT):
        waits = world.refused("not_possible_now", lambda request=request: ask(request))  # type: ignore[misc]
        assert waits.hint == "farshore rebind orders"
    world.refused("stale_epoch", lambda: ask(OperationRequest(verb="rebind", if_epoch=0)))
    there = world.refused("not_possible_now", lambda: ask(OperationRequest(verb="rebind", to_site="osaka")))
    assert there.current == {"why_not": "not_replaced"}
    operation = request_operation(world.desk, "orders", REBIND, by="bob")
    assert (operation.to_site, operation.epoch) == ("tokyo", 4)
    assert operation.consent is not None
    assert tuple(operation.consent) == ("a", "server-n", 4, "bob", False)


def test_a_rebind_without_the_standby_is_asked_for_by_name(world: World) -> None:
    """It then needs nobody at the other site; no other verb knows the word."""
    protect(world)
    alone = OperationRequest(verb="rebind", without_standby=True)
    wrong = OperationRequest(verb="switchover", without_standby=True)
    error = world.refused("invalid_request", lambda: request_operation(world.desk, "orders", wrong, by="bob"))
    assert error.field == "without_standby"
    replace_active(world)
    world.facts["orders"] = world.facts["orders"].model_copy(update={"b": None, "age_b": None})
    world.refused("site_unreachable", lambda: request_operation(world.desk, "orders", REBIND, by="bob"))
    operation = request_operation(world.desk, "orders", alone, by="bob")
    assert operation.consent is not None
    assert operation.consent.overwrite


def test_another_pairs_server_is_never_taken_by_a_rebind(world: World) -> None:
    """R1: one server is an endpoint of one pair."""
    protect(world)
    put_pair(world.desk, "invoices", PairPut(document=document("invoices")), by="ann")
    bind_server(world.desk, "invoices", "a", "server-n")
    replace_active(world)
    world.refused("server_in_other_pair", lambda: request_operation(world.desk, "orders", REBIND, by="bob"))


def test_a_rebind_can_be_taken_back_even_after_its_decision(world: World) -> None:
    """It fences nobody and overwrites nothing: there is always a way out."""
    protect(world)
    replace_active(world)
    operation = request_operation(world.desk, "orders", REBIND, by="bob")
    world.decide("orders", "a", 4, "rebound")
    assert abort_operation(world.desk, "orders", operation.id, by="ann").abort


# ---- aborts


def test_an_abort_is_asked_for_once_and_keeps_its_first_reason(world: World) -> None:
    """Idempotent: a second abort changes nothing."""
    protect(world)
    operation = request_operation(world.desk, "orders", SWITCHOVER, by="bob")
    asked = abort_operation(world.desk, "orders", operation.id, by="ann", reason="not now")
    assert (asked.abort, asked.abort_reason, asked.is_open) == (True, "ann: not now", True)
    before = world.store.snapshot()
    assert abort_operation(world.desk, "orders", operation.id, by="eve").abort_reason == "ann: not now"
    assert world.store.snapshot() == before


def test_what_cannot_be_taken_back_says_why(world: World) -> None:
    """Unknown, ended and decided operations, and removals, are not aborted."""
    protect(world)

    def abort(operation_id: str) -> object:
        return abort_operation(world.desk, "orders", operation_id, by="ann")

    world.refused("not_found", lambda: abort("op-none"))
    operation = request_operation(world.desk, "orders", SWITCHOVER, by="bob")
    world.decide("orders", "b", 4, "fenced")
    decided = world.refused("not_possible_now", lambda: abort(operation.id))
    assert "farshore switchover orders" in decided.hint
    world.end("orders")
    ended = world.refused("not_possible_now", lambda: abort(operation.id))
    assert "done" in ended.message
    assert find_operation(world.desk, "orders", operation.id).state == "done"


def test_an_abort_that_races_with_the_loop_is_judged_afresh(world: World) -> None:
    """The loop wrote the operation between reading and committing: the abort is neither lost nor does it undo that."""
    protect(world)
    operation = request_operation(world.desk, "orders", SWITCHOVER, by="bob")
    original = world.store.txn
    raced = False

    def txn(*arguments: object) -> object:
        nonlocal raced
        if not raced:
            raced = True
            found = world.records.operation("orders")
            assert found is not None
            original((found.unchanged(),), (put(found.key, found.value.model_copy(update={"label": "fence"})),))
        return original(*arguments)  # type: ignore[arg-type]

    world.store.txn = txn  # type: ignore[method-assign,assignment]
    asked = abort_operation(world.desk, "orders", operation.id, by="ann")
    assert (asked.abort, asked.label) == (True, "fence")


# ---- binding


def test_the_first_server_seen_completes_a_consent_that_waited_for_it(world: World) -> None:
    """R9: a declaration made while nobody could look consents to the first server seen, and to no later one."""
    overwrite = document(on_existing_data="overwrite")
    put_pair(world.desk, "orders", PairPut(document=overwrite), by="ann")
    assert bind_server(world.desk, "orders", "b", "uuid-b") == "uuid-b"
    assert bind_server(world.desk, "orders", "b", "uuid-later") == "uuid-b"
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.consent is not None
    assert operation.value.consent.server == "uuid-b"


def test_a_server_is_bound_once_in_the_whole_store(world: World) -> None:
    """Binding refuses the other side's and another pair's server."""
    put_pair(world.desk, "orders", PairPut(document=document()), by="ann")
    put_pair(world.desk, "other", PairPut(document=document("other")), by="ann")
    bind_server(world.desk, "orders", "a", "uuid-a")
    world.refused("same_server", lambda: bind_server(world.desk, "orders", "b", "uuid-a"))
    world.refused("server_in_other_pair", lambda: bind_server(world.desk, "other", "a", "uuid-a"))
    world.refused("not_found", lambda: bind_server(world.desk, "nothing", "a", "uuid-x"))


# ---- the dry run


def test_a_dry_run_of_a_new_pair_says_what_would_happen(world: World) -> None:
    """Nothing is changed, and the direction of the copy is named."""
    before = world.store.snapshot()
    plan = plan_pair(world.desk, document(), owner=STACK, look=SEEN)
    assert world.store.snapshot() == before
    assert (plan.action, plan.failures, plan.current_epoch) == ("create", (), None)
    assert plan.summary == "protect orders: full copy from tokyo, then follow"


def test_a_dry_run_collects_every_failure_with_its_field(world: World) -> None:
    """One preview shows all that is wrong: sites, endpoints, consent."""
    finding = Finding(code="access_denied", severity="error", message="no", field="site_a.admin.password")
    note = Finding(code="no_primary_key", severity="warning", message="t has no primary key", hint="add one")
    look = Look(findings=(finding, note), empty={"b": False}, unseen=("no agent serves kyoto",))
    plan = plan_pair(world.desk, document(site_b=endpoint("kyoto")), owner=STACK, look=look)
    assert {(f.code, f.field) for f in plan.failures} == {
        ("unknown_site", "site_b.site"),
        ("access_denied", "site_a.admin.password"),
        ("target_has_data", "on_existing_data"),
    }
    assert plan.warnings == ("no agent serves kyoto", "t has no primary key (add one)")


def test_a_dry_run_of_a_changed_primary_site_shows_the_switchover(world: World) -> None:
    """Lag, readiness and steps, and once there were switchovers, how long clients could not write: fence to open."""
    protect(world)
    wanted = document(primary_site="osaka")
    plan = plan_pair(world.desk, wanted, owner=STACK, if_epoch=2)
    assert plan.failures == ()
    assert plan.role_change is not None
    change = plan.role_change
    assert (change.from_site, change.to_site, change.lag_seconds) == ("tokyo", "osaka", 0.4)
    assert (change.peer_ready, change.estimate_seconds) == ("True", None)
    assert change.steps
    assert plan.summary == "planned switchover from tokyo to osaka (lag 0.4 s; peer ready)"
    assert plan.changed == ("primary_site",)
    earlier = request_operation(world.desk, "orders", SWITCHOVER, by="bob")
    found = world.records.operation("orders")
    assert found is not None
    log = tuple(
        StepLog(
            name=name, site=site, state="done", started=f"2026-11-23T12:00:0{at}Z", ended=f"2026-11-23T12:00:0{to}Z"
        )
        for name, site, at, to in (
            ("prepare", "tokyo", 0, 1),
            ("fence", "tokyo", 1, 2),
            ("promote", "osaka", 2, 3),
            ("stream", "tokyo", 3, 9),
        )
    )
    assert world.store.txn(
        (unchanged(found.key, found),), (put(found.key, earlier.model_copy(update={"log": log})),)
    ).ok
    world.end("orders")
    change_again = plan_pair(world.desk, wanted, owner=STACK, if_epoch=2).role_change
    assert change_again is not None
    assert change_again.estimate_seconds == 2.0


def test_a_dry_run_says_what_an_apply_would_be_refused_for(world: World) -> None:
    """Owner, stale role and unchanged documents, by the same judgement as the apply."""
    protect(world)
    assert plan_pair(world.desk, document(), owner=STACK).summary == "nothing to do"
    elsewhere = plan_pair(world.desk, document(), owner=OTHER_STACK)
    assert [f.code for f in elsewhere.failures] == ["owned_elsewhere"]
    world.decide("orders", "b", 4, "attested", by="bob")
    world.see_protected("orders", "b", 4)
    stale = plan_pair(world.desk, document(primary_site="tokyo"), owner=STACK, if_epoch=2)
    assert [f.code for f in stale.failures] == ["stale_epoch"]
    assert (stale.current_epoch, stale.active_site) == (4, "osaka")
    adopted = plan_pair(world.desk, document(primary_site="osaka"), owner=STACK, if_epoch=2)
    assert adopted.summary == "adopt osaka, which is active already"
