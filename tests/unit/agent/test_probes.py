"""Role probes inside one process: the answer of a side, and the small HTTP server that carries it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from farshore_agent.engines.probing import ProbeTarget, WritableCheck
from farshore_agent.probes import answers, web
from farshore_agent.probes.answers import Answer, ProbedSide
from farshore_agent.probes.control import ProbeSpec, spec_of
from farshore_agent.probes.web import Listener, Page
from farshore_agent.records import FileKeeper
from farshore_schema.errors import Transient
from farshore_schema.roles import Receipt, Record

ACTIVE = Record(token=1, epoch=2, promoted_epoch=2, base="complete", enrolled=True)
STANDBY = Record(token=1, epoch=2, fenced_epoch=2, stream_epoch=2, base="complete", enrolled=True)


class Database:
    """What a check finds; one object stands for the server."""

    def __init__(self) -> None:
        self.state: bool | Exception = True
        self.asked = 0
        self.connections = 0
        self.closed = 0
        self.hang: threading.Event | None = None

    def check(self, target: ProbeTarget) -> WritableCheck:
        self.connections += 1
        return DatabaseCheck(self)


class DatabaseCheck:
    def __init__(self, database: Database) -> None:
        self.database = database

    def writable(self) -> bool:
        self.database.asked += 1
        if self.database.hang is not None:
            self.database.hang.wait(10)
        if isinstance(self.database.state, Exception):
            raise self.database.state
        return self.database.state

    def close(self) -> None:
        self.database.closed += 1


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Probe:
    """One side's probe with its record, its database and its time."""

    def __init__(self, root: Path, threads: ThreadPoolExecutor) -> None:
        self.keeper, self.database, self.clock = FileKeeper(root, "orders", "a"), Database(), Clock()
        target = ProbeTarget(kind="mysql", host="h", port=1, user="u", password="very-secret")
        self.spec = ProbeSpec(pair="orders", side="a", site="tokyo", record=str(self.keeper.path), target=target)
        self.side = ProbedSide(self.spec, factories={"mysql": self.database.check}, threads=threads, clock=self.clock)

    async def primary(self) -> Answer:
        self.clock.now += 0.05
        return await self.side.answer("primary")

    async def standby(self) -> Answer:
        self.clock.now += 0.05
        return await self.side.answer("standby")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


@pytest.fixture
def probe(tmp_path: Path, threads: ThreadPoolExecutor) -> Probe:
    return Probe(tmp_path, threads)


@pytest.mark.asyncio
async def test_primary_needs_the_record_and_a_writable_database(probe: Probe) -> None:
    """200 only where the durable epoch says active and the database was just seen writable; never on both routes."""
    assert (await probe.primary()).status == 503  # no record at all
    for record, writable, primary, standby in (
        (ACTIVE, True, 200, 503),
        (ACTIVE, False, 503, 503),
        (STANDBY, False, 503, 200),
        (STANDBY, True, 503, 503),
        (ACTIVE._replace(enrolled=False), True, 503, 503),
        (ACTIVE._replace(epoch=4, fenced_epoch=4), True, 503, 503),
        (STANDBY._replace(base="incomplete"), False, 503, 503),
        (STANDBY._replace(base="none"), False, 503, 503),
        (STANDBY._replace(stream_epoch=0), False, 503, 503),
    ):
        probe.keeper.save(record)
        probe.database.state = writable
        answered = (await probe.primary(), await probe.standby())
        assert (answered[0].status, answered[1].status) == (primary, standby), (record, writable, answered)


@pytest.mark.asyncio
async def test_a_noted_fence_flips_the_very_next_answer(probe: Probe) -> None:
    """The record is read for each question: a fence noted on disk counts before the database is fenced."""
    probe.keeper.save(ACTIVE)
    assert (await probe.primary()).status == 200
    probe.keeper.save(ACTIVE._replace(epoch=4, fenced_epoch=4))
    flipped = await probe.side.answer("primary")  # no time passed at all
    assert flipped.status == 503
    assert "epoch 4" in flipped.reason
    probe.keeper.save(ACTIVE._replace(epoch=6, fenced_epoch=4, promoted_epoch=6))
    assert (await probe.side.answer("primary")).status == 200


