"""Agent sessions: who serves which side of which pair, what they report, and what is sent to them.

A session begins with `hello` and `welcome`; then reports flow into the sightings and commands flow out. A site is
served by its enrolled agent, or by the embedded one while none is enrolled; a side changes hands only while no
operation of its pair is open. This module knows messages and sockets, never what a command means.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import structlog
from pydantic import ValidationError

from farshore.conversation import Conversation, Wire
from farshore.questions import INSPECT_SECONDS, Questions
from farshore.seats import Directory, Seats
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
    Command,
    Goodbye,
    Hello,
    Inspected,
    Measured,
    Report,
    Result,
    Welcome,
)
from farshore_schema.observed import STALE_SECONDS, PairObserved
from farshore_schema.roles import Side

HELLO_SECONDS: Final = 10.0  # a socket that says nothing for so long is closed
DEAD_SECONDS: Final = 15.0  # a session that is not `alive` for so long is closed, so that its agent dials again
LISTEN_SECONDS: Final = 0.01  # of listening to all sockets, before everything else has its turn
REDIAL_SECONDS: Final = 1.0
MISMATCH_REDIAL_SECONDS: Final = 60.0  # a wrong version does not mend in a second
UPGRADE_HINT: Final = "bring reconciler and agents to releases at most one apart, the reconciler first"
REVOKED_SECONDS: Final = 30.0
"""A revoked agent is sent away when it serves nothing any more, and after so long at the latest: what it served then
is enrolled afresh at its next agent."""
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
    credential: str = ""  # hash of the credential


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
        self._seats = Seats(sightings, directory)
        self._questions = Questions()
        self._turn_ends, self._turn_asked = 0.0, False  # of listening: `_may_listen`

    # ---- what the loop uses

    def observed(self, pair: str) -> PairObserved:
        """Return both sides' newest reports with their ages."""
        return self._sightings.observed(pair)

    def send(self, command: Command) -> bool:
        """Queue a command for the agent that serves the side; False when nobody does or too much waits."""
        conversation = self._seats.by(command.pair, command.side)
        return conversation is not None and conversation.say(command)

    def session(self, pair: str, side: Side) -> int:
        """Return the number of the session that serves a side, 0 when nobody does."""
        conversation = self._seats.by(pair, side)
        return conversation.number if conversation is not None else 0

    def generation(self, pair: str, side: Side) -> int:
        """Return the generation of the declaration that the side's live agent was given, 0 when nobody serves it."""
        return self._seats.generation(pair, side)

    def settle(self, standing: Standing) -> None:
        """Bring both sides' assignments up to date. Idempotent; nothing is sent twice."""
        self._seats.settle(standing)

    def gone(self, pair: str) -> None:
        """Take both sides back: the pair is no more. Idempotent."""
        self._seats.gone(pair)
        self._sightings.forget(pair)

    # ---- what the API uses

    def agents(self) -> tuple[LiveAgent, ...]:
        """Return every live session."""
        return tuple(
            LiveAgent(each.agent, each.sites, each.embedded, each.version, each.probe_ports)
            for each in self._seats.live()
        )

    def serves(self, site: str) -> bool:
        """Return whether a live agent serves the site."""
        return self._seats.of_site(site) is not None

    def sites_changed(self) -> None:
        """A site was declared or removed, or an agent was enrolled or revoked: look at every side again."""
        if self._seats.embedded is not None:
            self._welcome(self._seats.embedded)
        self._look_again(self._directory.sites())

    async def inspect(
        self, document: MySQLPair, own: Side, existing: bool, *, timeout_seconds: float = INSPECT_SECONDS
    ) -> Inspected:
        """Ask the gateway of the side `own` to look at both endpoints without changing anything.

        Raises Transient `agent_unreachable` when no live agent serves that site, `timeout` when it does not answer.
        """
        site = (document.site_a if own == "a" else document.site_b).site
        return await self._questions.inspect(self._seats.of_site(site), document, own, existing, timeout_seconds)

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
        """Look for sessions that went silent, and for revoked agents; called about once a second."""
        self._send_away()
        for each in self._seats.live():
            silent = self._sightings.silent_seconds(each.number)
            mute = self._sightings.now() - each.heard
            if mute > DEAD_SECONDS:
                error = Transient("timeout", f"the agent said nothing for {mute:.0f} s")
                each.end(error.body(), retry_seconds=REDIAL_SECONDS)
            elif not each.missed and silent > STALE_SECONDS:
                each.missed = True
                self._wake_late(self._sightings.of(each.number), silent)

    def _send_away(self) -> None:
        now = self._sightings.now()
        for each in self._seats.revoked():
            if each.revoked_at is None:
                each.revoked_at = now
                self._look_again(each.sites)
            if not self._seats.serves_any(each) or now - each.revoked_at > REVOKED_SECONDS:
                error = Permanent(
                    "unauthenticated",
                    "this agent's credential was revoked",
                    hint="enrol it again: farshore agents enrol --site SITE",
                )
                each.end(error.body(), retry_seconds=MISMATCH_REDIAL_SECONDS)

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
            self._sightings.opened(),
            agent=identity.agent,
            embedded=identity.embedded,
            credential=identity.credential,
            due=self._directory.assignment,
        )
        conversation.sites, conversation.heard = frozenset(hello.sites), self._sightings.now()
        conversation.version, conversation.probe_ports = hello.agent_version, dict(hello.probe_ports)
        self._begin(conversation)
        return conversation

    def _check_sites(self, hello: Hello, identity: Identity) -> None:
        """Raise unless the credential is bound to what the agent wants to serve, and nobody else serves it (R7)."""
        foreign = frozenset(hello.sites) - identity.sites
        if not identity.embedded and (foreign or not hello.sites or hello.embedded):
            named = ", ".join(sorted(foreign)) or "no site"
            raise Permanent(
                "forbidden",
                f"this credential is not bound to {named}",
                hint="enrol the agent for its site: farshore agents enrol --site SITE",
            )
        for rival in self._seats.rivals(hello.sites, embedded=identity.embedded):
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
        self._seats.arrive(conversation)
        _log.info("agent connected", agent=conversation.agent, session=conversation.number)
        self._welcome(conversation)
        self._look_again(conversation.sites)

    def _wake_late(self, seats: Iterable[Seat], silent_seconds: float = 0.0) -> None:
        """Ask for visits when sides nobody vouches for become unknown, or worth reporting as such."""
        for pair, _side in seats:
            standing = self._seats.standing(pair)
            busy = standing is not None and standing.busy
            due = (STALE_SECONDS if busy else UNHEARD_SECONDS) + STALE_MARGIN_SECONDS
            self._on_change(pair, max(0.0, due - silent_seconds))

    def _wake_back(self, changed: Changed) -> None:
        """Ask for visits of sides that are heard again, where anybody took notice of the silence."""
        for pair, _side in changed.back:
            standing = self._seats.standing(pair)
            if changed.silent_seconds > UNHEARD_SECONDS or standing is None or standing.busy:
                self._on_change(pair, 0.0)

    def _look_again(self, sites: frozenset[str]) -> None:
        """Ask for a visit of every pair with a side at one of these sites; the visit assigns."""
        for pair in self._seats.pairs_at(sites):
            self._on_change(pair, 0.0)

    def _welcome(self, conversation: Conversation) -> None:
        sites = conversation.sites
        if conversation.embedded:
            sites = self._directory.sites() - self._directory.enrolled().keys()
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
                self._reported(conversation, message)
            case Measured():
                for measure in message.measures:
                    if self._seats.may_report(conversation, (measure.pair, measure.side), measure.incarnation):
                        self._sightings.measured(conversation.number, measure)
            case Result():
                if self._seats.by(message.pair, message.side) is conversation:
                    self._on_result(message)
            case Inspected():
                self._questions.answered(conversation, message)
            case _:
                raise Permanent("protocol_mismatch", "the agent said hello twice", hint="upgrade the agent")

    def _reported(self, conversation: Conversation, message: Report) -> None:
        seat: Seat = (message.pair, message.side)
        if not self._seats.may_report(conversation, seat, message.incarnation):
            return
        if message.report.enrolled:
            self._directory.handed(seat)
        if self._sightings.reported(conversation.number, message.pair, message.side, message.report):
            self._on_change(message.pair, 0.0)

    def _over(self, conversation: Conversation) -> None:
        """Forget a conversation; what it reported grows old by itself. Idempotent."""
        conversation.open = False
        lost = self._seats.leave(conversation)
        self._sightings.closed(conversation.number)
        self._questions.gone(conversation)
        self._wake_late(lost)


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
    with contextlib.suppress(Exception):  # it may have hung up
        async with asyncio.timeout(REDIAL_SECONDS):
            await wire.send_text(Goodbye(error=error, retry_seconds=retry_seconds).model_dump_json())
