"""Every night the payments of a provider are compared with ours. What differs is reported; nothing repairs it silently.

What is compared is of bills that were made in the last weeks: the provider says what it has taken for them, in as many
pages as there are, and the database finds what it knows otherwise.
"""

from collections.abc import AsyncIterator
from datetime import datetime, time, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.billing import queries
from services.billing.payments.port import Collector, ProviderUnavailableError, Taken
from shared.postgres import transaction
from shared.repeating import repeat
from shared.service import Kernel

log = structlog.get_logger(__name__)

REACH: Final = timedelta(days=35)
"""How long ago the bills were made at most whose payments are compared."""

NIGHT: Final = time(3)
"""When they are compared, in UTC."""

_MARGIN = timedelta(days=1)
_GRACE = timedelta(hours=1)
_AGAIN = timedelta(hours=1)
_BATCH = 500
_MOST_LOGGED = 20
_POLL_SECONDS = 60.0


class Reconciling:
    """Compares a provider's books with ours.

    Args:
        registry: has ``tenure_billing_payment_drifts``: in how many payments the books differ.
    """

    def __init__(self, kernel: Kernel, provider: Collector, *, registry: CollectorRegistry | None = None) -> None:
        self._kernel = kernel
        self._provider = provider
        self._drifts = Gauge(
            "tenure_billing_payment_drifts", "Payments in which a provider's books differ from ours.", registry=registry
        )

    async def run(self) -> None:
        """Compare every night, for ever; after an outage of the database or the provider an hour later."""
        clock = self._kernel.ports.clock
        rest, awaited = lambda: clock.sleep(_POLL_SECONDS), (ProviderUnavailableError,)
        await repeat("reconciling", self._work, rest, clock=clock, awaited=awaited)

    async def _work(self) -> None:
        await self.round()
        async with transaction(self._kernel.pool) as connection:
            self._drifts.set(await queries.drifts.count(connection, self._provider.name))

    async def round(self) -> bool:
        """Compare if it is time to, and tell whether it was.

        Raises:
            ProviderUnavailableError: an hour later it is time again.
        """
        now = self._kernel.ports.clock.now()
        name = self._provider.name
        async with transaction(self._kernel.pool) as connection:
            if not await queries.drifts.begin(connection, name, now=now, until=now + _AGAIN):
                return False
        async for batch in _batches(self._provider.payments_since(now - REACH)):
            async with transaction(self._kernel.pool) as connection:
                await queries.drifts.keep_taken(
                    connection, name, [(each.reference, each.currency, each.amount, each.received_at) for each in batch]
                )
        async with transaction(self._kernel.pool) as connection:
            found = await queries.drifts.compare(
                connection, name, since=now - REACH + _MARGIN, until=now - _GRACE, now=now
            )
            await queries.drifts.finish(connection, name, compare_at=next_night(now), events_before=now - REACH)
        for row in found[:_MOST_LOGGED]:
            told = {column: str(value) for column, value in row.items()}
            log.error("a payment differs from the provider's", action="payment_drift", provider=name, **told)
        log.info("payments compared", action="reconciled", provider=name, new=len(found))
        return True


def next_night(now: datetime) -> datetime:
    """Return when to compare next."""
    tonight = datetime.combine(now.date(), NIGHT, now.tzinfo)
    return tonight if tonight > now else tonight + timedelta(days=1)


async def _batches(taken: AsyncIterator[Taken]) -> AsyncIterator[list[Taken]]:
    batch: list[Taken] = []
    async for each in taken:
        batch.append(each)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
