"""The conversation with the reconciler over a real WebSocket: lost, late, repeated, refused and unknown messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect

from farshore_agent import session as session_module
from farshore_agent.observe import Key
from farshore_agent.session import Identity, Introduction, Session
from farshore_schema.errors import ErrorBody, Permanent
from farshore_schema.messages import (
    FROM_AGENT,
    Assign,
    Command,
    Goodbye,
    Inspect,
    Result,
    Unassign,
    Welcome,
)
from farshore_schema.observed import SideReport, StreamMeasurements
from tests.unit.agent.declared import assign, command, document, unassign
from tests.unit.agent.scripted import ScriptedReconciler
from tests.unit.agent.waiting import soon

A: Key = ("orders", "a")


class Ears:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.sites: list[tuple[str, ...]] = []
        self.introduce_again = 0

    def assign(self, message: Assign) -> None:
        self.told.append(message)

    def unassign(self, message: Unassign) -> None:
        self.told.append(message)

    def command(self, message: Command) -> None:
        self.told.append(message)

    def inspect(self, message: Inspect) -> None:
        self.told.append(message)

    def welcomed(self, sites: tuple[str, ...]) -> bool:
        self.sites.append(sites)
        self.introduce_again -= 1
        return self.introduce_again >= 0


class Talk:
    """A session under test beside its scripted reconciler."""

    def __init__(self, reconciler: ScriptedReconciler) -> None:
        self.reconciler, self.ears = reconciler, Ears()
        self.unheld: tuple[Key, ...] = ()
        self.ports = {"tokyo": 8610}
        identity = Identity(agent="agent-1", embedded=False, introduce=lambda: Introduction(("tokyo",), self.ports))
        self.session = Session(
            identity=identity, dial=self.dial, ears=self.ears, overdue=lambda: self.unheld, chance=random.Random(1)
        )

    async def dial(self) -> ClientConnection:
        return await connect(
            f"ws://127.0.0.1:{self.reconciler.port}/v1/agents/session",
            additional_headers={"Authorization": "Bearer the-credential"},
            proxy=None,
            close_timeout=0.2,
        )


@asynccontextmanager
async def talking(reconciler: ScriptedReconciler | None = None) -> AsyncIterator[tuple[Talk, asyncio.Task[None]]]:
    async with (reconciler or ScriptedReconciler()).running() as running:
        talk = Talk(running)
        task = asyncio.create_task(talk.session.run())
        try:
            yield talk, task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "BACKOFF_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(session_module, "BACKOFF_MAX_SECONDS", 0.05)


@pytest.mark.asyncio
async def test_it_says_who_it_is_then_lives_and_obeys_in_order() -> None:
    """Hello first, with sites and probe ports and without the credential; then signs of life, numbered from 1."""
    async with talking() as (talk, _):
        there = talk.reconciler
        await soon(lambda: len(there.heard("alive")) >= 2, "two signs of life")
        hello = there.sessions[0][0]
        assert (hello["type"], hello["agent"], hello["sites"], hello["probe_ports"]) == (
            "hello",
            "agent-1",
            ["tokyo"],
            {"tokyo": 8610},
        )
        assert "the-credential" not in str(there.sessions)
        assert (there.headers[0], there.paths[0]) == ("Bearer the-credential", "/v1/agents/session")
        assert [message["sequence"] for message in there.heard("alive")][:2] == [1, 2]
        messages = [assign("a"), command("fence", "a", 4), unassign("a")]
        for message in messages:
            await there.say(message)
        await soon(lambda: len(talk.ears.told) == 3)
        assert talk.ears.told == messages
        for each in there.sessions[0]:
            FROM_AGENT.validate_python(each)


@pytest.mark.asyncio
async def test_facts_are_reported_at_once_once_and_measurements_rarely() -> None:
    """A changed fact goes out before the next sign of life; the same facts never twice; numbers alone as measures."""
    async with talking() as (talk, _):
        there, session = talk.reconciler, talk.session
        await soon(lambda: there.heard("alive"))
        base = SideReport(db="up", epoch=2, enrolled=True)
        session.assigned(A)
        session.report(A, 1, base)
        await soon(lambda: len(there.heard("report")) == 1)
        session.report(A, 1, base)
        session.report(A, 1, base.model_copy(update={"stream": StreamMeasurements(lag_seconds=0.5), "position": "p"}))
        session.report(A, 1, base.model_copy(update={"writable": True}))
        await soon(lambda: len(there.heard("report")) == 2)
        assert there.heard("report")[1]["report"]["writable"] is True
        session.report(A, 1, base.model_copy(update={"writable": True, "position": "q"}))
        await soon(lambda: there.heard("measured"), "a measurement")
        (measure,) = there.heard("measured")[0]["measures"]
        assert (measure["pair"], measure["side"], measure["position"]) == ("orders", "a", "q")
        session.assigned(A)
        await soon(lambda: len(there.heard("report")) == 3, "the report after an assignment")
        numbers = [each["sequence"] for each in there.sessions[0] if "sequence" in each]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.asyncio
async def test_a_side_nobody_could_look_at_is_not_vouched_for() -> None:
    """An overdue side is named in the sign of life."""
    async with talking() as (talk, _):
        talk.unheld = (A,)
        await soon(lambda: [each for each in talk.reconciler.heard("alive") if each["unheld"] == [["orders", "a"]]])


@pytest.mark.asyncio
async def test_a_lost_session_is_dialled_again_and_what_was_not_said_is_said_then() -> None:
    """The connection is cut: the agent comes back by itself, says hello, repeats unsent outcomes and reports anew."""
    async with talking() as (talk, _):
        there, session = talk.reconciler, talk.session
        await soon(lambda: there.heard("alive"))
        session.assigned(A)
        session.report(A, 1, SideReport(db="up"))
        await soon(lambda: there.heard("report"))
        there.links[-1].transport.abort()
        session.result(Result(intent="i1", pair="orders", side="a", state="done"))
        await soon(lambda: len(there.sessions) == 2 and there.heard("result"), "the outcome in the next session")
        assert there.sessions[-1][0]["type"] == "hello"
        session.assigned(A)
        await soon(lambda: [each for each in there.sessions[-1] if each["type"] == "report"], "the report again")


@pytest.mark.asyncio
async def test_a_side_that_is_not_assigned_is_reported_late_so_that_a_leftover_can_be_told_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before its assignment in this session a side is not reported, later it is, once."""
    monkeypatch.setattr("farshore_agent.reporter.UNASSIGNED_SECONDS", 1.5)
    async with talking() as (talk, _):
        there = talk.reconciler
        talk.session.report(A, 1, SideReport(db="up"))
        await soon(lambda: there.heard("alive"))
        assert not there.heard("report")
        await soon(lambda: there.heard("report"), "the late report")
        await soon(lambda: len(there.heard("alive")) >= 4)
        assert len(there.heard("report")) == 1


