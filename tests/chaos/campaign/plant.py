"""Six service processes, each behind wires of its own, on a broker and a database server, and who watches over them."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx2

from deploy.local import processes as operating_system
from deploy.local.postgres import PostgresServer
from deploy.local.rabbitmq import BrokerServer
from deploy.local.stack import Stack, running_stack
from shared.contracts import SERVICES
from tests.chaos.campaign.disk import WAL_MEGABYTES, SmallDisk
from tests.chaos.campaign.wires import CountingWire, End
from tests.chaos.ledger import Ledger
from tests.chaos.processes import ServiceProcess
from tests.chaos.watcher import Watcher, watching

STOP_SECONDS = 15.0
DEATH_SECONDS = 60.0

_HTTP_SECONDS = 40.0
_LOOK_SECONDS = 0.2


@dataclass
class Plant:
    """What the campaign runs on.

    Attributes:
        unplanned: each end of a service that nobody had planned, with its last words.
        peaks: the most memory that each service ever had, in bytes.
    """

    folder: Path
    stack: Stack
    disk: SmallDisk
    processes: Mapping[str, ServiceProcess]
    wires: Mapping[tuple[str, End], CountingWire]
    client: httpx2.AsyncClient
    ledger: Ledger
    watcher: Watcher
    unplanned: list[str] = field(default_factory=list)
    peaks: Counter[str] = field(default_factory=Counter)
    _planned: set[str] = field(default_factory=set)

    @property
    def postgres(self) -> PostgresServer:
        """The database server."""
        assert self.stack.postgres is not None
        return self.stack.postgres

    @property
    def broker(self) -> BrokerServer:
        """The broker."""
        assert self.stack.broker is not None
        return self.stack.broker

    def start(self, service: str, *, fail: str = "") -> None:
        """Start a service; one with an armed failpoint is expected to die."""
        self.processes[service].start(fail=fail)
        if not fail:
            self._planned.discard(service)

    def kill(self, service: str) -> str:
        """Kill a service, and return the proof."""
        process = self.processes[service]
        self._planned.add(service)
        pid = process.pid
        process.kill()
        assert process.exit_code == -signal.SIGKILL, f"{service} had ended already with {process.exit_code}"
        assert not operating_system.is_alive(pid)
        return f"pid {pid} gone"

    async def stop(self, service: str) -> str:
        """Have a service end in order, and return the proof."""
        process = self.processes[service]
        self._planned.add(service)
        process.ask_to_stop()
        exit_code = await process.ended(within=STOP_SECONDS)
        assert exit_code == 0, f"{service} ended with {exit_code} when it was asked to stop"
        return f"pid {process.pid} ended with 0"

    async def died(self, service: str, failpoint: str) -> str:
        """Wait until a service has died at its failpoint, and return the proof."""
        process = self.processes[service]
        assert await process.ended(within=DEATH_SECONDS) == -signal.SIGKILL
        words = f"failpoint {failpoint}: kill"
        assert words in process.last_words(), f"{service} died, but not at {failpoint}"
        return f"pid {process.pid} gone, its last words: {words}"

    async def ready(self) -> None:
        """Wait until all six services say that they can do their work."""
        await asyncio.gather(*(process.ready(self.client) for process in self.processes.values()))

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
async def running_plant(folder: Path, *, say: Callable[[str], None]) -> AsyncIterator[Plant]:
    """Start everything, and end it all with the block."""
    async with AsyncExitStack() as exits:
        plant = await _plant(folder, exits, say)
        await _keep_log_small(plant.postgres)
        for service in SERVICES:
            plant.start(service)
        await plant.ready()
        guarding = asyncio.create_task(plant.guard())
        try:
            yield plant
        finally:
            guarding.cancel()
            with suppress(asyncio.CancelledError):
                await guarding
            plant.postgres.kill()  # nobody needs its data any more
            plant.broker.kill()


async def _plant(folder: Path, exits: AsyncExitStack, say: Callable[[str], None]) -> Plant:
    disk = SmallDisk(folder / "postgres")
    disk.mount()
    exits.callback(disk.unmount)
    stack = await exits.enter_async_context(running_stack(folder, say=say, durable=True))
    wires = await _wires(stack, exits)
    environments = {service: _through(wires, service, told) for service, told in stack.environment.items()}
    processes = {service: ServiceProcess(service, told, folder) for service, told in environments.items()}
    for process in processes.values():
        exits.callback(process.kill)
    client = await exits.enter_async_context(_client(processes["onboarding"].url, stack.admin_key))
    watcher = await exits.enter_async_context(watching(stack.watcher_url))
    ledger = Ledger(
        databases={name: stack.databases[name].owner for name in SERVICES},
        brokers={name: told[f"TENURE_{name.upper()}_AMQP_URL"] for name, told in stack.environment.items()},
    )
    exits.push_async_callback(ledger.close)
    return Plant(folder, stack, disk, processes, wires, client, ledger, watcher)


async def _wires(stack: Stack, exits: AsyncExitStack) -> Mapping[tuple[str, End], CountingWire]:
    wires: dict[tuple[str, End], CountingWire] = {}
    for service, told in stack.environment.items():
        prefix = f"TENURE_{service.upper()}"
        wires[service, "broker"] = await exits.enter_async_context(CountingWire(told[f"{prefix}_AMQP_URL"]))
        wires[service, "database"] = await exits.enter_async_context(CountingWire(told[f"{prefix}_DATABASE_URL"]))
    return wires


def _through(wires: Mapping[tuple[str, End], CountingWire], service: str, told: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a service is told, with all servers behind its wires."""
    ends: Mapping[str, End] = {"_AMQP_URL": "broker", "_DATABASE_URL": "database"}
    changed = {
        name: wires[service, end].through(value)
        for name, value in told.items()
        for suffix, end in ends.items()
        if name.endswith(suffix)
    }
    return {**told, **changed}


async def _keep_log_small(postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres.admin_url)
    try:
        await connection.execute(f"ALTER SYSTEM SET max_wal_size = '{WAL_MEGABYTES}MB'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def _client(url: str, key: str) -> httpx2.AsyncClient:
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
