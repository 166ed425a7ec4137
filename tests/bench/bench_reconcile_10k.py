"""Ten thousand protected pairs whose agents report: cores, memory, and what the API costs meanwhile."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.bench.fleet import CHANGES_PER_SECOND, EPOCH, fill, pair_names
from tests.bench.report import percentile, report
from tests.testbed.reconciler import Reconciler

PAIRS: Final = int(os.environ.get("BENCH_PAIRS", "10000"))
SITES: Final = 20
MEASURED_SECONDS: Final = float(os.environ.get("BENCH_SECONDS", "60"))
SETTLE_SECONDS: Final = 300.0
QUIET_SECONDS: Final = 10.0
REQUESTS_PER_SECOND: Final = 20.0
CORES_BUDGET: Final = 1.0
MEGABYTES_BUDGET: Final = 1000.0
API_P99_BUDGET_MS: Final = 100.0


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (proc(5), fields utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_megabytes(pid: int, field: str) -> float:
    """Return a field of a process's status in megabytes: VmRSS now, VmHWM at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise LookupError(field)


@contextmanager
def speaking(url: str, credentials: dict[str, str]) -> Iterator[None]:
    """Let the fleet's agents speak, from a process of their own, until the block ends."""
    command = [sys.executable, "-m", "tests.bench.fleet", url]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    try:
        assert started.stdin is not None
        started.stdin.write(json.dumps(credentials) + "\n")
        started.stdin.flush()
        yield
    finally:
        started.terminate()
        try:
            started.wait(timeout=15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def counters(client: httpx.Client) -> dict[str, float]:
    """Return the reconciler's metrics that have no labels, and the pairs by phase."""
    found = {}
    for line in client.get("/metrics").raise_for_status().text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("farshore_") and not name.startswith("farshore_pair_lag"):
            found[name] = float(value)
    return found


def wait_until_protected(client: httpx.Client) -> float:
    """Wait until every pair is reported as protected; return how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_SECONDS:
        if counters(client).get('farshore_pairs{phase="protected"}') == PAIRS:
            return time.monotonic() - began
        time.sleep(2)
    raise TimeoutError(f"not protected after {SETTLE_SECONDS:.0f} s: {counters(client)}")


def ask(client: httpx.Client, names: list[str], seconds: float) -> list[float]:
    """Read random pairs at a steady rate; return the milliseconds of each answer."""
    chosen, answers = random.Random(1), []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        due = time.monotonic() + 1 / REQUESTS_PER_SECOND
        began = time.perf_counter()
        status = client.get(f"/v1/pairs/{chosen.choice(names)}").raise_for_status().json()["status"]
        answers.append((time.perf_counter() - began) * 1000)
        assert status["role"]["epoch"] == EPOCH, status
        time.sleep(max(0.0, due - time.monotonic()))
    return answers


def main() -> None:
    """Measure for a minute, after everything has settled."""
    with tempfile.TemporaryDirectory(prefix="farshore-bench-") as place:
        directory = Path(place) / "farshore"
        credentials = fill(directory, PAIRS, SITES)
        reconciler = Reconciler(directory, arguments=("--no-embedded-agent",))
        with reconciler, httpx.Client(base_url=reconciler.url, timeout=60, trust_env=False) as client:
            assert reconciler.process is not None
            pid = reconciler.process.pid
            client.headers["Authorization"] = f"Bearer {reconciler.token}"
            with speaking(reconciler.url.replace("http", "ws") + "/v1/agents/session", credentials):
                settled, settled_cpu = wait_until_protected(client), cpu_seconds(pid)
                time.sleep(QUIET_SECONDS)
                before, began, cpu = counters(client), time.monotonic(), cpu_seconds(pid)
                answers = ask(client, pair_names(PAIRS), MEASURED_SECONDS)
                took, used = time.monotonic() - began, cpu_seconds(pid) - cpu
                memory, peak = memory_megabytes(pid, "VmRSS"), memory_megabytes(pid, "VmHWM")
                after = counters(client)

    def rate(name: str) -> float:
        return (after[f"farshore_{name}_total"] - before[f"farshore_{name}_total"]) / took

    detail = {
        "pairs": PAIRS,
        "agents": SITES,
        "seconds": round(took),
        "fact_changes_per_second": CHANGES_PER_SECOND,
        "visits_per_second": round(rate("visits"), 1),
        "visit_milliseconds": round(1000 * rate("visit_seconds") / rate("visits"), 3),
        "transactions_per_second": round(rate("loop_transactions"), 1),
        "protected_after_seconds": round(settled, 1),
        "protected_after_cpu_seconds": round(settled_cpu, 1),
        "load": os.getloadavg()[0],
    }
    report("reconcile_10k_cores", ours=used / took, peer=None, unit="cores", detail=detail | {"budget": CORES_BUDGET})
    report("reconcile_10k_memory", ours=memory, peer=None, unit="MB", detail={"peak": peak, "budget": MEGABYTES_BUDGET})
    report(
        "reconcile_10k_api_p99", ours=percentile(answers, 0.99), peer=None, unit="ms",
        detail={"p50": round(percentile(answers, 0.5), 2), "max": round(max(answers), 1), "requests": len(answers),
                "budget": API_P99_BUDGET_MS},
    )  # fmt: skip


if __name__ == "__main__":
    main()
