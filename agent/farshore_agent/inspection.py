"""Looks at the endpoints of a declaration, asked by dry runs and by doctor; nothing is changed by them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from farshore_agent.engines import Look, Looker
from farshore_agent.secrets import Secrets
from farshore_schema.errors import Bug, FarshoreError
from farshore_schema.messages import Inspect, Inspected
from farshore_schema.observed import Finding

THREADS: Final = 8
WAITING_MAX: Final = 64

_log = structlog.get_logger(__name__)


class Inspections:
    """Takes questions and answers each exactly once."""

    def __init__(self, look: Looker, secrets: Secrets, answered: Callable[[Inspected], None]) -> None:
        self._look, self._secrets, self._answered = look, secrets, answered
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="inspect")
        self._waiting = threading.Semaphore(WAITING_MAX)

    def ask(self, message: Inspect) -> None:
        """Look, on another thread."""
        if not self._waiting.acquire(blocking=False):
            finding = Finding(code="timeout", severity="error", message="too many questions wait at this agent")
            self._answered(Inspected(request=message.request, findings=(finding,)))
            return
        self._threads.submit(self._answer, message)

    def _answer(self, message: Inspect) -> None:
        self._waiting.release()
        try:
            look = self._look(message.document, message.own, message.existing, self._secrets.resolve)
        except FarshoreError as error:
            look = _failed(error)
        except Exception:  # noqa: BLE001 - the boundary: a defect of a looker must not leave the question open
            _log.exception("defect while looking at endpoints", pair=message.document.name)
            look = _failed(Bug("the agent met an error that it does not know; its log has it"))
        redactor = self._secrets.redactor
        findings = tuple(
            each.model_copy(update={"message": redactor.text(each.message), "hint": redactor.text(each.hint)})
            for each in look.findings
        )
        self._answered(Inspected(request=message.request, findings=findings, servers=look.servers, empty=look.empty))


def _failed(error: FarshoreError) -> Look:
    finding = Finding(code=error.code, severity="error", message=error.message, hint=error.hint, field=error.field)
    return Look(findings=(finding,), servers={}, empty={})
