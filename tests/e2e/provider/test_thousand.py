"""A thousand pairs in one stack under the real Pulumi engine, on a reconciler of its own: they are never destroyed."""

from __future__ import annotations

import json

import pytest

from tests.e2e.provider.conftest import Declare, endpoint, pair
from tests.testbed.pulumi import Stack
from tests.testbed.reconciler import Reconciler

pytestmark = [pytest.mark.pulumi, pytest.mark.timeout(1200)]


def test_a_thousand_pairs_in_one_stack(stack: Stack, declare: Declare, reconciler: Reconciler) -> None:
    """They are all declared, and the next preview has nothing to do."""
    count = 1000
    many = [
        pair(f"p{n:04}", site_a=endpoint("tokyo", 10000 + n), site_b=endpoint("osaka", 20000 + n)) for n in range(count)
    ]
    (stack.directory / "many.json").write_text(json.dumps(many))
    declare(pairs_file=str(stack.directory / "many.json"))
    stack.up(seconds=900).ok()
    assert reconciler.api("GET", "/v1/pairs/p0000").is_success
    assert reconciler.api("GET", f"/v1/pairs/p{count - 1:04}").is_success
    counted = json.loads(stack.preview("--json", seconds=600).ok().stdout)["changeSummary"]
    assert counted == {"same": count + 3}
    # The stack is thrown away with its reconciler: destroying a thousand resources would only test the engine.
    state = stack.export()
    state["deployment"]["resources"] = []
    stack.run("stack", "import", "--force", stack=True, stdin=json.dumps(state)).ok()
