"""Death without a warning: SIGKILL, and nothing that could be finished first."""

import asyncio
import time
from dataclasses import dataclass

from deploy.local import processes
from tests.chaos.campaign.plant import Plant

_DOWN_SECONDS = 1.0
_AGAIN_SECONDS = 0.7


@dataclass
class KillService:
    """A service dies."""

    target: str
    kind: str = "kill -9 of a service"
    seconds: float = _DOWN_SECONDS

    async def strike(self, plant: Plant) -> str:
        """Kill it."""
        return plant.kill(self.target)

    async def heal(self, plant: Plant) -> str:
        """Start it again."""
        plant.start(self.target)
        return ""


@dataclass
class KillTwo:
    """Two services die at once."""

    first: str
    second: str
    kind: str = "kill -9 of two services at once"
    seconds: float = _DOWN_SECONDS

    @property
    def target(self) -> str:
        """Both."""
        return f"{self.first} and {self.second}"

    async def strike(self, plant: Plant) -> str:
        """Kill both."""
        return f"{plant.kill(self.first)}, {plant.kill(self.second)}"

    async def heal(self, plant: Plant) -> str:
        """Start both again."""
        plant.start(self.first)
        plant.start(self.second)
        return ""


@dataclass
class KillAgain:
    """A service dies, and once more within a second of its restart."""

    target: str
    kind: str = "kill -9 again within 1 s of the restart"
    seconds: float = 0.0

    async def strike(self, plant: Plant) -> str:
        """Kill it, start it, kill it."""
        first = plant.kill(self.target)
        plant.start(self.target)
        started = time.monotonic()
        await asyncio.sleep(_AGAIN_SECONDS)
        second = plant.kill(self.target)
        return f"{first}, {second} {time.monotonic() - started:.2f} s after its start"

    async def heal(self, plant: Plant) -> str:
        """Start it again."""
        plant.start(self.target)
        return ""


@dataclass
class KillBroker:
    """RabbitMQ dies."""

    kind: str = "kill -9 of RabbitMQ"
    target: str = "rabbitmq"
    seconds: float = _DOWN_SECONDS

    async def strike(self, plant: Plant) -> str:
        """Kill it with all its helpers."""
        pid = plant.broker.pid
        await asyncio.to_thread(plant.broker.kill)
        assert not processes.is_alive(pid)
        return f"pid {pid} gone"

    async def heal(self, plant: Plant) -> str:
        """Start it on the same data."""
        await plant.broker.start()
        return ""


@dataclass
class KillPostgres:
    """Postgres dies."""

    kind: str = "kill -9 of Postgres"
    target: str = "postgres"
    seconds: float = _DOWN_SECONDS

    async def strike(self, plant: Plant) -> str:
        """Kill it with all its backends."""
        pid = plant.postgres.pid
        await asyncio.to_thread(plant.postgres.kill)
        assert not processes.is_alive(pid)
        return f"pid {pid} gone"

    async def heal(self, plant: Plant) -> str:
        """Start it on the same data."""
        await plant.postgres.start()
        return ""
