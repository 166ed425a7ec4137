"""Break the role-change protocol on purpose, one rule at a time: each break must be found, and without luck.

A mutation is a few replaced passages in a copy of the product's own source; where two guards overlap, both are broken.
The copy is then explored (or simulated) by the very same tests::

    python -m tests.simulation.mutants            all, as a table
    python -m tests.simulation.mutants NAME...    only those whose name contains one of the words
    python -m tests.simulation.mutants --page docs/testing.md
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.simulation.broken import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("schema/farshore_schema", "reconciler/farshore", "agent/farshore_agent", "tests/simulation")
RUN_SECONDS_MAX: Final = 600.0
BEGIN: Final = "<!-- mutations: begin"
END: Final = "<!-- mutations: end"
HEAD: Final = ("| what is broken | found by | how |", "| --- | --- | --- |")


class Found(NamedTuple):
    """What became of one mutation."""

    mutant: Mutant
    by: str  # the run that found it, "" when none did
    said: str

    @property
    def row(self) -> str:
        """One line of the table in docs/testing.md."""
        marked = "" if self.mutant.quick else " (`make explore` only)"
        found = f"`{self.by}`" if self.by else "**MISSED**"
        return f"| {self.mutant.name}{marked} | {found} | {self.said} |"


def hunt(mutant: Mutant) -> Found:
    """Apply a mutation to a fresh copy and run its worlds until one finds it."""
    with tempfile.TemporaryDirectory(prefix="farshore-mutant-") as name:
        copy = Path(name)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "tests" / "__init__.py").touch()
        for edit in mutant.edits:
            _apply(copy / edit.file, edit.old, edit.new)
        for run in mutant.runs:
            said = _run(copy, run)
            if said:
                return Found(mutant, run, said)
    return Found(mutant, "", "every run passed")


def _apply(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if text.count(old) != 1:
        raise ValueError(f"{path.name} holds {text.count(old)} times, not once: {old[:80]!r}")
    path.write_text(text.replace(old, new))


def _run(copy: Path, run: str) -> str:
    """Return what the run says is broken, "" when it finds nothing."""
    module, *arguments = run.split()
    paths = [str(copy), *(str(copy / package.split("/")[0]) for package in PACKAGES[:3])]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.simulation.{module}", *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"{run} did not run: {done.stderr[-2000:]}")
    if done.returncode == 0 or "LIMIT" in done.stdout:
        return ""
    first = next(line for line in done.stdout.splitlines() if line.strip())
    explored = re.search(r"(\d+) states, .*?: (.*)", first)
    said = f"after {int(explored[1]):,} states: {explored[2]}" if explored else first
    return re.sub(r"op-[0-9t]+-[0-9a-f]{4}|: Operation\(.*", "", said).replace("  ", " ").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt every mutation that is asked for; exit 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--page", type=Path, help="a page whose marked part becomes the table")
    asked = parser.parse_args(arguments)
    found = []
    for mutant in MUTANTS:
        if not asked.names or any(word in mutant.name for word in asked.names):
            found.append(hunt(mutant))
            print(found[-1].row, flush=True)
    if asked.page is not None:
        text = asked.page.read_text()
        begin, end = text.index("\n", text.index(BEGIN)) + 1, text.index(END)
        table = "\n".join((*HEAD, *(each.row for each in found), ""))
        asked.page.write_text(text[:begin] + table + text[end:])
    return 0 if all(each.by for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
