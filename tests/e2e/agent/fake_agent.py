"""A real agent process on the fake engine: everything but the database is the product's own.

Started as `python -m tests.e2e.agent.fake_agent DIRECTORY URL CREDENTIAL_FD`; the fake world lives in this process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from farshore_agent import service, settings
from farshore_agent.engines import Engine, Seat
from farshore_agent.engines.fake import FakeEngine, fake_look
from farshore_agent.engines.fake_world import FakeWorld
from farshore_agent.probes import keeper
from farshore_schema.errors import FarshoreError

WORLD = FakeWorld()


def engine(seat: Seat) -> Engine:
    """Make an engine as a real one does: it resolves the secret of its own admin account."""
    own = seat.document.site_a if seat.side == "a" else seat.document.site_b
    seat.secret(own.admin.password)
    return FakeEngine(WORLD, seat.side, autoflow=True)


def run(directory: Path, url: str, descriptor: int) -> None:
    for row in ("one", "two"):
        WORLD.databases["a"].write(row)
    chosen = settings.Settings(
        directory=directory, url=url, agent="embedded", embedded=True, credential=settings.read_credential(descriptor)
    )
    service.run(
        chosen,
        engines={"MySQLPair": engine},
        look=fake_look(WORLD),
        probe_command=(sys.executable, "-m", "tests.e2e.agent.fake_probe"),
    )


if __name__ == "__main__":
    service.LOCK_SECONDS = 2.0  # type: ignore[misc]
    keeper.FIRST_PORT = 21000  # type: ignore[misc]  # away from an agent that runs on this machine
    try:
        run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except FarshoreError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
