"""Trouble on the line between a service and the broker, or its database."""

from dataclasses import dataclass

from tests.chaos.campaign.plant import Plant
from tests.chaos.campaign.wires import End

HOLE_SECONDS = 10.0


@dataclass
class Cut:
    """Every connection of a service to one end is reset."""

    service: str
    end: End
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """Which line is cut."""
        return f"connections to the {self.end} reset"

    @property
    def target(self) -> str:
        """Whose line."""
        return self.service

    async def strike(self, plant: Plant) -> str:
        """Reset what there is."""
        wire = plant.wires[self.service, self.end]
        count = wire.connections
        assert count, f"{self.service} had no connection to the {self.end}"
        wire.cut()
        return f"{count} connections cut"

    async def heal(self, plant: Plant) -> str:  # noqa: ARG002 - what every fault has
        """Do nothing: new connections could be made at once."""
        return ""


@dataclass
class BlackHole:
    """Nothing gets through between a service and one end, and nobody is told."""

    service: str
    end: End
    seconds: float = HOLE_SECONDS

    @property
    def kind(self) -> str:
        """Which line is silent, and how long."""
        return f"black hole to the {self.end} for {self.seconds:.0f} s"

    @property
    def target(self) -> str:
        """Whose line."""
        return self.service

    async def strike(self, plant: Plant) -> str:
        """Hold everything."""
        wire = plant.wires[self.service, self.end]
        self._held_before = wire.held
        assert wire.connections, f"{self.service} had no connection to the {self.end}"
        wire.freeze()
        return f"{wire.connections} connections silent"

    async def heal(self, plant: Plant) -> str:
        """Let everything through that was held."""
        wire = plant.wires[self.service, self.end]
        held = wire.held - self._held_before
        wire.thaw()
        assert held, f"{self.service} said nothing to the {self.end} all the time, nor heard"
        return f"{held} pieces of data held"
