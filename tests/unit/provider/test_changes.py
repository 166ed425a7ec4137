"""Normalising, validating and comparing declarations, without an engine."""

from typing import Any

import pytest

from farshore_schema.documents import MySQLPair
from pulumi_farshore import changes


def endpoint(site: str, **more: Any) -> dict[str, Any]:
    return {
        "site": site,
        "host": "127.0.0.1",
        "port": 3306.0,  # numbers arrive as floats from the engine
        "admin": {"user": f"farshore_{site}", "password": "env:ADMIN"},
        "replication": {"user": f"farshore_{site}_repl", "password": "env:REPL"},
    } | more


def pair(**more: Any) -> dict[str, Any]:
    return {"name": "orders", "site_a": endpoint("tokyo"), "site_b": endpoint("osaka")} | more


def failures(**more: Any) -> dict[str, str]:
    return {f.field: f.reason for f in changes.check(MySQLPair, pair(**more)).failures}


def test_two_spellings_of_one_declaration_are_the_same() -> None:
    """A default written out and a default left out are one declaration, so a second `up` shows nothing."""
    short = changes.check(MySQLPair, pair()).inputs
    long = changes.check(MySQLPair, pair(mode="async", on_gap="stop", drain_timeout="30s", seed_workers=2.0)).inputs
    assert short == long
    assert changes.changed_fields(short, long) == ()


def test_computed_hidden_and_provider_only_properties_are_not_the_declaration() -> None:
    """Roles, owner and waiting options never make a difference to what is declared."""
    olds = pair(
        active_site="tokyo", role_epoch=2, incarnation=1, owner={"stack": "dev"}, wait_for="seeded", __provider="x"
    )
    news = pair(active_site="osaka", role_epoch=4, owner={"stack": "prod"})
    assert changes.changed_fields(olds, news) == ()


def test_one_changed_word_is_one_changed_field() -> None:
    """What the diff names is what the user changed."""
    assert changes.changed_fields(pair(primary_site="tokyo"), pair(primary_site="osaka")) == ("primary_site",)


@pytest.mark.parametrize(
    ("more", "field", "part"),
    [
        ({"drain_timeout": "30 seconds"}, "drain_timeout", "for example"),
        ({"drain_timeout": "2h"}, "drain_timeout", "between"),
        ({"primary_site": "kyoto"}, "", "neither"),
        ({"nonsense": 1}, "nonsense", "not a field"),
        ({"version": "farshore/v9"}, "version", "farshore/v1"),
        ({"site_b": endpoint("tokyo")}, "", "two sites"),
        ({"seed_workers": 0}, "seed_workers", "greater than or equal to 1"),
        ({"name": "Orders!"}, "name", "pattern"),
    ],
)
def test_every_wrong_input_names_its_field(more: dict[str, Any], field: str, part: str) -> None:
    """A preview points at the property, in words."""
    found = failures(**more)
    assert field in found
    assert part in found[field]


def test_a_secret_in_place_of_a_reference_is_refused_without_repeating_it() -> None:
    """Whoever writes the password itself is told so, and the password is not printed back."""
    wrong = endpoint("tokyo", admin={"user": "farshore_tokyo", "password": "hunter2"})
    found = failures(site_a=wrong)
    assert "site_a.admin.password" in found
    assert "hunter2" not in str(found)
    assert "env:NAME" in found["site_a.admin.password"]


def test_what_is_not_known_yet_is_not_judged() -> None:
    """A host that another resource will make passes the preview; a mistake beside it does not."""
    checked = changes.check(MySQLPair, pair(site_a=endpoint("tokyo", host=changes.UNKNOWN, port=changes.UNKNOWN)))
    assert checked.failures == ()
    assert checked.document is None
    assert not checked.complete
    beside = changes.check(MySQLPair, pair(site_a=endpoint("tokyo", host=changes.UNKNOWN), on_gap="maybe"))
    assert [failure.field for failure in beside.failures] == ["on_gap"]


def test_an_unknown_value_counts_as_changed() -> None:
    """A preview must not promise `unchanged` about what it cannot know."""
    assert changes.changed_fields(pair(), pair(site_a=endpoint("tokyo", host=changes.UNKNOWN))) == ("site_a",)
