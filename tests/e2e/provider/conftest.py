"""A reconciler without agents, one Pulumi home, and a way to write declarations down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_installed
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.pulumi_build import pulumi_installation
from tests.testbed.reconciler import Reconciler

PROGRAM = Path(__file__).with_name("program")


@pytest.fixture(scope="module")
def reconciler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reconciler]:
    """A reconciler with an empty store. It has no agent: declarations are accepted and wait."""
    with Reconciler(tmp_path_factory.mktemp("reconciler") / "home", arguments=("--no-embedded-agent",)) as running:
        yield running


@pytest.fixture
def engine(tmp_path: Path, reconciler: Reconciler) -> PulumiEngine:
    """A Pulumi home whose programs find the reconciler."""
    require_installed(pulumi_installation)
    return PulumiEngine(tmp_path / "pulumi", environment=reconciler.environment)


@pytest.fixture
def stack(engine: PulumiEngine, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """One stack of the configurable program; whatever it still declares is destroyed with the test."""
    made = engine.stack("dev", template=PROGRAM)
    yield made
    made.destroy()


def endpoint(site: str, port: int = 3306, **more: Any) -> dict[str, Any]:
    """Return one site's endpoint."""
    return {
        "site": site,
        "host": "127.0.0.1",
        "port": port,
        "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
        "replication": {"user": f"farshore_{site}_repl", "password": f"env:{site.upper()}_REPLICATION"},
    } | more


def pair(name: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of one pair."""
    return {"name": name, "site_a": endpoint("tokyo"), "site_b": endpoint("osaka", 3307)} | more


Declare = Callable[..., None]


@pytest.fixture
def declare(stack: Stack) -> Declare:
    """Write down which pairs the program declares; nothing is applied."""

    def write(*pairs: dict[str, Any], **config: str) -> None:
        stack.config_set("pairs", json.dumps(pairs))
        for key, value in config.items():
            stack.config_set(key, value)

    return write
