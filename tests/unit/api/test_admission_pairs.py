"""What a PUT of a pair does to the store, and everything it refuses without a trace."""

from __future__ import annotations

from typing import Any

import pytest

from farshore.admission import Look, put_pair
from farshore.store import keys
from farshore.store.records import ServerRecord
from farshore_schema.documents import MySQLPair
from farshore_schema.observed import Finding
from farshore_schema.roles import Consent
from farshore_schema.status import Owner, PairPut, PairPutResult
from tests.unit.api.world import OTHER_STACK, STACK, World, document, endpoint

NOT_LOOKED = Look()
BOTH_SEEN = Look(servers={"a": "uuid-a", "b": "uuid-b"}, empty={"a": False, "b": True})


def put(world: World, pair: MySQLPair, look: Look = NOT_LOOKED, **request: Any) -> PairPutResult:
    """PUT a pair as the stack."""
    full = {"document": pair, "owner": STACK} | request
    return put_pair(world.desk, pair.name, PairPut(**full), by="ann", look=look)


def protected(world: World, pair: MySQLPair | None = None) -> MySQLPair:
    """Return a pair that was declared, decided and copied: active at tokyo in epoch 2."""
    pair = pair or document()
    put(world, pair, BOTH_SEEN, create=True)
    world.decide(pair.name, "a", 2)
    world.end(pair.name)
    world.see_protected(pair.name, "a", 2)
    return pair


def moved_elsewhere(world: World, pair: MySQLPair) -> None:
    """Play an emergency failover to osaka that no declaration asked for."""
    world.clock.seconds += 60
    world.decide(pair.name, "b", 4, "attested", by="bob")
    world.see_protected(pair.name, "b", 4)


# ---- a new pair


def test_a_new_pair_is_one_record_and_one_operation_that_protects_it(world: World) -> None:
    """Accepting a declaration creates exactly the pair and its `protect`, with the consent for the server seen."""
    result = put(world, document(on_existing_data="overwrite"), BOTH_SEEN, create=True)
    operation = world.records.operation("orders")
    assert operation is not None
    assert result.operation == operation.value.id
    assert operation.value.verb == "protect"
    assert (operation.value.to, operation.value.to_site) == ("b", "osaka")
    assert operation.value.consent == Consent("b", "uuid-b", operation.value.epoch, "ann", overwrite=True)
    assert (result.view.generation, result.view.incarnation, result.view.owner) == (1, 1, STACK)
    assert world.records.role("orders") is None


def test_refuse_gives_a_consent_that_overwrites_nothing(world: World) -> None:
    """Every first copy names its server; without the declared consent only an empty one may be written."""
    put(world, document(), BOTH_SEEN)
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.consent is not None
    assert not operation.value.consent.overwrite


def test_a_declared_primary_site_chooses_the_direction(world: World) -> None:
    """R8: the active side of a new pair is `primary_site`; the copy goes to the other one."""
    look = Look(servers=BOTH_SEEN.servers, empty={"a": True, "b": False})
    put(world, document(primary_site="osaka"), look)
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.to_site == "tokyo"
    assert operation.value.consent is not None
    assert operation.value.consent.server == "uuid-a"


def test_a_gateway_that_is_down_does_not_stop_a_declaration(world: World) -> None:
    """Nobody could look: the pair is accepted, and the consent waits for the first server that will be seen."""
    put(world, document(on_existing_data="overwrite"), Look(unseen=("no agent serves osaka",)))
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.consent == Consent("b", "", operation.value.epoch, "ann", overwrite=True)


def test_the_same_put_again_changes_nothing(world: World) -> None:
    """A repeated request, for example after a lost answer, is answered alike and writes nothing."""
    put(world, document(), BOTH_SEEN)
    before = world.store.snapshot()
    again = put(world, document(), BOTH_SEEN)
    assert world.store.snapshot() == before
    assert again.operation is None
    assert again.view.status.operation is not None


