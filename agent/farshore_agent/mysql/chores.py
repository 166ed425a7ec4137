"""What must happen beside the moves and more slowly than observation: one thread of an engine that is being observed.

- every `MARK_SECONDS`: tell the journal's retention what a following standby holds durably;
- every `LOGIN_SECONDS`: log in afresh with both credentials (R6), and note what the active side's workload relies on.

What it finds is read as one frozen value. Its failures are findings, never exceptions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from farshore_agent.mysql import channel, durability, events, persisted, scope
from farshore_agent.mysql.ground import Ground
from farshore_agent.mysql.observing import Sideline
from farshore_schema.errors import FarshoreError
from farshore_schema.observed import Finding

TICK_SECONDS: Final = 0.5
MARK_SECONDS: Final = 10.0
LOGIN_SECONDS: Final = 60.0
LOGIN_AGAIN_SECONDS: Final = 5.0
"""After a failed login: a mended password should show soon."""


class Chores:
    """The thread and what it found."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.sideline = Sideline()

    def start(self) -> None:
        """Begin, once."""
        if self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=self._run, name="farshore-chores", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; a question under way ends by its own timeout."""
        self._over.set()

    def _run(self) -> None:
        mark_at = login_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= login_at:
                ready = self._log_in()
                login_at = time.monotonic() + (LOGIN_SECONDS if ready else LOGIN_AGAIN_SECONDS)
            if now >= mark_at:
                with contextlib.suppress(FarshoreError):
                    self._mark()
                mark_at = time.monotonic() + MARK_SECONDS
            if self._over.wait(TICK_SECONDS):
                return

    def _log_in(self) -> bool:
        """Log in afresh with every credential this gateway uses; the other side's is what `peer_ready` says."""
        findings: list[Finding] = []
        ready = False
        try:
            with self._ground.dial_peer() as there:
                ready = True
                self._ground.journal.keep_password()
                if persisted.switches(there).open_for_clients:
                    self._ground.notes.save_workload(events.workload(there))
        except FarshoreError as error:
            findings.append(_finding(error))
        try:
            with self._ground.dial_own() as here:
                scope.refuse_partial(here)
        except FarshoreError as error:
            ready = False
            findings.append(_finding(error))
        findings += self._kept_journals()
        self.sideline = Sideline(peer_ready=ready, findings=tuple(findings))
        return ready

    def _kept_journals(self) -> list[Finding]:
        kept = self._ground.journal.set_aside()
        if not kept:
            return []
        directory = self._ground.journal.directory
        return [
            Finding(
                code="old_journals",
                severity="note",
                message=f"{kept} journals of earlier streams are kept beside {directory}; nothing uses them any more",
                hint=f"delete them when they are not wanted: {directory}.kept-*",
            )
        ]

    def _mark(self) -> None:
        """A standby that follows tells what it would still hold after a power cut."""
        with self._ground.dial_own() as session, self._ground.durability_lock:
            if persisted.switches(session).writable or channel.status(session) is None:
                return
            mark = durability.durable_mark(session)
        self._ground.journal.mark(mark)


def _finding(error: FarshoreError) -> Finding:
    return Finding(code=error.code, severity="error", message=error.message, hint=error.hint, field=error.field)
