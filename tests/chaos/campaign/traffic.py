"""The offered load: orders at a steady rate, whether or not the system keeps up."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.chaos.campaign.customer import Customer
from tests.chaos.campaign.tenants import Tenant

NEWCOMERS = 0.2
"""How many of the turns are a new customer's, as long as there are others."""


class Traffic:
    """Lets a customer have a turn at a steady rate: one that is free, or a new one.

    Args:
        rate: turns a second.
        make: a customer by its number.

    Attributes:
        newcomers: the share of turns that are a new customer's.
    """

    def __init__(self, rate: float, make: Callable[[int], Customer], random: Random) -> None:
        self.customers: list[Customer] = []
        self.newcomers = NEWCOMERS
        self._rate = rate
        self._make = make
        self._random = random
        self._free: list[Customer] = []
        self._turns: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    @property
    def tenants(self) -> list[Tenant]:
        """All that customers have ordered."""
        return [tenant for customer in self.customers for tenant in customer.tenants.values()]

    @property
    def under_way(self) -> int:
        """How many orders have not ended."""
        return len(self._turns)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Let customers come for the length of a block."""
        flowing = asyncio.create_task(self.run())
        try:
            yield
        finally:
            flowing.cancel()

    async def run(self) -> None:
        """Let customers come until this is cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._begin(self._next())
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def rest(self) -> None:
        """Wait until every order that was begun has ended, or its customer has given up.

        Raises:
            BaseExceptionGroup: a customer met something that is no part of the game.
        """
        while self._turns:
            await asyncio.wait(self._turns)
        if self._failures:
            raise BaseExceptionGroup("customers have failed", self._failures)

    def _next(self) -> Customer:
        if self._free and self._random.random() > self.newcomers:
            return self._free.pop(self._random.randrange(len(self._free)))
        customer = self._make(len(self.customers))
        self.customers.append(customer)
        return customer

    def _begin(self, customer: Customer) -> None:
        turn = asyncio.create_task(customer.turn())
        self._turns.add(turn)
        turn.add_done_callback(lambda _: self._end(turn, customer))

    def _end(self, turn: "asyncio.Task[None]", customer: Customer) -> None:
        self._turns.discard(turn)
        if not turn.cancelled() and (error := turn.exception()) is not None:
            self._failures.append(error)
        elif not customer.is_through:
            self._free.append(customer)
