"""How the provider speaks to the person at the terminal: one line, what was seen, the next command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from farshore_schema.errors import FarshoreError


class FarshoreProviderError(Exception):
    """What the Pulumi engine prints when an operation fails; the last line is the whole story."""


def describe(error: FarshoreError) -> str:
    """Return an error as one sentence and its hint."""
    text = f"[{error.code}] {error.message}"
    return f"{text}\n  next: {error.hint}" if error.hint else text


@contextmanager
def failed(kind: str, name: str) -> Iterator[None]:
    """Turn an error of ours into one that names the resource; the chain would only bury the sentence."""
    try:
        yield
    except FarshoreError as error:
        raise FarshoreProviderError(f"{kind} {name}: {describe(error)}") from None


def say(line: str) -> None:
    """Print one line of progress or warning; the CLI passes the provider's stderr through."""
    print(line, file=sys.stderr, flush=True)
