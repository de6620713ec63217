"""A billing service that watches what its tenants spend, beside metrics, on a clock that the test moves."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.billing.spending import SpendingLimits, SpendingWatch
from services.billing.tests.invoicing_kit import House
from shared.access import ADMINISTRATOR
from shared.contracts.billing import DecisionRecorded, SpendingBlockChanged, SpendingLimitReached
from shared.postgres import Pool
from shared.testing.decisions import changes_on


class Purse(House):
    """The service, whose tenants can have limits."""

    def __init__(self, pool: Pool, *, start: datetime) -> None:
        super().__init__(pool, start=start)
        self.watch = SpendingWatch(self.kernel())
        self.limits = SpendingLimits(changes_on(pool, DecisionRecorded, clock=self.clock))

    async def limit(self, tenant_id: str, amount: str, action: Any = "alert") -> None:
        """Give a tenant a limit, and let happen what follows."""
        await self.only_limit(tenant_id, amount, action)
        await self.settle()

    async def only_limit(self, tenant_id: str, amount: str, action: Any = "alert") -> None:
        await self.limits.put(ADMINISTRATOR, tenant_id, amount=Decimal(amount), currency="USD", action=action)

    async def settle(self) -> None:
        """Do all that is due now, and have metrics answer what it is asked."""
        while await self.invoicing.round() or await self.watch.round() or await self._answer():
            pass

    async def days(self, *moments: datetime) -> None:
        """Let everything happen that is due until each of these moments; limits are looked at then, and not hourly."""
        for moment in moments:
            await self.at(moment)

    async def hours(self, count: int) -> None:
        """Let so many hours pass, and a minute after each of them."""
        for _ in range(count):
            await self.at(self.clock.now() + timedelta(minutes=59))
            await self.at(self.clock.now() + timedelta(minutes=1))

    async def reached(self) -> list[tuple[str, int, str, str]]:
        """Return tenant, percent, what was spent and the month of all that was told, by month, tenant and percent."""
        told = await self.told(SpendingLimitReached)
        told.sort(key=lambda each: (each.month, each.tenant_id, each.percent))
        return [(each.tenant_id, each.percent, each.spent, each.month) for each in told]

    async def blocks(self, tenant_id: str = "t1") -> list[tuple[bool, int]]:
        """Return what was told of the refusal of a tenant's usage, by its editions."""
        told = sorted(await self.told(SpendingBlockChanged), key=lambda each: each.edition)
        return [(each.is_blocked, each.edition) for each in told if each.tenant_id == tenant_id]
