"""How a benchmark reports: JSON lines with a ratio against a peer of the same run, printed and kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


def report(
    bench: str, *, ours: float, peer: float | None, unit: str, detail: Mapping[str, object] | None = None
) -> None:
    """Print one result and append it to bench-results/<bench>.jsonl. `peer` is None for a budget."""
    row = {
        "bench": bench,
        "ours": round(ours, 4),
        "peer": None if peer is None else round(peer, 4),
        "ratio": None if not peer else round(ours / peer, 3),
        "unit": unit,
        "detail": dict(detail or {}),
    }
    line = json.dumps(row)
    print(line, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{bench}.jsonl").open("a") as file:
        file.write(line + "\n")


def median(values: Sequence[float]) -> float:
    """Return the median; a benchmark without a measurement is a mistake of its own."""
    if not values:
        raise ValueError("nothing was measured")
    return statistics.median(values)


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which `fraction` of the values lie (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
