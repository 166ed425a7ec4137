"""The thread beside the workers: reports progress, keeps idle sessions of the snapshot awake, and hears a cancel.

On a cancel it breaks off every connection, because a worker may be waiting for a server for hours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from farshore_agent.mysql.seed.epoch import Epoch
from farshore_agent.mysql.seed.meter import Meter
from farshore_agent.mysql.seed.servers import Server

TICK_SECONDS = 0.2


class Keeper:
    """Runs from entering to leaving its context."""

    def __init__(
        self, meter: Meter, cancelled: Callable[[], bool], progress_seconds: float, servers: Sequence[Server]
    ) -> None:
        self.cancelled = False
        """Whether the caller's `cancelled` has said so."""
        self.failure: BaseException | None = None
        """What a callback of the caller raised; it ends the seed as a cancel does."""
        self._meter = meter
        self._ask = cancelled
        self._progress_seconds = progress_seconds
        self._servers = servers
        self._epoch: Epoch | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="seed-keeper", daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether the seed is to end, whatever the reason."""
        return self.cancelled or self.failure is not None

    def watch(self, epoch: Epoch | None) -> None:
        """Keep this epoch's sessions awake from now on; None: there is none."""
        self._epoch = epoch

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            reported = time.monotonic()
            while not self._stop.wait(TICK_SECONDS):
                if self._ask():
                    self.cancelled = True
                    break
                epoch = self._epoch
                if epoch is not None:
                    epoch.keep_awake()
                if time.monotonic() - reported >= self._progress_seconds:
                    reported = time.monotonic()
                    self._meter.report()
        except BaseException as error:  # noqa: BLE001 - the caller's callbacks; the seed raises it
            self.failure = error
        if not self._stop.is_set():
            for server in self._servers:
                server.abort_all()
