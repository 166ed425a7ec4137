"""The embedded agent: a child process that serves every site without an enrolled agent, kept alive while we are.

It is the same program as a stand-alone agent. Its credential lives as long as this process and reaches it through an
inherited pipe, never through arguments or the environment. Its data-path processes are its own and outlive it (I10).
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from farshore.clock import Clock

BACKOFF_FIRST_SECONDS: Final = 0.5  # doubles with every end in a row
BACKOFF_MAX_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0  # an agent that lived so long starts the row anew
END_SECONDS: Final = 2.0  # from SIGTERM to SIGKILL
KEPT_OUT: Final = frozenset({"FARSHORE_TOKEN", "FARSHORE_ENDPOINT", "FARSHORE_DIR"})

_log = structlog.get_logger(__name__)


def command(*, url: str, directory: Path, credential_fd: int) -> Sequence[str]:
    """Return how the embedded agent is started."""
    return (
        sys.executable, "-m", "farshore_agent.main", "run", "--embedded",
        "--url", url, "--directory", str(directory), "--credential-fd", str(credential_fd),
    )  # fmt: skip


class EmbeddedAgent:
    """Starts the agent, and starts it again when it ends, until cancelled."""

    def __init__(self, *, url: str, directory: Path, credential: str, clock: Clock) -> None:
        self._url, self._directory, self._credential, self._clock = url, directory, credential, clock

    async def run(self) -> None:
        """Keep the agent alive; ends it when cancelled."""
        failures = 0
        while True:
            began = self._clock.monotonic()
            code = await self._once()
            lived = self._clock.monotonic() - began
            failures = 0 if lived >= STEADY_SECONDS else failures + 1
            pause = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(failures, 10))
            _log.warning("embedded agent ended", code=code, lived_seconds=round(lived, 1), restart_seconds=pause)
            await asyncio.sleep(pause)

    async def _once(self) -> int:
        process = await self._start()
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        readable, writable = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command(url=self._url, directory=self._directory, credential_fd=readable),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(readable,),
                env={name: value for name, value in os.environ.items() if name not in KEPT_OUT},
                start_new_session=True,  # a terminal's Ctrl-C is ours to handle
            )
        except BaseException:
            os.close(writable)
            raise
        finally:
            os.close(readable)
        with os.fdopen(writable, "w") as pipe, contextlib.suppress(BrokenPipeError):  # it ended before it read
            pipe.write(self._credential + "\n")
        return process


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a child: asked first, killed when it does not listen. Waits for it even while being cancelled."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
