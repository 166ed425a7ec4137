"""Random faults over virtual time on the product's own plan, loop, store, operations and agent code.

Every seed is one installation with its own bad luck; the witness judges after every event, and once the faults stop the
pair must come to rest. A seed that fails is repeated by one command::

    python -m tests.simulation.simulate --seeds 1000          (`make simulate SEEDS=1000`)
    python -m tests.simulation.simulate --seed 17 --show
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import structlog

from farshore.admission import abort_operation, delete_pair, put_pair, request_operation
from farshore.plan import REASONS
from farshore_schema.errors import FarshoreError
from farshore_schema.messages import Command
from farshore_schema.roles import SIDES, peer
from farshore_schema.status import OperationRequest, PairPut
from tests.simulation.processes import Died, Reconciler
from tests.simulation.stage import SITES, Stage, document
from tests.simulation.witness import PAIR, Asked

TROUBLE_SECONDS: Final = 45.0
CALM_SECONDS: Final = 40.0  # after which a pair is looked at again and again, for at most:
CALM_SECONDS_MAX: Final = 400.0
FAULTS_MAX: Final = 8
REQUESTS_MAX: Final = 12


class Run(NamedTuple):
    """What became of one seed."""

    seed: int
    wrong: tuple[str, ...]
    events: int
    decisions: int
    operations: int
    moved: int  # times the active side moved


class Script:
    """One seed: what people declare and ask for, what breaks and when."""

    def __init__(self, seed: int, show: Callable[[str], None] = lambda _line: None) -> None:
        self.seed = seed
        self.stage = Stage(seed, show)
        self.random = self.stage.random
        self._primary: str | None = None
        self._overwrite = self.random.random() < 0.7
        self._reseed = self.random.random() < 0.3
        self._sent: list[Command] = []

    def run(self) -> Run:
        """Play the seed to its end."""
        stage = self.stage
        stage.open()
        self._declare_first()
        stage.client()
        begin = stage.clockwork.seconds
        stage.unlucky = self.random.random() < 0.9
        for _ in range(self.random.randrange(FAULTS_MAX + 1)):
            stage.clockwork.after(self.random.uniform(0.5, TROUBLE_SECONDS), self._fault)
        for _ in range(self.random.randrange(1, REQUESTS_MAX + 1)):
            stage.clockwork.after(self.random.uniform(2.0, TROUBLE_SECONDS), self._person)
        stage.clockwork.run(begin + TROUBLE_SECONDS)
        self._mend()
        self._come_to_rest()
        witness = stage.witness
        return Run(
            self.seed,
            tuple(witness.wrong),
            stage.clockwork.events,
            witness.decisions,
            len(witness.asked),
            witness.moved,
        )

    # ---- people

    def _declare_first(self) -> None:
        witness = self.stage.witness
        if self.random.random() < 0.4:
            self._primary = SITES[self.random.choice(SIDES)]
        witness.preferred = next((side for side in SIDES if SITES[side] == self._primary), "a")
        witness.on_gap_reseed = self._reseed
        source, target = (self.stage.world.databases[side] for side in (witness.preferred, peer(witness.preferred)))
        for number in range(self.random.randrange(4)):
            source.write(f"old{number}")
            witness.acknowledged.add(f"old{number}")
        if self.random.random() < 0.3:
            target.write("precious")
        self._put()

    def _put(self) -> None:
        """Declare the pair as it stands in the code; what it causes is remembered as asked for."""
        wanted = document(primary_site=self._primary, overwrite=self._overwrite, reseed=self._reseed)

        def put(process: Reconciler) -> None:
            done = put_pair(process.desk, PAIR, PairPut(document=wanted), by="code")
            if done.operation is not None and self.stage.witness.operation is not None:
                view = self.stage.witness.operation
                self._remember(done.operation, view.verb, consents=self._overwrite)

        self._ask("put", put)

    def _remember(self, operation: str, verb: str, *, consents: bool) -> None:
        view = self.stage.witness.operation
        if view is not None and view.id == operation:
            self.stage.witness.asked.setdefault(operation, Asked(verb, view.to, consents))

    def _ask(self, what: str, act: Callable[[Reconciler], None]) -> bool:
        """Let a person ask a living reconciler; refusals are answers, and a dying one answers nothing."""
        living = self.stage.living()
        if not living:
            return False
        process = self.random.choice(living)
        try:
            act(process)
        except FarshoreError as error:
            self.stage.show(f"{what}: {error.code}: {error.message}")
            return False
        except Died:
            process.kill()
            self._adopt_unheard()
            return False
        self.stage.show(f"{what}: accepted")
        return True

    def _adopt_unheard(self) -> None:
        """A request whose answer was never heard may have been accepted: it counts as asked for."""
        view = self.stage.witness.operation
        if view is not None and view.id not in self.stage.witness.asked and view.by in ("code", "ann"):
            consents = view.verb == "reprotect" or self._overwrite
            self.stage.witness.asked[view.id] = Asked(view.verb, view.to, consents)

    def _person(self) -> None:
        if self.stage.witness.removed:
            return
        choice = self.random.randrange(12)
        if choice < 4:
            self._move_by_code()
        elif choice < 6:
            self._request("switchover")
        elif choice < 8:
            self._request("reprotect")
        elif choice < 10:
            self._abort()
        elif choice == 10:
            self._put()  # the same again: it must not cause anything
        elif self.random.random() < 0.3:
            self._delete()

    def _move_by_code(self) -> None:
        """Change `primary_site` in the code; a refused change is taken back, as a failed `pulumi up` leaves it."""
        if self.stage.witness.role is None:
            return  # the clients of this world cannot move to another server before there is a pair
        before = self._primary
        self._primary = SITES[self.random.choice(SIDES)]
        wanted = document(primary_site=self._primary, overwrite=self._overwrite, reseed=self._reseed)

        def put(process: Reconciler) -> None:
            done = put_pair(process.desk, PAIR, PairPut(document=wanted), by="code")
            if done.operation is not None:
                self._remember(done.operation, "switchover", consents=False)

        if not self._ask(f"primary_site = {self._primary}", put):
            self._primary = before

    def _request(self, verb: str) -> None:
        def ask(process: Reconciler) -> None:
            request = OperationRequest.model_validate({"verb": verb})
            done = request_operation(process.desk, PAIR, request, by="ann")
            self._remember(done.id, verb, consents=True)

        self._ask(verb, ask)

    def _abort(self) -> None:
        view = self.stage.witness.operation
        if view is not None:
            self._ask("abort", lambda process: void(abort_operation(process.desk, PAIR, view.id, by="ann")))

    def _delete(self) -> None:
        def delete(process: Reconciler) -> None:
            done = delete_pair(process.desk, PAIR, by="ann")
            if done.operation is not None:
                self._remember(done.operation, "remove", consents=False)

        self._ask("delete", delete)

    # ---- faults

    def _fault(self) -> None:
        faults = (
            self._kill_agent,
            self._kill_agents_and_restart_a_database,
            self._kill_database,
            self._kill_reconciler,
            self._freeze_reconciler,
            self._part_sites,
            self._cut_agent,
            self._break_applier,
            self._tamper,
            self._stop_with_an_unknown_code,
        )
        fault = self.random.choice(faults)
        self.stage.show(f"fault: {fault.__name__.strip('_')}")
        fault()

    def _later(self, act: Callable[[], None]) -> None:
        self.stage.clockwork.after(self.random.uniform(0.3, 10.0), act)

    def _kill_agent(self) -> None:
        agent = self.random.choice(self.stage.agents)
        agent.kill()
        self._later(agent.start)

    def _kill_agents_and_restart_a_database(self) -> None:
        """What was promised must hold with nobody there to keep it (R13)."""
        for agent in self.stage.agents:
            agent.kill()
            self._later(agent.start)
        database = self.stage.world.databases[self.random.choice(SIDES)]
        database.kill()
        database.restart()

    def _kill_database(self) -> None:
        database = self.stage.world.databases[self.random.choice(SIDES)]
        database.kill()
        self._later(database.restart)

    def _kill_reconciler(self) -> None:
        for process in self.stage.living()[:1]:
            process.kill()
        self._later(self.stage.start_reconciler)

    def _freeze_reconciler(self) -> None:
        """Its successor takes over; then it wakes up and goes on, unaware."""
        living = self.stage.living()
        if living:
            process = self.random.choice(living)
            process.freeze(clock_too=self.random.random() < 0.5)
            self._later(process.thaw)
            self.stage.start_reconciler()

    def _part_sites(self) -> None:
        self.stage.world.linked = False
        self._later(partial(setattr, self.stage.world, "linked", True))

    def _cut_agent(self) -> None:
        agent = self.random.choice(self.stage.agents)
        agent.cut = True
        self._later(partial(setattr, agent, "cut", False))

    def _break_applier(self) -> None:
        stream = self.stage.world.streams[self.random.choice(SIDES)]
        stream.applier_broken = True
        self._later(partial(setattr, stream, "applier_broken", False))

    def _tamper(self) -> None:
        """Somebody opens the fenced side by hand (R13): it must be found and fenced again."""
        role = self.stage.witness.role
        if role is None or self.stage.witness.removed:
            return
        side = peer(role.active)
        database = self.stage.world.databases[side]
        if database.up and database.read_only and self.stage.witness.records[side].fenced_epoch:
            self.stage.witness.tampered.add(side)
            database.set_read_only(False, persist=self.random.random() < 0.5)

    def _stop_with_an_unknown_code(self) -> None:
        """A newer engine stops with a code that nobody knows: it must not pass for a running stream (I8)."""
        stream = self.stage.world.streams[self.random.choice(SIDES)]
        if stream.receiving:
            stream.stopped = "a_code_of_the_future"
            self._later(partial(setattr, stream, "stopped", ""))

    def _mend(self) -> None:
        """End all faults: what is dead starts, what is parted meets."""
        stage = self.stage
        stage.unlucky = False
        stage.world.linked = True
        for side in SIDES:
            if not stage.world.databases[side].up:
                stage.world.databases[side].restart()
            stage.world.streams[side].applier_broken = False
            if stage.world.streams[side].stopped in ("applier_stopped", "a_code_of_the_future"):
                stage.world.streams[side].stopped = ""
        for agent in stage.agents:
            agent.cut = False
            if not agent.alive:
                agent.start()
        if not stage.living():
            stage.start_reconciler()

    # ---- the end

    def _come_to_rest(self) -> None:
        clockwork, wrong = self.stage.clockwork, ""
        end = clockwork.seconds + CALM_SECONDS_MAX
        clockwork.run(clockwork.seconds + 10.0)
        while clockwork.seconds < end:
            wrong = self._unrest()
            if not wrong:
                return
            clockwork.run(clockwork.seconds + CALM_SECONDS / 8)
        self.stage.witness.blame(f"does not come to rest: {wrong}")

    def _unrest(self) -> str:
        """Return what is not as it must be at the end, "" when all is well or somebody must decide."""
        witness, world = self.stage.witness, self.stage.world
        operation, role = witness.operation, witness.role
        if witness.removed and operation is None:
            return ""
        if operation is not None:
            waits = operation.state == "waiting" and operation.waiting_for in (*REASONS, "target_has_data")
            people = operation.verb in ("protect", "reprotect") and waits
            return (
                ""
                if people and not self._consented()
                else f"{operation.verb} is {operation.state}: {operation.waiting_for}"
            )
        if role is None:
            return ""  # the protection was taken back before anything was decided
        active, standby = world.databases[role.active], world.databases[peer(role.active)]
        stream, record = world.streams[peer(role.active)], witness.records[peer(role.active)]
        if not active.writable:
            return f"{role.active} is active and takes no writes"
        if record.base != "complete":
            return ""  # a copy was given up, or never consented to: it needs a person
        if standby.writable or not standby.persisted_read_only or record.fenced_epoch < role.epoch:
            return f"{peer(role.active)} is not fenced for good in epoch {role.epoch}"
        if not stream.stopped and not (stream.receiving and stream.applying):
            return f"{peer(role.active)} does not follow"
        return ""

    def _consented(self) -> bool:
        operation = self.stage.witness.operation
        asked = self.stage.witness.asked.get(operation.id) if operation is not None else None
        return asked is not None and asked.consents


def void(_value: object) -> None:
    """Forget an answer."""


def quiet() -> None:
    """Let the product's log lines go nowhere."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the seeds that are asked for; exit 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--stop", action="store_true", help="at the first seed that fails")
    parser.add_argument("--show", action="store_true", help="print what happens")
    asked = parser.parse_args(arguments)
    quiet()
    seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    began, failed, events, decisions, moved = time.monotonic(), 0, 0, 0, 0
    for seed in seeds:
        run = Script(seed, print if asked.show else lambda _line: None).run()
        events, decisions, moved = events + run.events, decisions + run.decisions, moved + run.moved
        if run.wrong:
            failed += 1
            print(f"seed {seed}: {run.wrong[0]}")
            for line in run.wrong[1:]:
                print("   ", line)
            print(f"    again: python -m tests.simulation.simulate --seed {seed} --show", flush=True)
            if asked.stop:
                break
    taken = time.monotonic() - began
    played = f"{len(seeds)} seeds, {events} events, {decisions} decisions ({moved} moves), {taken:.0f} s"
    print(f"{played}: {failed or 'none'} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
