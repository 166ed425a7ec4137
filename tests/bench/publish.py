"""The page of the last results: docs/results/bench.md, made of bench-results/, newest row of each benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench.report import CHECKOUT, RESULTS

PAGE: Final = CHECKOUT / "docs" / "results" / "bench.md"
ROWS: Final = PAGE.with_suffix(".jsonl")

Row = dict[str, Any]


class Bound(NamedTuple):
    """What a benchmark must hold, in words and as a judgement of its row."""

    words: str
    holds: Callable[[Row], bool]


def _at_least(ratio: float) -> Bound:
    return Bound(f"≥ {ratio} x peer", lambda row: row["ratio"] >= ratio)


def _at_most(ratio: float) -> Bound:
    return Bound(f"≤ {ratio} x peer", lambda row: row["ratio"] <= ratio)


def _below(value: float) -> Bound:
    return Bound(f"< {value:g}", lambda row: row["ours"] < value)


BOUNDS: Final[dict[str, Bound]] = {
    "journal_ingest_8_kb_rows_plain": _at_least(0.7),
    "journal_ingest_8_kb_rows_tls": _at_least(0.7),
    "journal_ingest_small_transactions_plain": _at_least(0.7),
    "journal_ingest_small_transactions_tls": _at_least(0.7),
    "memory_busy_stream": _below(100),
    "memory_idle_stream": _below(60),
    "mysql_apply": _at_least(0.95),
    "mysql_lag_p99": Bound("≤ peer + 5 ms", lambda row: row["ours"] <= row["peer"] + 5),
    "mysql_seed": _at_least(2),
    "pulumi_1000_first_up": _at_most(1.5),
    "pulumi_1000_no_op_up": _at_most(1.5),
    "reconcile_10k_api_p99": _below(100),
    "reconcile_10k_cores": _below(1),
    "reconcile_10k_memory": _below(1000),
    "switchover_outage_flat_out_relaxed": Bound(
        "≤ 1.2 x peer, max < 1 s", lambda row: row["ratio"] <= 1.2 and row["detail"]["ours_max"] < 1000
    ),
    "switchover_outage_paced_500": Bound(
        "≤ 1.2 x peer, p50 < 300 ms", lambda row: row["ratio"] <= 1.2 and row["ours"] < 300
    ),
}
"""Benchmarks that are only reported have none."""


def publish() -> None:
    """Write the page and its rows; rows that were not measured now stay."""
    newest = {row["bench"]: row for row in _read(ROWS)}
    for path in sorted(RESULTS.glob("*.jsonl")):
        newest |= {row["bench"]: row for row in _read(path)}
    rows = [newest[name] for name in sorted(newest)]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    PAGE.write_text("\n".join(_page(rows)) + "\n")


def _read(path: Path) -> Iterator[Row]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def _page(rows: list[Row]) -> Iterator[str]:
    yield "# Benchmarks: the last results"
    yield ""
    yield "Made by `make bench`. A peer is measured in the same run, alternately; a row without one is a budget."
    yield "Details of each row (single runs, percentiles, sizes) are in [bench.jsonl](bench.jsonl)."
    yield ""
    yield "| benchmark | ours | peer | unit | ratio | must | holds | date | commit |"
    yield "| --- | ---: | ---: | --- | ---: | --- | --- | --- | --- |"
    for row in rows:
        bound = BOUNDS.get(row["bench"])
        must, holds = ("reported", "") if bound is None else (bound.words, "yes" if bound.holds(row) else "**no**")
        ours, peer, ratio = (f"{row[name]:,.2f}" if row[name] is not None else "" for name in ("ours", "peer", "ratio"))
        cells = (row["bench"], ours, peer, row["unit"], ratio, must, holds, row["date"], row["commit"])
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "Machines: " + "; ".join(sorted({row["machine"] for row in rows})) + "."
