"""A protocol that is broken on purpose is found out: the explorer and the simulation can fail."""

import pytest

from tests.simulation.broken import MUTANTS, Mutant
from tests.simulation.mutants import hunt


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.quick], ids=lambda each: each.name)
def test_a_broken_rule_is_found(mutant: Mutant) -> None:
    """Each mutation of the product's source is found by the first run that must find it, whatever the chance."""
    found = hunt(mutant)
    assert found.by == mutant.runs[0], found.said
