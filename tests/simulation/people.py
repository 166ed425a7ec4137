"""What operators of the small world may ask for, and how they change their minds."""

from farshore.plan import Policy, operation_epoch, why_not
from farshore.plan.view import Seen
from farshore_schema.roles import Consent, Operation, Role, Side, Verb, peer
from tests.simulation.world import SERVER

Request = tuple[Operation, Side | None, str]


def requests(role: Role, seen: Seen, policy: Policy, left: int, *, rebinds: bool = False) -> list[Request]:
    """Return what would be accepted now: the operation, the side that the person isolated first, and a label."""
    other, out = peer(role.active), list[Request]()

    def ask(verb: Verb, isolates: Side | None = None, consent: Consent | None = None) -> None:
        if why_not(verb, role, None, seen, policy) is not None:
            return
        epoch, attested = operation_epoch(verb, role), isolates is not None
        op = Operation(str(left), verb, other, epoch, consent=consent, attested=attested)
        how = " attested" if attested else " consenting" if consent is not None else ""
        out.append((op, isolates, f"a person asks: {verb} to {other}{how}"))

    ask("switchover")
    ask("failover")
    ask("failover", isolates=role.active)
    ask("reprotect", consent=Consent(other, SERVER[other], role.epoch, f"a person, {left}"))
    ask("reprotect")
    ask("remove")
    if rebinds:
        out += _rebinds(role, seen, policy, left)
    return out


def _rebinds(role: Role, seen: Seen, policy: Policy, left: int) -> list[Request]:
    """Return the rebinds that would be accepted, with the standby and without it, of a server that counts as new."""
    found, side = list[Request](), role.active
    for alone in (False, True):
        if why_not("rebind", role, None, seen, policy, {side: "the server before"}, without_standby=alone) is None:
            epoch = operation_epoch("rebind", role)
            consent = Consent(side, SERVER[side], epoch, f"a person, {left}", overwrite=alone)
            op = Operation(str(left), "rebind", side, epoch, consent=consent)
            found.append((op, None, f"a person asks: rebind at {side}{' without the standby' if alone else ''}"))
    return found


def changed_minds(role: Role | None, op: Operation) -> list[tuple[Operation, str]]:
    """Return what a person may make of an open operation: role changes are taken back only before the decision."""
    if op.abort or op.verb == "remove":
        return []
    if op.verb in ("protect", "reprotect", "rebind"):
        return [(op._replace(abort=True), "a person takes it back")]
    if role is None or role.epoch >= op.epoch:
        return []
    out = [(op._replace(abort=True), "a person takes it back")]
    if op.verb == "switchover":
        out.append((op._replace(verb="failover", overdue=False), "a person makes it a failover"))
    return out
