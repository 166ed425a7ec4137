"""How a benchmark reports: JSON lines with a ratio against a peer of the same run, printed and kept."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = CHECKOUT / "bench-results"
KIB: Final = 1024


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
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
    }
    line = json.dumps(row)
    print(line, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{bench}.jsonl").open("a") as file:
        file.write(line + "\n")


def commit() -> str:
    """Return the commit that is measured; `+` says that the checkout differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Return what this machine is, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / KIB**3
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


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
