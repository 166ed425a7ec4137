"""Where an open operation stands, for people: step k of n and its name. Nothing decides by it."""

from typing import Final

from farshore.plan.view import Seen, is_open, receipt_in_hand
from farshore_schema.roles import Operation, Role, Verb, peer

LABELS: Final[dict[Verb, tuple[str, ...]]] = {
    "protect": ("look at both sides", "record the active side", "copy", "fence the standby", "follow"),
    "reprotect": ("look at both sides", "record the active side", "copy", "fence the standby", "follow"),
    "switchover": ("check", "attach ahead", "fence", "drain", "decide", "open", "follow"),
    "failover": ("check", "fence or cut off", "drain", "decide", "open"),
    "rebind": ("prove", "decide", "record the new server", "follow"),
    "remove": ("end at the active side", "end at the standby"),
}
UNDONE: Final = ("take back", "open again")


def progress(op: Operation, role: Role | None, seen: Seen) -> tuple[int, int, str]:
    """Return (k, n, label): the step under way, counted from 1, of how many, and its name."""
    if op.verb in ("switchover", "failover") and role is not None and (op.abort or role.epoch > op.epoch):
        k = 2 if role.epoch > op.epoch else 1
        return k, len(UNDONE), UNDONE[k - 1]
    labels = LABELS[op.verb]
    k = _step(op, role, seen)
    return k, len(labels), labels[k - 1]


def _step(op: Operation, role: Role | None, seen: Seen) -> int:
    if role is None:
        return 1
    if op.verb in ("protect", "reprotect"):
        return _copying(role, seen)
    if op.verb == "remove":
        active = seen[role.active]
        return 2 if active is not None and not active.enrolled else 1
    if op.verb == "switchover":
        return _switching(op, role, seen)
    if op.verb == "rebind":
        return _rebinding(op, role, seen)
    return _failing_over(op, role, seen)


def _copying(role: Role, seen: Seen) -> int:
    standby = seen[peer(role.active)]
    if not is_open(seen[role.active], role) or standby is None:
        return 2
    if standby.base != "complete" or standby.seeding:
        return 3
    return 4 if standby.fenced_epoch < role.epoch else 5


def _rebinding(op: Operation, role: Role, seen: Seen) -> int:
    if role.epoch < op.epoch:
        return 1  # the decision follows the last proof at once
    return 4 if is_open(seen[role.active], role) else 3


def _switching(op: Operation, role: Role, seen: Seen) -> int:
    if role.epoch >= op.epoch:
        if not is_open(seen[role.active], role):
            return 6
        return 7
    source, target = seen[role.active], seen[op.to]
    receipt = receipt_in_hand(op, source, target)
    if receipt is not None:
        return 5 if target is not None and target.drained == receipt else 4
    if op.prepared or (source is not None and source.fenced_epoch >= op.epoch):
        return 3
    return 1 if source is None or target is None else 2


def _failing_over(op: Operation, role: Role, seen: Seen) -> int:
    if role.epoch >= op.epoch:
        return 5
    target = seen[op.to]
    receipt = receipt_in_hand(op, seen[role.active], target)
    if receipt is not None:
        return 4 if target is not None and target.drained == receipt else 3
    return 1 if target is None else 2