@pytest.mark.parametrize(
    ("look", "code", "field"),
    [
        (Look(servers={"a": "one", "b": "one"}), "same_server", "site_b.host"),
        (Look(servers={"a": "uuid-a", "b": "uuid-b"}, empty={"b": False}), "target_has_data", "on_existing_data"),
        (
            Look(
                findings=(
                    Finding(
                        code="access_denied",
                        severity="error",
                        message="refused",
                        hint="check it",
                        field="site_b.admin.password",
                    ),
                )
            ),
            "access_denied",
            "site_b.admin.password",
        ),
        (Look(findings=(Finding(code="of_a_newer_agent", severity="error", message="no"),)), "unsuitable_server", None),
    ],
)
def test_what_the_gateways_saw_refuses_a_new_pair(world: World, look: Look, code: str, field: str | None) -> None:
    """Every error at the endpoints has its code and field, and leaves no trace of the pair."""
    error = world.refused(code, lambda: put(world, document(), look))
    assert error.field == field
    assert error.hint or code == "unsuitable_server"


def test_all_reasons_travel_together(world: World) -> None:
    """The first reason is the error; the others are in it, so that one preview shows them all."""
    look = Look(findings=tuple(Finding(code=c, severity="error", message=c) for c in ("unreachable", "tls_mismatch")))
    error = world.refused("unreachable", lambda: put(world, document(), look))
    assert error.current is not None
    assert [each["code"] for each in error.current["also"]] == ["tls_mismatch"]  # type: ignore[attr-defined]


def test_a_site_that_does_not_exist_is_named_with_its_field(world: World) -> None:
    """A pair needs declared sites."""
    error = world.refused("unknown_site", lambda: put(world, document(site_b=endpoint("kyoto"))))
    assert error.field == "site_b.site"
    assert "kyoto" in error.message


def test_a_document_under_another_name_is_refused(world: World) -> None:
    """The address names the pair."""
    world.refused(
        "invalid_request",
        lambda: put_pair(world.desk, "payments", PairPut(document=document("orders")), by="ann"),
    )


def test_a_server_serves_one_pair_only(world: World) -> None:
    """R1: the endpoint of another pair is refused, also through another name, and released when that pair is gone."""
    put(world, document("orders"), BOTH_SEEN)
    other = document("payments", site_a=endpoint("tokyo", host="alias.example"))
    look = Look(servers={"a": "uuid-a", "b": "uuid-c"}, empty={"b": True})
    error = world.refused("server_in_other_pair", lambda: put(world, other, look))
    assert error.field == "site_a.host"
    assert "orders" in error.message


# ---- ownership and incarnations


def test_a_create_of_the_same_owner_adopts_and_raises_the_incarnation(world: World) -> None:
    """R24: a moved or replaced resource creates again; the declaration goes on without a new generation."""
    protected(world)
    result = put(world, document(), create=True)
    assert (result.view.incarnation, result.view.generation, result.operation) == (2, 1, None)


def test_another_stack_is_refused_and_told_who_owns_the_pair(world: World) -> None:
    """Two stacks that name the same pair: the second one learns the first one's name."""
    protected(world)
    for create in (True, False):
        error = world.refused("owned_elsewhere", lambda c=create: put(world, document(), owner=OTHER_STACK, create=c))  # type: ignore[misc]
        assert "acme/dr/prod" in error.message


def test_nobody_does_not_take_a_stacks_pair(world: World) -> None:
    """A file applied by hand does not overwrite what a stack declares."""
    protected(world)
    world.refused("owned_elsewhere", lambda: put(world, document(description="mine"), owner=Owner()))


def test_a_stack_takes_over_a_pair_that_nobody_declares(world: World) -> None:
    """A pair first applied from a file can be adopted by a stack, and is its own from then on."""
    put(world, document(), owner=Owner())
    assert put(world, document(), create=True).view.owner == STACK
    world.refused("owned_elsewhere", lambda: put(world, document(), owner=OTHER_STACK))


# ---- changes


def test_a_harmless_change_is_a_generation_and_no_operation(world: World) -> None:
    """Settings change in place."""
    protected(world)
    result = put(world, document(drain_timeout="45s"))
    assert (result.view.generation, result.operation) == (2, None)
    assert world.records.operation("orders") is None


