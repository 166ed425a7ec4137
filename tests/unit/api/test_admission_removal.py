"""What a DELETE of a pair does, what it refuses, and what outlives the pair (R20, R24)."""

from __future__ import annotations

from typing import Any

import pytest

from farshore.admission import Look, delete_pair, delete_site, put_pair, put_site, request_operation
from farshore.store import keys
from farshore.store.records import put, unchanged
from farshore_schema.documents import Site
from farshore_schema.status import OperationRequest, PairDeleteResult, PairPut, PairPutResult
from tests.unit.api.world import STACK, World, document

SEEN = Look(servers={"a": "server-a", "b": "server-b"}, empty={"b": True})


def declare(world: World, **changes: Any) -> PairPutResult:
    """Declare `orders`."""
    request = PairPut(document=document(**changes), owner=STACK, create=True)
    return put_pair(world.desk, "orders", request, by="ann", look=SEEN)


def protect(world: World, **changes: Any) -> None:
    """Declare, decide and copy `orders`."""
    declare(world, **changes)
    world.decide("orders", "a", 2)
    world.end("orders")
    world.see_protected("orders", "a", 2)


def delete(world: World, **options: Any) -> PairDeleteResult:
    """DELETE `orders`."""
    return delete_pair(world.desk, "orders", by="ann", **options)


def test_a_delete_is_one_removal_and_its_repeat_names_it_again(world: World) -> None:
    """Deleting opens a `remove` for the loop; asking again is the same success."""
    protect(world)
    first = delete(world, delete_journal=True)
    operation = world.records.operation("orders")
    assert operation is not None
    assert first.operation == operation.value.id
    assert (operation.value.verb, operation.value.delete_journal) == ("remove", True)
    before = world.store.snapshot()
    assert delete(world) == first
    assert world.store.snapshot() == before


def test_a_finished_removal_leaves_nothing_but_the_audit_trail(world: World) -> None:
    """The pair, its servers and its status are gone; its operations stay, and the sites are free to be deleted."""
    protect(world)
    delete(world)
    world.end("orders")
    assert world.records.pair("orders") == (None, None, None, None, None)
    assert world.store.list(keys.SERVERS).items == ()
    assert len(world.store.list(keys.operations("orders")).items) == 2
    assert delete(world).operation is None
    assert delete_site(world.desk, "tokyo")
    assert delete_site(world.desk, "osaka")


def test_a_later_pair_of_the_same_name_is_newer_in_everything(world: World) -> None:
    """Incarnation and epoch go on where the earlier pair ended, so that nothing late of it can take effect."""
    protect(world)
    delete(world)
    world.end("orders")
    again = declare(world)
    operation = world.records.operation("orders")
    assert operation is not None
    assert again.view.incarnation == 2
    assert operation.value.epoch == 4


def test_an_older_incarnation_is_a_success_that_changes_nothing(world: World) -> None:
    """R24: a moved or replaced resource is created first and deleted afterwards; protection goes on."""
    protect(world)
    declare(world)
    before = world.store.snapshot()
    assert delete(world, incarnation=1).operation is None
    assert world.store.snapshot() == before
    assert delete(world, incarnation=2).operation is not None


def test_a_pair_that_never_was_is_deleted_already(world: World) -> None:
    """Deleting twice, or what is not there, is a success."""
    assert delete(world).operation is None


def test_a_delete_while_an_operation_is_open_is_refused(world: World) -> None:
    """R20: what is under way is ended or taken back first."""
    protect(world)
    request_operation(world.desk, "orders", OperationRequest(verb="switchover"), by="ann")
    error = world.refused("operation_open", lambda: delete(world))
    assert "farshore abort orders" in error.hint


def test_a_pair_that_was_never_protected_is_deleted_at_once(world: World) -> None:
    """No agent was ever told anything, so nothing is left anywhere; its request to protect is kept as aborted."""
    declare(world)
    asked = world.records.operation("orders")
    assert asked is not None
    assert delete(world).operation is None
    assert world.records.pair("orders").spec is None
    assert world.records.operation("orders") is None
    ended = world.records.ended_operation("orders", asked.value.id)
    assert ended is not None
    assert ended.value.state == "aborted"
    assert delete_site(world.desk, "tokyo")


@pytest.mark.parametrize("declared", [None, "tokyo"])
def test_a_failed_over_pair_is_not_deleted(world: World, declared: str | None) -> None:
    """R20: a move that the declaration did not make leaves the wrong side in charge."""
    protect(world, **({"primary_site": declared} if declared else {}))
    world.decide("orders", "b", 4, "fenced")
    world.see_protected("orders", "b", 4)
    error = world.refused("failed_over", lambda: delete(world))
    assert "osaka" in error.message


