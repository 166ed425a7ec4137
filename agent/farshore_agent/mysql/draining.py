"""Waiting until a side has applied everything up to a position, and saying why it never will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from farshore_agent.mysql import channel
from farshore_agent.mysql.connections import Session
from farshore_agent.mysql.ground import Ground
from farshore_agent.mysql.journaling import stopped_error
from farshore_schema.errors import Transient

SLICE_SECONDS: Final = 0.25
"""How long one question waits at the server; between two, cancelling and errors are looked at."""
SLICES_MAX: Final = 14_400
"""One hour: the longest drain_timeout of a pair."""
RETRY_SECONDS: Final = 0.5


def await_applied(ground: Ground, session: Session, position: str, check: Callable[[], None]) -> None:
    """Return once everything in `position` is applied at the own server. `check` may raise between two slices.

    Raises Permanent("applier_stopped") with the transaction, or what stopped the receiver.
    """
    for _ in range(SLICES_MAX):
        if applied(session, position, SLICE_SECONDS):
            return
        check()
        error = channel.applier_error(session)
        if error is not None:
            raise channel.explain(error)
        status = channel.status(session)
        if status is None or "OFF" in (status.applier, status.receiver):
            raise Transient(
                "not_possible_now",
                "this side does not apply what it received: " + _why_idle(status),
                retry_seconds=RETRY_SECONDS,
            )
        _refuse_stopped_receiver(ground, session, position)
    raise Transient("timeout", "not everything was applied within an hour", retry_seconds=RETRY_SECONDS)


def applied(session: Session, position: str, seconds: float = 0.0) -> bool:
    """Whether everything in `position` is applied, waiting at most so long for it."""
    if seconds <= 0:
        return bool(session.scalar("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (position,)))
    return bool(session.scalar("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (position, seconds)) == 0)


def drain(ground: Ground, position: str, cancelled: Callable[[], bool]) -> None:
    """Return once everything up to `position` is in the journal and applied. Idempotent.

    What died meanwhile is started again here: no other order reaches this side until the drain has ended.
    """
    with ground.own.session() as session:

        def check() -> None:
            if cancelled():
                raise Transient(
                    "not_possible_now",
                    "the drain was cancelled; not everything is applied",
                    retry_seconds=RETRY_SECONDS,
                )
            _keep_flowing(ground, session)

        await_applied(ground, session, position, check)


def _keep_flowing(ground: Ground, session: Session) -> None:
    """Have the receiver, the journal's server and the channel run again, as after a restart of this server.

    An applier that stopped on an error is left alone: the caller reports it.
    """
    note = ground.notes.stream()
    if note is None or channel.applier_error(session) is not None:
        return
    status = channel.status(session)
    if status is None or not status.applying:
        channel.follow(session, ground.journal.serve(note))
    ground.journal.revive(note)


def _refuse_stopped_receiver(ground: Ground, session: Session, position: str) -> None:
    """Raise when the receiver will never deliver what is missing; what it has already may still be applied."""
    state = ground.journal.state()
    if state is None or state.stopped is None or state.stopped.retried:
        return
    received = session.scalar("SELECT GTID_SUBSET(%s, %s)", (position, state.end_gtid_set))
    if not received:
        raise stopped_error(state.stopped)


def _why_idle(status: channel.Status | None) -> str:
    if status is None:
        return "it has no replication channel"
    return f"its channel's receiver is {status.receiver} and its applier {status.applier}. {status.receiver_message}"
