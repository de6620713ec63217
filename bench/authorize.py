"""How many requests a second ``/v1/authorize`` answers on one core, and how soon, beside the floor of the same server.

The server has one core to itself and whoever asks has another. Warm: 1,000 tokens of 100 tenants, each asked for again
and again. Cold: each token is seen for the first time, so that its signature is verified and its session is looked up.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from asyncio import Protocol, Transport
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, cast

import uvloop

from bench.processor import processor_seconds
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresServer
from deploy.local.throwaway import FreshDatabases, Templates
from services.identity.tests.gatehouse import Gatehouse
from shared.clock import SystemClock
from shared.postgres import open_pool
from shared.testing import eventually

_CORE = 1
_CONNECTIONS = 32
_TENANTS = 100
_WARM = 1_000
_COLD = 5_000
_START_SECONDS = 15.0
_LONGEST_SECONDS = 120.0
_OK = b"HTTP/1.1 200"


class Figures(NamedTuple):
    """What was measured of one kind of request.

    Attributes:
        rate: requests a second, as many as were answered.
        cost: of the server's processor, in seconds for each request at that rate.
        seconds: from when each was due to its answer, at half of that rate, or of what the floor is compared with.
    """

    rate: float
    cost: float
    seconds: Sequence[float]


class _Asker(Protocol):
    """One connection: asks, and calls when it was answered. Other answers than 200 are counted."""

    def __init__(self, on_answer: "_Load") -> None:
        self._load = on_answer
        self._transport: Transport | None = None
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)

    def ask(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._load.answered(self, data)  # an answer is short enough to come in one piece

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class _Load:
    """Asks a server over some connections."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self.seconds: list[float] = []
        self._idle: list[_Asker] = []
        self._again = True
        self.refused = 0

    @classmethod
    @asynccontextmanager
    async def on(cls, port: int, requests: Iterator[bytes]) -> AsyncIterator["_Load"]:
        """Connect to a server."""
        load, loop = cls(requests), asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: _Asker(load), "127.0.0.1", port) for _ in range(_CONNECTIONS)]
        load._idle = [asker for _, asker in made]
        try:
            yield load
        finally:
            for _, asker in made:
                asker.close()

    def answered(self, asker: _Asker, data: bytes) -> None:
        """Take an answer, and ask again where nobody else says when."""
        now = time.perf_counter()
        self.seconds.append(now - asker.due)
        self.refused += not data.startswith(_OK)
        if self._again and (request := next(self._requests, None)) is not None:
            asker.ask(request, now)
        else:
            self._idle.append(asker)

    async def flat_out(self, seconds: float) -> float:
        """Ask without a pause, for so long or until there is nothing more to ask; return answers per second."""
        self._again, self.seconds = True, []
        started = time.perf_counter()
        waiting, self._idle = self._idle, []
        for asker in waiting:
            asker.ask(next(self._requests), started)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_answered()
        rate = len(self.seconds) / (time.perf_counter() - started)
        self._again = False
        await self._all_answered()
        return rate

    async def at(self, rate: float, seconds: float) -> list[float]:
        """Ask at a rate, whether or not anybody keeps up; return how long after it was due each was answered."""
        self._again, self.seconds = False, []
        started, due = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            while due < elapsed * rate and self._idle:
                self._idle.pop().ask(next(self._requests), started + due / rate)
                due += 1
            await asyncio.sleep(0)  # a timer's tick is as long as an answer
        await self._all_answered()
        return self.seconds

    async def _all_answered(self) -> None:
        await eventually(lambda: len(self._idle) == _CONNECTIONS, within=_LONGEST_SECONDS)


class _Server(NamedTuple):
    """A running server."""

    port: int
    pid: int


