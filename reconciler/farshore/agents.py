"""Agent sessions: who serves which side of which pair, what they report, and what is sent to them.

A session begins with `hello` and `welcome`; then reports flow into the sightings and commands flow out. A site is
served by its enrolled agent, or by the embedded one while none is enrolled; a side changes hands only while no
operation of its pair is open. This module knows messages and sockets, never what a command means.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

import structlog
from pydantic import ValidationError

from farshore.conversation import Conversation, Wire
from farshore.sessions import Standing
from farshore.sightings import UNHEARD_SECONDS, Changed, Seat, Sightings
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Transient
from farshore_schema.messages import (
    FROM_AGENT,
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    PROTOCOLS_SPOKEN,
    Alive,
    Assign,
    Command,
    Hello,
    Inspect,
    Inspected,
    Measured,
    Report,
    Result,
    Unassign,
    Welcome,
)
from farshore_schema.observed import STALE_SECONDS, PairObserved
from farshore_schema.roles import SIDES, Side

HELLO_SECONDS: Final = 10.0  # a socket that says nothing for so long is closed
DEAD_SECONDS: Final = 15.0  # a session that is not `alive` for so long is closed, so that its agent dials again
INSPECT_SECONDS: Final = 30.0  # bound of one look at two endpoints
INSPECTS_MAX: Final = 64  # looks under way at once
LISTEN_SECONDS: Final = 0.01  # of listening to all sockets, before everything else has its turn
REDIAL_SECONDS: Final = 1.0
MISMATCH_REDIAL_SECONDS: Final = 60.0  # a wrong version does not mend in a second
UPGRADE_HINT: Final = "bring farshore and farshore-agent to releases at most one apart, the reconciler first"
STALE_MARGIN_SECONDS: Final = 0.05  # look again just after a report has become unknown, not just before

_log = structlog.get_logger(__name__)


class LiveAgent(NamedTuple):
    """A connected agent, as the API shows it."""

    agent: str
    sites: frozenset[str]
    embedded: bool = False
    version: str = ""
    probe_ports: Mapping[str, int] = MappingProxyType({})  # site -> port that answers /primary and /standby


class Identity(NamedTuple):
    """Whose credential opened the socket, and which sites it is bound to (R7)."""

    agent: str
    sites: frozenset[str] = frozenset()  # of an enrolled agent; the embedded one serves what is left
    embedded: bool = False


class Fingerprint(NamedTuple):
    """What an assignment says; another one must be sent when it differs."""

    incarnation: int
    generation: int
    active: Side | None
    epoch: int


class Directory(Protocol):
    """What the sessions need to know of the declarations; answered from the store."""

    def sites(self) -> frozenset[str]:
        """Return every declared site."""
        ...

    def enrolled(self) -> frozenset[str]:
        """Return the sites that have an enrolled agent, whether it is connected or not."""
        ...

    def assignment(self, seat: Seat) -> Assign | None:
        """Return what the side's agent should be told now, None when the pair is no more."""
        ...


class _Served(NamedTuple):
    by: Conversation
    fingerprint: Fingerprint