def test_a_change_on_an_old_generation_is_refused_with_the_present_one(world: World) -> None:
    """409 carries the truth to decide anew; an unchanged document is no change and passes."""
    protected(world)
    put(world, document(drain_timeout="45s"))
    error = world.refused("stale_generation", lambda: put(world, document(drain_timeout="50s"), if_generation=1))
    assert error.current is not None
    assert error.current["generation"] == 2
    assert put(world, document(drain_timeout="45s"), if_generation=1).view.generation == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"site_b": endpoint("osaka", host="elsewhere.example")}, "site_b.host"),
        ({"site_a": endpoint("tokyo", port=3307)}, "site_a.port"),
    ],
)
def test_an_endpoint_never_becomes_another_server(world: World, changes: dict[str, Any], field: str) -> None:
    """A changed address that was not seen to lead to the same server is refused with the steps to take."""
    protected(world)
    other = Look(servers={"a": "uuid-x", "b": "uuid-x2"})
    for look in (Look(), other):
        error = world.refused("identity_change", lambda look=look: put(world, document(**changes), look))  # type: ignore[misc]
        assert error.field == field
        assert "rebind" in error.hint


def test_a_site_of_a_pair_never_changes(world: World) -> None:
    """Endpoints never swap places and never move."""
    protected(world)
    swapped = document(site_a=endpoint("osaka"), site_b=endpoint("tokyo"))
    assert world.refused("identity_change", lambda: put(world, swapped, BOTH_SEEN)).field == "site_a.site"


def test_a_new_name_of_the_same_server_is_accepted_when_it_was_seen(world: World) -> None:
    """A DNS change is a harmless change once a gateway saw that the same server answers there."""
    protected(world)
    renamed = document(site_b=endpoint("osaka", host="new-name.example"))
    assert put(world, renamed, BOTH_SEEN).view.generation == 2


def test_findings_refuse_an_existing_pair_only_where_it_changes(world: World) -> None:
    """In a disaster one side is down: that must not stop a change of something else; a wrong new password must."""
    protected(world)
    down = Look(findings=(Finding(code="unreachable", severity="error", message="down", field="site_a.host"),))
    assert put(world, document(drain_timeout="1m"), down).view.generation == 2
    secret = endpoint("osaka", admin={"user": "farshore_osaka", "password": "env:NEW"})
    denied = Look(
        findings=(Finding(code="access_denied", severity="error", message="refused", field="site_b.admin.password"),)
    )
    world.refused("access_denied", lambda: put(world, document(drain_timeout="1m", site_b=secret), denied))


def test_two_pairs_cannot_swap_their_endpoints(world: World) -> None:
    """R24: swapping the names of two declared pairs is an identity change of both; neither loses its protection."""
    protected(world)
    put(world, document("payments", site_a=endpoint("tokyo", host="p1"), site_b=endpoint("osaka", host="p2")))
    swapped = document("orders", site_a=endpoint("tokyo", host="p1"), site_b=endpoint("osaka", host="p2"))
    world.refused("identity_change", lambda: put(world, swapped))


# ---- roles


def test_a_changed_primary_site_is_exactly_one_switchover(world: World) -> None:
    """R11: keyed by (pair, generation); the repeated PUT names the same operation and creates none."""
    protected(world)
    wanted = document(primary_site="osaka")
    result = put(world, wanted, if_epoch=2)
    operation = world.records.operation("orders")
    assert operation is not None
    assert result.operation == operation.value.id
    assert (operation.value.verb, operation.value.to_site, operation.value.epoch) == ("switchover", "osaka", 4)
    assert operation.value.generation == result.view.generation == 2
    assert result.view.status.phase == "switching"
    before = world.store.snapshot()
    assert put(world, wanted, if_epoch=2).operation == result.operation
    assert world.store.snapshot() == before


def test_declaring_the_site_that_is_active_already_moves_nothing(world: World) -> None:
    """The first declaration of a primary site that is true is only written down."""
    protected(world)
    assert put(world, document(primary_site="tokyo")).operation is None


def test_without_a_primary_site_code_never_moves_roles(world: World) -> None:
    """None means that roles are moved by people only, whatever happened before."""
    pair = protected(world)
    moved_elsewhere(world, pair)
    assert put(world, document(drain_timeout="45s")).operation is None


