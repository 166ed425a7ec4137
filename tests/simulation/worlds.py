"""The small worlds that are explored: the quick ones in `make test`, all of them in `make explore`.

An exploration's size grows by about fifty with every fault, by about five with everything else.
"""

from collections.abc import Sequence
from typing import Final

from tests.simulation.world import Options

_SHAPES: Final = tuple(Options(sync=sync, one_agent=one) for one in (False, True) for sync in (False, True))
_NEW: Final = Options(new_pair=True)
_REBINDS: Final = Options(rebinds=True)

QUICK: Final[tuple[Options, ...]] = (
    *(shape._replace(trx=0, faults=0, messages=2, operations=2) for shape in _SHAPES[::3]),
    *(shape._replace(trx=1, faults=0, messages=2, operations=1) for shape in _SHAPES),
    *(shape._replace(trx=0, faults=1, messages=1, operations=1) for shape in _SHAPES[::2]),
    *(shape._replace(trx=0, faults=0, messages=2, operations=1, emergencies=1) for shape in _SHAPES[:2]),
    _NEW._replace(trx=1, messages=1, operations=1),
    _NEW._replace(faults=1, messages=1, operations=0),
    _REBINDS._replace(trx=1, messages=2, operations=1),
)

FULL: Final[tuple[Options, ...]] = (
    *QUICK,
    *(shape._replace(trx=0, faults=0, messages=2, operations=2) for shape in _SHAPES[1:3]),
    *(shape._replace(trx=0, faults=1, messages=2, operations=1) for shape in _SHAPES),
    *(shape._replace(trx=1, faults=1, messages=1, operations=1) for shape in _SHAPES),
    *(shape._replace(trx=0, faults=1, messages=2, operations=0, emergencies=2) for shape in _SHAPES),
    *(shape._replace(trx=0, faults=1, messages=1, operations=1, emergencies=1) for shape in _SHAPES[:1]),
    _REBINDS._replace(messages=2, operations=2),
    _REBINDS._replace(faults=1, messages=1, operations=1),
    _REBINDS._replace(messages=2, operations=1, emergencies=1),
    _NEW._replace(trx=1, messages=2, operations=1),
    _NEW._replace(faults=1, messages=2, operations=0),
    _NEW._replace(trx=1, faults=1, messages=1, operations=0),
    _NEW._replace(faults=2, messages=1, operations=0, one_agent=True),
)


def arguments(options: Options) -> list[str]:
    """Return the command line that explores a world."""
    numbers = [options.trx, options.faults, options.messages, options.operations, options.emergencies]
    flags = {"--sync": options.sync, "--one-agent": options.one_agent, "--new-pair": options.new_pair}
    flags["--rebinds"] = options.rebinds
    return [*map(str, numbers), *(flag for flag, on in flags.items() if on)]


def command_line(options: Options, choices: Sequence[int]) -> str:
    """Return the command that walks a path of a world again."""
    words = " ".join(arguments(options))
    return f'python -m tests.simulation.explore {words} --replay "{" ".join(map(str, choices))}"'
