"""What a program without changes costs the reconciler: one question for all pairs, and one more where it matters."""

from __future__ import annotations

from typing import Any

import pytest

from farshore_schema.errors import Transient
from pulumi_farshore import client, pair

LOGIN = {"user": "u", "password": "env:P"}
INPUTS = {
    "name": "orders",
    "primary_site": "tokyo",
    "site_a": {"site": "tokyo", "host": "a", "admin": LOGIN, "replication": LOGIN | {"user": "r"}},
    "site_b": {"site": "osaka", "host": "b", "admin": LOGIN | {"user": "v"}, "replication": LOGIN | {"user": "s"}},
}
PLAN = {"action": "unchanged", "summary": "nothing to do"}


class Reconciler:
    """Answers from memory and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.active: dict[str, str | None] = {"orders": "tokyo", "invoices": "osaka"}
        self.down = False

    def call(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        self.asked.append(f"{method} {path}")
        if self.down:
            raise Transient("reconciler_unreachable", "nobody answers")
        if path == "/v1/plan":
            return PLAN
        names = sorted(self.active)
        first = not any(each == "GET /v1/roles" for each in self.asked[:-1])
        page = names[:1] if first else names[1:]
        items = [{"name": name, "active_site": self.active[name]} for name in page]
        return {"items": items, "next": names[0] if first else None}


@pytest.fixture
def reconciler(monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    made = Reconciler()
    monkeypatch.setattr(client, "call", made.call)
    monkeypatch.setattr(client, "_roles", (float("-inf"), {}))
    return made


def test_an_unchanged_pair_asks_no_dry_run_and_all_of_them_one_question(reconciler: Reconciler) -> None:
    """The active sites are read once, page by page, for every pair of the program."""
    settled = pair.check({}, INPUTS).inputs
    reconciler.asked.clear()
    for _ in range(3):
        assert pair.check(settled, INPUTS).failures == []
    assert reconciler.asked == ["GET /v1/roles", "GET /v1/roles"]


def test_whatever_a_dry_run_could_say_is_still_asked(reconciler: Reconciler) -> None:
    """A new pair, a changed one, one that is active elsewhere, one without a decision, one that nobody knows."""
    settled = pair.check({}, INPUTS).inputs
    for olds, news, active in (
        ({}, INPUTS, "tokyo"),
        (settled, INPUTS | {"description": "changed"}, "tokyo"),
        (settled, INPUTS, "osaka"),
        (settled, INPUTS, None),
    ):
        reconciler.active["orders"] = active
        client._roles = (float("-inf"), {})
        reconciler.asked.clear()
        pair.check(olds, news)
        assert "POST /v1/plan" in reconciler.asked, (olds, news, active)
    del reconciler.active["orders"]
    client._roles = (float("-inf"), {})
    reconciler.asked.clear()
    pair.check(settled, INPUTS)
    assert reconciler.asked[-1] == "POST /v1/plan"


def test_an_absent_reconciler_is_still_a_warning(reconciler: Reconciler, capsys: pytest.CaptureFixture[str]) -> None:
    """An unchanged pair of a reconciler that is down: preview goes on, and says that nothing was checked."""
    settled = pair.check({}, INPUTS).inputs
    reconciler.down = True
    assert pair.check(settled, INPUTS).failures == []
    assert "not checked against the reconciler" in capsys.readouterr().err