def test_a_declared_switchover_on_an_old_epoch_is_refused_with_the_present_role(world: World) -> None:
    """`if_epoch` guards exactly the move: whoever decided on an older role is told the new one."""
    pair = protected(world)
    moved_elsewhere(world, pair)
    error = world.refused("stale_epoch", lambda: put(world, document(primary_site="tokyo"), if_epoch=2))
    assert error.current is not None
    assert (error.current["epoch"], error.current["active_site"], error.current["by"]) == (4, "osaka", "bob")
    assert put(world, document(drain_timeout="45s"), if_epoch=2).operation is None
    assert put(world, document(primary_site="tokyo"), if_epoch=4).operation is not None


def test_a_role_that_moves_while_a_declaration_is_judged_is_judged_afresh(world: World) -> None:
    """Between reading and committing an emergency decision arrived: no switchover of the old role is born."""
    pair = protected(world)
    original = world.store.txn
    raced = False

    def txn(*arguments: Any) -> Any:
        nonlocal raced
        if not raced:
            raced = True
            moved_elsewhere(world, pair)
        return original(*arguments)

    world.store.txn = txn  # type: ignore[method-assign,assignment]
    result = put(world, document(primary_site="osaka"), if_epoch=2)
    assert result.operation is None
    assert world.records.operation("orders") is None
    assert result.view.status.role is not None
    assert result.view.status.role.epoch == 4


def test_an_aborted_switchover_may_be_declared_again_by_whoever_knew_the_role_before(world: World) -> None:
    """An abort takes a new epoch but moves nothing: the next `up` with the same change must be able to ask again."""
    protected(world)
    wanted = document(primary_site="osaka")
    put(world, wanted, if_epoch=2)
    world.decide("orders", "a", 6, "aborted")
    world.end("orders", "aborted")
    world.see_protected("orders", "a", 6)
    spec = world.records.spec("orders")
    assert spec is not None
    assert spec.value.document.primary_site is None, "the declaration takes back what was not done"
    again = put(world, wanted, if_epoch=2)
    assert again.operation is not None
    assert again.view.generation == 4


def test_an_operation_that_ended_badly_is_never_retried_by_itself(world: World) -> None:
    """R11: after an abort nothing is open and the declaration says what is true; only a new PUT asks again."""
    protected(world, document(primary_site="tokyo"))
    put(world, document(primary_site="osaka"))
    world.decide("orders", "a", 6, "aborted")
    world.end("orders", "aborted")
    spec = world.records.spec("orders")
    assert spec is not None
    assert (spec.value.document.primary_site, spec.value.undo) == ("tokyo", None)
    assert world.records.operation("orders") is None


def test_a_switchover_that_ended_well_leaves_the_declaration(world: World) -> None:
    """The accepted value stays, and declaring it again is nothing to do."""
    protected(world)
    wanted = document(primary_site="osaka")
    put(world, wanted)
    world.decide("orders", "b", 4, "fenced")
    world.end("orders")
    spec = world.records.spec("orders")
    assert spec is not None
    assert (spec.value.document.primary_site, spec.value.undo) == ("osaka", None)
    before = world.store.snapshot()
    put(world, wanted, if_epoch=2)
    assert world.store.snapshot() == before


def test_a_move_made_elsewhere_is_never_undone_by_a_declaration(world: World) -> None:
    """I7: the old value in code is not work; it is refused with who, when, why and the two ways on."""
    pair = protected(world, document(primary_site="tokyo"))
    moved_elsewhere(world, pair)
    for changes in ({}, {"drain_timeout": "45s"}):
        declared = document(primary_site="tokyo", **changes)
        error = world.refused("role_moved", lambda d=declared: put(world, d, if_epoch=2))  # type: ignore[misc]
        for word in ("bob", "2026-01-01T00:01:00.000Z", "INC-7", "osaka", "tokyo"):
            assert word in error.message
        assert 'primary_site = "osaka"' in error.hint
        assert "acknowledge_epoch = 4" in error.hint
        assert error.field == "primary_site"


def test_the_move_is_adopted_by_declaring_it(world: World) -> None:
    """The first way on: no operation, whatever epoch the caller last saw."""
    pair = protected(world, document(primary_site="tokyo"))
    moved_elsewhere(world, pair)
    result = put(world, document(primary_site="osaka"), if_epoch=2)
    assert result.operation is None
    assert result.view.document.primary_site == "osaka"


