"""All worlds and all mutations, side by side on every core: `make explore`. Prints a line each, and keeps a page."""

import os
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.broken import MUTANTS, Mutant
from tests.simulation.explore import Exploration, Verdict
from tests.simulation.mutants import Found, hunt
from tests.simulation.world import Options
from tests.simulation.worlds import FULL, arguments, command_line


def run_all(page: Path | None) -> int:
    """Explore every world, hunt every mutation; write a page where one is named; return 1 when anything is wrong."""
    lines, wrong = [], 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for options, verdict in zip(FULL, pool.map(_explored, FULL), strict=True):
            world, took = " ".join(arguments(options)), f"{verdict.seconds:.0f} s"
            lines.append(f"| `{world}` | {verdict.states:,} | {took} | {verdict.wrong or 'safe and live'} |")
            print(lines[-1], flush=True)
            wrong += bool(verdict.wrong)
            for label in verdict.path:
                print("   ", label)
            if verdict.choices:
                print(f"    replay: {command_line(options, verdict.choices)}")
        hunted = []
        for found in pool.map(_hunted, MUTANTS):
            hunted.append(found.row)
            print(found.row, flush=True)
            wrong += not found.by
    if page is not None:
        page.write_text("\n".join(_page(lines, hunted)) + "\n")
    return 1 if wrong else 0


def _explored(options: Options) -> Verdict:
    return Exploration(options).run()


def _hunted(mutant: Mutant) -> Found:
    return hunt(mutant)


def _page(worlds: list[str], hunted: list[str]) -> Iterator[str]:
    yield "# The last full exploration"
    yield ""
    machine = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
    yield f"{datetime.now(UTC):%Y-%m-%d}, {machine};"
    yield "made by `make explore ARGS=--results=docs/results/explore.md`."
    yield ""
    yield "| world: TRX FAULTS MESSAGES OPERATIONS EMERGENCIES | states | time | verdict |"
    yield "| --- | --- | --- | --- |"
    yield from worlds
    yield ""
    yield "| mutation | found by | how |"
    yield "| --- | --- | --- |"
    yield from hunted
