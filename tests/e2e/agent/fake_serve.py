"""The real `farshore serve` in a directory, but its embedded agent works on the fake engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from farshore import embedded, serve
from farshore.settings import Settings


def command(*, url: str, directory: Path, credential_fd: int) -> Sequence[str]:
    return (sys.executable, "-m", "tests.e2e.agent.fake_agent", str(directory), url, str(credential_fd))


if __name__ == "__main__":
    embedded.command = command
    serve.run(Settings(directory=Path(sys.argv[1]), port=0))
