"""What one site of the small world does: how its agent obeys a command, and what its database and journal do alone.

The agent's judgement, its durable notes and their order around the effect are the product's own
(`farshore_agent.admission`, driven by `farshore_agent.commands`); only the effects on database and journal are modelled
here, as the engine contract promises them. The agent can die at every point that the product names.
"""

import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from farshore_agent.admission import Effect, Refused, after, claim, names_server
from farshore_agent.commands import CommandRunner, Point
from farshore_schema.roles import Consent, Evidence, Facts, Order, Receipt, Record
from tests.simulation.world import SERVER, Message, Site

DEATHS: Final[tuple[Point, ...]] = ("noted", "first_write", "effected")
"""Points at which dying makes a difference; before them nothing happened, after them the agent merely dies."""


class Outcome(NamedTuple):
    """One way in which a command can go."""

    site: Site
    fault: bool = False  # costs one fault of the budget
    label: str = ""
    seeds: bool = False  # the first write of a full copy happened: the oracle wants to know
    seeded: bool = False  # a full copy was completed


class Died(Exception):
    """The agent process ended."""


class Failed(Exception):
    """The engine raised: the end of a step is not reached."""


def facts_of(site: Site) -> Facts | None:
    """Return what the site's agent reports now; None when nobody can."""
    if not (site.alive and site.agent):
        return None
    record = site.record
    drained = site.drain if site.drain is not None and _contains(site.executed, site.drain) else None
    return Facts(
        token=record.token,
        epoch=record.epoch,
        fenced_epoch=record.fenced_epoch,
        promoted_epoch=record.promoted_epoch,
        db="up" if site.up else "down",
        server=SERVER[site.side] if site.up else "",
        writable=site.up and site.writable,
        receipt=record.receipt if site.up and not site.writable else None,
        base=record.base,
        receiving=site.receiving,
        applying=site.receiving and not site.stopped,
        stream_epoch=record.stream_epoch,
        prepared_epoch=site.prepared,
        proved_for=site.proved,
        drained=drained,
        seeding=site.pending is not None and site.pending.step.name == "seed",
        zero=site.zero,
        stopped=site.stopped,
        enrolled=record.enrolled,
        draining=site.drain,
        seeded_for=record.seeded_for,
        peer_ready=True,
    )


def deliver(site: Site, other: Site, message: Message) -> list[Outcome]:
    """Return every way in which a command can go that has reached a living agent."""
    ways = [_run(site, other, message)]
    if ways[0].label == "refused":
        return ways
    for point in DEATHS:
        way = _run(site, other, message, dies_at=point)
        if way.fault:
            ways.append(way)
    if message.step.name == "promote":
        body = _Body(site, other)
        if _runner(body).accept(order_of(message)) is None:
            ways.append(Outcome(body.site._replace(pending=message), fault=True, label="admitted, effect delayed"))
    return ways


def resume(site: Site, other: Site) -> Outcome | None:
    """Carry on with what is pending: complete a seed, or take the effect of a delayed promotion."""
    message = site.pending
    if message is None or not (site.up and site.alive and site.agent):
        return None
    if message.step.name == "promote":
        body = _Body(site._replace(pending=None), other)
        ended = _ended(body, lambda: _runner(body).perform(order_of(message)).state)
        return ended._replace(label=f"delayed promotion {ended.label}")
    if not (other.up and other.alive):
        return None
    copied = site._replace(
        executed=other.executed, received=other.executed, receiving=True, pending=None, stopped="", zero=True
    )
    record = after(site.record, order_of(message), Effect())
    return Outcome(copied._replace(record=_forgetful(record)), label="full copy completes", seeded=True)


def emergency(site: Site) -> Site | None:
    """Let a person at the gateway decide for this side, the other one being isolated (R16)."""
    record = claim(site.record, attested=True)
    if isinstance(record, Refused):
        return None
    body = _Body(site._replace(record=record, pending=None, drain=None), site)
    with contextlib.suppress(Failed):  # opened by the next attempt, once everything is applied
        body.promote(record.epoch, "emergency", None, lambda: None, None)
    return body.site


def died(site: Site) -> Site:
    """Return the site without its agent: the record stays, memory goes, database and data path go on (I10)."""
    return site._replace(agent=False, drain=None, pending=None, proved="")


def order_of(message: Message) -> Order:
    """Return the command as admission sees it, always as a new sending: safety must not lean on dedupe."""
    return Order("", message.token, message.step, message.operation)


