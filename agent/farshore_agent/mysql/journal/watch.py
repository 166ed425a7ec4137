"""Notice a stream that hears heartbeats but no transactions although the source commits some.

A source whose history was reset under a running dump keeps that dump alive and silent; so may a dump that hangs. While
nothing arrives, this thread compares the source's gtid_executed with the journal's end over a connection of its own; a
difference that lasts for two looks ends the link, and the proofs of the next dial say what happened. This module must
not know how a stream runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from farshore_agent.mysql.journal.config import JournalConfig
from farshore_agent.mysql.journal.errors import StreamStopped
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.link import SourceFacts, SourceLink

LOOK_SECONDS: Final = 3.0


class Watch:
    """Looks while the stream is quiet."""

    def __init__(
        self,
        config: JournalConfig,
        *,
        progress: Callable[[], int | None],
        end: Callable[[], GtidSet],
        redial: Callable[[], None],
    ) -> None:
        """`progress` counts what arrived on the current connection; None while there is none to watch."""
        self._config = config
        self._progress = progress
        self._end = end
        self._redial = redial
        self._link: SourceLink | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End; a look under way is not waited for."""
        self._ending.set()

    def _run(self) -> None:
        before, differed = self._progress(), False
        while not self._ending.wait(LOOK_SECONDS):
            now = self._progress()
            quiet = now is not None and now == before
            differs = quiet and self._differs()
            if differs and differed and self._progress() == now:
                self._redial()
                differs = False
            before, differed = now, differs
        self._drop()

    def _differs(self) -> bool:
        facts = self._facts()
        if facts is None:
            return False
        end = self._end()
        return bool(facts.executed.subtract(facts.purged).subtract(end)) or not end.issubset(facts.executed)

    def _facts(self) -> SourceFacts | None:
        """What the source says now; None when it cannot be asked: the stream itself will notice why."""
        try:
            if self._link is None:
                self._link = SourceLink(self._config)
            return self._link.facts()
        except StreamStopped:
            self._drop()
            return None

    def _drop(self) -> None:
        if self._link is not None:
            self._link.release()
            self._link = None
