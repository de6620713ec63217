"""Customers who all come at once and do not give up: a request without an answer is sent again under the same key."""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

PATIENCE_SECONDS = 60.0
NOWHERE = "mars"
"""A region that provisioning refuses: a late step fails, so everything before it is undone."""

AT_ONCE = 24
"""How many requests are under way at a time."""

_PAUSE_SECONDS = 0.1


@dataclass
class Order:
    """One onboarding that somebody wants.

    Attributes:
        key: its idempotency key.
        doomed: whether it must end undone.
        workflow_id: from the answer 202, once there was one.
    """

    key: str
    body: dict[str, Any]
    doomed: bool
    workflow_id: str = ""


@dataclass
class Load:
    """A number of onboardings under names of their own, of which every tenth must be undone.

    Attributes:
        alive_before: how many tenants there were before it.
        prefix: what the customers' names begin with, and no others' do.
        setbacks: what came instead of a 202, and how often.
    """

    client: httpx2.AsyncClient
    count: int
    alive_before: int
    prefix: str = field(default_factory=lambda: f"chaos-{secrets.token_hex(4)}")
    orders: list[Order] = field(default_factory=list)
    setbacks: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.orders = [self._order(number) for number in range(self.count)]

    @property
    def waiting(self) -> int:
        """How many have no answer yet."""
        return sum(not order.workflow_id for order in self.orders)

    async def place_all(self) -> None:
        """Send every order until it is accepted.

        Raises:
            AssertionError: an answer was neither 202 nor 503, or there was none in time.
        """
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for order in self.orders:
                group.create_task(self._place(order, free))

    async def repeat_all(self) -> None:
        """Send every order once more: each must get the answer that it had before."""
        before = [order.workflow_id for order in self.orders]
        await self.place_all()
        assert [order.workflow_id for order in self.orders] == before, "a repeated request started another workflow"

    def _order(self, number: int) -> Order:
        doomed = number % 10 == 5
        body: dict[str, Any] = {
            "customerName": f"{self.prefix} {number}",
            "adminEmails": [f"admin{number}@customer.example"],
            "tier": _tier(number),
            "products": [{"name": "notes", "version": "1.0"}],
        }
        if doomed:
            body["region"] = NOWHERE
        return Order(f"{self.prefix}-{number}", body, doomed)

    async def _place(self, order: Order, free: asyncio.Semaphore) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        async with free:
            while not (workflow_id := await self._try(order)):
                late = asyncio.get_running_loop().time() > deadline
                assert not late, f"{order.key} was not accepted within {PATIENCE_SECONDS:g} s: {dict(self.setbacks)}"
                await asyncio.sleep(_PAUSE_SECONDS)
        order.workflow_id = workflow_id

    async def _try(self, order: Order) -> str:
        try:
            response = await self.client.post(
                "/v1/onboardings", json=order.body, headers={"Idempotency-Key": order.key}
            )
        except httpx2.TransportError as error:
            self.setbacks[type(error).__name__] += 1
            return ""
        if response.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
            self.setbacks["503"] += 1
            return ""
        assert response.status_code == httpx2.codes.ACCEPTED, f"{response.status_code}: {response.text}"
        return str(response.json()["id"])


def _tier(number: int) -> str:
    """Let most tenants be in the pool, some have a bridge, and a few a silo, as in life."""
    return "premium" if number % 20 == 0 else "standard" if number % 4 == 0 else "free"
