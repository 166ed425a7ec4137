"""One side's engine while the declaration may change under it, and what stands in when there is none.

A new declaration brings a new engine; the old one is closed once nobody is inside it any more. Engines are used by two
threads at most: one that looks and one that moves.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from farshore_agent.engines import Capabilities, Engine, SeedCall, Seen
from farshore_schema.errors import FarshoreError, Transient
from farshore_schema.observed import Finding
from farshore_schema.roles import Consent, Evidence, Receipt

_log = structlog.get_logger(__name__)


class BrokenEngine:
    """Stands where an engine could not be made: sees nothing, does nothing, says why."""

    capabilities = Capabilities(kind="broken", prepare=False, zero_rpo=False, points=False)

    def __init__(self, error: FarshoreError) -> None:
        self._error = error

    def observe(self) -> Seen:
        """Return what nobody knows, with the reason."""
        error = self._error
        finding = Finding(code=error.code, severity="error", message=error.message, hint=error.hint, field=error.field)
        return Seen(findings=(finding,))

    def seed(self, call: SeedCall) -> None:
        """Raise the reason."""
        raise self._error

    def stream(self, epoch: int, consent: Consent | None = None) -> None:
        """Raise the reason."""
        raise self._error

    def prepare(self, epoch: int) -> None:
        """Raise the reason."""
        raise self._error

    def prove(self, consent: Consent) -> None:
        """Raise the reason."""
        raise self._error

    def fence(self, epoch: int) -> str:
        """Raise the reason."""
        raise self._error

    def drain(self, receipt: Receipt, cancelled: Callable[[], bool]) -> None:
        """Raise the reason."""
        raise self._error

    def stop_acks(self, epoch: int) -> None:
        """Raise the reason."""
        raise self._error

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still_holds: Callable[[], None],
        consent: Consent | None = None,
    ) -> None:
        """Raise the reason."""
        raise self._error

    def cleanup(self) -> None:
        """Raise the reason."""
        raise self._error

    def close(self) -> None:
        """Hold nothing."""


@dataclass
class _Tenure:
    engine: Engine
    users: int = 0
    retired: bool = False


class EngineHolder:
    """Hands out the present engine."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._tenure = _Tenure(engine)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Give the present engine; it is not closed before the block ends."""
        with self._lock:
            tenure = self._tenure
            tenure.users += 1
        try:
            yield tenure.engine
        finally:
            with self._lock:
                tenure.users -= 1
                last = tenure.retired and tenure.users == 0
            if last:
                _close(tenure.engine)

    @property
    def broken(self) -> bool:
        """Whether there is no engine that could do anything."""
        return isinstance(self._tenure.engine, BrokenEngine)

    def replace(self, engine: Engine) -> None:
        """Use another engine from now on."""
        with self._lock:
            old, self._tenure = self._tenure, _Tenure(engine)
            old.retired = True
            idle = old.users == 0
        if idle:
            _close(old.engine)

    def close(self) -> None:
        """Let go of the engine; data-path processes go on (I10)."""
        self.replace(BrokenEngine(_released()))


def _released() -> FarshoreError:
    return Transient("agent_unreachable", "this agent no longer serves the side")


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except FarshoreError as error:
        _log.warning("engine did not close cleanly", code=error.code, reason=error.message)
