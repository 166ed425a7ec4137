"""What the loop promises about another server at the active site: bound with its decision, or nothing changed (R3)."""

import pytest

from farshore.store import keys
from farshore.store.records import ServerRecord, ServersRecord, put
from farshore_schema.errors import ErrorBody
from farshore_schema.messages import Command
from farshore_schema.roles import Consent, Role
from farshore_schema.status import OperationView
from tests.unit.loop.world import PAIR, World

REBIND = ["prove a 4", "prove b 4", "promote a 4", "fence b 4", "stream b 4"]
DIVERGED = ErrorBody(code="diverged", message="lacks 3", hint="look", current={"only_here": "x:1-3"})


@pytest.fixture
def world() -> World:
    """A protected pair at whose active site another server answers."""
    made = World()
    made.protect()
    made.agents.change("a", server="server-n")
    made.agents.change("b", receiving=False, stopped="source_replaced")
    made.settle()
    return made


def ask(world: World, *, overwrite: bool = False) -> OperationView:
    """Ask for the rebind, as admission does."""
    consent = Consent("a", "server-n", 4, "ann", overwrite)
    return world.request("rebind", epoch=4, to="a", to_site="tokyo", consent=consent)


def streams(world: World, step: str = "stream") -> None:
    """Let osaka's stream go on with a step, as it does under a consent."""

    def before(command: Command) -> None:
        if command.step == step:
            world.agents.change("b", stopped="")

    world.agents.before_effect = before


def bound(world: World) -> ServersRecord:
    found = world.records.servers(PAIR)
    assert found is not None
    return found.value


def test_a_rebind_is_proved_decided_bound_and_followed(world: World) -> None:
    """Each step once; the old server is free for others, and the pair is protected in a new epoch."""
    streams(world)
    ask(world)
    assert world.settle() == REBIND
    assert world.ended().state == "done"
    assert world.role() == Role("a", 4, "rebound")
    assert (bound(world).a, bound(world).b) == ("server-n", "server-b")
    assert world.store.get(keys.server("server-a")) is None
    claimed = world.records.read(keys.server("server-n"), ServerRecord)
    assert claimed is not None
    assert claimed.value == ServerRecord(pair=PAIR, side="a")
    assert world.status().phase == "protected"
    assert not [each for each in world.status().findings if each.code == "source_replaced"]


def test_orders_carry_the_consent_that_names_the_server(world: World) -> None:
    """An agent changes what it is bound to under nothing else."""
    streams(world)
    resumes, given = world.agents.before_effect, dict[str, Consent | None]()

    def note(command: Command) -> None:
        given[command.step] = command.consent
        resumes(command)

    world.agents.before_effect = note
    ask(world)
    world.settle()
    named = Consent("a", "server-n", 4, "ann")
    assert [given[name] for name in ("prove", "promote", "stream")] == [named] * 3
    assert given["fence"] is None


@pytest.mark.parametrize("visits", range(14))
def test_a_restart_at_any_visit_comes_to_the_same_end(world: World, visits: int) -> None:
    """Whenever the reconciler dies."""
    streams(world)
    ask(world)
    for number in range(visits):
        world.loop.visit(PAIR)
        if number % 2:
            world.answer()
    world.agents.sent.clear()
    world.restart()
    world.settle()
    assert world.role() == Role("a", 4, "rebound")
    assert world.ended().state == "done"
    assert bound(world).a == "server-n"


def test_a_proof_that_fails_ends_it_with_its_evidence_and_nothing_changed(world: World) -> None:
    """The role, its epoch and the binding stay; both histories are in the operation's error."""
    world.agents.fails["prove"] = DIVERGED
    ask(world)
    assert world.settle() == ["prove a 4"]
    ended = world.ended()
    assert ended.state == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.current) == ("diverged", {"only_here": "x:1-3"})
    assert world.role() == Role("a", 2, "initial")
    assert bound(world).a == "server-a"
    assert world.status().phase == "stopped"


def test_a_stream_that_fails_for_good_ends_it_too_and_a_copy_leads_on(world: World) -> None:
    """The new server lost what it had since it was proved: it stays bound, and the standby waits for its reprotect."""
    world.agents.fails["stream"] = DIVERGED
    ask(world)
    world.settle()
    assert world.ended().state == "failed"
    assert bound(world).a == "server-n"
    verbs = {each.verb: each.allowed for each in world.status().allowed_operations}
    assert verbs["reprotect"]
    assert verbs["rebind"]
    assert not verbs["switchover"]


def test_what_may_heal_is_tried_on(world: World) -> None:
    """A gateway that cannot reach the new server yet does not end the rebind."""
    world.agents.fails["prove"] = ErrorBody(code="unreachable", message="no answer", retry_seconds=1.0)
    ask(world)
    world.settle()
    assert world.operation() is not None
    world.agents.fails.clear()
    streams(world)
    world.sleep(60)
    world.settle()
    assert world.ended().state == "done"


def test_an_abort_before_the_decision_leaves_everything_as_it_was(world: World) -> None:
    """Whether or not the proof is under way."""
    operation = ask(world)
    world.visit()
    found = world.records.operation(PAIR)
    assert found is not None
    taken = operation.model_copy(update={"abort": True, "abort_reason": "ann: no"})
    assert world.store.txn([found.unchanged()], [put(found.key, taken)]).ok
    world.settle()
    assert world.ended().state == "aborted"
    assert world.role() == Role("a", 2, "initial")
    assert bound(world).a == "server-a"


def test_a_server_that_became_another_pairs_is_never_bound(world: World) -> None:
    """R1, also when that happened after the request was accepted: the decision and the binding are one transaction."""
    ask(world)
    world.store.txn([], [put(keys.server("server-n"), ServerRecord(pair="invoices", side="a"))])
    assert world.settle() == ["prove a 4", "prove b 4"]
    assert world.role() == Role("a", 2, "initial")
    operation = world.operation()
    assert operation is not None
    assert operation.waiting_for == "server_in_other_pair"


def test_the_old_server_in_its_place_again_resumes_what_it_stopped(world: World) -> None:
    """The pair is bound to it already; its own record in the store is kept."""
    world.agents.change("a", server="server-a")
    streams(world)
    world.request("rebind", epoch=4, to="a", to_site="tokyo", consent=Consent("a", "server-a", 4, "ann"))
    assert world.settle() == REBIND
    assert bound(world).a == "server-a"
    assert world.store.get(keys.server("server-a")) is not None
    assert world.status().phase == "protected"


def test_without_the_standby_the_new_server_is_bound_and_a_copy_waits(world: World) -> None:
    """Only the active side proves, and the standby is not told to follow."""
    ask(world, overwrite=True)
    steps = world.settle()
    assert steps[:2] == ["prove a 4", "promote a 4"]
    assert not any(step.startswith("stream") for step in steps)
    assert world.ended().state == "done"
    assert bound(world).a == "server-n"
    world.request("reprotect", id="op-3", consent=Consent("b", "server-b", 4, "ann", True))
    streams(world, "seed")  # a copy begins a stream of its own
    assert "seed b 4" in world.settle()
    assert world.status().phase == "protected"
