"""An end in order: SIGTERM, and a start soon after, as in every deployment."""

from dataclasses import dataclass

from tests.chaos.campaign.plant import Plant

_DOWN_SECONDS = 0.5


@dataclass
class Restart:
    """A service is told to end, and started again."""

    target: str
    kind: str = "orderly restart of a service"
    seconds: float = _DOWN_SECONDS

    async def strike(self, plant: Plant) -> str:
        """Have it end."""
        return await plant.stop(self.target)

    async def heal(self, plant: Plant) -> str:
        """Start it again."""
        plant.start(self.target)
        return ""
