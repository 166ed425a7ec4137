"""The promises of the test bed's Pulumi: the real engine, isolated, with outcomes a test can judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import require_installed
from tests.testbed.places import TestBedError
from tests.testbed.processes import survivors
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.pulumi_build import PulumiInstallation, pulumi_installation
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.pulumi

PROGRAM = """
import pathlib
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider, UpdateResult

class Provider(ResourceProvider):
    def create(self, props):
        import pathlib, time
        if props["greeting"] == "wait":
            pathlib.Path("creating").touch()
            time.sleep(600)
        return CreateResult(id_="one", outs=dict(props))
    def update(self, _id, _olds, news):
        return UpdateResult(outs=dict(news))

class Greeting(Resource):
    greeting: pulumi.Output[str]
    def __init__(self, name, greeting):
        super().__init__(Provider(), name, {"greeting": greeting})

config = pulumi.Config()
pulumi.export("greeting", Greeting("one", config.require("greeting")).greeting)
if config.get_secret("key") is not None:
    pulumi.export("key", config.get_secret("key"))
"""


@pytest.fixture(scope="module")
def installation() -> PulumiInstallation:
    return require_installed(pulumi_installation)


@pytest.fixture
def stack(tmp_path: Path, installation: PulumiInstallation) -> Stack:
    template = tmp_path / "greeting"
    template.mkdir()
    (template / "Pulumi.yaml").write_text("name: greeting\nruntime: python\n")
    (template / "__main__.py").write_text(PROGRAM)
    return PulumiEngine(tmp_path / "pulumi", installation=installation).stack("dev", template=template)


def test_a_program_goes_up_changes_and_goes_down_on_the_real_engine(stack: Stack) -> None:
    """Create, unchanged, preview of a change, change, refresh and destroy answer as Pulumi does."""
    stack.config_set("greeting", "hello")
    assert "+ 2 created" in stack.up().ok().stdout
    assert stack.outputs() == {"greeting": "hello"}
    assert "2 unchanged" in stack.up().ok().stdout
    stack.config_set("greeting", "good day")
    assert "to update" in stack.preview("--diff").ok().stdout
    assert stack.outputs() == {"greeting": "hello"}
    stack.up().ok()
    stack.refresh().ok()
    assert stack.outputs() == {"greeting": "good day"}
    assert [each["type"] for each in stack.resources()] == ["pulumi-python:dynamic:Resource"]
    stack.destroy().ok()
    assert stack.resources() == []


def test_a_secret_is_given_past_argv_and_stored_encrypted(stack: Stack) -> None:
    """A secret of the configuration is in no file and no exported state in the clear."""
    stack.config_set("greeting", "hello")
    stack.config_set("key", "sesame-4711", secret=True)
    stack.up().ok()
    assert "sesame" not in str(stack.export())
    assert "sesame-4711" in str(stack.export("--show-secrets"))
    written = [path for path in stack.engine.directory.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    assert written == []


def test_a_failing_program_is_an_outcome_and_ok_shows_what_it_printed(stack: Stack) -> None:
    """A command that fails gives its exit code; `ok` raises with its words."""
    outcome = stack.up()
    assert outcome.exit_code != 0
    with pytest.raises(AssertionError, match="Missing required configuration variable 'greeting:greeting'"):
        outcome.ok()


def test_a_killed_up_leaves_a_pending_create_that_can_be_repeated(stack: Stack) -> None:
    """Killing the engine in the middle of a create ends its plugins too, and the next command works."""
    stack.config_set("greeting", "wait")
    running = stack.start("up", "--yes", "--skip-preview")
    wait_until((stack.directory / "creating").exists, "the create has begun")
    running.kill()
    assert running.wait().exit_code == -9
    assert [each for each in survivors() if "pulumi" in each[1]] == []
    assert [each["type"] for each in stack.export()["deployment"]["pending_operations"]] == ["creating"]
    stack.config_set("greeting", "hello")
    stack.run("cancel", "--yes", "dev").ok()
    assert stack.up().ok().exit_code == 0


def test_the_engine_can_be_left_out_on_a_laptop_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """FARSHORE_TESTBED_PULUMI=skip makes it unavailable, with the reason; with CI=true it does not."""
    monkeypatch.setenv("FARSHORE_TESTBED_PULUMI", "skip")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(TestBedError, match="FARSHORE_TESTBED_PULUMI"):
        pulumi_installation()
    monkeypatch.setenv("CI", "true")
    assert pulumi_installation().version.startswith("v3.")