def test_the_move_is_acknowledged_and_undone_by_a_planned_switchover(world: World) -> None:
    """The second way on: the declaration names the epoch it acknowledges, and fails back once."""
    pair = protected(world, document(primary_site="tokyo"))
    moved_elsewhere(world, pair)
    world.refused("role_moved", lambda: put(world, document(primary_site="tokyo", acknowledge_epoch=2)))
    back = document(primary_site="tokyo", acknowledge_epoch=4)
    result = put(world, back, if_epoch=2)
    operation = world.records.operation("orders")
    assert operation is not None
    assert result.operation == operation.value.id
    assert (operation.value.to_site, operation.value.epoch) == ("tokyo", 6)
    world.decide("orders", "b", 8, "aborted")
    world.end("orders", "aborted")
    error = world.refused("role_moved", lambda: put(world, back))
    assert "acknowledge_epoch = 8" in error.hint


def test_a_switchover_that_would_lose_something_is_refused_with_the_reason(world: World) -> None:
    """The plan's `why_not` comes back with its command, and the declaration stays as it was."""
    protected(world)
    assert world.facts["orders"].b is not None
    stopped = world.facts["orders"].b.model_copy(update={"stopped": "applier_stopped"})
    world.facts["orders"] = world.facts["orders"].model_copy(update={"b": stopped})
    error = world.refused("not_possible_now", lambda: put(world, document(primary_site="osaka")))
    assert error.current == {"why_not": "applier_stopped"}
    assert error.hint
    world.facts["orders"] = world.facts["orders"].model_copy(update={"b": None})
    world.refused("site_unreachable", lambda: put(world, document(primary_site="osaka")))


def test_a_switchover_while_the_first_copy_runs_is_refused(world: World) -> None:
    """One operation at a time; the refusal names the open one and how to take it back."""
    put(world, document(), BOTH_SEEN)
    error = world.refused("operation_open", lambda: put(world, document(primary_site="osaka")))
    assert "protect" in error.message
    assert "farshore abort orders" in error.hint


def test_a_second_switchover_in_the_other_direction_is_refused_while_one_is_open(world: World) -> None:
    """Changing one's mind is an abort, not a second operation."""
    protected(world)
    put(world, document(primary_site="osaka"))
    world.refused("operation_open", lambda: put(world, document(primary_site="tokyo")))


# ---- before the first decision


def test_a_pair_whose_protection_was_given_up_is_asked_for_again(world: World) -> None:
    """A new PUT of the same document is a new wish: nothing was ever decided for the pair."""
    put(world, document(), BOTH_SEEN)
    world.end("orders", "aborted")
    again = put(world, document(), BOTH_SEEN)
    operation = world.records.operation("orders")
    assert operation is not None
    assert again.operation == operation.value.id
    assert operation.value.generation == again.view.generation == 2


def test_consent_given_later_reaches_the_open_operation(world: World) -> None:
    """The target turned out to hold data: `on_existing_data: overwrite` completes the waiting copy's consent."""
    put(world, document(), BOTH_SEEN)
    put(world, document(on_existing_data="overwrite"), BOTH_SEEN)
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.consent is not None
    assert operation.value.consent.overwrite
    put(world, document(), Look(servers=BOTH_SEEN.servers, empty={"b": True}))
    operation = world.records.operation("orders")
    assert operation is not None
    assert operation.value.consent is not None
    assert not operation.value.consent.overwrite


def test_an_address_may_still_be_corrected_before_anything_was_decided(world: World) -> None:
    """A typing mistake in a new pair is corrected in place; the servers it was bound to are free again."""
    put(world, document(), BOTH_SEEN)
    look = Look(servers={"a": "uuid-a", "b": "uuid-right"}, empty={"b": True})
    corrected = document(site_b=endpoint("osaka", host="right.example"))
    world.refused("identity_change", lambda: put(world, corrected))
    put(world, document(), look)
    servers = world.records.servers("orders")
    assert servers is not None
    assert (servers.value.a, servers.value.b) == ("uuid-a", "uuid-right")
    assert world.store.get(keys.server("uuid-b")) is None
    assert world.records.read(keys.server("uuid-right"), ServerRecord) is not None
