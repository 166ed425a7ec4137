"""What can go wrong in a seed, as types: what may be repeated, what needs a person, and what the seed mends by itself.

It knows no engine and no document: the engine turns SeedTransient and SeedPermanent into its own errors.

    SeedError
    ├── SeedTransient(retry_seconds)     repeating the seed later can succeed with nothing changed
    ├── SeedPermanent(hint)              somebody has to change something first; the hint says what
    │   ├── TargetHoldsData              the target is not empty and nobody consented to overwrite it
    │   └── NotExact                     what arrived is not what the source has; nothing of it may be used
    └── SeedCancelled                    the caller asked for the end
    Interruption                         caught inside the package, never seen by a caller
    ├── ConnectionLost(side)             one session ended; its work is done again
    ├── StatementFailed(code)            the server refused one statement
    └── EpochLost                        the snapshot cannot be had any more: the seed starts over
"""

from __future__ import annotations

from typing import Literal

Side = Literal["source", "target"]

STATEMENT_CHARACTERS_MAX = 120
"""Longer statements are cut in messages; they are never shown with data in them."""


class SeedError(Exception):
    """A seed ended without a usable copy."""


class SeedTransient(SeedError):
    """The seed may simply be repeated after `retry_seconds`."""

    def __init__(self, message: str, *, retry_seconds: float = 30.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class SeedPermanent(SeedError):
    """Repeating changes nothing until somebody does what `hint` says."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class TargetHoldsData(SeedPermanent):
    """The target holds data or accounts of somebody else, and no consent to overwrite them was given."""


class NotExact(SeedPermanent):
    """Rows or definitions arrived different from the source's."""


class SeedCancelled(SeedError):
    """The caller's `cancelled` said so."""


class Interruption(Exception):
    """Something ended in the middle; the part of the seed that owns it decides what to do."""


class ConnectionLost(Interruption):
    """A session with one side ended, whatever the reason."""

    def __init__(self, side: Side, reason: str) -> None:
        super().__init__(f"connection with the {side} lost: {reason}")
        self.side: Side = side
        self.reason = reason


class StatementFailed(Interruption):
    """A server answered a statement with an error; the session lives."""

    def __init__(self, side: Side, code: int, text: str, *, statement: str) -> None:
        super().__init__(f"{side} answered error {code}: {text} (statement: {statement[:STATEMENT_CHARACTERS_MAX]})")
        self.side: Side = side
        self.code = code
        self.text = text


class EpochLost(Interruption):
    """No session of the snapshot is left, or what it promised no longer holds."""
