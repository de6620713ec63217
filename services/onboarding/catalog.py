"""The catalog as onboarding knows it: what the tenant service told last, read anew at most once a second."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from services.onboarding import queries
from shared.clock import Clock
from shared.http import Problem
from shared.postgres import Pool
from shared.service import NotReadyError

_FRESH = timedelta(seconds=1)


class Catalog:
    """Tiers, products and versions that a request may name."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._content: Mapping[str, Any] | None = None
        self._read_at: datetime | None = None

    async def current(self) -> Mapping[str, Any]:
        """Return the catalog.

        Raises:
            Problem: 503, the tenant service has not told it yet.
        """
        now = self._clock.now()
        if self._content is None or self._read_at is None or now - self._read_at >= _FRESH:
            async with self._pool.acquire(timeout=5.0) as connection:
                self._content = await queries.catalog(connection)
            self._read_at = now
        if self._content is None:
            raise Problem(
                503,
                code="catalog_unknown",
                detail="The catalog of tiers and products has not arrived yet. Try again shortly.",
                retryable=True,
                headers={"Retry-After": "1"},
            )
        return self._content

    async def check(self) -> None:
        """Return if the catalog is known.

        Raises:
            NotReadyError: it is not.
        """
        try:
            await self.current()
        except Problem as problem:
            raise NotReadyError(problem.detail) from problem
