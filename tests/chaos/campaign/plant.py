"""The six services, each behind wires of its own, on a broker and on a database server with a disk of its own."""

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from deploy.local import processes as operating_system
from deploy.local.postgres import PostgresServer
from deploy.local.rabbitmq import BrokerServer
from deploy.local.stack import Stack, running_stack
from tests.chaos.campaign.disk import WAL_MEGABYTES, SmallDisk
from tests.chaos.campaign.fleet import Fleet, customers_client, open_ledger
from tests.chaos.campaign.wires import End, WireAside, loop_aside
from tests.chaos.processes import ServiceProcess
from tests.chaos.watcher import watching

DEATH_SECONDS = 60.0


@dataclass(kw_only=True)
class Plant(Fleet):
    """What the campaign runs on."""

    folder: Path
    disk: SmallDisk
    wires: Mapping[tuple[str, End], WireAside]

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

    def kill(self, service: str) -> str:
        """Kill a service, and return the proof."""
        process = self.processes[service]
        self._planned.add(service)
        pid = process.pid
        process.kill()
        assert process.exit_code == -signal.SIGKILL, f"{service} had ended already with {process.exit_code}"
        assert not operating_system.is_alive(pid)
        return f"pid {pid} gone"

    async def died(self, service: str, failpoint: str) -> str:
        """Wait until a service has died at its failpoint, and return the proof."""
        process = self.processes[service]
        assert await process.ended(within=DEATH_SECONDS) == -signal.SIGKILL
        words = f"failpoint {failpoint}: kill"
        assert words in process.last_words(), f"{service} died, but not at {failpoint}"
        return f"pid {process.pid} gone, its last words: {words}"


@asynccontextmanager
async def running_plant(folder: Path, *, say: Callable[[str], None]) -> AsyncIterator[Plant]:
    """Start everything, and end it all with the block."""
    async with AsyncExitStack() as exits:
        plant = await _plant(folder, exits, say)
        await _keep_log_small(plant.postgres)
        exits.callback(plant.broker.kill)
        exits.callback(plant.postgres.kill)  # nobody needs its data any more
        async with plant.running():
            yield plant


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
    return Plant(
        folder=folder,
        stack=stack,
        disk=disk,
        processes=processes,
        wires=wires,
        client=await exits.enter_async_context(customers_client(processes["onboarding"].url, stack.admin_key)),
        ledger=await exits.enter_async_context(open_ledger(stack)),
        watcher=await exits.enter_async_context(watching(stack.watcher_url)),
    )


async def _wires(stack: Stack, exits: AsyncExitStack) -> Mapping[tuple[str, End], WireAside]:
    loop = exits.enter_context(loop_aside())
    wires: dict[tuple[str, End], WireAside] = {}
    for service, told in stack.environment.items():
        prefix = f"TENURE_{service.upper()}"
        wires[service, "broker"] = await exits.enter_async_context(WireAside(loop, told[f"{prefix}_AMQP_URL"]))
        wires[service, "database"] = await exits.enter_async_context(WireAside(loop, told[f"{prefix}_DATABASE_URL"]))
    return wires


def _through(wires: Mapping[tuple[str, End], WireAside], service: str, told: Mapping[str, str]) -> Mapping[str, str]:
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
