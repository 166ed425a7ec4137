"""`GET /v1/events`: what changes, as it happens, as server-sent events.

Ids are revisions of the store, so a client that was cut off resumes with Last-Event-ID and misses nothing; one that was
away for too long gets a `reset` and lists again. What happens to one pair between two looks is told once. Each stream
pulls from the store's bounded log by itself: a slow reader holds nothing but its own place.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from farshore.api.access import Given, Viewer
from farshore.api.agents import agents
from farshore.api.errors import documented
from farshore.api.ports import Services
from farshore.api.waiting import waiting
from farshore.store import Compacted, Event, keys
from farshore_schema.access import AgentView
from farshore_schema.errors import Transient
from farshore_schema.status import OperationView

LOOK_SECONDS: Final = 1.0  # agents come and go outside the store; a shutdown is noticed this soon
RETRY_MILLISECONDS: Final = 2000  # what a cut client waits before it comes back
EVENTS_AT_ONCE: Final = 500

router = APIRouter(prefix="/v1/events", tags=["events"])


class Told(NamedTuple):
    """One event as it is sent. Without an id the client keeps the one it has."""

    kind: str  # pair, operation, agent, reset
    data: dict[str, Any]
    id: int | None = None

    def text(self) -> str:
        """Return it in the format of the WHATWG standard (Server-sent events, section 9.2)."""
        head = f"id: {self.id}\n" if self.id is not None else ""
        return f"{head}event: {self.kind}\ndata: {json.dumps(self.data, separators=(',', ':'))}\n\n"


@router.get("", response_class=StreamingResponse, responses=documented("timeout"))
async def events(
    request: Request,
    given: Given,
    _caller: Viewer,
    last_event_id: Annotated[str | None, Header(description="Resume after this event.")] = None,
    since: Annotated[int | None, Query(ge=0, le=2**53, description="Resume after this revision of the store.")] = None,
) -> StreamingResponse:
    """Follow changes of pairs, operations and agents. Kinds: `pair`, `operation`, `agent`, and `reset` (list again)."""
    app = request.app
    if app.state.streams >= given.settings.streams_max:
        raise Transient("timeout", "too many event streams are open", retry_seconds=30, hint="close some of them")
    after = since
    if last_event_id is not None and last_event_id.strip().isdecimal():
        after = int(last_event_id)
    # The place in the log is taken before the first byte of the answer: what the client does next is not missed.
    now = given.desk.records.store.list(keys.SITES, limit=1).rev
    body = _counted(app.state, _stream(given, now if after is None else after, now))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


async def _counted(state: Any, stream: AsyncIterator[str]) -> AsyncIterator[str]:
    state.streams += 1
    try:
        async for part in stream:
            yield part
    finally:
        state.streams -= 1


async def _stream(given: Services, rev: int, now: int) -> AsyncIterator[str]:
    store = given.desk.records.store
    known: tuple[AgentView, ...] = agents(given)
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    if rev > now:  # of another store, or of one that was restored from a copy
        yield Told("reset", {"revision": now}, now).text()
        rev = now
    silent = 0.0
    with ExitStack() as stack:
        waiter = stack.enter_context(waiting(store, "/", rev))
        while not given.ending.begun:
            told: list[Told] = []
            try:
                told += _told(given, waiter.watch.poll(EVENTS_AT_ONCE))
            except Compacted:
                stack.pop_all().close()
                rev = store.list(keys.SITES, limit=1).rev
                waiter = stack.enter_context(waiting(store, "/", rev))
                told.append(Told("reset", {"revision": rev}, rev))
            present = agents(given)
            told += _agent_changes(known, present)
            known = present
            for each in told:
                yield each.text()
            if told:
                silent = 0.0
                await asyncio.sleep(0)
                continue
            await waiter.wait(LOOK_SECONDS)
            silent += LOOK_SECONDS
            if silent >= given.settings.heartbeat_seconds:
                silent = 0.0
                yield ": alive\n\n"


def _told(given: Services, events: Iterable[Event]) -> Iterator[Told]:
    """Yield what the changes mean, each pair and each operation once, at its newest."""
    newest: dict[tuple[str, str], Event] = {}
    for event in events:
        name = keys.pair_name(event.key)
        if name is None:
            continue
        last = event.key.rpartition("/")[2]
        kind = "operation" if last == "operation" or event.key.startswith(keys.OPERATIONS) else "pair"
        subject = ("operation", event.key) if kind == "operation" else ("pair", name)
        newest.pop(subject, None)  # so that events stay in the order of their last revision
        newest[subject] = event
    for (kind, _), event in newest.items():
        found = _operation(given, event) if kind == "operation" else _pair(given, event)
        if found is not None:
            yield found


def _pair(given: Services, event: Event) -> Told:
    name = keys.pair_name(event.key) or ""
    now = given.desk.records.pair(name)
    if now.spec is None:
        return Told("pair", {"pair": name, "deleted": True, "revision": event.rev}, event.rev)
    data = {
        "pair": name,
        "phase": now.status.value.phase if now.status else "accepted",
        "generation": now.spec.value.generation,
        "active_site": now.spec.value.site_of(now.role.value.active) if now.role else None,
        "epoch": now.role.value.epoch if now.role else None,
        "revision": event.rev,
    }
    return Told("pair", data, event.rev)


def _operation(given: Services, event: Event) -> Told | None:
    if event.deleted:
        return None  # its end is told by the ended one
    found = given.desk.records.read(event.key, OperationView)
    if found is None:
        return None
    view = found.value
    data = view.model_dump(include={"id", "pair", "verb", "to_site", "state", "step", "steps", "label", "waiting_for"})
    return Told("operation", {**data, "revision": event.rev}, event.rev)


def _agent_changes(before: tuple[AgentView, ...], now: tuple[AgentView, ...]) -> Iterator[Told]:
    old = {(each.agent, each.embedded): each for each in before}
    new = {(each.agent, each.embedded): each for each in now}
    for name, each in new.items():
        if old.get(name) != each:
            yield Told("agent", each.model_dump(mode="json"))
    for name, each in old.items():
        if name not in new and each.connected:
            yield Told("agent", each.model_copy(update={"connected": False}).model_dump(mode="json"))
