"""Retention at work inside the receiver process: holds the marks and removes files now and then.

Marks live in memory only: after a restart nothing goes until they are set again, which is safe. This module must not
know where marks come from.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from farshore_agent.mysql.journal.catalogue import JournalDirectory
from farshore_agent.mysql.journal.config import Retention
from farshore_agent.mysql.journal.errors import JournalError
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.receiver import Receiver
from farshore_agent.mysql.journal.retention import Marks, Removal, plan_removal, remove, stored_files

INTERVAL_SECONDS: Final = 30.0

log = logging.getLogger("journal.retention")


class Housekeeping:
    """Removes what retention allows, every INTERVAL_SECONDS and on command."""

    def __init__(self, journal: JournalDirectory, receiver: Receiver, limits: Retention) -> None:
        self._journal = journal
        self._receiver = receiver
        self._limits = limits
        self._marks = Marks(everywhere=GtidSet(), of_segment={})
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(INTERVAL_SECONDS):
            try:
                self.purge()
            except (JournalError, OSError) as error:
                log.warning("retention failed, tried again later: %s", error)

    def set_mark(self, mark: GtidSet, segment: str | None) -> None:
        """Replace the mark of one segment, or of all that have none of their own."""
        with self._lock:
            marks = self._marks
            if segment is None:
                self._marks = Marks(everywhere=mark, of_segment=marks.of_segment)
            else:
                self._marks = Marks(everywhere=marks.everywhere, of_segment={**marks.of_segment, segment: mark})

    def purge(self, *, drop_uncovered: bool = False) -> Removal:
        """Remove now what limits and marks allow; returns what went. Raises Corrupt and OSError."""
        with self._lock, self._receiver.removing() as writer:
            removal = plan_removal(
                stored_files(self._journal),
                limits=self._limits,
                marks=self._marks,
                now_unix=time.time(),
                drop_uncovered=drop_uncovered,
            )
            if removal.files:
                log.info("removing files=%d uncovered=%s", len(removal.files), removal.uncovered)
            remove(self._journal, removal, writer)
            return removal

    def close(self) -> None:
        self._ending.set()
        with self._lock:
            pass  # a removal under way ends first