@pytest.mark.asyncio
async def test_a_reconciler_that_refuses_is_asked_again_and_one_that_says_never_is_not() -> None:
    """Goodbye with a pause: a next session; goodbye with none: `run` ends and nothing dials again."""
    reconciler = ScriptedReconciler()
    error = ErrorBody(code="second_agent", message="another one serves tokyo")
    reconciler.first = lambda session: Goodbye(error=error, retry_seconds=0.01 if session == 0 else 0)
    async with talking(reconciler) as (_, task):
        await asyncio.wait_for(asyncio.shield(task), 20)
        assert len(reconciler.sessions) == 2


@pytest.mark.asyncio
async def test_a_wrong_credential_is_tried_again_with_a_pause() -> None:
    """HTTP 401 at the handshake does not end the agent: enrolled anew, it gets in."""
    reconciler = ScriptedReconciler()
    reconciler.status = 401
    async with talking(reconciler) as (talk, _):
        await soon(lambda: len(reconciler.headers) >= 2)
        assert not talk.ears.sites
        reconciler.status = None
        await soon(lambda: reconciler.heard("alive"))


@pytest.mark.asyncio
async def test_a_reconciler_of_another_protocol_gets_no_orders_through() -> None:
    """A welcome of an unknown protocol ends the session with a clear error; nothing is obeyed."""
    reconciler = ScriptedReconciler()
    reconciler.first = lambda session: Welcome(protocol=99, sites=("tokyo",)) if session == 0 else None
    async with talking(reconciler) as (talk, _):
        await soon(lambda: len(reconciler.sessions) >= 2)
        assert not talk.ears.sites


@pytest.mark.asyncio
async def test_unknown_messages_are_refused_and_reported_never_skipped() -> None:
    """A command with an unknown step and a question of an unknown kind are answered; what nobody waits for ends the
    session (I8)."""
    async with talking() as (talk, _):
        there = talk.reconciler
        await soon(lambda: there.heard("alive"))
        newer = command("fence", "a", 4, intent="i9").model_dump_json().replace('"fence"', '"teleport"')
        await there.say(newer)
        await soon(lambda: there.heard("result"))
        (refused,) = there.heard("result")
        assert (refused["intent"], refused["state"], refused["error"]["code"]) == ("i9", "refused", "protocol_mismatch")
        await there.say('{"type": "inspect_deeply", "request": "q1"}')
        await soon(lambda: there.heard("inspected"))
        assert there.heard("inspected")[0]["findings"][0]["code"] == "protocol_mismatch"
        await there.say('{"type": "dance"}')
        await soon(lambda: len(there.sessions) == 2, "the next session")
        assert talk.ears.told == []


@pytest.mark.asyncio
async def test_fields_of_a_newer_release_are_ignored() -> None:
    """An extra field does not keep a command from being obeyed (N and N-1 speak with each other)."""
    async with talking() as (talk, _):
        await soon(lambda: talk.reconciler.heard("alive"))
        asked = command("fence", "a", 4)
        await talk.reconciler.say(asked.model_dump_json().replace("{", '{"colour": "blue", ', 1))
        await soon(lambda: talk.ears.told == [asked])


@pytest.mark.asyncio
async def test_a_hello_that_says_more_is_said_again() -> None:
    """A welcome that brings a new site opens its probe port; the hello of the next session names it."""
    reconciler = ScriptedReconciler()
    async with reconciler.running():
        talk = Talk(reconciler)
        talk.ears.introduce_again = 1
        task = asyncio.create_task(talk.session.run())
        await soon(lambda: len(reconciler.sessions) == 2 and len(talk.ears.sites) == 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.asyncio
async def test_questions_reach_the_ears_and_errors_have_the_wire_s_form() -> None:
    """An inspect arrives as a value."""
    async with talking() as (talk, _):
        await soon(lambda: talk.reconciler.heard("alive"))
        question = Inspect(request="q", document=document(), own="a")
        await talk.reconciler.say(question)
        await soon(lambda: talk.ears.told == [question])
        talk.session.result(
            Result(intent="i", pair="orders", side="a", state="failed", error=Permanent("bug", "x").body())
        )
        await soon(lambda: talk.reconciler.heard("result"))
        assert talk.reconciler.heard("result")[0]["error"]["code"] == "bug"
