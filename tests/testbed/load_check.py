"""Judge a load's records against a server: is every transaction there whose client was told OK, and how long could
nobody write? It reads the server's tables and the clients' records only, nothing that the product says."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.testbed.load_client import NUMBERS_PER_CLIENT
from tests.testbed.records import Record

if TYPE_CHECKING:
    from tests.testbed.mysql import MySQLServer


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the transactions of a load."""

    acknowledged: int
    unknown: int
    errors: int
    missing_rows: tuple[int, ...]
    """Ids of appended rows whose client was told OK and that are not there."""
    lost_updates: tuple[tuple[int, int, int], ...]
    """(client, acknowledged increments, the counter's value) of counters below what was acknowledged."""
    extra_updates: tuple[tuple[int, int, int], ...]
    """(client, increments that may have happened, the counter's value) of counters above that: applied twice."""
    broken_big: tuple[tuple[int, int], ...]
    """(client, number) of big transactions that are there in part, or not there though acknowledged."""

    @property
    def lost(self) -> int:
        """Acknowledged transactions that are not there."""
        updates = sum(expected - value for _, expected, value in self.lost_updates)
        return len(self.missing_rows) + updates + len(self.broken_big)

    @property
    def exact(self) -> bool:
        """Nothing acknowledged is lost, nothing was applied twice, nothing is there by half."""
        return not (self.missing_rows or self.lost_updates or self.extra_updates or self.broken_big)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """The longest time without a single OK."""

    seconds: float
    """From the answer to the last transaction before it to the answer to the first one after it."""
    last_ok: float
    """CLOCK_MONOTONIC of the last OK before it, as the client saw it."""
    per_client_seconds: dict[int, float] = field(default_factory=dict)
    """The longest time between two OKs of each client."""


def verify(server: MySQLServer, records: Sequence[Record], *, database: str = "farshore_load") -> Verdict:
    """Compare what the clients were told with what `server` holds."""
    ok = [each for each in records if each.outcome == "ok"]
    outcomes = Counter(each.outcome for each in records)
    clients = {each.client for each in records}
    there = {int(row[0]) for row in server.query(f"SELECT id FROM {database}.appended")}
    told = {each.client * NUMBERS_PER_CLIENT + each.number for each in ok if each.kind == "I"}
    counters = {int(c): int(n) for c, n in server.query(f"SELECT client, n FROM {database}.counters")}
    least = Counter(each.client for each in ok if each.kind == "U")
    most = Counter(each.client for each in records if each.kind == "U" and each.outcome != "error")
    values = {client: counters.get(client, 0) for client in clients}
    return Verdict(
        acknowledged=len(ok),
        unknown=outcomes["unknown"],
        errors=outcomes["error"],
        missing_rows=tuple(sorted(told - there)),
        lost_updates=tuple((c, least[c], n) for c, n in sorted(values.items()) if n < least[c]),
        extra_updates=tuple((c, most[c], n) for c, n in sorted(values.items()) if n > most[c]),
        broken_big=_broken_big(server, records, database),
    )


def _broken_big(server: MySQLServer, records: Sequence[Record], database: str) -> tuple[tuple[int, int], ...]:
    rows = server.query(f"SELECT client, number, COUNT(*), MAX(rows_in_all) FROM {database}.big GROUP BY 1, 2")
    whole = {(int(client), int(number)): int(found) == int(wanted) for client, number, found, wanted in rows}
    told = {(each.client, each.number) for each in records if each.kind == "B" and each.outcome == "ok"}
    clients = {each.client for each in records}
    half = {key for key, complete in whole.items() if not complete and key[0] in clients}
    return tuple(sorted(half | (told - whole.keys())))


def outage(records: Iterable[Record], *, since: float = -math.inf, until: float = math.inf) -> Outage:
    """Return the longest time between two consecutive OKs, over all clients and for each.

    `since` and `until` (CLOCK_MONOTONIC) limit the search to OKs around a switch; a client whose last OK in that
    time was before the end of the outage counts with an infinite one.

    Raises ValueError when there are not two OKs.
    """
    times: dict[int, list[float]] = defaultdict(list)
    for each in records:
        if each.outcome == "ok" and each.kind in ("I", "U") and since <= each.end <= until:
            times[each.client].append(each.end)
    together = sorted(end for ends in times.values() for end in ends)
    if len(together) < 2:
        raise ValueError(f"{len(together)} transactions were answered with OK in that time: no outage to measure")
    seconds, last_ok = _longest_gap(together)
    per_client = {client: _longest_gap(sorted(ends))[0] for client, ends in times.items() if len(ends) > 1}
    never_again = {client: math.inf for client, ends in times.items() if max(ends) <= last_ok}
    return Outage(seconds=seconds, last_ok=last_ok, per_client_seconds={**per_client, **never_again})


def _longest_gap(ends: Sequence[float]) -> tuple[float, float]:
    """Return the longest gap of sorted times, and where it starts."""
    return max((later - earlier, earlier) for earlier, later in itertools.pairwise(ends))
