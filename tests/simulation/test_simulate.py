"""Random faults over virtual time never break a promise, and every installation comes to rest when they stop."""

from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.simulate import Script, quiet

SEEDS = 1000
CHUNKS = 10


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Keep the product's log lines out of the way, for these tests only."""
    configured = structlog.get_config()
    quiet()
    yield
    structlog.configure(**configured)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_bad_luck_breaks_a_promise(chunk: int) -> None:
    """I1, I5, I6, I7, I8 and I10 hold after every event of every seed, and each pair comes to rest."""
    size = SEEDS // CHUNKS
    runs = [Script(seed).run() for seed in range(chunk * size, (chunk + 1) * size)]
    wrong = [f"{run.wrong}; python -m tests.simulation.simulate --seed {run.seed} --show" for run in runs if run.wrong]
    assert wrong == []
    assert sum(run.moved for run in runs) > size // 10, "hardly any role changed: these seeds prove nothing"


def test_a_seed_plays_the_same_again() -> None:
    """A seed that fails can be looked at: its second run is its first one, line by line."""
    first, second = list[str](), list[str]()
    Script(7, first.append).run()
    Script(7, second.append).run()
    assert first
    assert first == second
