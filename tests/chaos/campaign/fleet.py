"""Six service processes on a broker and a database server, who watches over them, and what looks on from outside."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from deploy.local.stack import Stack
from shared.contracts import SERVICES
from tests.chaos.campaign.records import Records
from tests.chaos.ledger import Ledger
from tests.chaos.processes import ServiceProcess
from tests.chaos.watcher import Watcher

STOP_SECONDS = 15.0

_HTTP_SECONDS = 40.0
_LOOK_SECONDS = 0.2


@dataclass(kw_only=True)
class Fleet:
    """Six processes and what they stand on.

    Attributes:
        unplanned: each end of a service that nobody had planned, with its last words.
        peaks: the most memory that each service ever had, in bytes.
    """

    stack: Stack
    processes: Mapping[str, ServiceProcess]
    client: httpx2.AsyncClient
    ledger: Ledger
    watcher: Watcher
    unplanned: list[str] = field(default_factory=list)
    peaks: Counter[str] = field(default_factory=Counter)
    _planned: set[str] = field(default_factory=set)

    @property
    def records(self) -> Records:
        """What is written in the six databases."""
        return Records({service: self.stack.databases[service].owner for service in SERVICES})

    def start(self, service: str, *, fail: str = "") -> None:
        """Start a service; one with an armed failpoint is expected to die."""
        self.processes[service].start(fail=fail)
        if not fail:
            self._planned.discard(service)

    async def stop(self, service: str) -> str:
        """Have a service end in order, and return the proof."""
        process = self.processes[service]
        self._planned.add(service)
        process.ask_to_stop()
        exit_code = await process.ended(within=STOP_SECONDS)
        assert exit_code == 0, f"{service} ended with {exit_code} when it was asked to stop"
        return f"pid {process.pid} ended with 0"

    async def ready(self) -> None:
        """Wait until all six services say that they can do their work."""
        await asyncio.gather(*(process.ready(self.client) for process in self.processes.values()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all six services, and watch over them for the length of a block."""
        for service in SERVICES:
            self.start(service)
        await self.ready()
        guarding = asyncio.create_task(self.guard())
        try:
            yield
        finally:
            guarding.cancel()
            with suppress(asyncio.CancelledError):
                await guarding

    async def guard(self) -> None:
        """Start again, for ever, who ends without a plan, and note that; note how much memory everybody has."""
        while True:
            for service, process in self.processes.items():
                if process.exit_code is not None and service not in self._planned:
                    self.unplanned.append(f"{service} ended with {process.exit_code}:\n{process.last_words()}")
                    self.start(service)
                self.peaks[service] = max(self.peaks[service], _peak(process.pid))
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def open_ledger(stack: Stack) -> AsyncIterator[Ledger]:
    """Read databases and queues for the length of a block."""
    ledger = Ledger(
        databases={name: stack.databases[name].owner for name in SERVICES},
        brokers={name: told[f"TENURE_{name.upper()}_AMQP_URL"] for name, told in stack.environment.items()},
    )
    try:
        yield ledger
    finally:
        await ledger.close()


def customers_client(url: str, key: str) -> httpx2.AsyncClient:
    """Return what customers talk through, as many at once as there are."""
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=_HTTP_SECONDS,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=50),
        trust_env=False,
    )


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = status.partition("VmHWM:")[2].split()
    return 1024 * int(found[0]) if found else 0
