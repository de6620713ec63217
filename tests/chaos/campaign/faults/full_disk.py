"""No room: Postgres cannot write, and then can again."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from deploy.local.processes import ServerFailedError
from shared.testing import eventually
from tests.chaos.campaign.plant import Plant

_WORDS = b"No space left on device"
_NOTICE_SECONDS = 30.0
_LOOK_SECONDS = 0.05


@dataclass
class FullDisk:
    """The disk of Postgres is filled up, and kept full."""

    kind: str = "Postgres' disk full for 15 s"
    target: str = "postgres"
    seconds: float = 15.0

    async def strike(self, plant: Plant) -> str:
        """Fill it, and wait until services are told so; the log of Postgres is on that disk too."""
        self._before = {service: process.log.stat().st_size for service, process in plant.processes.items()}
        self._filling = asyncio.create_task(_keep_full(plant))
        await eventually(lambda: self._refusals(plant) > 0, within=_NOTICE_SECONDS, describe="Postgres has no room")
        return ""

    async def heal(self, plant: Plant) -> str:
        """Give it room; start it again where it has given up."""
        self._filling.cancel()
        with suppress(asyncio.CancelledError):
            await self._filling
        plant.disk.free()
        proof = f"{self._refusals(plant)} times ENOSPC in the logs of services, told by Postgres"
        try:
            pid = plant.postgres.pid
        except ServerFailedError:
            plant.postgres.kill()
            await plant.postgres.start()
            return f"{proof}, which had ended and was started again"
        return f"{proof}, which went on (pid {pid})"

    def _refusals(self, plant: Plant) -> int:
        logs = {service: process.log.read_bytes() for service, process in plant.processes.items()}
        return sum(log[self._before[service] :].count(_WORDS) for service, log in logs.items())


async def _keep_full(plant: Plant) -> None:
    while True:
        await asyncio.to_thread(plant.disk.fill)  # what Postgres itself gives up on is room too
        await asyncio.sleep(_LOOK_SECONDS)
