"""What Prometheus reads at /metrics: how pairs, operations, agents, the loop and the store are doing.

Of every report one word is kept, and kept up with the store's events, so that a scrape of ten thousand pairs costs
milliseconds between which other requests have their turn.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from farshore.store import LIST_MAX, Compacted, Store, Watch, keys
from farshore_schema.observed import PairObserved
from farshore_schema.status import Phase

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BATCH: Final = 200  # pairs looked at before other requests have their turn
_TXN_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds


class LoopCounts(NamedTuple):
    """What the loop did so far."""

    visits: int = 0
    visits_failed: int = 0
    visit_seconds: float = 0.0
    commands: int = 0
    transactions: int = 0
    conflicts: int = 0


class Sources(NamedTuple):
    """Where the numbers come from, once the parts run."""

    observed: Callable[[str], PairObserved] = lambda _pair: PairObserved()
    sessions: Callable[[], int] = lambda: 0
    loop: Callable[[], LoopCounts] = LoopCounts


class Metrics:
    """The registry of one reconciler."""

    def __init__(self, store: Store | None = None, sources: Sources | None = None) -> None:
        self.registry = CollectorRegistry()
        self._txn = Histogram(
            "farshore_store_txn_seconds",
            "Time a store transaction took until it was durable",
            registry=self.registry,
            buckets=_TXN_BUCKETS,
        )
        self._book = PhaseBook(store) if store is not None else None
        self._sources = sources or Sources()

    def txn_took(self, seconds: float) -> None:
        """Note one store transaction."""
        self._txn.observe(seconds)

    def serve(self, store: Store, sources: Sources) -> None:
        """Read from these parts from now on."""
        self._book, self._sources = PhaseBook(store), sources

    async def scrape(self) -> bytes:
        """Return the exposition. Collects in turns with other requests, renders beside them."""
        pairs = await self._book.read() if self._book is not None else {}
        lags: dict[str, float] = {}
        for number, pair in enumerate(pairs):
            lag = lag_of(self._sources.observed(pair))
            if lag is not None:
                lags[pair] = lag
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        moment = CollectorRegistry()
        moment.register(_Moment([*self._families(pairs, lags)]))
        return await asyncio.to_thread(lambda: generate_latest(self.registry) + generate_latest(moment))

    def _families(self, pairs: "dict[str, Seen]", lags: dict[str, float]) -> Iterator[Metric]:
        phases = GaugeMetricFamily("farshore_pairs", "Pairs by phase", labels=["phase"])
        counted = Counter(seen.phase for seen in pairs.values())
        for phase in get_args(Phase):
            phases.add_metric([phase], counted[phase])
        yield phases
        lag = GaugeMetricFamily(
            "farshore_pair_lag_seconds",
            "Commit on the active side to applied at the standby, of the newest applied transaction",
            labels=["pair"],
        )
        for pair, seconds in lags.items():
            lag.add_metric([pair], seconds)
        yield lag
        opened = sum(seen.operation for seen in pairs.values())
        yield GaugeMetricFamily("farshore_operations_open", "Operations that have not ended", value=opened)
        sessions = self._sources.sessions()
        yield GaugeMetricFamily("farshore_agent_sessions", "Live agent sessions", value=sessions)
        counts = self._sources.loop()
        for name, value, told in (
            ("visits", counts.visits, "Visits of pairs by the loop"),
            ("visits_failed", counts.visits_failed, "Visits that ended with an error"),
            ("visit_seconds", counts.visit_seconds, "Time spent in visits"),
            ("commands", counts.commands, "Commands sent to agents"),
            ("loop_transactions", counts.transactions, "Store transactions of the loop"),
            ("loop_conflicts", counts.conflicts, "Transactions of the loop that lost a race"),
        ):
            yield CounterMetricFamily(f"farshore_{name}", told, value=value)


def lag_of(observed: PairObserved) -> float | None:
    """Return the pair's lag: the standby's, which is the only side that measures one."""
    for side in (observed.a, observed.b):
        if side is not None and side.stream.lag_seconds is not None:
            return side.stream.lag_seconds
    return None


class Seen(NamedTuple):
    """A pair in two words."""

    phase: str = "accepted"
    operation: bool = False


class PhaseBook:
    """Every pair's phase, kept up with the store's events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pairs: dict[str, Seen] = {}
        self._watch: Watch | None = None

    async def read(self) -> dict[str, Seen]:
        """Return every pair as it is now."""
        watch = self._watch or await self._read_all()
        while True:
            try:
                changed = {keys.pair_name(event.key) or "" for event in watch.poll(limit=LIST_MAX)}
            except Compacted:
                watch.close()
                watch = await self._read_all()
                continue
            for number, name in enumerate(sorted(changed), 1):
                self._look(name)
                if number % BATCH == 0:
                    await asyncio.sleep(0)
            return dict(self._pairs)

    async def _read_all(self) -> Watch:
        self._pairs.clear()
        page = self._store.list(keys.PAIRS, limit=BATCH)
        self._watch = watch = self._store.watch(keys.PAIRS, page.rev)
        while page.items:
            for name in sorted({keys.pair_name(item.key) or "" for item in page.items}):
                self._look(name)
            await asyncio.sleep(0)
            page = self._store.list(keys.PAIRS, limit=BATCH, after=page.items[-1].key)
        return watch

    def _look(self, name: str) -> None:
        if self._store.get(keys.spec(name)) is None:
            self._pairs.pop(name, None)
            return
        status = self._store.get(keys.status(name))
        phase = "accepted"
        if status is not None:
            with suppress(ValueError, KeyError):
                phase = str(json.loads(status.value)["phase"])
        self._pairs[name] = Seen(phase, self._store.get(keys.operation(name)) is not None)


class _Moment:
    """Numbers that were collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
