"""Every night the provider's books are compared with ours: what differs is told and shown, and nothing is repaired."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.billing.payments import ProviderUnavailableError
from services.billing.payments.reconciling import Reconciling, next_night
from services.billing.payments.stripe import open_stripe
from services.billing.tests.desk import Desk
from services.billing.tests.fake_stripe import KEY, FakeStripe, serving
from services.billing.tests.support import all_routes
from services.billing.tests.till import Till, incoming
from shared.http import create_api
from shared.postgres import Pool

BEARER = {"Authorization": "Bearer key"}


class Night(Desk):
    """A service that also compares."""

    def prepare(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciling = Reconciling(self.till.house.kernel(), self.provider, registry=self.registry)
        self.api = create_api("billing", routers=[all_routes(self.till.pool)], admin_key="key", checks={}, version="1")

    async def pass_by(self, *, days: int = 1) -> None:
        """Let nights pass, and compare in each."""
        for _ in range(days):
            await self.till.clock.advance((next_night(self.till.clock.now()) - self.till.clock.now()).total_seconds())
            self.fake.now = int(self.till.clock.now().timestamp())
            assert await self.reconciling.round()

    async def drifts(self, **query: Any) -> list[dict[str, Any]]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(self.api), base_url="http://test") as client:
            found: list[dict[str, Any]] = []
            cursor: dict[str, str] = {}
            while True:
                answer = (await client.get("/v1/payment-drifts", params=query | cursor, headers=BEARER)).json()
                found += answer["items"]
                if answer["nextCursor"] is None:
                    return found
                cursor = {"cursor": answer["nextCursor"]}


@pytest.fixture
async def night(pool: Pool) -> AsyncIterator[Night]:
    async with serving(FakeStripe()) as fake, open_stripe(KEY, url=fake.url) as provider:
        night = Night(Till(pool), fake, provider)
        night.prepare()
        yield night


@pytest.mark.parametrize(
    ("now", "then"),
    [((1, 0), (1, 3)), ((1, 3), (2, 3)), ((1, 23), (2, 3))],
)
def test_the_night_is_at_three(now: tuple[int, int], then: tuple[int, int]) -> None:
    assert next_night(datetime(2026, 3, *now, tzinfo=UTC)) == datetime(2026, 3, *then, tzinfo=UTC)


async def test_books_that_agree_have_no_drift_however_many_nights_pass(night: Night) -> None:
    for number in range(3):
        await night.invoice(f"t{number}")
    await night.settle()

    await night.pass_by(days=40)

    assert await night.drifts() == []


async def test_what_was_taken_and_not_booked_is_told_until_it_is_booked(night: Night) -> None:
    night.fake.declines = ["insufficient_funds"] * 5
    invoice_id = await night.invoice()
    await night.settle()
    reference = await night.bill()
    night.fake.pay_by_hand(reference)

    await night.pass_by(days=2)

    (drift,) = await night.drifts()
    assert drift == {
        "provider": "stripe",
        "reference": reference,
        "kind": "unbooked",
        "tenantId": "t1",
        "invoiceId": str(invoice_id),
        "currency": "USD",
        "taken": "49.00",
        "booked": "0.00",
        "foundAt": "2026-03-02T03:00:00Z",
    }
    assert await night.till.receivables() == [("49.00", "0.00", "0.00", "0.00", "49.00")], "nothing is repaired"

    await night.settle()
    await night.pass_by()
    assert await night.drifts() == []


async def test_what_is_being_booked_at_this_moment_is_no_drift(night: Night) -> None:
    night.fake.declines = ["insufficient_funds"]
    await night.invoice()
    await night.settle()
    night.fake.now = int((next_night(night.till.clock.now()) - timedelta(minutes=30)).timestamp())
    night.fake.pay_by_hand(await night.bill())

    await night.pass_by()
    assert await night.drifts() == []

    await night.pass_by()
    assert len(await night.drifts()) == 1


async def test_what_is_booked_and_was_not_taken_is_told(night: Night) -> None:
    night.fake.declines = ["insufficient_funds"]
    invoice_id = await night.invoice()
    await night.settle()
    await night.till.receive(incoming(invoice_id, "49.00", provider="stripe", reference=await night.bill()))
    await night.till.receive(incoming(invoice_id, "1.00"))

    await night.pass_by()

    assert [(each["kind"], each["taken"], each["booked"]) for each in await night.drifts()] == [
        ("untaken", "0.00", "49.00")
    ]


async def test_another_amount_or_currency_is_told(night: Night) -> None:
    for tenant_id in ("t1", "t2"):
        await night.invoice(tenant_id)
        await night.settle()
    one, other = sorted(night.fake.invoices)
    night.fake.invoices[one]["total"] = 4800
    night.fake.invoices[other]["currency"] = "eur"

    await night.pass_by()

    assert [(each["reference"], each["kind"], each["currency"], each["taken"]) for each in await night.drifts()] == [
        (one, "amount", "USD", "48.00"),
        (other, "amount", "EUR", "49.00"),
    ]


async def test_what_is_marked_as_ours_and_known_to_nobody_is_told_without_a_tenant(night: Night) -> None:
    await night.invoice()
    await night.settle()
    made = dict(next(iter(night.fake.invoices.values())))
    for number in range(5):
        night.fake.invoices[f"in_z{number}"] = made | {"id": f"in_z{number}"}

    await night.pass_by()

    drifts = await night.drifts(limit=2)
    assert [each["reference"] for each in drifts] == [f"in_z{number}" for number in range(5)]
    assert {(each["kind"], each["tenantId"], each["invoiceId"]) for each in drifts} == {("unbooked", None, None)}


async def test_an_hour_after_an_outage_it_is_tried_again_and_by_one_only(night: Night) -> None:
    night.fake.faults = {"list": ["fail"]}
    with pytest.raises(ProviderUnavailableError):
        await night.reconciling.round()
    assert not await night.reconciling.round()

    await night.till.clock.advance(3600)

    assert await night.reconciling.round()
    assert not await night.reconciling.round()


async def test_what_the_provider_told_long_ago_is_forgotten(night: Night, pool: Pool) -> None:
    for age in (34, 36):
        await pool.execute(
            "INSERT INTO provider_event VALUES ('stripe', $1, 'invoice.paid', $2)",
            f"evt_{age}",
            night.till.clock.now() - timedelta(days=age),
        )
    assert await night.reconciling.round()
    assert [row["event_id"] for row in await pool.fetch("SELECT event_id FROM provider_event")] == ["evt_34"]
    assert await pool.fetchval("SELECT count(*) FROM taken_payment") == 0
