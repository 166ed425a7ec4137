"""The provider under the real Pulumi engine: what `preview`, `up`, `refresh` and `destroy` do."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pulumi
import pytest
from pulumi import automation

import pulumi_farshore as farshore
from pulumi_farshore.changes import UNKNOWN
from tests.e2e.provider.conftest import PROGRAM, Declare, endpoint, pair
from tests.testbed.pulumi import Outcome, PulumiEngine, Stack
from tests.testbed.reconciler import Reconciler
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.pulumi]


def incarnation(reconciler: Reconciler, name: str) -> int:
    return int(reconciler.api("GET", f"/v1/pairs/{name}").raise_for_status().json()["incarnation"])


def exists(reconciler: Reconciler, name: str) -> bool:
    return reconciler.api("GET", f"/v1/pairs/{name}").status_code == 200


def steps(stack: Stack, *arguments: str) -> Counter[str]:
    """Count the preview's steps by operation, without the stack itself (which is always one that is the same)."""
    plan = json.loads(stack.preview("--json", *arguments).ok().stdout)
    counted = Counter({op: int(count) for op, count in plan["changeSummary"].items()})
    if not stack.resources():
        counted["create"] -= 1
    else:
        counted["same"] -= 1
    return +counted


def diagnostics(outcome: Outcome) -> str:
    """Return what is shown at the end of a command; the progress above it repeats the first line of an error."""
    return outcome.text.partition("Diagnostics:")[2]


def state_text(stack: Stack) -> str:
    """Return the state, decrypted."""
    return json.dumps(stack.export("--show-secrets"))


def test_a_pair_lives_through_up_update_and_destroy(stack: Stack, declare: Declare, reconciler: Reconciler) -> None:
    """Create; a second up is unchanged; refresh is quiet; a harmless field updates in place; destroy twice succeeds."""
    declare(pair("orders"))
    stack.up().ok()
    assert exists(reconciler, "orders")
    assert stack.outputs()["orders"] == "tokyo"

    assert steps(stack) == Counter({"same": 3})
    assert "unchanged" in stack.up().ok().stdout
    assert "unchanged" in stack.refresh("--expect-no-changes").ok().stdout

    declare(pair("orders", description="the shop"))
    assert steps(stack) == Counter({"same": 2, "update": 1})
    stack.up().ok()
    view = reconciler.api("GET", "/v1/pairs/orders").json()
    assert view["document"]["description"] == "the shop"
    assert view["incarnation"] == 1

    stack.destroy().ok()
    assert not exists(reconciler, "orders")
    stack.destroy().ok()


def test_two_stacks_that_name_one_pair_are_told_who_owns_it(
    engine: PulumiEngine, stack: Stack, declare: Declare
) -> None:
    """The second stack is refused in preview already, with the owner's name, and the first keeps its pair."""
    declare(pair("shared"))
    stack.up().ok()
    other = engine.stack("prod", template=PROGRAM)
    other.config_set("pairs", json.dumps([pair("shared")]))
    refused = other.preview()
    assert refused.exit_code != 0
    shown = diagnostics(refused)
    assert shown.count('[owned_elsewhere] pair "shared" is declared by organization/declared/dev') == 1
    assert shown.count("next: change it there, or delete it there first; `farshore describe shared` shows it") == 1
    assert "Traceback" not in refused.text
    assert other.up().exit_code != 0
    assert steps(stack) == Counter({"same": 3})