def test_an_adopted_failover_is_not_deleted_before_the_other_side_is_protected_again(world: World) -> None:
    """R20: declared and active agree, but nothing follows until a reprotect of this role has ended well (R12)."""
    protect(world)
    world.decide("orders", "b", 4, "attested")
    world.see_protected("orders", "b", 4)
    put_pair(world.desk, "orders", PairPut(document=document(primary_site="osaka"), owner=STACK), by="ann")
    world.refused("failed_over", lambda: delete(world))
    last = world.store.list(keys.operations("orders")).items[-1]
    old = world.records.ended_operation("orders", last.key.rpartition("/")[2])
    assert old is not None
    done = old.value.model_copy(update={"id": "op-z", "verb": "reprotect", "epoch": 4, "state": "done"})
    world.store.txn((), (put(keys.ended_operation("orders", "op-z"), done),))
    assert delete(world).operation is not None


def test_an_unreachable_active_side_refuses_with_what_to_run(world: World) -> None:
    """R20: nothing is left half removed without saying so."""
    protect(world)
    world.facts["orders"] = world.facts["orders"].model_copy(update={"a": None})
    error = world.refused("site_unreachable", lambda: delete(world))
    assert "RESET REPLICA ALL" in error.hint
    assert "force_destroy" in error.hint


def test_force_ends_what_is_open_and_removes(world: World) -> None:
    """With both sides in reach, force only replaces the open operation, which ends as aborted in the trail."""
    protect(world)
    put_pair(world.desk, "orders", PairPut(document=document(primary_site="osaka"), owner=STACK), by="ann")
    switchover = world.records.operation("orders")
    assert switchover is not None
    delete(world, force=True)
    operation = world.records.operation("orders")
    assert operation is not None
    assert (operation.value.verb, operation.value.forced) == ("remove", True)
    old = world.records.ended_operation("orders", switchover.value.id)
    assert old is not None
    assert old.value.state == "aborted"
    assert old.value.error is not None
    world.end("orders")
    assert world.records.spec("orders") is None


def test_force_without_a_reachable_side_removes_at_once_and_records_what_is_left(world: World) -> None:
    """Whatever cannot be reached is left as it is, and the trail says what to run there."""
    protect(world)
    world.facts.clear()
    result = delete(world, force=True)
    assert result.operation is None
    assert "tokyo and osaka" in result.note
    assert world.records.spec("orders") is None
    newest = world.store.list(keys.operations("orders")).items[-1]
    ended = world.records.ended_operation("orders", newest.key.rpartition("/")[2])
    assert ended is not None
    assert (ended.value.verb, ended.value.state, ended.value.forced) == ("remove", "done", True)
    assert ended.value.error is not None
    assert "RESET REPLICA ALL" in ended.value.error.hint


def test_a_pair_that_is_being_removed_takes_no_declaration(world: World) -> None:
    """A create meanwhile is refused; once the removal has ended it is a new pair."""
    protect(world)
    delete(world)
    world.refused("operation_open", lambda: declare(world))
    world.end("orders")
    assert declare(world).view.incarnation == 2


def test_the_trail_of_operations_is_bounded(world: World) -> None:
    """The oldest ended operations of a name are dropped; the newest two hundred stay."""
    protect(world)
    first = world.store.list(keys.operations("orders")).items[0].key
    for number in range(204):
        world.clock.seconds += 1
        put_pair(
            world.desk,
            "orders",
            PairPut(document=document(primary_site="osaka", description=str(number)), owner=STACK),
            by="ann",
        )
        world.end("orders", "aborted")
    kept = world.store.list(keys.operations("orders")).items
    assert len(kept) == 200
    assert first not in {item.key for item in kept}


# ---- sites


def test_a_site_with_pairs_is_not_deleted(world: World) -> None:
    """The refusal names the pairs."""
    protect(world)
    error = world.refused("site_in_use", lambda: delete_site(world.desk, "tokyo"))
    assert "orders" in error.message


def test_sites_are_put_and_deleted_idempotently(world: World) -> None:
    """The same document again changes nothing; a deleted site is deleted; an old incarnation changes nothing."""
    kyoto = Site(name="kyoto")
    first = put_site(world.desk, "kyoto", kyoto)
    before = world.store.snapshot()
    assert put_site(world.desk, "kyoto", kyoto) == first
    assert world.store.snapshot() == before
    adopted = put_site(world.desk, "kyoto", kyoto, create=True)
    assert (adopted.incarnation, adopted.generation) == (2, 1)
    assert not delete_site(world.desk, "kyoto", incarnation=1)
    assert delete_site(world.desk, "kyoto", incarnation=2)
    assert not delete_site(world.desk, "kyoto")


def test_a_pair_declared_while_its_site_is_deleted_wins_or_is_refused(world: World) -> None:
    """Of the two transactions one sees the other: a pair never names a site that is gone."""
    protect(world)
    uses = world.records.uses("tokyo")
    assert uses is not None
    site = world.records.site("tokyo")
    assert site is not None
    declared_before = (site.unchanged(), unchanged(keys.uses("tokyo"), uses))
    put_pair(world.desk, "second", PairPut(document=document("second"), owner=STACK), by="ann")
    assert not world.store.txn(declared_before, ()).ok, "a deletion judged before the second pair must not commit"
