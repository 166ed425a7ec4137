"""The pickled providers stand in users' state for years: these bytes must never change."""

import base64

import dill
import pytest
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider

from pulumi_farshore.dynamic import MySQLPairProvider, SiteProvider

GOLDEN: dict[type[ResourceProvider], str] = {
    SiteProvider: "gASVLwAAAAAAAACMF3B1bHVtaV9mYXJzaG9yZS5keW5hbWljlIwMU2l0ZVByb3ZpZGVylJOUKYGULg==",
    MySQLPairProvider: "gASVNAAAAAAAAACMF3B1bHVtaV9mYXJzaG9yZS5keW5hbWljlIwRTXlTUUxQYWlyUHJvdmlkZXKUk5QpgZQu",
}


@pytest.mark.parametrize("kind", list(GOLDEN))
def test_a_provider_is_pickled_by_reference_and_byte_for_byte_as_ever(kind: type[ResourceProvider]) -> None:
    """A change here would show every user a difference in every resource, or break their stacks for good."""
    assert serialize_provider(kind()) == GOLDEN[kind]


@pytest.mark.parametrize(("kind", "stored"), list(GOLDEN.items()))
def test_a_provider_of_an_old_state_still_loads(kind: type[ResourceProvider], stored: str) -> None:
    """Refresh, update and destroy of an existing stack use the provider from the state."""
    assert type(dill.loads(base64.b64decode(stored))) is kind


@pytest.mark.parametrize("kind", list(GOLDEN))
def test_a_provider_carries_nothing(kind: type[ResourceProvider]) -> None:
    """Attributes would be pickled into the state, secrets among them."""
    assert vars(kind()) == {}
    assert kind.serialize_as_secret_always is False
