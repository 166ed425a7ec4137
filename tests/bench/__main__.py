"""Run the benchmarks, each in a process of its own, and write docs/results: `python -m tests.bench [NAME ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.publish import publish

HERE = Path(__file__).parent
BENCH_SECONDS = 3600


def main(wanted: list[str]) -> int:
    """Run all benchmarks, or those named; return 1 when one failed."""
    found = {path.stem.removeprefix("bench_"): path.stem for path in sorted(HERE.glob("bench_*.py"))}
    unknown = [name for name in wanted if name not in found]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or found:
        print(f"== {name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"tests.bench.{found[name]}"], timeout=BENCH_SECONDS, check=False)
        if done.returncode:
            failed.append(name)
    publish()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
