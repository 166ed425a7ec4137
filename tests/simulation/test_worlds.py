"""Every interleaving of the quick small worlds is safe and live, with one agent and with two."""

import pytest

from tests.simulation.explore import Exploration
from tests.simulation.world import Options
from tests.simulation.worlds import QUICK, arguments


@pytest.mark.parametrize("options", QUICK, ids=lambda each: "_".join(arguments(each)))
def test_no_interleaving_breaks_a_promise(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sides never commit, nothing acknowledged is lost, and every pair ends once the faults stop."""
    verdict = Exploration(options).run()
    with capsys.disabled():
        print(f"\n  {' '.join(arguments(options))}: {verdict.shown}", end="")
    assert verdict.wrong == "", "\n".join((verdict.wrong, *verdict.path, f"replay: {verdict.choices}"))


def test_a_path_that_was_found_is_walked_again_by_its_numbers() -> None:
    """The numbers of a path lead through the same moves, so that a finding can be looked at."""
    exploration = Exploration(Options(operations=1))
    moves = list(exploration.follow([1, 0, 0, 0]))
    again = list(Exploration(Options(operations=1)).follow([1, 0, 0, 0]))
    assert [move.label for move in moves] == [move.label for move in again]
    assert moves[-1].world == again[-1].world
