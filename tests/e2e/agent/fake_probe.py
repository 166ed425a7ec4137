"""The product's probe process, asking a file instead of a MySQL.

The folder `sight` beside the agent's directory holds one file per account: 1, 0 or down.
"""

from __future__ import annotations

import sys
from pathlib import Path

from farshore_agent.engines.probing import ProbeTarget, WritableCheck
from farshore_agent.probes import process
from farshore_schema.errors import Transient


class FileCheck:
    """One side's question to a file."""

    def __init__(self, target: ProbeTarget) -> None:
        self._path = Path(sys.argv[-1]).parents[1] / "sight" / target.user
        self._password = target.password

    def writable(self) -> bool:
        """Return what the file says."""
        text = self._path.read_text() if self._path.exists() else "0"
        if text == "down":
            raise Transient("unreachable", f"cannot log in with {self._password}")  # as a careless driver would
        return text == "1"

    def close(self) -> None:
        """Hold nothing."""


def check(target: ProbeTarget) -> WritableCheck:
    return FileCheck(target)


if __name__ == "__main__":
    process.main(factories={"mysql": check})
