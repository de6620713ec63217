"""Customers whose tenants were made by old code alone, and who have new code do everything with them."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.campaign.customer import Customer
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Journal

LIFECYCLES = frozenset(
    {"join", "change-tier", "change-products", "suspend", "reactivate", "update-account", "offboard"}
)
"""What must have completed for some of these tenants, each."""

_PATIENCE_SECONDS = 150.0


@dataclass
class Legacy:
    """Customers who onboard before the deployment, and order nothing more until it is done.

    Attributes:
        tenants: the ids of what they have ordered by then.
    """

    customers: Sequence[Customer]
    journal: Journal
    tenants: set[str] = field(default_factory=set)

    async def onboard(self) -> None:
        """Have old code make their tenants."""
        await asyncio.gather(*(customer.turn() for customer in self.customers))
        self.tenants = {tenant_id for customer in self.customers for tenant_id in customer.tenants}

    async def go_on(self) -> None:
        """Order one thing after the other, until they have no more wishes.

        Raises:
            AssertionError: they do not get on.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await asyncio.gather(*map(_all_turns, self.customers))
        except TimeoutError:
            raise AssertionError(f"what old tenants ordered has not ended; completed: {self.completed}") from None

    @property
    def completed(self) -> Counter[str]:
        """What has completed for their tenants since, by lifecycle."""
        return Counter(
            promise.lifecycle
            for promise in self.journal.promises
            if promise.tenant_id in self.tenants and promise.status == "completed" and promise.lifecycle in LIFECYCLES
        )

    def findings(self) -> Iterable[Finding]:
        """Say which lifecycles were not tried, so that nothing is known of them."""
        for lifecycle in sorted(LIFECYCLES - self.completed.keys()):
            yield Finding("vacuous", f"no {lifecycle} has completed for a tenant that old code has made")


async def _all_turns(customer: Customer) -> None:
    while not customer.is_through:
        await customer.turn()