@pytest.mark.asyncio
async def test_a_question_is_held_while_this_side_is_about_to_be_opened(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked while it drains, the probe answers 200 once the side is promoted and writable, within that one question."""
    monkeypatch.setattr(answers, "HOLD_SECONDS", 10.0)
    monkeypatch.setattr(answers, "HOLD_TICK_SECONDS", 0.001)
    probe.keeper.save(STANDBY._replace(epoch=4))  # a drain in epoch 4 was admitted
    probe.database.state = False
    asked = asyncio.ensure_future(probe.primary())
    await asyncio.sleep(0.05)
    assert not asked.done()
    probe.keeper.save(STANDBY._replace(epoch=4, promoted_epoch=4, stream_epoch=0))
    probe.clock.now += 0.05
    await asyncio.sleep(0.05)
    assert not asked.done()  # promoted, and not yet open
    probe.database.state = True
    probe.clock.now += 0.05
    assert (await asyncio.wait_for(asked, 5)).status == 200


@pytest.mark.asyncio
async def test_nothing_is_held_where_nothing_is_about_to_be_opened(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby, a fenced side, an active one whose database is down, and a drain taken back: no at once."""
    monkeypatch.setattr(answers, "HOLD_SECONDS", 1e6)
    for record, state in (
        (STANDBY, False),
        (STANDBY._replace(epoch=4, stream_epoch=4), False),
        (STANDBY._replace(epoch=4, base="incomplete"), False),
        (ACTIVE._replace(epoch=4, fenced_epoch=4), False),
        (ACTIVE, Transient("unreachable", "down")),
    ):
        probe.keeper.save(record)
        probe.database.state = state
        assert (await asyncio.wait_for(probe.primary(), 5)).status == 503


@pytest.mark.asyncio
async def test_a_held_question_ends(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that takes long is a no, said before the proxy gives up."""
    monkeypatch.setattr(answers, "HOLD_SECONDS", 0.05)
    probe.keeper.save(STANDBY._replace(epoch=4))
    probe.database.state = False
    assert (await asyncio.wait_for(probe.primary(), 5)).status == 503


@pytest.mark.asyncio
async def test_a_damaged_record_answers_503_and_says_so(probe: Probe) -> None:
    """A record that cannot be trusted is no yes."""
    probe.keeper.save(ACTIVE._replace(receipt=Receipt("b", 2, "p")))
    assert (await probe.primary()).status == 200
    probe.keeper.path.write_bytes(probe.keeper.path.read_bytes().replace(b'"epoch":2', b'"epoch":3'))
    answer = await probe.primary()
    assert (answer.status, "corrupt_record" in answer.reason) == (503, True)


@pytest.mark.asyncio
async def test_the_database_is_asked_over_one_connection_and_not_for_every_question(probe: Probe) -> None:
    """Questions within 20 ms share one look; one connection serves them all."""
    probe.keeper.save(ACTIVE)
    for _ in range(10):
        assert (await probe.side.answer("primary")).status == 200
    assert probe.database.asked == 1
    together = await asyncio.gather(*(probe.primary() for _ in range(10)))
    assert {answer.status for answer in together} == {200}
    assert probe.database.connections == 1
    assert probe.database.asked < 11


@pytest.mark.asyncio
async def test_a_database_that_hangs_is_believed_for_a_second_and_no_longer(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stall of less than a second does not flip clients away; a longer one does; "down" does at once."""
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 0.01)
    probe.keeper.save(ACTIVE)
    assert (await probe.primary()).status == 200
    probe.database.hang = threading.Event()
    assert (await probe.primary()).status == 200
    probe.clock.now += 1.0
    stalled = await probe.primary()
    assert (stalled.status, stalled.reason) == (503, "the database did not answer within the last second")
    probe.database.hang.set()
    probe.database.hang = None
    probe.database.state = Transient("unreachable", "no such host")
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 5)
    await probe.primary()
    down = await probe.primary()
    assert (down.status, down.reason) == (503, "unreachable: no such host")
    probe.database.state = ValueError("very-secret")
    odd = await probe.primary()
    assert (odd.status, odd.reason) == (503, "bug: ValueError")