def test_a_refused_operation_is_shown_as_its_sentence_and_its_hint(
    stack: Stack, declare: Declare, reconciler: Reconciler
) -> None:
    """The engine's last words are ours, once: code, what was seen, the next command. No Python shows through."""
    declare(sites='["kyoto"]')
    stack.up().ok()
    reconciler.declare_site("nara")
    sites = {"site_a": endpoint("kyoto", 3406), "site_b": endpoint("nara", 3407)}
    reconciler.declare({"kind": "MySQLPair", "version": "farshore/v1"} | pair("by-hand", **sites))
    refused = stack.destroy()
    reconciler.answer("DELETE", "/v1/pairs/by-hand")
    assert refused.exit_code != 0
    shown = diagnostics(refused)
    assert shown.count("error: Site kyoto: [site_in_use]") == 1
    assert shown.count("next: delete the pairs first; their data is kept") == 1
    for trace in ("Traceback", "FarshoreProviderError", ".py"):
        assert trace not in refused.text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"drain_timeout": "30 seconds"}, "drain_timeout"),
        ({"primary_site": "kyoto"}, "kyoto"),
        ({"seed_workers": 99}, "seed_workers"),
        ({"site_a": endpoint("nowhere")}, "nowhere"),
        ({"site_a": endpoint("tokyo", admin={"user": "x", "password": "hunter2"})}, "site_a.admin.password"),
    ],
)
def test_invalid_input_fails_the_preview_at_its_property(
    stack: Stack, declare: Declare, wrong: dict[str, Any], field: str, reconciler: Reconciler
) -> None:
    """The preview names the property and says what to write; nothing is made, and no secret is printed."""
    declare()
    stack.up().ok()
    declare(pair("wrong", **wrong))
    refused = stack.preview()
    assert refused.exit_code != 0
    assert field in refused.text
    assert "hunter2" not in refused.text
    assert not exists(reconciler, "wrong")


def test_what_another_resource_will_make_is_not_judged_in_preview(stack: Stack, declare: Declare) -> None:
    """An unknown input previews as a create and is applied when it is known."""
    first = pair("first")
    second = pair("second", site_a=endpoint("tokyo", 3406), site_b=endpoint("osaka", 3407), describe_by="first")
    declare(first, second)
    assert steps(stack) == Counter({"create": 4})
    stack.up().ok()
    resource = next(each for each in stack.resources() if each["urn"].endswith("::second"))
    assert resource["outputs"]["description"] == "after epoch 2"
    assert UNKNOWN not in state_text(stack)


def test_secrets_stay_references_and_nothing_secret_is_in_the_state(
    stack: Stack, declare: Declare, reconciler: Reconciler
) -> None:
    """The exported state has references, and neither the token nor a pickled secret."""
    declare(pair("quiet"))
    stack.config_set("farshore:token", reconciler.token, secret=True)
    stack.up().ok()
    text = json.dumps(stack.export())
    assert "env:TOKYO_ADMIN" in text
    assert reconciler.token not in text
    resource = next(each for each in stack.resources() if each["urn"].endswith("::quiet"))
    assert reconciler.token not in json.dumps(resource)
    # By reference: a module and a class name, not code, and not a secret.
    assert isinstance(resource["inputs"]["__provider"], str)
    assert len(resource["inputs"]["__provider"]) < 100


def test_an_absent_reconciler_is_a_warning_in_preview_and_an_error_in_up(
    stack: Stack, declare: Declare, reconciler: Reconciler
) -> None:
    """Code previews in a disaster; `up` insists and says what to start; the retry adopts."""
    declare(pair("patient"))
    reconciler.stop()
    try:
        preview = stack.preview()
        failed = stack.up()
    finally:
        reconciler.start()
    assert preview.exit_code == 0
    assert "does not answer" in preview.text
    assert failed.exit_code != 0
    assert "farshore serve" in failed.text
    assert "Traceback" not in failed.text
    stack.up().ok()
    assert incarnation(reconciler, "patient") == 1


