"""Drive the product's plan and admission through every interleaving of small worlds, breadth first (R25).

Safety is judged in every state. From every state the faults are stopped, and the pair must then end with exactly one
writable side and no open operation, unless it waits for a person by a named reason. A path that fails is printed move
by move and can be replayed::

    python -m tests.simulation.explore                        all worlds and all mutations (`make explore`)
    python -m tests.simulation.explore 1 0 2 1                TRX FAULTS MESSAGES OPERATIONS [EMERGENCIES]
    python -m tests.simulation.explore 1 0 2 1 --sync --one-agent --replay "3 0 1"
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from farshore_schema.roles import Side
from tests.simulation.moves import Move, Nature
from tests.simulation.oracle import unfinished, unsafe
from tests.simulation.world import Options, Site, Tables, World, start
from tests.simulation.worlds import command_line

STATES_MAX = 6_000_000  # about 4 GB; a world that needs more is not small
SETTLE_MOVES_MAX = 400
URGENCY = ("report", "store", "journal", "apply", "full copy", "delayed", "deliver", "nobody", "send")


class Verdict(NamedTuple):
    """What an exploration found."""

    states: int
    settled: int  # distinct states on the ways to the end
    seconds: float
    wrong: str  # "" : safe and live
    path: tuple[str, ...]  # labels of the moves that lead there
    choices: tuple[int, ...]  # the same as numbers, for --replay

    @property
    def shown(self) -> str:
        """The verdict in one line."""
        counted = f"{self.states} states, {self.settled} ways to the end, {self.seconds:.0f} s"
        return f"{counted}: {self.wrong or 'SAFE and LIVE'}"


class Exploration:
    """One small world, explored to its last state."""

    def __init__(self, options: Options, *, states_max: int = STATES_MAX, live_every: int = 1) -> None:
        self.options, self.states_max, self.live_every = options, states_max, live_every
        self.tables = Tables()
        self.nature = Nature(options, self.tables)
        self.ends_well: set[World] = set()
        self.judged: dict[tuple[int, int, int, int, bool], str] = {}

    def run(self) -> Verdict:
        """Explore until every state was seen or a promise is broken."""
        gc.disable()  # nothing here is a cycle, and there are millions of tuples
        try:
            return self._run()
        finally:
            gc.enable()

    def _run(self) -> Verdict:
        began = time.monotonic()
        first = start(self.options, self.tables)
        order, number = [first], {first: 0}
        parent, chosen = array("q", [-1]), array("q", [-1])
        at, wrong = 0, self.judge(first) or self.ends_badly(first)
        while not wrong and at < len(order):
            for choice, move in enumerate(self.nature.moves(order[at])):
                if move.world in number:
                    continue
                number[move.world] = len(order)
                order.append(move.world)
                parent.append(at)
                chosen.append(choice)
                wrong = move.wrong or self.judge(move.world)
                if not wrong and len(order) % self.live_every == 0:
                    wrong = self.ends_badly(move.world)
                if wrong:
                    break
            at += 1
            if len(order) > self.states_max:
                wrong = f"LIMIT of {self.states_max} states"
        choices = _way(parent, chosen, len(order) - 1) if wrong else ()
        path = tuple(move.label for move in self.follow(choices))
        return Verdict(len(order), len(self.ends_well), time.monotonic() - began, wrong, path, choices)

    def follow(self, choices: Sequence[int]) -> Iterator[Move]:
        """Yield the moves of a recorded path from the start."""
        w = start(self.options, self.tables)
        for choice in choices:
            move = list(self.nature.moves(w))[choice]
            yield move
            w = move.world

    def judge(self, w: World) -> str:
        """Return the broken promise of one state."""
        key = (w.a, w.b, w.role, w.told, w.lossy)
        if key not in self.judged:
            role = self.tables.roles[w.role]
            self.judged[key] = unsafe(self.sites(w), role, sync=self.options.sync, told=w.told, lossy=w.lossy)
        return self.judged[key]

    def ends_badly(self, w: World) -> str:
        """Stop faults and people, let the most urgent move happen until none is left, and judge the end."""
        w, way = self.nature.mended(w), []
        for _ in range(SETTLE_MOVES_MAX):
            if w in self.ends_well:
                break
            way.append(w)
            wrong = self.judge(w)
            if wrong:
                return f"{wrong}, after the faults stopped"
            move = self.most_urgent(w)
            wrong = self.end(w) if move is None else move.wrong
            if wrong:
                return wrong
            if move is None:
                break
            w = move.world
        else:
            return "does not settle"
        self.ends_well.update(way)
        return ""

    def most_urgent(self, w: World) -> Move | None:
        """Return the next move of a world without faults; a time limit runs out only when nothing else moves."""
        best, rank = None, len(URGENCY) + 1
        for move in self.nature.moves(w, faults=False, people=False):
            mine = next((k for k, word in enumerate(URGENCY) if move.label.startswith(word)), len(URGENCY))
            if mine < rank and move.world != w:
                best, rank = move, mine
        return best

    def end(self, w: World) -> str:
        """Judge a world in which nothing moves any more."""
        seen = (w.seen_a, w.seen_b) if w.token == 1 else (w.new_a, w.new_b)
        step = self.nature.step(w.role, w.op, *seen)
        return unfinished(self.sites(w), self.tables.roles[w.role], self.tables.ops[w.op], step)

    def sites(self, w: World) -> dict[Side, Site]:
        """Return both sides of a state."""
        return {"a": self.tables.sites.some(w.a), "b": self.tables.sites.some(w.b)}


def _way(parent: array[int], chosen: array[int], at: int) -> tuple[int, ...]:
    back = []
    while parent[at] >= 0:
        back.append(chosen[at])
        at = parent[at]
    return tuple(reversed(back))


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore what the command line says; exit 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "budgets", nargs="*", type=int, metavar="N", help="TRX FAULTS MESSAGES OPERATIONS [EMERGENCIES]"
    )
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--one-agent", action="store_true")
    parser.add_argument("--new-pair", action="store_true")
    parser.add_argument("--rebinds", action="store_true")
    parser.add_argument("--states-max", type=int, default=STATES_MAX)
    parser.add_argument("--live-every", type=int, default=1, help="judge the end from every N-th state only")
    parser.add_argument("--replay", default="", help="numbers of a printed path: show its moves and states")
    parser.add_argument("--results", type=Path, help="with no numbers: the page to write")
    asked = parser.parse_args(arguments)
    if not asked.budgets:
        from tests.simulation.campaign import run_all  # it stands on this module

        return run_all(asked.results)
    names = ("trx", "faults", "messages", "operations", "emergencies")
    options = Options(**dict(zip(names, asked.budgets, strict=False)))
    options = options._replace(sync=asked.sync, one_agent=asked.one_agent, new_pair=asked.new_pair)
    options = options._replace(rebinds=asked.rebinds)
    exploration = Exploration(options, states_max=asked.states_max, live_every=asked.live_every)
    if asked.replay:
        return _replay(exploration, [int(each) for each in asked.replay.split()])
    verdict = exploration.run()
    print(options, verdict.shown, flush=True)
    for label in verdict.path:
        print("   ", label)
    if verdict.choices:
        print("    replay:", command_line(options, verdict.choices))
    return 1 if verdict.wrong else 0


def _replay(exploration: Exploration, choices: Sequence[int]) -> int:
    for move in exploration.follow(choices):
        print(move.label, move.wrong)
        for site in exploration.sites(move.world).values():
            print("   ", site)
        print("   ", exploration.tables.roles[move.world.role], exploration.tables.ops[move.world.op])
    return 0


if __name__ == "__main__":
    sys.exit(main())
