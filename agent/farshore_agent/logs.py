"""How the agent logs: constant messages with key-values as JSON lines on standard error, without secrets."""

import logging
import sys
from collections.abc import MutableMapping
from typing import TextIO

import structlog

from farshore_agent.secrets import Redactor


def configure(redactor: Redactor, *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send every log line of this process through the redactor."""

    def redact(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
        return {key: _clean(value, redactor) for key, value in event.items()}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def _clean(value: object, redactor: Redactor) -> object:
    """Return a log value without secrets; what is not plain becomes its text first."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each, redactor) for each in value]
    if isinstance(value, dict):
        return {str(key): _clean(each, redactor) for key, each in value.items()}
    return redactor.text(str(value))
