"""Whether this code knows every definition that a workflow in progress was started with."""

from services.onboarding.engine import Engine
from shared.postgres import Pool


class Versions:
    """Looks once: what is started later is started by code that knows it."""

    def __init__(self, pool: Pool, engine: Engine) -> None:
        self._pool = pool
        self._engine = engine
        self._are_known = False

    async def check(self) -> None:
        """Return if every workflow can go on.

        Raises:
            NotReadyError: one cannot; see `Engine.check`.
        """
        if self._are_known:
            return
        async with self._pool.acquire(timeout=5.0) as connection:
            await self._engine.check(connection)
        self._are_known = True
