"""Standing still: SIGSTOP, while all connections stay open and nobody answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.testing import eventually
from tests.chaos.campaign.faults.fault import state_of
from tests.chaos.campaign.plant import Plant

SHORT_SECONDS = 5.0
LONG_SECONDS = 25.0
"""Longer than two heartbeats of 10 s, after which whoever is at the other end gives up."""

_STOP_SECONDS = 2.0


class _Freezable(Protocol):
    @property
    def pid(self) -> int: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


@dataclass
class Freeze:
    """A service or a server stands still for a while."""

    target: str
    seconds: float

    @property
    def kind(self) -> str:
        """What stands still, and how long."""
        names = {"rabbitmq": "RabbitMQ", "postgres": "Postgres"}
        return f"SIGSTOP of {names.get(self.target, 'a service')} for {self.seconds:.0f} s"

    async def strike(self, plant: Plant) -> str:
        """Stop it where it is."""
        body = self._body(plant)
        pid = body.pid
        body.freeze()
        await eventually(lambda: state_of(pid) == "T", within=_STOP_SECONDS, describe=lambda: state_of(pid))
        return f"pid {pid} in state T"

    async def heal(self, plant: Plant) -> str:
        """Let it go on."""
        body = self._body(plant)
        state = state_of(body.pid)
        body.thaw()
        assert state == "T", f"pid {body.pid} was in state {state} before its time"
        return ""

    def _body(self, plant: Plant) -> _Freezable:
        bodies: Mapping[str, _Freezable] = {**plant.processes, "rabbitmq": plant.broker, "postgres": plant.postgres}
        return bodies[self.target]
