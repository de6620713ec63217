"""The connections between a service and what it stands on, with a count of what a disturbance has met."""

import asyncio
from typing import Any, Literal

from shared.testing.wire import Wire

End = Literal["broker", "database"]


class _Gate(asyncio.Event):
    """Lets bytes through, or counts how often it did not."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    async def wait(self) -> Literal[True]:
        self.held += not self.is_set()
        return await super().wait()


class CountingWire(Wire):
    """A wire that can say whether anybody noticed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._requests_flow = _Gate()
        self._answers_flow = _Gate()

    @property
    def connections(self) -> int:
        """How many lead through it; each has two ends here."""
        return len(self._writers) // 2

    @property
    def held(self) -> int:
        """How many pieces of data had to wait, ever."""
        gates: list[Any] = [self._requests_flow, self._answers_flow]
        return sum(gate.held for gate in gates)

    def thaw(self) -> None:
        """Let everything through that was held, and all that follows."""
        self._requests_flow.set()
        self._answers_flow.set()
