"""The reconciler's own parts in one process: store, supervisor, agent sessions and a small API over them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, WebSocket

from farshore.admission import pair_view
from farshore.agents import Identity
from farshore.clock import SystemClock
from farshore.store.sqlite import SqliteStore
from farshore.supervisor import Supervisor
from farshore_schema.messages import MESSAGE_BYTES_MAX
from farshore_schema.status import PairView


def app_over(supervisor: Supervisor) -> FastAPI:
    """Return an API that reads pairs and takes agents, as the real one does."""

    @contextlib.asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(supervisor.run())
        yield
        task.cancel()

    app = FastAPI(lifespan=running)

    @app.get("/v1/pairs/{name}")
    async def pair(name: str) -> PairView:
        found = supervisor.desk.records.pair(name)
        stored = found.status.value if found.status else None
        return pair_view(found, supervisor.live(name, stored) if stored else None)

    @app.get("/counters")
    async def counters() -> dict[str, object]:
        return vars(supervisor.loop.counters) | {
            "visit_seconds": supervisor.visit_seconds,
            "waiting": len(supervisor.agenda),
            "sides": len(supervisor.sightings),
            "visits_failed": supervisor.visits_failed,
        }

    @app.websocket("/agents")
    async def agents(socket: WebSocket) -> None:
        site = socket.headers["authorization"].removeprefix("Bearer ")
        await supervisor.agents.handle(socket, Identity(f"agent-{site}", frozenset({site})))

    return app


GC = {"n": 0, "t": 0.0, "max": 0.0, "s": 0.0}
def gcb(phase, info):
    import time
    if info["generation"] < 2: return
    if phase == "start": GC["s"] = time.perf_counter()
    else:
        d = time.perf_counter() - GC["s"]; GC["n"] += 1; GC["t"] += d; GC["max"] = max(GC["max"], d)
        print("gc", round(d, 3), info, file=sys.stderr)
def main(directory: str, port: int) -> None:
    """Serve until ended."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    import gc
    gc.callbacks.append(gcb)
    clock = SystemClock()
    supervisor = Supervisor(store=SqliteStore(Path(directory), clock), clock=clock)
    uvicorn.run(
        app_over(supervisor), host="127.0.0.1", port=port, log_level="warning", ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
