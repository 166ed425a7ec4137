"""What one site of the small world does: how its agent obeys a command, and what its database and journal do alone.

The agent's judgement and its durable notes are the product's own (`farshore_agent.admission`); only the effect on the
database is modelled here, as the engine contract promises it. An agent can die between its notes and the effect.
"""

from typing import NamedTuple

from farshore_agent.admission import Admitted, Effect, admit, after, claim, names_server, still_holds
from farshore_schema.roles import Facts, Order, Receipt
from tests.simulation.world import SERVER, Message, Site


class Outcome(NamedTuple):
    """One way in which a command can go."""

    site: Site
    fault: bool = False  # costs one fault of the budget
    label: str = ""
    seeds: bool = False  # the first write of a full copy happened: the oracle wants to know
    seeded: bool = False  # a full copy was completed
    done: bool = True  # False: the engine answered that the end is not reached


def facts_of(site: Site) -> Facts | None:
    """Return what the site's agent reports now; None when nobody can."""
    if not (site.alive and site.agent):
        return None
    record = site.record
    receipt = record.receipt if site.up and not site.writable else None
    drained = site.drain if site.drain is not None and _contains(site.executed, site.drain) else None
    return Facts(
        token=record.token,
        epoch=record.epoch,
        fenced_epoch=record.fenced_epoch,
        promoted_epoch=record.promoted_epoch,
        db="up" if site.up else "down",
        server=SERVER[site.side] if site.up else "",
        writable=site.up and site.writable,
        receipt=receipt,
        base=record.base,
        receiving=site.receiving,
        applying=site.receiving and not site.stopped,
        stream_epoch=record.stream_epoch,
        prepared_epoch=site.prepared,
        drained=drained,
        seeding=site.pending is not None and site.pending.step.name == "seed",
        zero=site.zero,
        stopped=site.stopped,
        enrolled=record.enrolled,
        draining=site.drain,
        peer_ready=True,
    )


def deliver(site: Site, other: Site, message: Message) -> list[Outcome]:
    """Return every way in which a command can go that has reached a living agent."""
    order = order_of(message)
    verdict = admit(site.record, order)
    if not isinstance(verdict, Admitted):
        return [Outcome(site, label="refused")]
    noted = site._replace(record=verdict.record)
    ways = [_complete(noted, other, message)]
    ways.append(Outcome(died(noted), fault=True, label="noted, then the agent dies"))
    halfway = _effect(noted, other, message)
    if halfway is not None:
        ways.append(halfway._replace(site=died(halfway.site), fault=True, label="done, then the agent dies unheard"))
    if order.step.name == "promote":
        ways.append(Outcome(noted._replace(pending=message), fault=True, label="checked, effect delayed"))
    return ways


def order_of(message: Message) -> Order:
    """Return the command as admission sees it. Every delivery counts as a new sending: safety must not lean on dedupe."""
    return Order("", message.token, message.step, message.operation)


def died(site: Site) -> Site:
    """Return the site without its agent: the record stays, memory goes, database and data path go on (I10)."""
    return site._replace(agent=False, drain=None, pending=None)


def resume(site: Site, other: Site) -> Outcome | None:
    """Carry on with what is pending: complete a seed, or take the effect of a delayed promotion."""
    message = site.pending
    if message is None or not (site.up and site.alive and site.agent):
        return None
    if message.step.name == "promote":
        held = site._replace(pending=None)
        if still_holds(site.record, order_of(message)) is not None:
            return Outcome(held, label="delayed promotion no longer holds")
        return _complete(held, other, message)._replace(label="delayed promotion takes effect")
    if not (other.up and other.alive):
        return None
    copied = site._replace(
        executed=other.executed, received=other.executed, receiving=True, pending=None, stopped="", zero=False
    )
    return Outcome(_noted_after(copied, message, Effect()), label="full copy completes", seeded=True)


def emergency(site: Site) -> Site | None:
    """Let a person at the gateway decide for this side, the other one being isolated (R16)."""
    record = claim(site.record, attested=True)
    if not isinstance(record, type(site.record)):
        return None
    return _opened(site._replace(record=record, pending=None, drain=None))


def _complete(site: Site, other: Site, message: Message) -> Outcome:
    done = _effect(site, other, message)
    if done is None:
        return Outcome(site, label="no effect")
    if done.seeds or not done.done:
        return done  # a seed is noted as complete only when the copy is
    step = message.step
    effect = Effect(Receipt(site.side, step.epoch, str(done.site.executed)) if step.name == "fence" else None)
    return done._replace(site=_noted_after(done.site, message, effect))


def _noted_after(site: Site, message: Message, effect: Effect) -> Site:
    return site._replace(record=after(site.record, order_of(message), effect)._replace(intents=()))


def _effect(site: Site, other: Site, message: Message) -> Outcome | None:
    """Return the site after the effect, None where the engine raises and nothing happened."""
    step = message.step
    if step.name == "enrol":
        return Outcome(site)
    if not site.up:
        return None
    if step.name == "fence":
        return Outcome(site._replace(writable=False, lasting=False))
    if step.name == "promote":
        opened = _opened(site)
        return Outcome(opened, done=opened.writable)
    if step.name == "stop_acks":
        return Outcome(site._replace(receiving=False))
    if step.name == "drain":
        return Outcome(site._replace(drain=step.receipt))
    if step.name == "cleanup":
        return Outcome(site._replace(receiving=False, prepared=0, drain=None, stopped=""))
    if not (other.up and other.alive):
        return None
    if step.name == "prepare":
        return Outcome(site._replace(prepared=step.epoch, receiving=True))
    if step.name == "seed":
        if not names_server(step.consent, side=site.side, server=SERVER[site.side], epoch=step.epoch):
            return None
        wiped = site._replace(
            executed=0, received=0, writable=False, lasting=False, receiving=False, pending=message, drain=None
        )
        return Outcome(wiped, seeds=True)
    return _follow(site, other)


def _follow(site: Site, other: Site) -> Outcome | None:
    if site.writable or site.stopped == "applier_stopped":
        return None
    if (site.executed | site.received) & ~other.executed:
        return Outcome(site._replace(receiving=False, stopped="diverged"), done=False)
    return Outcome(site._replace(receiving=True, zero=False, stopped=""))


def _opened(site: Site) -> Site:
    """Stop receiving; open only when everything received is applied, because the decision was made on reports."""
    shut = site._replace(receiving=False, zero=False, prepared=0)
    if shut.received & ~shut.executed or not shut.up:
        return shut
    return shut._replace(writable=True, lasting=True, stopped="", drain=None)


def _contains(executed: int, receipt: Receipt) -> bool:
    return not int(receipt.position) & ~executed
