"""A service that has a provider collect what is due, on a clock that the test moves."""

from datetime import timedelta
from uuid import UUID

from services.billing.payments.collecting import Collecting
from services.billing.payments.stripe import StripeProvider
from services.billing.tests.fake_stripe import FakeStripe
from services.billing.tests.support import NOON
from services.billing.tests.till import Till
from shared.contracts.billing import PaymentFailed

RETRIES = [timedelta(days=each) for each in (1, 9, 13, 20)]


class Desk:
    """A service that collects, a till that keeps its books, and the provider's side."""

    def __init__(self, till: Till, fake: FakeStripe, provider: StripeProvider) -> None:
        self.till, self.fake, self.provider = till, fake, provider
        self.booking = till.replica(collects=True)
        self.collecting = self.replica()

    def replica(self) -> Collecting:
        """Return another loop on the same database."""
        return Collecting(self.till.house.kernel(), self.provider, retries=RETRIES)

    async def invoice(self, tenant_id: str = "t1", total: str = "49.00") -> UUID:
        invoice_id = await self.till.issue(tenant_id, total)
        while await self.booking.round():
            pass
        return invoice_id

    async def settle(self) -> None:
        """Do all that is due now."""
        for _ in range(100):
            if not await self.collecting.round():
                return
        raise AssertionError("it never rests")

    async def wait(self, **time: int) -> None:
        """Let time pass in steps in which whatever is waited for happens."""
        until = self.till.clock.now() + timedelta(**time)
        while self.till.clock.now() < until:
            left = until - self.till.clock.now()
            await self.till.clock.advance(min(left, timedelta(hours=8)).total_seconds())
            await self.settle()

    async def bill(self) -> str:
        """Return by which the provider knows the last bill."""
        reference: str = await self.till.pool.fetchval("SELECT reference FROM bill ORDER BY made_at DESC, edition DESC")
        return reference

    async def states(self) -> list[tuple[int, str, str]]:
        """Return edition, amount and state of all bills."""
        rows = await self.till.pool.fetch(
            "SELECT edition, round(amount, 2)::text, state FROM bill ORDER BY invoice_id, edition"
        )
        return [tuple(row) for row in rows]

    async def failures(self) -> list[tuple[int, str, int | None]]:
        """Return attempt, code and in how many days the next is, of all that was told of failures."""
        told = await self.till.told(PaymentFailed)
        return [
            (
                each.attempt,
                each.code,
                None if each.next_attempt_at is None else (each.next_attempt_at - NOON).days,
            )
            for each in told
        ]

    async def check(self) -> None:
        """Hold that whatever was taken is booked, each thing once."""
        rows = await self.till.pool.fetch(
            "SELECT reference, round(amount * 100)::int AS units FROM payment WHERE provider = 'stripe' ORDER BY 1"
        )
        assert [(row["reference"], row["units"]) for row in rows] == sorted(self.fake.charges)
        assert len({reference for reference, _ in self.fake.charges}) == len(self.fake.charges)
