"""Everything is gone at once, and comes back in the least fortunate order: services before what they stand on."""

import asyncio
from dataclasses import dataclass

from deploy.local import processes
from shared.contracts import SERVICES
from tests.chaos.campaign.plant import Plant

_ALONE_SECONDS = 3.0


@dataclass
class Outage:
    """All services and both servers die; the services start first."""

    kind: str = "kill -9 of everything, services back first"
    target: str = "all"
    seconds: float = _ALONE_SECONDS

    async def strike(self, plant: Plant) -> str:
        """Kill everything, and start the services."""
        servers = (plant.postgres.pid, plant.broker.pid)
        proofs = [plant.kill(service) for service in SERVICES]
        await asyncio.to_thread(plant.postgres.kill)
        await asyncio.to_thread(plant.broker.kill)
        assert not any(map(processes.is_alive, servers))
        for service in SERVICES:
            plant.start(service)
        return f"{', '.join(proofs)}; pids {servers[0]} and {servers[1]} gone"

    async def heal(self, plant: Plant) -> str:
        """Start the servers."""
        async with asyncio.TaskGroup() as group:
            group.create_task(plant.postgres.start())
            group.create_task(plant.broker.start())
        return ""