def _run(site: Site, other: Site, message: Message, dies_at: Point | None = None) -> Outcome:
    def crash(point: Point) -> None:
        if point == dies_at:
            raise Died

    body = _Body(site, other, message)
    return _ended(body, lambda: _runner(body, crash).run(order_of(message)).state, dies_at)


def _ended(body: "_Body", act: Callable[[], str], dies_at: Point | None = None) -> Outcome:
    try:
        label = act()
    except Died:
        return Outcome(died(body.site), fault=True, label=f"the agent dies when {dies_at}", seeds=body.wiped)
    except Failed as failed:
        label = str(failed)
    return Outcome(body.site, label=label, seeds=body.wiped)


def _runner(body: "_Body", crash: Callable[[Point], None] = lambda _point: None) -> CommandRunner:
    return CommandRunner(side=body.site.side, keeper=body, moves=body, crash=crash)


def _forgetful(record: Record) -> Record:
    return record._replace(intents=())


class _Body:
    """A site under the hands of its agent: the keeper of its record, and the effects of the engine contract."""

    def __init__(self, site: Site, other: Site, message: Message | None = None) -> None:
        self.site, self.other, self.message = site, other, message
        self.wiped = False

    def load(self) -> Record:
        """Return the durable record."""
        return self.site.record

    def save(self, record: Record) -> None:
        """Make a record durable, at once and whole; its list of sendings is left out on purpose."""
        self.site = self.site._replace(record=_forgetful(record))

    def fence(self, epoch: int) -> str:
        """Make this side read-only for good."""
        self._needs_database()
        self._set(writable=False, lasting=False)
        return str(self.site.executed)

    def promote(
        self,
        epoch: int,
        evidence: Evidence,
        receipt: Receipt | None,
        still: Callable[[], None],
        consent: Consent | None,
    ) -> None:
        """Stop receiving; open only when everything received is applied, because the decision was made on reports."""
        self._needs_database()
        self._set(receiving=False, zero=False, prepared=0)
        if self.site.received & ~self.site.executed:
            raise Failed("not everything is applied")
        still()
        self._set(writable=True, lasting=True, stopped="", drain=None)

    def stop_acks(self, epoch: int) -> None:
        """Stop receiving."""
        self._set(receiving=False)

    def drain(self, receipt: Receipt) -> None:
        """Begin to wait for the end of what the source committed."""
        self._needs_database()
        self._set(drain=receipt)

    def prepare(self, epoch: int) -> None:
        """Attach the reverse receiver."""
        self._needs_other()
        self._set(prepared=epoch, receiving=True)

    def stream(self, epoch: int, consent: Consent | None) -> None:
        """Follow the other side, unless this one holds more."""
        self._needs_other()
        site = self.site
        if site.writable or site.stopped == "applier_stopped":
            raise Failed("cannot follow")
        if (site.executed | site.received) & ~self.other.executed:
            self._set(receiving=False, stopped="diverged")
            raise Failed("diverged")
        self._set(receiving=True, zero=not self.other.executed & ~(site.executed | site.received), stopped="")

    def prove(self, consent: Consent) -> None:
        """Look whether the active side's server holds all that was received here; note it, in memory only."""
        self._needs_other()
        if consent.side == self.site.side and not self.site.writable:
            raise Failed("not open")
        if consent.side != self.site.side and (self.site.executed | self.site.received) & ~self.other.executed:
            self._set(stopped="diverged")
            raise Failed("diverged")
        self._set(proved=self.message.operation if self.message is not None else "")

    def seed(self, epoch: int, consent: Consent | None, before_first_write: Callable[[], None]) -> None:
        """Begin to overwrite this side; the copy completes later."""
        self._needs_other()
        if not names_server(consent, side=self.site.side, server=SERVER[self.site.side], epoch=epoch):
            raise Failed("no consent names this server")
        before_first_write()
        self._set(
            executed=0, received=0, writable=False, lasting=False, receiving=False, drain=None, pending=self.message
        )
        self.wiped = True
        raise Failed("copying")

    def cleanup(self) -> None:
        """End protection here."""
        self._needs_database()
        self._set(receiving=False, prepared=0, drain=None, stopped="")

    def _set(self, **changes: object) -> None:
        self.site = self.site._replace(**changes)  # type: ignore[arg-type]

    def _needs_database(self) -> None:
        if not self.site.up:
            raise Failed("database down")

    def _needs_other(self) -> None:
        self._needs_database()
        if not (self.other.up and self.other.alive):
            raise Failed("other side unreachable")


def _contains(executed: int, receipt: Receipt) -> bool:
    return not int(receipt.position) & ~executed
