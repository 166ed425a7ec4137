"""What needs a real server: event streams that are cut and resumed, and agents' sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from farshore.admission import put_pair
from farshore.agents import LiveAgent
from farshore.serve import Door, listening
from farshore.store import Put, keys
from farshore.store.memory import MemoryStore
from farshore.store.records import put
from farshore_schema.status import PairPut, PairStatus
from tests.unit.api.service import Service
from tests.unit.api.world import World, document

pytestmark = pytest.mark.asyncio

SECONDS = 30.0  # bounds a test that hangs


class Told(NamedTuple):
    """One event as a client reads it."""

    kind: str
    data: dict[str, Any]
    id: str


class Stream:
    """One open event stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> Told:
        """Return the next event."""
        async with asyncio.timeout(SECONDS):
            found: dict[str, str] = {}
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    found[name] = value
                elif "event" in found:
                    return Told(found["event"], json.loads(found["data"]), found.get("id", ""))
                else:
                    found.clear()
        raise AssertionError("the stream ended")

    async def comment(self) -> None:
        """Read until a comment."""
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                if line.startswith(":"):
                    return
        raise AssertionError("the stream ended")

    async def ends(self) -> None:
        """Read to the end of the stream."""
        async with asyncio.timeout(SECONDS):
            async for _ in self._lines:
                pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, bounded."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 (what is awaited has no event)
            await asyncio.sleep(0.02)


class Open:
    """A service behind a real socket."""

    def __init__(self, service: Service, port: int) -> None:
        self.service, self.port = service, port

    @asynccontextmanager
    async def stream(self, path: str = "/v1/events", role: Any = "viewer", **headers: str) -> AsyncIterator[Stream]:
        """Open an event stream."""
        sent = {"Authorization": f"Bearer {self.service.tokens[role]}"} | headers
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False) as http,
            http.stream("GET", f"http://127.0.0.1:{self.port}{path}", headers=sent) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            stream = Stream(answer)
            yield stream


@asynccontextmanager
async def served(service: Service) -> AsyncIterator[Open]:
    """Serve the app on a free port of loopback."""
    with listening("127.0.0.1", 0) as bound:
        door = Door(service.app, service.services.settings, bound)
        serving = asyncio.create_task(door.serve())
        try:
            await door.opened()
            yield Open(service, door.port)
        finally:
            service.services.ending.begin()
            door.close()
            await serving


async def test_what_changes_is_told_as_it_happens(world: World) -> None:
    """A declaration, its operation, the loop's report and its end, each by name, with the store's revision as id."""
    async with served(Service(world)) as at, at.stream() as stream:
        put_pair(world.desk, "orders", PairPut(document=document()), by="ann")
        first, second = await stream.next(), await stream.next()
        told = {first.kind: first, second.kind: second}
        assert told["pair"].data["pair"] == "orders"
        assert told["pair"].data["phase"] == "accepted"
        assert (told["operation"].data["verb"], told["operation"].data["state"]) == ("protect", "open")
        assert told["pair"].id == told["operation"].id == str(world.store.list("/").rev)
        world.store.txn((), (put(keys.status("orders"), PairStatus(phase="protected")),))
        assert (await stream.next()).data["phase"] == "protected"
        world.end("orders")
        assert (await stream.next()).data["state"] == "done"


async def test_a_cut_stream_resumes_and_misses_nothing(world: World) -> None:
    """Last-Event-ID: everything after it is told, the newest of each pair; nothing before it."""
    async with served(Service(world)) as at:
        async with at.stream() as stream:
            put_pair(world.desk, "orders", PairPut(document=document("orders")), by="ann")
            seen = await stream.next()
        for name in ("b", "c", "d"):
            put_pair(world.desk, name, PairPut(document=document(name)), by="ann")
        world.store.txn((), (put(keys.status("b"), PairStatus(phase="seeding")),))
        async with at.stream(**{"Last-Event-ID": seen.id}) as stream:
            told = [await stream.next() for _ in range(6)]
            pairs = {each.data["pair"]: each.data.get("phase") for each in told if each.kind == "pair"}
            assert pairs == {"b": "seeding", "c": "accepted", "d": "accepted"}
            assert [int(each.id) for each in told] == sorted(int(each.id) for each in told)


