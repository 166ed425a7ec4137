"""Secrets: references become values here and nowhere else, and values never leave (I9).

A reference is `env:NAME` or `file:/PATH` (documents.SecretRef). Every value that was ever resolved is remembered by the
`Redactor`, which cuts it out of log lines and error texts on their way out: the second wall behind "do not log it".
"""

import os
import stat
import threading
from pathlib import Path
from typing import Final

import structlog

from farshore_schema.errors import ErrorBody, Permanent

SECRET_BYTES_MAX: Final = 4096
REDACT_LENGTH_MIN: Final = 4
"""Shorter values would tear harmless words apart; no server of ours accepts such a password anyway."""
REDACTED: Final = "(secret)"

_log = structlog.get_logger(__name__)


class Redactor:
    """Knows every value that was resolved, and replaces it wherever it shows up."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def learn(self, value: str) -> None:
        """Remember a value that must not be shown."""
        if len(value) < REDACT_LENGTH_MIN or value in self._values:
            return
        with self._lock:
            self._values = tuple(sorted({*self._values, value}, key=len, reverse=True))

    def text(self, text: str) -> str:
        """Return the text without any known value."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return text

    def body(self, body: ErrorBody) -> ErrorBody:
        """Return an error without any known value, ready to leave the agent."""
        return body.model_copy(update={"message": self.text(body.message), "hint": self.text(body.hint)})

    def __repr__(self) -> str:
        return "Redactor()"


class Secrets:
    """Resolves references on this machine."""

    def __init__(self, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or Redactor()
        self._warned: set[str] = set()

    def resolve(self, reference: str) -> str:
        """Return the value behind a reference; raises Permanent("secret_missing") that says which one and why."""
        if reference.startswith("env:"):
            value = _from_environment(reference)
        elif reference.startswith("file:"):
            value = self._from_file(reference)
        else:
            raise _missing(reference, "it is neither env:NAME nor file:/PATH", "correct the reference")
        self.redactor.learn(value)
        return value

    def _from_file(self, reference: str) -> str:
        path = Path(reference.removeprefix("file:"))
        if not path.is_absolute():
            raise _missing(reference, "the path is not absolute", "write file:/absolute/path")
        try:
            # Non-blocking: a pipe in its place must not hang the agent. Links are followed: mounted secrets are links.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise _missing(reference, f"the file cannot be opened ({error.strerror})", f"create {path}") from error
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise _missing(reference, "it is not a regular file", "name a regular file")
            if facts.st_mode & stat.S_IRWXO:
                raise _missing(reference, "every user of this machine can read it", f"chmod o-rwx {path}")
            if facts.st_mode & (stat.S_IRGRP | stat.S_IWGRP) and reference not in self._warned:
                self._warned.add(reference)
                _log.warning("secret file readable by its group", reference=reference)
            raw = os.read(handle, SECRET_BYTES_MAX + 1)
        finally:
            os.close(handle)
        if len(raw) > SECRET_BYTES_MAX:
            raise _missing(reference, f"it is longer than {SECRET_BYTES_MAX} bytes", "write only the secret into it")
        text = _decoded(raw)
        if text is None:
            raise _missing(reference, "it is not UTF-8 text", "write the secret as text")
        return _checked(reference, text)

    def __repr__(self) -> str:
        return "Secrets()"


def _from_environment(reference: str) -> str:
    name = reference.removeprefix("env:")
    value = os.environ.get(name)
    if value is None:
        hint = f"set {name} in the environment of farshore-agent (or of farshore serve) and start it again"
        raise _missing(reference, "the variable is not set where the agent runs", hint)
    if len(value.encode(errors="surrogateescape")) > SECRET_BYTES_MAX:
        raise _missing(reference, f"it is longer than {SECRET_BYTES_MAX} bytes", "set only the secret")
    return _checked(reference, value)


def _decoded(raw: bytes) -> str | None:
    """Return the text, None for other bytes: an error of the codec would carry them along."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _checked(reference: str, value: str) -> str:
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise _missing(reference, "it is empty", "write the secret into it")
    if "\0" in value:
        raise _missing(reference, "it holds a zero byte", "write the secret as text")
    return value


def _missing(reference: str, why: str, hint: str) -> Permanent:
    return Permanent("secret_missing", f"the secret {reference} does not resolve: {why}", hint=hint)
