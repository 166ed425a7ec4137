"""Which server stands behind each endpoint, as seen against what the pair is bound to (R1, R3).

A server that was never seen before is claimed for the pair; a server that is not the bound one holds every step that
would touch it or follow it, until it is bound: a standby's by a seed with consent for exactly that server, the active
side's by the decision of a `rebind`.
"""

from typing import Final

from farshore.admission.binding import bind_server, claim
from farshore.admission.desk import Desk
from farshore.snapshot import Snapshot
from farshore.store import Change, Delete, Guard, keys
from farshore.store.records import put
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.observed import Finding
from farshore_schema.roles import SIDES, Side, Step, peer

TOUCHES_NOTHING: Final = frozenset({"enrol", "cleanup", "prove"})
FOLLOWS_PEER: Final = frozenset({"seed", "stream", "prepare"})


def bound(desk: Desk, snapshot: Snapshot, owner: Guard) -> bool:
    """Claim a server that is seen for the first time; return whether the store was changed.

    `owner` is required to hold (I6). Raises Refused (same_server, server_in_other_pair) when it cannot be this pair's.
    """
    for side in SIDES:
        facts = snapshot.seen[side]
        if facts is not None and facts.server and snapshot.servers.of(side) is None:
            bind_server(desk, snapshot.pair, side, facts.server, owner)
            return True
    return False


def replaced(snapshot: Snapshot) -> tuple[Side, ...]:
    """Return the sides where another server answers than the one the pair is bound to."""
    return tuple(
        side
        for side in SIDES
        if (facts := snapshot.seen[side]) is not None
        and facts.server
        and snapshot.servers.of(side) not in (None, facts.server)
    )


def consented(snapshot: Snapshot, side: Side) -> bool:
    """Return whether the open operation carries a consent to copy onto the server that is seen there now.

    That of a `rebind` counts only together with its decision (`with_decision`): before, nothing was proved.
    """
    facts, operation = snapshot.seen[side], snapshot.operation.value if snapshot.operation else None
    consent = operation.consent if operation is not None and operation.verb != "rebind" else None
    return facts is not None and consent is not None and (consent.side, consent.server) == (side, facts.server)


def rebound(desk: Desk, snapshot: Snapshot, side: Side) -> tuple[list[Guard], list[Change]]:
    """Return the transaction that binds a side to the consented server and frees the old one. Raises Refused."""
    facts = snapshot.seen[side]
    server, old = facts.server if facts else "", snapshot.servers.of(side)
    if server == old:
        return [], []
    problem, guards, changes = claim(desk.records, snapshot.pair, {side: server})
    if problem is not None:
        raise problem
    changes.append(put(keys.pair_servers(snapshot.pair), snapshot.servers.model_copy(update={side: server})))
    if old is not None:
        changes.append(Delete(keys.server(old)))
    return guards, changes


def with_decision(desk: Desk, snapshot: Snapshot, step: Step) -> tuple[list[Guard], list[Change]]:
    """Return what is committed with a decision: a rebound side is bound to its new server. Raises Refused."""
    if step.role is None or step.role.evidence != "rebound":
        return [], []
    return rebound(desk, snapshot, step.role.active)


def held(snapshot: Snapshot, step: Step, problem: Finding | None) -> tuple[str, Finding | None]:
    """Return the reason why a planned step is held back ("": it is not), and what is said about it.

    A first decision waits until both servers are known and bound; a server of another pair is never touched; of a
    replaced server only the other side's work goes on.
    """
    first = step.name == "decide" and snapshot.role is None
    touches = step.side is not None and step.name not in TOUCHES_NOTHING
    if problem is not None:
        return (problem.code if first or touches else ""), problem
    if first and any(snapshot.servers.of(side) is None for side in SIDES):
        return "unknown_server", None
    sides = replaced(snapshot)
    for side in sides:
        problem = problem_of(_replacement(snapshot, side), side)
    follows = step.side is not None and step.name in FOLLOWS_PEER and peer(step.side) in sides
    stopped = first and bool(sides)
    return ("source_replaced" if stopped or (touches and step.side in sides) or follows else ""), problem


def problem_of(error: FarshoreError, side: Side | None = None) -> Finding:
    """Return the finding that is shown while the loop holds."""
    field = error.field or (f"site_{side}.host" if side else None)
    return Finding(code=error.code, severity="error", message=error.message, hint=error.hint, field=field, side=side)


def _replacement(snapshot: Snapshot, side: Side) -> Refused:
    facts = snapshot.seen[side]
    role = snapshot.decided()
    active = role is not None and role.active == side
    return Refused(
        "source_replaced",
        f"server {facts.server if facts else '?'} answers at {snapshot.site(side)}; the pair is bound to "
        f"{snapshot.servers.of(side)}",
        hint=f"if it was replaced on purpose: farshore {'rebind' if active else 'reprotect'} {snapshot.pair}",
        field=f"site_{side}.host",
    )
