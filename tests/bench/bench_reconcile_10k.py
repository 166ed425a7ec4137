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
from typing import Any, Final

import httpx

from tests.bench.fleet import CHANGES_PER_SECOND, fill, pair_names, sites_of
from tests.bench.report import percentile, report
from tests.testbed.ports import reserve_port

PAIRS: Final = int(os.environ.get("BENCH_PAIRS", "10000"))
SITES: Final = 20
MEASURED_SECONDS: Final = float(os.environ.get("BENCH_SECONDS", "60"))
SETTLE_SECONDS: Final = 300.0
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
def process(*arguments: str, stdin: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a Python module until the block ends."""
    started = subprocess.Popen([sys.executable, "-m", *arguments], stdin=subprocess.PIPE, text=True)
    try:
        assert started.stdin is not None
        started.stdin.write(stdin + "\n")
        started.stdin.flush()
        yield started
    finally:
        started.terminate()
        try:
            started.wait(timeout=15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until_settled(client: httpx.Client) -> tuple[float, dict[str, Any]]:
    """Wait until every side was heard and no visit is due; return how long it took."""
    began = time.monotonic()
    counters: dict[str, Any] = {}
    while time.monotonic() - began < SETTLE_SECONDS:
        try:
            counters = client.get("/counters").json()
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if counters["sides"] == 2 * PAIRS and counters["waiting"] == 0 and counters["reports"] >= PAIRS:
            return time.monotonic() - began, counters
        time.sleep(0.5)
    raise TimeoutError(f"not settled after {SETTLE_SECONDS:.0f} s: {counters}")


def ask(client: httpx.Client, names: list[str], seconds: float) -> list[float]:
    """Read random pairs at a steady rate; return the milliseconds of each answer."""
    chosen, answers = random.Random(1), []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        due = time.monotonic() + 1 / REQUESTS_PER_SECOND
        began = time.perf_counter()
        status = client.get(f"/v1/pairs/{chosen.choice(names)}").raise_for_status().json()["status"]
        answers.append((time.perf_counter() - began) * 1000)
        assert status["phase"] == "protected" or status["conditions"], status
        time.sleep(max(0.0, due - time.monotonic()))
    return answers


def main() -> None:
    """Measure for a minute, after everything has settled."""
    with tempfile.TemporaryDirectory(prefix="farshore-bench-") as directory:
        fill(Path(directory), PAIRS, SITES)
        port = reserve_port()
        sites = {site: site for number in range(SITES) for site in sites_of(number, SITES)}
        with (
            process("tests.bench.paper_reconciler", directory, str(port)) as reconciler,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
        ):
            while True:
                try:
                    client.get("/counters")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            with process("tests.bench.fleet", f"ws://127.0.0.1:{port}/agents", stdin=json.dumps(sites)):
                settled, before = wait_until_settled(client)
                settle_cpu = cpu_seconds(reconciler.pid)
                began, cpu = time.monotonic(), cpu_seconds(reconciler.pid)
                answers = ask(client, pair_names(PAIRS), MEASURED_SECONDS)
                took, used = time.monotonic() - began, cpu_seconds(reconciler.pid) - cpu
                after = client.get("/counters").json()
                memory = memory_megabytes(reconciler.pid, "VmRSS")
                peak = memory_megabytes(reconciler.pid, "VmHWM")
    detail = {
        "pairs": PAIRS,
        "agents": SITES,
        "seconds": round(took),
        "fact_changes_per_second": CHANGES_PER_SECOND,
        "visits_per_second": round((after["visits"] - before["visits"]) / took, 1),
        "visit_milliseconds": round(
            1000 * (after["visit_seconds"] - before["visit_seconds"]) / max(1, after["visits"] - before["visits"]), 3
        ),
        "reports_written": after["reports"] - before["reports"],
        "settled_after_seconds": round(settled, 1),
        "settle_cpu_seconds": round(settle_cpu, 1),
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
