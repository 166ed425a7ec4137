"""What can break a switchover: the moments, hit as exactly as they can be from outside, and the parts.

A moment is seen in the agent's durable record (what it noted before an effect), in the operation as the API tells it,
or made: the drain waits as long as the standby's tables are locked. Everything is bounded.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from farshore_schema.errors import FarshoreError
from tests.e2e.switchover.parts import kill
from tests.e2e.switchover.rig import SIDE, Rig
from tests.e2e.switchover.witness import says_primary
from tests.testbed.waiting import wait_until

SPIN_SECONDS: Final = 0.0002
MOMENT_SECONDS: Final = 40.0
JOIN_SECONDS: Final = 120.0
RECONNECT_SECONDS: Final = 0.1
DECIDE_SECONDS_MAX: Final = 0.03
"""From the end of a drain to the new side being open take about so long; a sweep of delays hits what lies between."""
PAUSED_SECONDS: Final = 5.0
"""Longer than a report of an agent counts (STALE_SECONDS)."""


@dataclass
class Attempt:
    """One switchover that is about to be broken."""

    rig: Rig
    source: str
    target: str
    epoch: int
    seed: int
    operation: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    """The operation has ended: moments that did not come will not come any more."""
    hold: ExitStack = field(default_factory=ExitStack)


# ---- moments


def _until(attempt: Attempt, condition: Callable[[], bool], what: str) -> None:
    def seen() -> bool:
        try:
            return condition() or attempt.over.is_set()
        except FarshoreError:  # the record was being written, again and again
            return False

    wait_until(seen, what, seconds=MOMENT_SECONDS, poll_seconds=SPIN_SECONDS)


def _step(attempt: Attempt, step: int) -> None:
    """Return when the operation is at the step or beyond, as a long poll tells."""
    assert attempt.asked.wait(MOMENT_SECONDS)
    deadline = time.monotonic() + MOMENT_SECONDS
    known = 0
    while time.monotonic() < deadline:
        try:
            found = attempt.rig.operation(attempt.operation, wait_seconds=5, after_step=known)
        except httpx.TransportError:  # another fault ended the reconciler
            time.sleep(RECONNECT_SECONDS)
            continue
        known = int(found["step"])
        if known >= step or found["state"] not in ("open", "waiting"):
            return
    raise AssertionError(f"the operation did not come to step {step}")


def _attach(attempt: Attempt) -> None:
    _step(attempt, 2)


def _fence(attempt: Attempt) -> None:
    """The agent has noted the fence; the server is being fenced."""
    record = attempt.rig.parts.record
    _until(attempt, lambda: record(SIDE[attempt.source]).fenced_epoch == attempt.epoch, "the fence is noted")


def _fenced(attempt: Attempt) -> None:
    """The server is fenced and the receipt is on disk; perhaps nobody has heard of it."""

    def there() -> bool:
        receipt = attempt.rig.parts.record(SIDE[attempt.source]).receipt
        return receipt is not None and receipt.epoch == attempt.epoch

    _until(attempt, there, "the receipt is on disk")


def _drain(attempt: Attempt) -> None:
    """The drain is under way and cannot end: the standby's tables are locked."""
    _step(attempt, 4)


def _decide(attempt: Attempt) -> None:
    """The drain has just ended: about to be decided, deciding, or decided and not yet told."""
    _step(attempt, 4)
    attempt.hold.close()
    time.sleep(random.Random(attempt.seed).uniform(0, DECIDE_SECONDS_MAX))


def _open(attempt: Attempt) -> None:
    """The agent has noted the promotion; the server is being opened."""
    record = attempt.rig.parts.record
    _until(attempt, lambda: record(SIDE[attempt.target]).promoted_epoch == attempt.epoch, "the promotion is noted")


def _opened(attempt: Attempt) -> None:
    """Clients can write on the new side."""
    _until(attempt, lambda: says_primary(attempt.rig.ports[attempt.target]), "the new side's probe says yes")


def _follow(attempt: Attempt) -> None:
    _step(attempt, 7)


MOMENTS: Final[Mapping[str, Callable[[Attempt], None]]] = {
    "attach": _attach,
    "fence": _fence,
    "fenced": _fenced,
    "drain": _drain,
    "decide": _decide,
    "open": _open,
    "opened": _opened,
    "follow": _follow,
}
HELD: Final = frozenset({"drain", "decide"})
"""Moments at which the standby's tables are locked, so that the drain does not end before."""