async def compare(*, seconds: float, rounds: int) -> None:
    """Measure the floor and the gate in turn, and print both with their ratio."""
    async with _database() as (url, house):
        warm = [_request(house.token(tenant_id=f"t{n % _TENANTS}", sub=f"u{n}", sid=f"s{n}")) for n in range(_WARM)]
        keys = [_request((await house.issue(tenant_id=f"t{n}")).text) for n in range(_TENANTS)]
        floors, tokens, issued, cold = [], [], [], []
        for number in range(rounds):
            async with _server("gate", url) as server:
                tokens.append(await _measure(server, cycle(warm), seconds))
                issued.append(await _measure(server, cycle(keys), seconds))
            async with _server("floor", url) as server:
                floors.append(await _measure(server, cycle(warm), seconds, offered=tokens[-1].rate / 2))
            async with _server("gate", url) as server:
                new = [_request(house.token(tenant_id=f"t{n % _TENANTS}", sid=f"c{number}-{n}")) for n in range(_COLD)]
                async with _Load.on(server.port, iter(new)) as load:
                    rate, cost = await _flat_out(server, load, 60.0)
                    cold.append(Figures(rate, cost, load.seconds))
                    _insist(load)
        _report({"bare floor": floors, "warm tokens": tokens, "API keys": issued, "cold tokens": cold})


async def _measure(
    server: _Server, requests: Iterator[bytes], seconds: float, *, offered: float | None = None
) -> Figures:
    async with _Load.on(server.port, requests) as load:
        await load.flat_out(1.0)
        rate, cost = await _flat_out(server, load, seconds)
        figures = Figures(rate, cost, await load.at(offered or rate / 2, seconds))
        _insist(load)
        return figures


async def _flat_out(server: _Server, load: _Load, seconds: float) -> tuple[float, float]:
    before = processor_seconds(server.pid)
    rate = await load.flat_out(seconds)
    return rate, (processor_seconds(server.pid) - before) / len(load.seconds)


def _insist(load: _Load) -> None:
    if load.refused:
        raise RuntimeError(f"{load.refused} requests were not answered with 200")


def _report(measured: dict[str, list[Figures]]) -> None:
    floor = median(each.rate for each in measured["bare floor"])
    print(f"\n{'':24}{'requests/s':>12}{'of the floor':>14}{'µs of the core':>16}{'p50 ms':>9}{'p99 ms':>9}")
    for name, rounds in measured.items():
        rate = median(each.rate for each in rounds)
        at = [1000 * second for each in rounds for second in each.seconds]
        cost = 1e6 * median(each.cost for each in rounds)
        latencies = f"{median(at):>9.2f}{quantiles(at, n=100)[98]:>9.2f}"
        print(f"{name:<24}{rate:>12.0f}{rate / floor:>14.2f}{cost:>16.0f}{latencies}")
    print("\nLatencies are from when a request was due: at half of the gate's rate, of cold tokens at the full one.")


@asynccontextmanager
async def _database() -> AsyncIterator[tuple[str, Gatehouse]]:
    folder = Path(tempfile.mkdtemp(prefix="tenure-bench-"))
    server = PostgresServer(folder)
    try:
        await server.start()
        url = await FreshDatabases(Templates(server.admin_url))("identity")
        pool = await open_pool(url)
        house = Gatehouse(pool, SystemClock())
        await house.publish()
        for number in range(_TENANTS):
            await house.plan(1_000_000, 1_000_000_000, tenant_id=f"t{number}")
        yield url, house
        await pool.close()
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _server(role: str, url: str) -> AsyncIterator[_Server]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.gate", role, str(port), env=dict(os.environ) | {"GATE_DATABASE_URL": url}
    )
    try:
        await eventually(lambda: _listens(port), within=_START_SECONDS)
        yield _Server(port, process.pid)
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _request(credential: str) -> bytes:
    return f"GET /v1/authorize HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {credential}\r\n\r\n".encode()


def run(*, seconds: float, rounds: int) -> None:
    """Measure and print, with whoever asks on a core of its own."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_CORE} & cores or cores)
    try:
        uvloop.run(compare(seconds=seconds, rounds=rounds))
    finally:
        os.sched_setaffinity(0, cores)
