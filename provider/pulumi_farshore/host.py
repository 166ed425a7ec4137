"""Have Pulumi's host of dynamic providers pass an error of ours on as its sentence, without the way it took.

Where an operation raised, the host answers the engine with `traceback.format_exc()` (`pulumi/dynamic/__main__.py`); its
older releases leave the error to the grpc server, which logs it with its traceback. An operation can tell neither of
them otherwise, so both are given another ear here. Errors that are not ours keep every line. It knows the host and the
class to look for; it knows nothing of what went wrong.
"""

import logging
import sys
import traceback
from types import ModuleType
from typing import Final

HOST: Final = "pulumi.dynamic.__main__"
GRPC_LOG: Final = "grpc._server"


class Sentences:
    """Stands in the host where it names the module `traceback`; equal to it but for errors of the given class."""

    def __init__(self, ours: type[Exception]) -> None:
        self._ours = ours

    def format_exc(self, limit: int | None = None, chain: bool = True) -> str:
        """Return the error being handled as text: its sentence when it is ours."""
        error = sys.exc_info()[1]
        return str(error) if isinstance(error, self._ours) else traceback.format_exc(limit, chain)

    def __getattr__(self, name: str) -> object:
        return getattr(traceback, name)


class Silence(logging.Filter):
    """Drops what grpc logs about an error of the given class: the engine has it as the answer of the call."""

    def __init__(self, ours: type[Exception]) -> None:
        super().__init__()
        self._ours = ours

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be seen."""
        return not (record.exc_info and isinstance(record.exc_info[1], self._ours))


def speak_in_sentences(ours: type[Exception], process: ModuleType | None = None) -> None:
    """Teach the host to show errors of a class as their text, if this process (its main module) is one. Idempotent."""
    main = sys.modules["__main__"] if process is None else process
    if getattr(main.__spec__, "name", None) != HOST:
        return
    if getattr(main, "traceback", None) is traceback:
        vars(main)["traceback"] = Sentences(ours)
    log = logging.getLogger(GRPC_LOG)
    if not any(isinstance(each, Silence) for each in log.filters):
        log.addFilter(Silence(ours))
