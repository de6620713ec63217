"""Death exactly between two steps of the kernel."""

from dataclasses import dataclass

from tests.chaos.campaign.plant import Plant

_DOWN_SECONDS = 0.5
_VISIT = 20
_VISITS = {"due_claimed": 1}


@dataclass
class DieAt:
    """A service dies at a failpoint, at a later visit where it passes often: then it is in the middle of things."""

    target: str
    failpoint: str
    seconds: float = _DOWN_SECONDS

    @property
    def kind(self) -> str:
        """All failpoints are of one kind."""
        return "death at a failpoint"

    async def strike(self, plant: Plant) -> str:
        """Start it anew with the failpoint armed, and wait until it has died there."""
        await plant.stop(self.target)
        plant.start(self.target, fail=f"{self.failpoint}:{_VISITS.get(self.failpoint, _VISIT)}=kill")
        return await plant.died(self.target, self.failpoint)

    async def heal(self, plant: Plant) -> str:
        """Start it without; where it has not died there, it has to."""
        if plant.processes[self.target].exit_code is None:
            plant.kill(self.target)
        plant.start(self.target)
        return ""
