"""What every admission needs at hand: the records, the time, new ids, and the facts of the moment. No transport."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, TypeVar

from farshore.clock import Clock
from farshore.plan import Policy
from farshore.plan.view import Seen
from farshore.store import Change, Guard
from farshore.store.records import Records
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import FarshoreError, Transient
from farshore_schema.observed import PairObserved
from farshore_schema.roles import Side

ATTEMPTS_MAX: Final = (
    16  # a transaction that lost a race is considered afresh; the loop writes an operation each second
)
_RETRY_SECONDS: Final = 0.2

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where requests are judged. `observed` returns the newest facts of a pair; unknown is never treated as good."""

    records: Records
    clock: Clock
    random: Random
    observed: Callable[[str], PairObserved]

    def new_operation_id(self) -> str:
        """Return an id that sorts by time: op-20261123t190705123-4f9c."""
        stamp = "".join(each for each in self.clock.now() if each.isalnum()).lower().rstrip("z")
        return f"op-{stamp}-{self.random.getrandbits(16):04x}"

    def seen(self, pair: str) -> Seen:
        """Return the deciding facts of both sides."""
        observed = self.observed(pair)
        return {"a": observed.a.facts() if observed.a else None, "b": observed.b.facts() if observed.b else None}


class Decided(NamedTuple):
    """What a request would do: the transaction, and the answer once it is through. No changes: nothing to do."""

    guards: Sequence[Guard]
    changes: Sequence[Change]


def settle(desk: Desk, consider: Callable[[], tuple[Decided, Answer]]) -> Answer:
    """Judge and commit in one guarded transaction; judge afresh when the world moved in between.

    `consider` raises to refuse, and then nothing was changed.
    """
    for _ in range(ATTEMPTS_MAX):
        decided, answer = consider()
        if not decided.changes or desk.records.store.txn(decided.guards, decided.changes).ok:
            return answer
    raise Transient(
        "timeout",
        "the pair changes faster than the request can be judged",
        retry_seconds=_RETRY_SECONDS,
        hint="try again",
    )


def policy_of(document: MySQLPair) -> Policy:
    """Return what a declaration says that decides role changes."""
    return Policy(
        sync=False, preferred=preferred_side(document), reseed_on_gap=document.on_gap == "reseed"
    )  # mode "sync" does not exist in this format version


def preferred_side(document: MySQLPair) -> Side:
    """Return the side that becomes active in a new pair (R8)."""
    return "b" if document.primary_site == document.site_b.site else "a"


def site_of(document: MySQLPair, side: Side) -> str:
    """Return the name of a side's site."""
    return document.site_a.site if side == "a" else document.site_b.site


def first(failures: Sequence[FarshoreError]) -> None:
    """Raise the first failure, if any; the others travel in its `current`."""
    if not failures:
        return
    error = failures[0]
    if len(failures) > 1:
        others = [each.body().model_dump(exclude={"current"}) for each in failures[1:]]
        error.current = {**(error.current or {}), "also": others}
    raise error