@pytest.mark.asyncio
async def test_a_connection_nobody_asks_through_is_kept_open(probe: Probe) -> None:
    """Every few seconds the connection is used, so that it is there when the server has no more to give (R23)."""
    await probe.side.keep()
    assert (probe.database.connections, probe.database.asked) == (1, 1)
    await probe.side.keep()
    assert probe.database.asked == 1
    probe.clock.now += 6
    await probe.side.keep()
    assert (probe.database.connections, probe.database.asked) == (1, 2)
    probe.side.close()


def test_a_spec_travels_whole_and_never_shows_its_password(probe: Probe) -> None:
    """What the agent tells the process comes out as it went in; printing it shows no password."""
    assert spec_of(probe.spec.plain()) == probe.spec
    assert "very-secret" not in repr(probe.spec)


@asynccontextmanager
async def listening(page: Page) -> AsyncIterator[tuple[Listener, list[str]]]:
    asked: list[str] = []

    async def respond(path: str) -> Page:
        asked.append(path)
        return page

    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    listener = Listener(sock, respond)
    await listener.start()
    try:
        yield listener, asked
    finally:
        await listener.end(0)


async def exchange(port: int, raw: bytes) -> bytes:
    """Send bytes and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(raw)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:  # closed with bytes that nobody wanted to read
            return b""


@pytest.mark.asyncio
async def test_what_proxies_send_is_answered() -> None:
    """HAProxy's 1.0 and 1.1 checks, HEAD, and several requests over one connection."""
    async with listening(Page(200, "tokyo is the primary")) as (listener, asked):
        answer = await exchange(listener.port, b"GET /primary/orders HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\ntokyo is the primary\n")
        two = (
            b"GET /primary/orders HTTP/1.1\r\nHost: x\r\n\r\n"
            + b"HEAD /standby/orders HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        answer = await exchange(listener.port, two)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert answer.count(b"tokyo is the primary\n") == 1
        assert asked == ["/primary/orders", "/primary/orders", "/standby/orders"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /primary/orders HTTP/1.1\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /primary/orders HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"400"),
        (b"GET /primary/orders HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / SPDY/9\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_probe_is_refused(raw: bytes, status: bytes) -> None:
    """Other methods, bodies and nonsense get an error and are never asked on."""
    async with listening(Page(200, "yes")) as (listener, asked):
        answer = await exchange(listener.port, raw)
        assert answer.split(b" ")[1] == status
        assert asked == []


@pytest.mark.asyncio
async def test_a_client_can_neither_fill_nor_hang_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless headers, silence, and too many connections are closed; others are answered meanwhile."""
    monkeypatch.setattr(web, "HEAD_SECONDS", 0.2)
    async with listening(Page(503, "no")) as (listener, asked):
        assert await exchange(listener.port, b"GET /" + b"x" * 100_000) == b""
        assert await exchange(listener.port, b"GET /primary") == b""  # silent from here on: closed after a bound
        monkeypatch.setattr(web, "CONNECTIONS_MAX", 2)
        monkeypatch.setattr(web, "HEAD_SECONDS", 5)
        crowd = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(4)]
        closed = [asyncio.create_task(reader.read()) for reader, _ in crowd]
        await asyncio.wait(closed, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert any(task.done() for task in closed)
        for _, writer in crowd:
            writer.transport.abort()
        await asyncio.gather(*closed, return_exceptions=True)
        assert asked == []


@pytest.mark.asyncio
async def test_a_reason_with_line_breaks_cannot_forge_a_header() -> None:
    """Text from a database stays one line."""
    async with listening(Page(503, "a\r\nX-Evil: 1")) as (listener, _):
        answer = await exchange(listener.port, b"GET /primary/orders HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"a  X-Evil: 1\n")
        assert b"\r\nX-Evil" not in answer