def test_a_create_that_was_killed_is_adopted_by_the_next_up(
    stack: Stack, declare: Declare, reconciler: Reconciler
) -> None:
    """The engine dies after the reconciler accepted and before the state knew: repeating `up` ends with one pair."""
    declare(pair("killed", wait_for="protected", wait_timeout="5m"))
    running = stack.start("up", "--yes", "--skip-preview")
    wait_until(lambda: exists(reconciler, "killed"), "the pair is accepted")
    running.kill()
    running.wait()
    assert not any(each["urn"].endswith("::killed") for each in stack.resources())

    declare(pair("killed"))
    stack.run("cancel", "--yes", stack=True)  # the killed engine left its lock and its pending operation
    cleaned = stack.export()
    cleaned["deployment"]["pending_operations"] = []
    stack.run("stack", "import", "--force", stack=True, stdin=json.dumps(cleaned)).ok()
    stack.up().ok()
    resource = next(each for each in stack.resources() if each["urn"].endswith("::killed"))
    assert resource["id"] == f"killed/{incarnation(reconciler, 'killed')}"
    assert incarnation(reconciler, "killed") == 2


def test_a_resource_that_moves_to_another_urn_never_loses_protection(
    stack: Stack, declare: Declare, reconciler: Reconciler
) -> None:
    """Without an alias Pulumi creates the new one and deletes the old one: the delete is of an older incarnation."""
    declare(pair("moved"))
    stack.up().ok()
    declare(pair("moved"), grouped="true")
    stack.up().ok()
    assert exists(reconciler, "moved")
    assert incarnation(reconciler, "moved") == 2
    declare(grouped="true")
    stack.up().ok()
    assert not exists(reconciler, "moved")


def test_up_replace_never_loses_protection(stack: Stack, declare: Declare, reconciler: Reconciler) -> None:
    """A forced replacement adopts and then deletes an older incarnation."""
    declare(pair("replaced"))
    stack.up().ok()
    urn = next(each["urn"] for each in stack.resources() if each["urn"].endswith("::replaced"))
    stack.up("--replace", urn).ok()
    assert exists(reconciler, "replaced")
    assert incarnation(reconciler, "replaced") == 2


def test_two_pairs_that_swap_names_both_stay(stack: Stack, declare: Declare, reconciler: Reconciler) -> None:
    """Resources that swap the pairs they declare end with both pairs declared, each as it was."""
    one = pair("north", resource="x")
    two = pair("south", resource="y", site_a=endpoint("tokyo", 3406), site_b=endpoint("osaka", 3407))
    declare(one, two)
    stack.up().ok()
    declare(two | {"resource": "x"}, one | {"resource": "y"})
    stack.up().ok()
    assert exists(reconciler, "north")
    assert exists(reconciler, "south")
    assert incarnation(reconciler, "north") == incarnation(reconciler, "south") == 2
    assert steps(stack) == Counter({"same": 4})


def test_yaml_documents_are_the_same_resources(stack: Stack, declare: Declare, reconciler: Reconciler) -> None:
    """`load` declares a file's sites and pairs."""
    document = {"kind": "MySQLPair", "version": "farshore/v1"} | pair("from-file")
    file = stack.directory / "dr.yaml"
    sites = [{"kind": "Site", "name": name} for name in ("tokyo", "osaka")]
    file.write_text("\n---\n".join(json.dumps(each) for each in [document, *sites]))
    declare(sites="[]", load=str(file))
    stack.up().ok()
    assert exists(reconciler, "from-file")


def test_an_inline_program_of_the_automation_api_declares_as_well(engine: PulumiEngine, reconciler: Reconciler) -> None:
    """The provider is an installed module, so a program without a file of its own works; its end ends protection."""

    def program() -> None:
        farshore.Site("tokyo")
        farshore.Site("osaka")
        made = farshore.MySQLPair("inline", site_a=endpoint("tokyo"), site_b=endpoint("osaka", 3307))  # type: ignore[arg-type]
        pulumi.export("active", made.active_site)

    options = automation.LocalWorkspaceOptions(env_vars=engine.environment, pulumi_home=str(engine.directory / "home"))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in engine.environment.items():
            patched.setenv(name, value)
        stack = automation.create_stack(stack_name="auto", project_name="inline", program=program, opts=options)
        up = stack.up()
        assert up.outputs["active"].value == "tokyo"
        assert exists(reconciler, "inline")
        stack.destroy()
    assert not exists(reconciler, "inline")
