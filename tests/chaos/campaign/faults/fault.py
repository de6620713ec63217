"""What a fault is: it strikes, proves that it has, lasts a while, and is healed."""

from pathlib import Path
from typing import Protocol

from tests.chaos.campaign.plant import Plant


class Fault(Protocol):
    """One thing that goes wrong."""

    @property
    def kind(self) -> str:
        """What the figures are gathered under."""
        ...

    @property
    def target(self) -> str:
        """Whom it meets."""
        ...

    @property
    def seconds(self) -> float:
        """How long it lasts from when it has struck."""
        ...

    async def strike(self, plant: Plant) -> str:
        """Let it happen, and return the proof that it has.

        Raises:
            AssertionError: it has met nobody.
        """
        ...

    async def heal(self, plant: Plant) -> str:
        """End it, and return what can only be proven by then; empty where nothing is left to prove."""
        ...


def state_of(pid: int) -> str:
    """Return the state of a process as Linux knows it: ``T`` is stopped."""
    return (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
