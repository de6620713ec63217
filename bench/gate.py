"""The server of the benchmark of ``/v1/authorize``: the gate as identity has it, or the floor beneath it.

    python -m bench.gate gate|floor <port>    the gate reads GATE_DATABASE_URL

The floor is the smallest application that answers 200, on the same server: what any answer over HTTP costs here.
"""

import asyncio
import gc
import os
import sys

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from services.identity.tests.gatehouse import Replica
from shared.clock import SystemClock
from shared.http.server import HttpServer
from shared.postgres import open_pool

_CORE = 0
_GARBAGE_THRESHOLDS = (20_000, 20, 20)


async def floor(_: Scope, __: Receive, send: Send) -> None:
    """Answer 200 to everything."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def serve(role: str, port: int) -> None:
    """Serve until the process is ended."""
    if role == "floor":
        await _serve(floor, port)
        return
    replica = Replica(await open_pool(os.environ["GATE_DATABASE_URL"], size=6), SystemClock())
    async with asyncio.TaskGroup() as running:
        running.create_task(replica.standings.run())
        running.create_task(replica.usage.run())
        await _serve(replica.app, port)


async def _serve(app: ASGIApp, port: int) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)  # as services do
    await HttpServer(app, host="127.0.0.1", port=port).serve()


if __name__ == "__main__":
    os.sched_setaffinity(0, {_CORE})
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
