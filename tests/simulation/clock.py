"""The services' clocks: virtual, and not all of them right."""

import asyncio
from datetime import UTC, datetime, timedelta

from tests.simulation.process import current

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
"""When every simulation begins."""


class SimulatedClock:
    """One service's clock.

    Attributes:
        ahead: how far it is off.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Return what it shows, aware, in UTC."""
        return START + timedelta(seconds=self._loop.time()) + self.ahead

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual seconds; they are the same for everybody."""
        if (process := current()) is not None:
            process.require_alive()
        await asyncio.sleep(seconds)
