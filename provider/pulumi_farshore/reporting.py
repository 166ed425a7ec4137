"""How the provider speaks to the person at the terminal: code, what was seen, and the next command on a line below."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from farshore_schema.errors import FarshoreError
from farshore_schema.status import PlanFailure
from pulumi_farshore.host import speak_in_sentences


class FarshoreProviderError(Exception):
    """What the Pulumi engine prints when an operation fails: its text is the whole story, so it is shown alone."""


def describe(error: FarshoreError | PlanFailure) -> str:
    """Return an error as one sentence and its hint."""
    text = f"[{error.code}] {error.message}"
    return f"{text}\n  next: {error.hint}" if error.hint else text


@contextmanager
def failed(kind: str, name: str) -> Iterator[None]:
    """Turn an error of ours into one that names the resource; the chain would only bury the sentence."""
    try:
        yield
    except FarshoreError as error:
        speak_in_sentences(FarshoreProviderError)
        raise FarshoreProviderError(f"{kind} {name}: {describe(error)}") from None


def say(line: str) -> None:
    """Print one line of progress or warning; the CLI passes the provider's stderr through."""
    print(line, file=sys.stderr, flush=True)


REPEATED = 2  # a warning is said for the first pair, then once more for all others
_warned: Counter[str] = Counter()


def warn(kind: str, name: str, text: str) -> None:
    """Print a warning about a resource; what holds for a thousand of them is said twice and not a thousand times."""
    _warned[text] += 1
    if _warned[text] < REPEATED:
        say(f"warning: {kind} {name}: {text}")
    elif _warned[text] == REPEATED:
        say(f"warning: {kind} {name} and others: {text}")
