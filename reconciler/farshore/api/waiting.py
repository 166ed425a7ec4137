"""Waiting for the store without polling it: an asyncio event that commits below a prefix set."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from farshore.store import Store, Watch


class Waiter:
    """Wakes one task when something below a prefix was committed, from whatever thread."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the event loop has ended; nobody waits
                loop.call_soon_threadsafe(self._changed.set)

        watch.on_change(wake)

    async def wait(self, seconds: float) -> None:
        """Return at the next commit, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()


@contextmanager
def waiting(store: Store, prefix: str, from_rev: int) -> Iterator[Waiter]:
    """Watch a prefix for as long as the block runs."""
    watch = store.watch(prefix, from_rev)
    try:
        yield Waiter(watch)
    finally:
        watch.close()
