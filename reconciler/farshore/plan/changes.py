"""Role changes up to their decision: lossless or not at all, or by evidence; and how they are taken back.

One rule carries the safety: an epoch belongs to one direction. The first fence of an operation burns its epoch; whoever
decides otherwise takes the next one. After the decision there is no way back, and `steady` carries it through.
"""

from farshore.plan.policy import Policy
from farshore.plan.view import Seen, command, is_following, is_open, is_up, receipt_in_hand, stopped_reason, wait
from farshore_schema.roles import Facts, Operation, Receipt, Role, Step, next_even


def switchover(role: Role, op: Operation, seen: Seen) -> Step:
    """Prepare, fence, drain, decide. Clients wait from the fence on: whatever can be done ahead is done ahead."""
    source, target = seen[role.active], seen[op.to]
    if op.abort:
        return undo(role, op)
    if op.overdue and is_up(source):
        return undo(role, op)  # the source can be opened again at once (R15)
    receipt = receipt_in_hand(op, source, target)
    if receipt is not None and target is not None and target.drained == receipt:
        # The receipt goes into the store with the decision itself: one transaction less while clients wait.
        return Step("decide", role=Role(op.to, op.epoch, "fenced", receipt))
    if source is None and op.receipt is None:
        return wait("active_unreachable")
    if target is None:
        return _keep_receipt(op, receipt) or wait("standby_unreachable")
    if receipt is not None:
        return _drain(role, op, seen, target, receipt)
    if source is None:
        return wait("active_unreachable")
    if source.db != "up":
        return wait("active_db_down")
    if source.fenced_epoch < op.epoch:
        step = _ready(role, op, seen, source, target)
        if step is not None:
            return step
    return command(Step("fence", role.active, op.epoch), role, op, seen)


def failover(role: Role, op: Operation, seen: Seen, policy: Policy) -> Step:
    """Fence and drain a source that answers, like a switchover; only a silent one is cut off and judged by evidence.

    Cutting the stream of a source that still answers would lose acknowledged transactions for nothing.
    """
    source, target = seen[role.active], seen[op.to]
    if op.abort:
        return undo(role, op)
    if target is None:
        return _keep_receipt(op, receipt_in_hand(op, source, None)) or wait("standby_unreachable")
    if target.base != "complete":
        return wait("not_seeded")
    if is_up(target) and (target.writable or target.promoted_epoch > target.fenced_epoch):
        # An old active side that was never reached since: it must be out of its old role before it gets a new one.
        return command(Step("fence", op.to, max(role.epoch, target.epoch)), role, op, seen)
    receipt = receipt_in_hand(op, source, target)
    if source is not None and source.db == "up":
        if receipt is None:
            return command(Step("fence", role.active, op.epoch), role, op, seen)
        if target.drained == receipt:
            return Step("decide", role=Role(op.to, op.epoch, "receipt", receipt))
        # A source that calls for a failover may be silent in a moment: its receipt is kept first.
        return _keep_receipt(op, receipt) or _drain(role, op, seen, target, receipt)
    return _cut_off(role, op, seen, target, receipt, policy)


def undo(role: Role, op: Operation) -> Step:
    """Decide for the old side again, above the burned epoch.

    That is enough to open it at once: the other side was never told to promote, and from this transaction on nobody can
    tell it in an epoch that it would still obey (R15).
    """
    reason = "aborted" if op.abort else "overdue"
    return Step("decide", role=Role(role.active, next_even(op.epoch), "aborted"), reason=reason)


def _ready(role: Role, op: Operation, seen: Seen, source: Facts, target: Facts) -> Step | None:
    """Return what is to be done or awaited before clients are stopped, None when the fence may begin."""
    if target.db != "up":
        return wait("standby_db_down")
    if target.stopped:
        return Step("abort", reason=stopped_reason(target))
    if target.base != "complete" or target.seeding:
        return Step("abort", reason="seeding" if target.seeding else "not_seeded")
    if not is_open(source, role):
        # The epoch this side holds may be burned by now; it is opened in the next one, by the abort.
        return Step("abort", reason="not_open")
    if not is_following(target, role):
        return command(Step("stream", op.to, role.epoch), role, op, seen)
    if op.prepared:
        return None
    if source.prepared_epoch >= op.epoch:
        return Step("record_prepared")
    # In the operation's epoch, but without burning it: admission moves no epoch for a preparation.
    return command(Step("prepare", role.active, op.epoch), role, op, seen)


def _drain(role: Role, op: Operation, seen: Seen, target: Facts, receipt: Receipt) -> Step:
    """Let the target reach the end of what the source ever committed; keep the receipt while that takes its time."""
    if target.db != "up":
        return _keep_receipt(op, receipt) or wait("standby_db_down")
    if target.stopped:
        return _keep_receipt(op, receipt) or wait(stopped_reason(target))
    if not target.receiving and is_up(seen[role.active]):
        return command(Step("stream", op.to, op.epoch), role, op, seen)
    if target.draining != receipt:
        return command(Step("drain", op.to, op.epoch, receipt=receipt), role, op, seen)
    return _keep_receipt(op, receipt) or wait(_drains_without(seen[role.active]))


def _drains_without(source: Facts | None) -> str:
    """Return what a drain waits for: a source that is gone may still hold what the target lacks."""
    if source is None:
        return "active_unreachable"
    return "draining" if source.db == "up" else "active_db_down"


def _cut_off(role: Role, op: Operation, seen: Seen, target: Facts, receipt: Receipt | None, policy: Policy) -> Step:
    """Stop acknowledging to a silent source, then decide by the best evidence there is.

    What was received and not yet applied is not lost: the promotion opens only when all of it is applied.
    """
    if target.receiving or target.epoch < op.epoch:
        return command(Step("stop_acks", op.to, op.epoch), role, op, seen)
    if target.stopped in ("applier_stopped", "diverged"):
        return wait(stopped_reason(target))
    if receipt is not None:
        return Step("decide", role=Role(op.to, op.epoch, "receipt", receipt))
    if policy.sync and target.zero:
        return Step("decide", role=Role(op.to, op.epoch, "acks_stopped"))
    if op.attested:
        return Step("decide", role=Role(op.to, op.epoch, "attested"))
    return wait("evidence_missing")


def _keep_receipt(op: Operation, receipt: Receipt | None) -> Step | None:
    """Keep the receipt in the store: a source that dies after its fence is then known to be fenced."""
    if receipt is None or op.receipt == receipt:
        return None
    return Step("record_fence", receipt=receipt)