class AgentSessions:
    """Every live agent. All methods belong to the event loop's thread; only `handle` and `inspect` wait."""

    def __init__(
        self,
        *,
        sightings: Sightings,
        directory: Directory,
        on_change: Callable[[str, float], None],
        on_result: Callable[[Result], None],
    ) -> None:
        """`on_change(pair, seconds)` asks for a visit that soon; `on_result` hears every outcome of a command."""
        self._sightings, self._directory = sightings, directory
        self._on_change, self._on_result = on_change, on_result
        self._by_site: dict[str, Conversation] = {}  # enrolled agents
        self._embedded: Conversation | None = None
        self._served: dict[Seat, _Served] = {}
        self._questions: dict[str, tuple[Conversation, asyncio.Future[Inspected]]] = {}
        self._numbers = count(1)
        self._turn_ends, self._turn_asked = 0.0, False  # of listening: `_may_listen`
        self._standings: dict[str, Standing] = {}  # of every pair that was visited

    # ---- what the loop uses

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports with their ages."""
        return self._sightings.observed(pair)

    def send(self, command: Command) -> bool:
        """Queue a command for the agent that serves the side; False when nobody does or too much waits."""
        served = self._served.get((command.pair, command.side))
        return served is not None and served.by.say(command)

    def session(self, pair: str, side: Side) -> int:
        """Return the number of the session that serves a side, 0 when nobody does."""
        served = self._served.get((pair, side))
        return served.by.number if served is not None and served.by.open else 0

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation of the declaration that the side's live agent was given, 0 when nobody serves it."""
        served = self._served.get((pair, side))
        return served.fingerprint.generation if served is not None and served.by.open else 0

    def settle(self, standing: Standing) -> None:
        """Bring both sides' assignments up to date. Idempotent; nothing is sent twice."""
        self._standings[standing.pair] = standing
        for side in SIDES:
            self._settle((standing.pair, side), standing)

    def gone(self, pair: str) -> None:
        """Take both sides back: the pair is no more. Idempotent."""
        for side in SIDES:
            seat: Seat = (pair, side)
            if seat in self._served:
                self._take_back(seat)
        self._sightings.forget(pair)
        self._standings.pop(pair, None)

    # ---- what the API uses

    def agents(self) -> tuple[LiveAgent, ...]:
        """Return every live session."""
        return tuple(
            LiveAgent(each.agent, each.sites, each.embedded, each.version, each.probe_ports) for each in self._live()
        )

    def serves(self, site: str) -> bool:
        """Return whether a live agent serves the site."""
        return self._conversation(site) is not None

    def sites_changed(self) -> None:
        """A site was declared or removed, or an agent was enrolled or revoked: look at every side again."""
        if self._embedded is not None:
            self._welcome(self._embedded)
        self._look_again(self._directory.sites())

    async def inspect(
        self, document: MySQLPair, own: Side, existing: bool, *, timeout_seconds: float = INSPECT_SECONDS
    ) -> Inspected:
        """Ask the gateway of the side `own` to look at both endpoints without changing anything.

        Raises Transient `agent_unreachable` when no live agent serves that site, `timeout` when it does not answer.
        """
        site = (document.site_a if own == "a" else document.site_b).site
        conversation = self._conversation(site)
        hint = f"start the agent of {site}: farshore-agent run"
        if conversation is None:
            raise Transient("agent_unreachable", f"no agent serves {site}", hint=hint)
        request = f"inspect-{next(self._numbers)}"
        answer: asyncio.Future[Inspected] = asyncio.get_running_loop().create_future()
        question = Inspect(request=request, document=document, own=own, existing=existing)
        if len(self._questions) >= INSPECTS_MAX or not conversation.say(question):
            raise Transient("timeout", f"too many questions wait for the agent of {site}", retry_seconds=5)
        self._questions[request] = (conversation, answer)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError as error:
            raise Transient(
                "timeout", f"the agent of {site} did not answer within {timeout_seconds:.0f} s", hint=hint
            ) from error
        finally:
            self._questions.pop(request, None)

    # ---- one conversation

    async def handle(self, wire: Wire, identity: Identity) -> None:
        """Serve one agent's socket until it closes; `identity` is what its credential says."""
        await wire.accept()
        conversation: Conversation | None = None
        try:
            conversation = await self._greet(wire, identity)
            await self._converse(wire, conversation)
        except FarshoreError as error:
            retry = error.retry_seconds if isinstance(error, Transient) else MISMATCH_REDIAL_SECONDS
            _log.warning("agent refused", agent=identity.agent, code=error.code, reason=error.message)
            await _refuse(wire, error.body(), retry)
        finally:
            if conversation is not None:
                self._over(conversation)
            with contextlib.suppress(Exception):  # the socket may be gone already, in as many ways as there are servers
                await wire.close()

    def check(self) -> None:
        """Look for sessions that went silent; called about once a second."""
        for each in tuple(self._live()):
            silent = self._sightings.silent_seconds(each.number)
            mute = self._sightings.now() - each.heard
            if mute > DEAD_SECONDS:
                error = Transient("timeout", f"the agent said nothing for {mute:.0f} s")
                each.end(error.body(), retry_seconds=REDIAL_SECONDS)
            elif not each.missed and silent > STALE_SECONDS:
                each.missed = True
                self._wake_late(self._sightings.of(each.number), silent)

    async def _greet(self, wire: Wire, identity: Identity) -> Conversation:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = _parse(await wire.receive_text())
        except TimeoutError as error:
            raise Transient("timeout", "the agent did not say hello") from error
        if not isinstance(hello, Hello):
            raise Permanent("protocol_mismatch", "the first message was not hello", hint="upgrade the agent")
        if hello.protocol not in PROTOCOLS_SPOKEN:
            spoken = ", ".join(str(each) for each in PROTOCOLS_SPOKEN)
            raise Permanent(
                "protocol_mismatch",
                f"the agent speaks protocol {hello.protocol}, this reconciler {spoken}",
                hint=UPGRADE_HINT,
            )
        self._check_sites(hello, identity)
        conversation = Conversation(
            self._sightings.opened(), agent=identity.agent, embedded=identity.embedded, due=self._directory.assignment
        )
        conversation.sites, conversation.heard = frozenset(hello.sites), self._sightings.now()
        conversation.version, conversation.probe_ports = hello.agent_version, dict(hello.probe_ports)
        self._begin(conversation)
        return conversation

    def _check_sites(self, hello: Hello, identity: Identity) -> None:
        """Raise unless the credential is bound to what the agent wants to serve, and nobody else serves it (R7)."""
        if identity.embedded:
            rivals = [self._embedded] if self._embedded is not None else []
        else:
            foreign = frozenset(hello.sites) - identity.sites
            if foreign or not hello.sites or hello.embedded:
                named = ", ".join(sorted(foreign)) or "no site"
                raise Permanent(
                    "forbidden",
                    f"this credential is not bound to {named}",
                    hint="enrol the agent for its site: farshore agents enrol --site SITE",
                )
            rivals = [self._by_site[site] for site in hello.sites if site in self._by_site]
        for rival in rivals:
            if rival.open and self._sightings.silent_seconds(rival.number) <= STALE_SECONDS:
                raise Transient(
                    "second_agent",
                    f"another live agent serves {', '.join(sorted(rival.sites)) or 'the embedded sites'}",
                    hint="stop the other agent, or enrol this one for another site",
                    retry_seconds=REDIAL_SECONDS,
                )
            self._over(rival)  # silent: a crash or a broken path; the newcomer takes its place
            rival.end(Permanent("second_agent", "another agent took this place").body(), retry_seconds=REDIAL_SECONDS)

    def _begin(self, conversation: Conversation) -> None:
        if conversation.embedded:
            self._embedded = conversation
        else:
            self._by_site |= dict.fromkeys(conversation.sites, conversation)
        _log.info("agent connected", agent=conversation.agent, session=conversation.number)
        self._welcome(conversation)
        self._look_again(conversation.sites)

    def _wake_late(self, seats: Iterable[Seat], silent_seconds: float = 0.0) -> None:
        """Ask for visits when sides nobody vouches for become unknown, or worth reporting as such."""
        for pair, _side in seats:
            standing = self._standings.get(pair)
            busy = standing is not None and standing.busy
            due = (STALE_SECONDS if busy else UNHEARD_SECONDS) + STALE_MARGIN_SECONDS
            self._on_change(pair, max(0.0, due - silent_seconds))

    def _wake_back(self, changed: Changed) -> None:
        """Ask for visits of sides that are heard again, where anybody took notice of the silence."""
        for pair, _side in changed.back:
            standing = self._standings.get(pair)
            if changed.silent_seconds > UNHEARD_SECONDS or standing is None or standing.busy:
                self._on_change(pair, 0.0)

    def _look_again(self, sites: frozenset[str]) -> None:
        """Ask for a visit of every pair with a side at one of these sites; the visit assigns."""
        for pair, standing in self._standings.items():
            if standing.site_a in sites or standing.site_b in sites:
                self._on_change(pair, 0.0)

    def _welcome(self, conversation: Conversation) -> None:
        sites = conversation.sites
        if conversation.embedded:
            sites = self._directory.sites() - self._directory.enrolled()
            conversation.sites = sites
        conversation.say(Welcome(protocol=PROTOCOL, sites=tuple(sorted(sites))))

    async def _converse(self, wire: Wire, conversation: Conversation) -> None:
        """Read and write until either ends; the first failure ends the session."""
        speaking = asyncio.create_task(conversation.speak(wire), name=f"speak-{conversation.number}")
        hearing = asyncio.create_task(self._hear(wire, conversation), name=f"hear-{conversation.number}")
        try:
            await asyncio.wait({speaking, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (speaking, hearing):
                task.cancel()
            outcomes = await asyncio.gather(speaking, hearing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, FarshoreError):
                raise outcome
        reasons = [type(each).__name__ for each in outcomes if isinstance(each, Exception)]
        _log.info("agent disconnected", agent=conversation.agent, session=conversation.number, reasons=reasons)

    async def _hear(self, wire: Wire, conversation: Conversation) -> None:
        newest = 0
        while conversation.open:
            text = await wire.receive_text()
            while not self._may_listen():  # noqa: ASYNC110 (each turn lets some of many in, in their order)
                await asyncio.sleep(0)
            conversation.heard = self._sightings.now()
            message = _parse(text)
            if not isinstance(message, Report | Measured | Alive):
                self._take(conversation, message)
            elif message.sequence > newest:  # else it was overtaken
                newest = message.sequence
                self._take(conversation, message)

    def _may_listen(self) -> bool:
        """Return whether the present turn of listening, shared by all sockets, goes on.

        A full socket gives messages without ever waiting. However many agents speak at once, visits and requests wait
        for one turn and not for one of each agent; who had to stop first goes on first.
        """
        now = self._sightings.now()
        if now >= self._turn_ends + LISTEN_SECONDS:
            self._turn_ends = now + LISTEN_SECONDS  # a pause of its own has passed
        if now < self._turn_ends:
            return True
        if not self._turn_asked:
            self._turn_asked = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        return False

    def _next_turn(self) -> None:
        self._turn_ends, self._turn_asked = self._sightings.now() + LISTEN_SECONDS, False

    def _take(self, conversation: Conversation, message: object) -> None:
        match message:
            case Alive():
                conversation.missed = False
                changed = self._sightings.alive(conversation.number, frozenset(message.unheld))
                self._wake_back(changed)
                self._wake_late(changed.lost)
            case Report():
                if self._is_mine(conversation, (message.pair, message.side), message.incarnation) and (
                    self._sightings.reported(conversation.number, message.pair, message.side, message.report)
                ):
                    self._on_change(message.pair, 0.0)
            case Measured():
                for measure in message.measures:
                    if self._is_mine(conversation, (measure.pair, measure.side), measure.incarnation):
                        self._sightings.measured(conversation.number, measure)
            case Result():
                if self._is_mine(conversation, (message.pair, message.side), None):
                    self._on_result(message)
            case Inspected():
                asked = self._questions.get(message.request)
                if asked is not None and asked[0] is conversation and not asked[1].done():
                    asked[1].set_result(message)
            case _:
                raise Permanent("protocol_mismatch", "the agent said hello twice", hint="upgrade the agent")

    # ---- who serves what

    def _conversation(self, site: str) -> Conversation | None:
        """Return the live conversation that should serve a site now."""
        found = self._by_site.get(site) if site in self._directory.enrolled() else self._embedded
        return found if found is not None and found.open else None

    def _settle(self, seat: Seat, standing: Standing) -> None:
        wanted = self._conversation(standing.site(seat[1]))
        served = self._served.get(seat)
        if served is not None and served.by is not wanted:
            if wanted is None or standing.busy:
                wanted = served.by  # a side changes hands only at an idle step (R7)
            else:
                self._take_back(seat)
                served = None
        if wanted is None:
            return
        now = Fingerprint(standing.incarnation, standing.generation, standing.active, standing.epoch)
        if served is None or served.fingerprint != now:
            self._served[seat] = _Served(wanted, now)
            wanted.assign(seat)

    def _take_back(self, seat: Seat) -> None:
        served = self._served.pop(seat)
        served.by.unassign(Unassign(pair=seat[0], side=seat[1], incarnation=served.fingerprint.incarnation))

    def _is_mine(self, conversation: Conversation, seat: Seat, incarnation: int | None) -> bool:
        """Whether the session serves the side; a leftover of a pair that is no more is told to let go."""
        served = self._served.get(seat)
        if served is not None and served.by is conversation:
            return incarnation is None or incarnation == served.fingerprint.incarnation
        if incarnation is not None and self._directory.assignment(seat) is None:
            conversation.unassign(Unassign(pair=seat[0], side=seat[1], incarnation=incarnation))
        return False

    def _over(self, conversation: Conversation) -> None:
        """Forget a conversation; what it reported grows old by itself. Idempotent."""
        conversation.open = False
        if self._embedded is conversation:
            self._embedded = None
        for site in [site for site, each in self._by_site.items() if each is conversation]:
            del self._by_site[site]
        lost = [seat for seat, served in self._served.items() if served.by is conversation]
        for seat in lost:
            del self._served[seat]
        self._sightings.closed(conversation.number)
        for asked, answer in self._questions.values():
            if asked is conversation and not answer.done():
                answer.set_exception(Transient("agent_unreachable", "the agent went away before it answered"))
        self._wake_late(lost)

    def _live(self) -> tuple[Conversation, ...]:
        found = {*self._by_site.values()} | ({self._embedded} if self._embedded is not None else set())
        return tuple(sorted((each for each in found if each.open), key=lambda each: each.number))


def _parse(text: str) -> object:
    """Return the message; an unknown type or a malformed one ends the session (I8)."""
    if len(text) > MESSAGE_BYTES_MAX:
        raise Permanent("body_too_large", f"a message of {len(text)} characters", hint="upgrade the agent")
    try:
        return FROM_AGENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Permanent(
            "protocol_mismatch",
            f"a message that this release does not understand: {first['msg']}",
            hint=UPGRADE_HINT,
        ) from error


async def _refuse(wire: Wire, error: ErrorBody, retry_seconds: float) -> None:
    from farshore_schema.messages import Goodbye

    with contextlib.suppress(Exception):  # it may have hung up
        async with asyncio.timeout(REDIAL_SECONDS):
            await wire.send_text(Goodbye(error=error, retry_seconds=retry_seconds).model_dump_json())
