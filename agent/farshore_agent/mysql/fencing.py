"""The fence: make a server durably unable to complete a commit, and read the position at which it stopped (R13).

It changes only the server it is given. It knows nothing of epochs, receipts or of who asked; the fence of a server that
is fenced already costs two reads.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from farshore_agent.mysql import persisted
from farshore_agent.mysql.clients import NAMED_MAX, await_no_prepared, clients, end_xa_sessions, kill
from farshore_agent.mysql.connections import LOCK_WAIT_TIMEOUT, Rejected, Session
from farshore_schema.errors import Bug, FarshoreError, Permanent, Transient

FENCE_SECONDS: Final = 25.0
"""The longest a fence tries to get past running statements; clients are held up meanwhile."""
STALL_SECONDS: Final = 0.2
"""After so long the statements that hold up the fence are killed: their sessions would be ended anyway."""
KILL_SECONDS: Final = 0.5
"""How often they are looked for again."""
STABLE_READS_MAX: Final = 50


def fence(session: Session, dial: Callable[[], Session], ours: frozenset[str]) -> str:
    """Close the server for good and return its gtid_executed, which from then on stays as it is. Idempotent.

    `dial` opens one more session, to end what holds up the first; `ours` are the users of our own accounts.
    Raises Transient("timeout") when something holds the server open longer than `FENCE_SECONDS` (nothing is changed
    then), and Permanent when the server cannot be fenced durably or has undecided XA transactions.
    """
    now = persisted.switches(session)
    persisted.refuse_unfenceable(now)
    if not now.closed_for_good:
        _close(session, dial, ours)
        persisted.stop_scheduler(session)
        if not persisted.switches(session).closed_for_good:
            raise Bug("a fence was set and does not read back")
    end_xa_sessions(session, ours)
    await_no_prepared(session)
    return _stable_position(session)


def position(session: Session) -> str:
    """Return gtid_executed on one line."""
    return str(session.scalar("SELECT @@GLOBAL.gtid_executed")).replace("\n", "")


def _stable_position(session: Session) -> str:
    before = position(session)
    for _ in range(STABLE_READS_MAX):
        after = position(session)
        if after == before:
            return after
        before = after
    raise Permanent(
        "fence_violated",
        "transactions go on being committed on a server that is read-only for everybody",
        hint="look for replication channels and for clients that execute FLUSH, which writes transactions of its own",
    )


def _close(session: Session, dial: Callable[[], Session], ours: frozenset[str]) -> None:
    deadline = time.monotonic() + FENCE_SECONDS
    with _Unblocker(dial, ours) as unblocker:
        while True:
            try:
                persisted.close_for_writes(session)
            except Rejected as error:
                if error.number != LOCK_WAIT_TIMEOUT:
                    raise
                if time.monotonic() > deadline:
                    raise Transient(
                        "timeout",
                        f"the server could not be made read-only within {FENCE_SECONDS:.0f} s; it is held up by "
                        f"{unblocker.words or 'sessions that cannot be seen'}",
                        hint="end these statements; a killed one rolls back first, which takes as long as it ran",
                    ) from error
            else:
                return


class _Unblocker:
    """Ends the clients' sessions again and again while the fence waits for one of them."""

    def __init__(self, dial: Callable[[], Session], ours: frozenset[str]) -> None:
        self._dial, self._ours = dial, ours
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="farshore-unblock", daemon=True)
        self.words = ""

    def __enter__(self) -> _Unblocker:
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        if self._over.wait(STALL_SECONDS):
            return
        while not self._over.is_set():
            # A failure here costs only patience: the fence itself reports when its time is over.
            with contextlib.suppress(FarshoreError), self._dial() as session:
                while not self._over.is_set():
                    found = clients(session, self._ours)
                    self.words = ", ".join(client.words for client in found[:NAMED_MAX])
                    kill(session, (client.id for client in found))
                    self._over.wait(KILL_SECONDS)
            self._over.wait(KILL_SECONDS)
