"""Every next state of the small world: the product's plan and admission between clients, operators and faults.

The work is done once per distinct part of a state and remembered: a state is a handful of numbers, and most moves touch
one or two of them.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

from farshore.plan import Policy, plan
from farshore.plan.view import Seen
from farshore_agent.records import side_directory
from farshore_schema.roles import SIDES, Role, Side, Step, peer
from tests.simulation.accidents import Both, accidents, mends, restarted
from tests.simulation.people import changed_minds, requests
from tests.simulation.physics import Outcome, deliver, died, emergency, facts_of, resume
from tests.simulation.world import Belief, Grant, Message, Options, Site, Tables, World, is_spare, may_write

Kind = Literal["work", "time", "fault", "mend", "people"]
ONE_RECORD: Final = len({side_directory(Path("agent"), "pair", side) for side in SIDES}) == 1
"""Whether an agent that serves both sides would keep one record for both: where it keeps them says so (R5)."""
STORE_STEPS: Final = frozenset({"decide", "record_fence", "record_prepared", "abort", "finish"})


class Move(NamedTuple):
    """One next state, how it came about, and what the oracle is told of it."""

    world: World
    kind: Kind
    label: str
    wrong: str = ""  # the move itself broke a promise


class Nature:
    """All moves of one small world."""

    def __init__(self, options: Options, tables: Tables) -> None:
        self.options, self.tables = options, tables
        self.policy = Policy(sync=options.sync)
        self.facts = cache(self._facts)
        self.step = cache(self._step)
        self.outcomes = cache(self._outcomes)
        self.sent = cache(self._sent)
        self.sites_alone = cache(self._sites_alone)
        self.sites_faults = cache(self._sites_faults)
        self.sites_mended = cache(self._sites_mended)
        self.stored = cache(self._stored)
        self.requests = cache(self._requests)
        self.changed_minds = cache(self._changed_minds)

    def moves(self, w: World, *, faults: bool = True, people: bool = True) -> Iterator[Move]:
        """Yield every move; without faults and people only what must bring a pair to its end."""
        yield from self._reports(w)
        yield from self._work_of_sites(w)
        yield from self._reconcilers(w, zombies=faults)
        yield from self._network(w, faults)
        if faults:
            yield from self._faults(w)
        if people:
            yield from self._people(w)
        yield from self._time(w)

    # ---- sites

    def _facts(self, site: int) -> int:
        return self.tables.facts.number(facts_of(self.tables.sites.some(site)))

    def _reports(self, w: World) -> Iterator[Move]:
        """An agent's report arrives; of a dead site or agent it becomes known that nothing is known."""
        fa, fb = self.facts(w.a), self.facts(w.b)
        if w.seen_a != fa:
            yield Move(w._replace(seen_a=fa), "work", "report of a")
        if w.seen_b != fb:
            yield Move(w._replace(seen_b=fb), "work", "report of b")
        if w.token == 2:
            if w.new_a != fa:
                yield Move(w._replace(new_a=fa), "work", "report of a to the new owner")
            if w.new_b != fb:
                yield Move(w._replace(new_b=fb), "work", "report of b to the new owner")

    def _work_of_sites(self, w: World) -> Iterator[Move]:
        for label, a, b, journalled, seeded in self.sites_alone(w.a, w.b):
            told, waiting = w.told | (journalled & w.waiting), w.waiting & ~journalled
            grants = self._used(w.grants, seeded) if seeded else w.grants
            yield Move(w._replace(a=a, b=b, told=told, waiting=waiting, grants=grants), "work", label)
        if w.written < self.options.trx:
            yield from self._clients(w)
        role = self.tables.roles[w.role]
        if role is not None:
            yield from self._reconnected(w, role)

    def _reconnected(self, w: World, role: Role) -> Iterator[Move]:
        """A person lets clients reach a side again, once the store's decision for the other one has its receipt."""
        site, active = self._site(w, peer(role.active)), self._site(w, role.active)
        if not site.isolated or site.lasting or active.record.promoted_epoch > role.epoch:
            return
        if site.record.receipt is not None and site.record.receipt.epoch >= role.epoch:
            yield Move(
                self._put(w, site.side, site._replace(isolated=False)), "people", f"clients reach {site.side} again"
            )

    def _clients(self, w: World) -> Iterator[Move]:
        """A client commits wherever it is let; in sync mode it then waits for the journal of the other side."""
        for side in SIDES:
            site = self._site(w, side)
            if not may_write(site) or is_spare(site):
                continue
            bit = 1 << w.written
            moved = self._put(w, side, site._replace(executed=site.executed | bit))._replace(written=w.written + 1)
            moved = moved._replace(waiting=w.waiting | bit) if self.options.sync else moved._replace(told=w.told | bit)
            yield Move(moved, "work", f"a client commits {w.written} on {side}")

    def _sites_alone(self, a: int, b: int) -> list[tuple[str, int, int, int, str]]:
        """Return what journals, appliers and running copies do: (label, a, b, journalled transactions, operation)."""
        out: list[tuple[str, int, int, int, str]] = []
        both = {"a": self.tables.sites.some(a), "b": self.tables.sites.some(b)}

        def add(label: str, site: Site, journalled: int = 0, seeded: str = "") -> None:
            number = self.tables.sites.number(site)
            pair = (number, b) if site.side == "a" else (a, number)
            out.append((f"{label} at {site.side}", *pair, journalled, seeded))

        for site, other in ((both["a"], both["b"]), (both["b"], both["a"])):
            if site.receiving and site.alive and other.alive and other.up:
                missing = other.executed & ~(site.received | site.executed)
                first = missing & -missing
                if missing:
                    add("journal", site._replace(received=site.received | first, zero=missing == first), first)
            todo = site.received & ~site.executed
            if todo and site.up and site.alive and not site.writable and not site.stopped:
                add("apply", site._replace(executed=site.executed | (todo & -todo)))
            outcome = resume(site, other)
            if outcome is not None and site.pending is not None:
                add(outcome.label, outcome.site, 0, site.pending.operation if outcome.seeded else "")
        return out

    # ---- reconcilers

    def _step(self, role: int, op: int, seen_a: int, seen_b: int) -> Step:
        seen: Seen = {"a": self.tables.facts[seen_a], "b": self.tables.facts[seen_b]}
        return plan(self.tables.roles[role], self.tables.ops[op], seen, self.policy)

    def _reconcilers(self, w: World, zombies: bool) -> Iterator[Move]:
        if w.token == 2 and zombies and w.zombie:
            belief = self.tables.beliefs.some(w.zombie)
            role, op = self.tables.roles.number(belief.role), self.tables.ops.number(belief.op)
            step = self.step(role, op, w.seen_a, w.seen_b)
            if step.name not in STORE_STEPS:  # the store refuses a transaction of an older token
                yield from self._send(w, 1, step, op)
        seen = (w.seen_a, w.seen_b) if w.token == 1 else (w.new_a, w.new_b)
        step = self.step(w.role, w.op, *seen)
        if step.name in STORE_STEPS:
            role, op = self.stored(step, w.role, w.op)
            lossy = w.lossy or (step.role is not None and self._may_lose(step.role, seen))
            ended = self.tables.ops[w.op] if step.name == "finish" else None
            grants = self._used(w.grants, ended.id) if ended is not None else w.grants
            moved = w._replace(role=role, op=op, lossy=lossy, grants=grants)
            yield Move(moved, "work", f"store: {shown(step)}")
        else:
            yield from self._send(w, w.token, step, w.op)

    def _stored(self, step: Step, role: int, op: int) -> tuple[int, int]:
        """Return role and operation after a guarded transaction of the owner."""
        tables = self.tables
        if step.name == "decide":
            return tables.roles.number(step.role), op
        present = tables.ops.some(op)
        if step.name == "finish":
            ended = present.verb == "remove" and step.outcome == "done"  # the pair is forgotten, and its role with it
            return 0 if ended else role, 0
        if step.name == "record_fence":
            return role, tables.ops.number(present._replace(receipt=step.receipt))
        if step.name == "record_prepared":
            return role, tables.ops.number(present._replace(prepared=True))
        return role, tables.ops.number(present._replace(abort=True))

    def _may_lose(self, role: Role, seen: tuple[int, int]) -> bool:
        """Return whether a decision may miss acknowledged transactions: never while the old side was seen to answer."""
        if self.options.sync or role.evidence not in ("receipt", "acks_stopped", "attested", "emergency"):
            return False
        old = self.tables.facts[seen[1] if role.active == "a" else seen[0]]
        return old is None or old.db != "up" or role.evidence == "emergency"

    def _send(self, w: World, token: int, step: Step, op: int) -> Iterator[Move]:
        if step.name == "wait":
            return
        net = self.sent(w.net, token, step, op)
        if net != w.net:
            yield Move(w._replace(net=net), "work", f"send {shown(step)} with token {token}")

    def _sent(self, net: int, token: int, step: Step, op: int) -> int:
        """Return the network with one more command, the same one when it is full or holds this command already."""
        operation = self.tables.ops[op]
        named = operation.id if operation is not None and step.name in ("seed", "stream", "prove") else ""
        number = self.tables.messages.number(Message(token, step, named))
        under_way = self.tables.nets.some(net)
        if number in under_way or len(under_way) >= self.options.messages:
            return net
        return self.tables.nets.number(tuple(sorted((*under_way, number))))

    # ---- network

    def _outcomes(self, site: int, other: int, message: int) -> list[tuple[Outcome, int]]:
        tables = self.tables
        ways = deliver(tables.sites.some(site), tables.sites.some(other), tables.messages.some(message))
        return [(way, tables.sites.number(way.site)) for way in ways]

    def _network(self, w: World, faults: bool) -> Iterator[Move]:
        under_way = self.tables.nets.some(w.net)
        for number in under_way:
            message = self.tables.messages.some(number)
            side = message.step.side
            assert side is not None
            rest = self.tables.nets.number(tuple(each for each in under_way if each != number))
            site, reachable = self._site(w, side), False
            if site.alive and site.agent:
                reachable = True
                yield from self._deliver(w, side, number, rest, faults)
            if not reachable:
                yield Move(w._replace(net=rest), "work", f"nobody there for {shown(message.step)}")
            elif faults and w.faults:
                yield Move(w._replace(net=rest, faults=w.faults - 1), "fault", f"lose {shown(message.step)}")

    def _deliver(self, w: World, side: Side, number: int, rest: int, faults: bool) -> Iterator[Move]:
        here, there = (w.a, w.b) if side == "a" else (w.b, w.a)
        message = self.tables.messages.some(number)
        for outcome, site in self.outcomes(here, there, number):
            if outcome.fault and not (faults and w.faults):
                continue
            left = w.faults - outcome.fault
            label = f"deliver {shown(message.step)} {outcome.label}".rstrip()
            wrong = self._wrong(w, here, site, message, outcome)
            moved = (
                w._replace(net=rest, faults=left, a=site) if side == "a" else w._replace(net=rest, faults=left, b=site)
            )
            if self.options.one_agent:
                moved = self._shared(moved, side, outcome.site)
            yield Move(moved, "fault" if outcome.fault else "work", label, wrong)
            if faults and w.faults and not outcome.fault:
                again = moved._replace(net=w.net, faults=w.faults - 1)
                yield Move(again, "fault", f"{label}, to be delivered again", wrong)

    def _shared(self, w: World, side: Side, site: Site) -> World:
        """Return the world with what the sides share where one process serves both: its life, and nothing else (R5)."""
        other = self._site(w, peer(side))
        if ONE_RECORD:
            other = other._replace(record=site.record)
        return self._put(w, peer(side), other if site.agent else died(other))

    def _wrong(self, w: World, before: int, after: int, message: Message, outcome: Outcome) -> str:
        """Return the promise that obeying this command broke, judged by the oracle's own memory."""
        old, new = self.tables.sites.some(before).record, self.tables.sites.some(after).record
        if new.token < old.token or new.epoch < old.epoch:
            return "I6: the durable token or epoch went back"
        if outcome.seeds:
            return self._wrong_seed(w, message)
        return ""

    def _wrong_seed(self, w: World, message: Message) -> str:
        side, consent = message.step.side, message.step.consent
        role = self.tables.roles[w.role]
        if role is None or side is None or role.active == side:
            return "I5: the active side was overwritten"
        for grant in self.tables.grants[w.grants] or ():
            if grant.operation == message.operation and consent is not None:
                given = grant.consent
                same = (given.side, given.server, given.by) == (side, consent.server, consent.by)
                return "I5: a consent was used twice" if grant.used else ("" if same else "I5: another consent")
        return "I5: overwritten without a consent"

    def _used(self, grants: int, operation: str) -> int:
        given = self.tables.grants[grants] or ()
        return self.tables.grants.number(tuple(g._replace(used=g.used or g.operation == operation) for g in given))

    # ---- faults

    def _faults(self, w: World) -> Iterator[Move]:
        for label, a, b in self.sites_mended(w.a, w.b):
            yield Move(w._replace(a=a, b=b), "mend", label)
        if not w.faults:
            return
        for label, a, b in self.sites_faults(w.a, w.b):
            yield Move(w._replace(a=a, b=b, faults=w.faults - 1), "fault", label)
        if w.token == 1:
            belief = Belief(self.tables.roles[w.role], self.tables.ops[w.op])
            zombie = self.tables.beliefs.number(belief)
            yield Move(w._replace(token=2, zombie=zombie, faults=w.faults - 1), "fault", "another owner takes over")

    def _sites_faults(self, a: int, b: int) -> list[tuple[str, int, int]]:
        return self._numbered(accidents(self._both(a, b), one_agent=self.options.one_agent))

    def _sites_mended(self, a: int, b: int) -> list[tuple[str, int, int]]:
        return self._numbered(mends(self._both(a, b), one_agent=self.options.one_agent))

    def _both(self, a: int, b: int) -> Both:
        return self.tables.sites.some(a), self.tables.sites.some(b)

    def _numbered(self, changes: list[tuple[str, Both]]) -> list[tuple[str, int, int]]:
        number = self.tables.sites.number
        return [(label, number(a), number(b)) for label, (a, b) in changes]

    def mended(self, w: World) -> World:
        """Return the world with everything that died back at work, nobody asking for anything, and no clients."""
        for side in SIDES:
            site = self._site(w, side)
            if not (site.alive and site.up):
                site = restarted(site._replace(alive=True))
            w = self._put(w, side, site._replace(agent=True))
        return w._replace(faults=0, operations=0, emergencies=0, written=self.options.trx, zombie=0)

    # ---- people and time

    def _people(self, w: World) -> Iterator[Move]:
        seen = (w.seen_a, w.seen_b) if w.token == 1 else (w.new_a, w.new_b)
        if w.operations and not w.op:
            for op, isolates, label in self.requests(w.role, *seen, w.operations):
                grants = self._granted(w.grants, op)
                moved = w._replace(op=op, operations=w.operations - 1, grants=grants)
                if isolates is not None:
                    moved = self._put(moved, isolates, self._site(w, isolates)._replace(isolated=True))
                yield Move(moved, "people", label)
        if w.op:
            for op, label in self.changed_minds(w.role, w.op):
                yield Move(w._replace(op=op), "people", label)
        if w.emergencies:
            yield from self._emergencies(w)

    def _requests(self, role: int, seen_a: int, seen_b: int, left: int) -> list[tuple[int, Side | None, str]]:
        decided = self.tables.roles[role]
        if decided is None:
            return []
        seen: Seen = {"a": self.tables.facts[seen_a], "b": self.tables.facts[seen_b]}
        asked = requests(decided, seen, self.policy, left, rebinds=self.options.rebinds)
        return [(self.tables.ops.number(op), isolates, label) for op, isolates, label in asked]

    def _granted(self, grants: int, op: int) -> int:
        operation = self.tables.ops.some(op)
        if operation.consent is None:
            return grants
        given = self.tables.grants[grants] or ()
        return self.tables.grants.number((*given, Grant(operation.id, operation.consent)))

    def _changed_minds(self, role: int, op: int) -> list[tuple[int, str]]:
        minds = changed_minds(self.tables.roles[role], self.tables.ops.some(op))
        return [(self.tables.ops.number(changed), label) for changed, label in minds]

    def _emergencies(self, w: World) -> Iterator[Move]:
        """A person isolates one site and lets the gateway of the other one decide."""
        for side in SIDES:
            site, other = self._site(w, side), self._site(w, peer(side))
            if not (site.alive and site.agent and site.up) or site.isolated or other.isolated:
                continue
            opened = emergency(site)
            if opened is not None:
                moved = self._put(w._replace(emergencies=w.emergencies - 1), side, opened)
                moved = self._put(moved, peer(side), other._replace(isolated=True))
                yield Move(moved._replace(lossy=w.lossy or not self.options.sync), "people", f"emergency at {side}")

    def _time(self, w: World) -> Iterator[Move]:
        """Time limits run out: of the preparation, and of the drain."""
        if not w.op:
            return
        operation, decided = self.tables.ops.some(w.op), self.tables.roles[w.role]
        if operation.verb == "rebind" and decided is not None and decided.epoch < operation.epoch:
            yield Move(w._replace(op=0), "time", "the proof fails for good")
            return
        if operation.verb != "switchover" or decided is None or decided.epoch >= operation.epoch:
            return
        if not operation.prepared:
            late = self.tables.ops.number(operation._replace(prepared=True))
            yield Move(w._replace(op=late), "time", "the preparation takes too long")
        elif not operation.overdue:
            late = self.tables.ops.number(operation._replace(overdue=True))
            yield Move(w._replace(op=late), "time", "the drain is overdue")

    # ---- parts of a world

    def _site(self, w: World, side: Side) -> Site:
        return self.tables.sites.some(w.a if side == "a" else w.b)

    def _put(self, w: World, side: Side, site: Site) -> World:
        number = self.tables.sites.number(site)
        return w._replace(a=number) if side == "a" else w._replace(b=number)


def shown(step: Step) -> str:
    """Return the step in short."""
    parts = [step.name, step.side or "", str(step.epoch or ""), step.outcome, step.reason]
    if step.role is not None:
        parts.append(f"({step.role.active} {step.role.epoch} {step.role.evidence})")
    return " ".join(part for part in parts if part)