async def test_who_was_away_too_long_is_told_to_list_again(world: World) -> None:
    """A revision that the log no longer reaches, or of another store, is a `reset` with the present revision."""
    world.store.compact(0)
    world.store.txn((), (Put("/settings/x", b"{}"),))
    async with served(Service(world)) as at:
        for after in ("1", "999999"):
            async with at.stream(**{"Last-Event-ID": after}) as stream:
                told = await stream.next()
                assert (told.kind, told.data) == ("reset", {"revision": world.store.list("/").rev})
                put_pair(world.desk, f"p{after}", PairPut(document=document(f"p{after}")), by="ann")
                assert (await stream.next()).kind in ("pair", "operation")


async def test_agents_that_come_and_go_are_told(world: World) -> None:
    """Sessions live outside the store; they are told without an id, so that resuming is not disturbed."""
    service = Service(world)
    async with served(service) as at, at.stream() as stream:
        service.agents.live = [LiveAgent("gw", frozenset({"osaka"}), version="0.1.0", probe_ports={"osaka": 7451})]
        told = await stream.next()
        assert (told.kind, told.data["agent"], told.data["connected"], told.id) == ("agent", "gw", True, "")
        assert (told.data["version"], told.data["probe_ports"]) == ("0.1.0", {"osaka": 7451})
        service.agents.live = []
        assert (await stream.next()).data["connected"] is False


async def test_idle_streams_are_kept_alive_and_end_with_the_server(world: World) -> None:
    """Comments flow while nothing happens; at shutdown the stream ends by itself."""
    service = Service(world, heartbeat_seconds=1.0)
    async with served(service) as at, at.stream() as stream:
        await stream.comment()
        service.services.ending.begin()
        await stream.ends()


async def test_streams_arelisteninged_and_a_closed_one_makes_room(world: World) -> None:
    """One more than the limit is refused with the time to come back; a stream that went away does not count."""
    service = Service(world, streams_max=1)
    async with served(service) as at:
        headers = {"Authorization": f"Bearer {service.tokens['viewer']}"}
        async with at.stream(), httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{at.port}/v1/events", headers=headers)
            assert answer.status_code == 504
            assert int(answer.headers["retry-after"]) > 0
        await until(lambda: service.app.state.streams == 0)
        async with at.stream():
            pass


async def test_a_watch_of_a_closed_stream_is_forgotten(world: World) -> None:
    """Streams that come and go leave nothing behind in the store."""
    assert isinstance(world.store, MemoryStore)
    before = len(world.store._watches)
    async with served(Service(world)) as at:
        for _ in range(3):
            async with at.stream():
                pass
        await until(lambda: len(world.store._watches) == before)


async def test_an_agent_speaks_through_its_socket_by_its_credential(world: World) -> None:
    """Who it is comes from the credential alone: the embedded one, or an enrolled one with its sites."""
    service = Service(world)
    async with served(service) as at:
        for path, credential in (
            ("/v1/agents/session", "embedded-credential"),
            ("/v1/agents/session", service.tokens["agent"]),
            ("/v1/agent", service.tokens["agent"]),
        ):
            headers = {"Authorization": f"Bearer {credential}"}
            async with connect(f"ws://127.0.0.1:{at.port}{path}", additional_headers=headers, proxy=None) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
    embedded, enrolled, again = service.agents.identities
    assert (embedded.agent, embedded.embedded, embedded.sites) == ("embedded", True, frozenset())
    assert (enrolled.agent, enrolled.embedded, enrolled.sites) == ("the agent", False, frozenset({"osaka"}))
    assert again == enrolled


@pytest.mark.parametrize("credential", [None, "nonsense", "admin"])
async def test_an_unknown_credential_opens_no_socket(world: World, credential: str | None) -> None:
    """No credential, a wrong one, and a person's token are answered 401 with the command that helps."""
    service = Service(world)
    given = service.tokens["admin"] if credential == "admin" else credential
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    async with served(service) as at:
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{at.port}/v1/agents/session", additional_headers=headers, proxy=None):
                pass
    assert caught.value.response.status_code == 401
    assert b"farshore agents enrol" in caught.value.response.body
    assert service.agents.identities == []
