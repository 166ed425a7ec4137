"""Work of one kind in its order, on threads shared by thousands of such orders.

A strand runs its pieces one after the other; different strands run side by side. It knows nothing of what it runs.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

WAITING_MAX: Final = 512  # pieces that may wait in one strand

_log = structlog.get_logger(__name__)


class Strand:
    """A queue of work with at most one piece under way."""

    def __init__(self, submit: Callable[[Callable[[], None]], None]) -> None:
        self._submit = submit
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False

    def post(self, work: Callable[[], None]) -> bool:
        """Have `work` run after everything posted before; never blocks. False when too much waits already."""
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                return False
            self._waiting.append(work)
            if self._running:
                return True
            self._running = True
        self._submit(self._run)
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                work = self._waiting.popleft()
            try:
                work()
            except Exception:  # noqa: BLE001 - the boundary: one piece must not end the strand
                _log.exception("defect in queued work")