@contextmanager
def held(attempt: Attempt, moments: Collection[str]) -> Iterator[None]:
    """Lock the target's tables inside the block if a moment needs it, or until the attempt lets go."""
    with attempt.hold:
        if HELD.intersection(moments):
            session = attempt.hold.enter_context(closing(attempt.rig.sites[attempt.target].server.connect()))
            with session.cursor() as cursor:
                cursor.execute("FLUSH TABLES WITH READ LOCK")
        yield


# ---- parts


def _kill_reconciler(attempt: Attempt) -> Callable[[], None]:
    attempt.rig.farshore.kill()
    return attempt.rig.farshore.start


def _kill_agent(attempt: Attempt) -> Callable[[], None]:
    kill(attempt.rig.parts.agent())
    return _nothing


def _pause_agent(attempt: Attempt) -> Callable[[], None]:
    pid = attempt.rig.parts.agent()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    def resume() -> None:
        time.sleep(PAUSED_SECONDS)  # the fault itself: nothing can be observed to happen meanwhile
        os.kill(pid, signal.SIGCONT)

    return resume


def _kill_receiver(attempt: Attempt) -> Callable[[], None]:
    kill(attempt.rig.parts.receiver(SIDE[attempt.target]))
    return _nothing


def _kill_reverse_receiver(attempt: Attempt) -> Callable[[], None]:
    kill(attempt.rig.parts.receiver(SIDE[attempt.source]))
    return _nothing


def _kill_journal_server(attempt: Attempt) -> Callable[[], None]:
    kill(attempt.rig.parts.server(SIDE[attempt.target]))
    return _nothing


def _kill_probes(attempt: Attempt) -> Callable[[], None]:
    kill(attempt.rig.parts.probes())
    return _nothing


def _kill_source(attempt: Attempt) -> Callable[[], None]:
    return _kill_mysql(attempt, attempt.source)


def _kill_target(attempt: Attempt) -> Callable[[], None]:
    return _kill_mysql(attempt, attempt.target)


def _kill_mysql(attempt: Attempt, site: str) -> Callable[[], None]:
    server = attempt.rig.sites[site].server
    server.kill()

    def restart() -> None:
        attempt.rig.settled(attempt.operation)
        server.start()

    return restart


def _kill_control_plane(attempt: Attempt) -> Callable[[], None]:
    """Everything of ours, data-path and probe processes too."""
    rig = attempt.rig
    rig.farshore.kill()
    for pid in {rig.parts.agent(), *rig.parts.all()}:
        kill(pid)
    return _nothing


def _kill_everything(attempt: Attempt) -> Callable[[], None]:
    """A power cut of both sites at once, as far as processes go."""
    rig = attempt.rig
    _kill_control_plane(attempt)
    for site in rig.sites.values():
        site.server.kill()

    def restart() -> None:
        for site in rig.sites.values():
            site.server.start()
        rig.farshore.start()

    return restart


def _nothing() -> None:
    """What mends itself."""


PARTS: Final[dict[str, Callable[[Attempt], Callable[[], None]]]] = {
    "reconciler": _kill_reconciler,
    "agent": _kill_agent,
    "paused agent": _pause_agent,
    "journal receiver": _kill_receiver,
    "reverse receiver": _kill_reverse_receiver,
    "journal server": _kill_journal_server,
    "probes": _kill_probes,
    "source MySQL": _kill_source,
    "target MySQL": _kill_target,
    "everything": _kill_everything,
}
"""Each breaks one part and returns what mends it, once the clients may go on; most parts mend themselves."""
NOT_MENDED: Final[dict[str, Callable[[Attempt], Callable[[], None]]]] = {"control plane": _kill_control_plane}
"""What stays broken until the test mends it."""


class Breaker:
    """Breaks one part at one moment and mends it, on a thread of its own, so that nothing waits between the two."""

    def __init__(self, attempt: Attempt, part: str, moment: str) -> None:
        self.moment = moment
        self.broken = threading.Event()
        self._attempt, self._part = attempt, part
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Breaker:
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._thread.join(JOIN_SECONDS)

    def finish(self, *, reached: bool = True) -> None:
        """Wait for the end of its work; raise what went wrong. `reached`: the moment must have come."""
        self._thread.join(JOIN_SECONDS)
        assert not self._thread.is_alive(), f"{self._part} at {self.moment} does not end"
        if self._error is not None and (reached or self.broken.is_set()):
            raise self._error

    def _run(self) -> None:
        try:
            MOMENTS[self.moment](self._attempt)
            mend = (PARTS | NOT_MENDED)[self._part](self._attempt)
            self.broken.set()
            mend()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._error = error
