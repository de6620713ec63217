"""One customer: orders one thing after the other, waits for each, and keeps in mind what its tenant must be like."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.chaos.campaign import orders
from tests.chaos.campaign.door import Door, UnansweredError
from tests.chaos.campaign.journal import Promise
from tests.chaos.campaign.orders import Order
from tests.chaos.campaign.tenants import Tenant

_CANCELLING = 0.08
_IMPATIENT = 0.05
_MOST_TURNS = 14
_LONGEST_PAUSE_SECONDS = 0.6

_Choice = Callable[[Tenant, str, Random], Order]

_ACTIVE: dict[_Choice, int] = {
    orders.join: 4,
    orders.contradict: 1,
    orders.change_tier: 5,
    orders.same_tier: 1,
    orders.change_products: 4,
    orders.suspend: 5,
    orders.reactivate: 1,
    orders.update_account: 4,
    orders.off_board: 4,
    orders.off_board_later: 1,
}
"""What is ordered for a tenant that is active, and how often."""

_SUSPENDED: dict[_Choice, int] = {
    orders.reactivate: 6,
    orders.suspend: 1,
    orders.change_tier: 1,
    orders.update_account: 1,
    orders.join: 1,
    orders.off_board: 2,
}
"""What is ordered for a tenant that is suspended, and how often."""


class Customer:
    """A customer with a name of its own.

    Attributes:
        tenants: all that it ever ordered, by id; at most one is alive.
        name: what it is called now.
    """

    def __init__(self, name: str, door: Door, random: Random) -> None:
        self.name = name
        self.tenants: dict[str, Tenant] = {}
        self._door = door
        self._random = random
        self._key = name.replace(" ", "-")
        self._turns = 0
        self._is_lost = False

    @property
    def is_through(self) -> bool:
        """Whether it orders nothing any more."""
        return self._turns >= _MOST_TURNS or self._is_lost

    async def turn(self) -> None:
        """Order one thing and see to its end."""
        self._turns += 1
        current = self._current()
        order, tenant = self._onboarding() if current is None else (self._choose(current), current)
        try:
            promise = await self._door.place(order, f"{self._key}-{self._turns}")
            if isinstance(promise, Promise):
                await self._follow(order, promise, replace(tenant, tenant_id=promise.tenant_id))
        except UnansweredError:
            self._is_lost = True

    async def _follow(self, order: Order, promise: Promise, tenant: Tenant) -> None:
        self.tenants.setdefault(tenant.tenant_id, tenant)
        second = await self._interfere(order, promise, tenant)
        self._settle(order, promise, await self._door.ended(promise))
        if second is not None:
            self._settle(*second, await self._door.ended(second[1]))

    async def _interfere(self, order: Order, promise: Promise, tenant: Tenant) -> tuple[Order, Promise] | None:
        """Now and then take it back, or order something else before it has ended; return what was accepted."""
        chance = self._random.random()
        if not self._door.knows_lifecycles:
            return None
        if order.never_ends or chance < _CANCELLING:
            await asyncio.sleep(self._random.uniform(0, _LONGEST_PAUSE_SECONDS))
            await self._door.cancel(promise)
        elif chance < _CANCELLING + _IMPATIENT:
            another = orders.impatient(tenant, self._random)
            second = await self._door.place(another, f"{self._key}-{self._turns}-impatient")
            return (another, second) if isinstance(second, Promise) else None
        return None

    def _settle(self, order: Order, promise: Promise, status: str) -> None:
        tenant = self.tenants[promise.tenant_id]
        if status == "completed":
            by = promise.workflow_id if order.lifecycle == "offboard" else ""
            self.tenants[promise.tenant_id] = replace(tenant, **order.changes, off_boarded_by=by)
            self.name = self.tenants[promise.tenant_id].name
        elif status != "compensated":
            self.tenants[promise.tenant_id] = replace(tenant, state="unknown")
            self._is_lost = True

    def _current(self) -> Tenant | None:
        return next((tenant for tenant in self.tenants.values() if tenant.is_alive), None)

    def _onboarding(self) -> tuple[Order, Tenant]:
        order, tenant = orders.onboard(self.name, self._admin(), self._random)
        return order, replace(tenant, may_lack_connections=not self._door.knows_lifecycles)

    def _choose(self, tenant: Tenant) -> Order:
        choices = _SUSPENDED if tenant.state == "suspended" else _ACTIVE
        [choice] = self._random.choices(list(choices), list(choices.values()))
        return choice(tenant, self._admin(), self._random)

    def _admin(self) -> str:
        return f"{self._key}-{self._turns}@customer.example"
