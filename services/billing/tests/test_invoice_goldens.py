"""Invoices over HTTP, from a published plan to the preview of what is owed, against numbers that others have published.

Each case says whose they are; prices of quantities and changes within a period are in test_previews.py.
"""

from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

from services.billing.tests.invoicing_kit import House
from services.billing.tests.support import all_routes
from shared.contracts.billing import ChangePlan
from shared.http import create_api
from shared.postgres import Pool

KEY = "a-key-of-the-administrator"
TENANT = "t1"
BERLIN = ZoneInfo("Europe/Berlin")
METER = "api_calls"

Open = Callable[[datetime], "Shop"]


def day(month: int, day_of_month: int, year: int = 2026) -> datetime:
    return datetime(year, month, day_of_month, tzinfo=UTC)


class Shop:
    """A house with its interface: plans are published and invoices looked at over HTTP, nothing else."""

    def __init__(self, pool: Pool, start: datetime) -> None:
        self.house = House(pool, start=start)
        self._published = 0

    @asynccontextmanager
    async def _client(self) -> Any:
        routes = all_routes(self.house.pool, clock=self.house.clock)
        api = create_api("billing", routers=[routes], admin_key=KEY, checks={}, version="1")
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(api), base_url="http://test", headers=headers
        ) as client:
            yield client

    async def publish(self, name: str, amount: str, *, currency: str = "USD", **terms: Any) -> None:
        self._published += 1
        plan = {"name": name, "rank": 100 + self._published, "currency": currency, "prices": {currency: amount}}
        await self._post("/v1/plans", plan | terms)

    async def publish_version(self, name: str, amount: str, **terms: Any) -> None:
        await self._post(f"/v1/plans/{name}/versions", {"prices": {"USD": amount}} | terms)

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        async with self._client() as client:
            answer = await client.post(path, json=body)
        assert answer.status_code == 201, answer.text

    async def previewed(self) -> dict[str, Any]:
        async with self._client() as client:
            answer = await client.get("/v1/invoices/preview", params={"tenantId": TENANT})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    async def total(self) -> str:
        """Return what the next invoice says in all."""
        total: str = (await self.previewed())["total"]
        return total

    async def amounts(self) -> list[str]:
        """Return the amounts of what the next invoice says, in the order of its lines."""
        return [line["amount"] for line in (await self.previewed())["lines"]]


@pytest.fixture
def shop(pool: Pool) -> Open:
    def opened(start: datetime) -> Shop:
        return Shop(pool, start)

    return opened


async def test_a_trial_and_the_rest_of_a_month_in_advance(shop: Open) -> None:
    """Lago: 50 a month in advance, 5 days of trial, from the 1st of April: 50 * 25 / 30."""
    lago = shop(day(4, 1))
    await lago.publish("plan", "50", paysIn="advance", trialDays=5)
    await lago.house.open(TENANT, plan="plan")
    await lago.house.at(day(4, 5))

    assert await lago.house.invoices() == []
    assert await lago.total() == "41.67"


async def test_the_rest_of_a_calendar_month(shop: Open) -> None:
    """Lago: 50 a month, from the 10th of August: 50 * 22 / 31."""
    lago = shop(day(8, 10))
    await lago.publish("plan", "50")
    await lago.house.open(TENANT, plan="plan")
    await lago.house.settle()

    assert await lago.total() == "35.48"


async def test_the_rest_of_a_month_after_a_trial_and_nothing_before(shop: Open) -> None:
    """Lago: 5,000,000 cents a month, 10 days of trial from the 5th of March: (31 - 4 - 10) / 31 when it is over."""
    lago = shop(day(3, 5))
    await lago.publish("plan", "50000", currency="EUR", paysIn="advance", trialDays=10)
    await lago.house.open(TENANT, plan="plan")
    await lago.house.at(day(3, 14))
    assert await lago.house.invoices() == []

    assert (await lago.total(), (await lago.previewed())["closesAt"]) == ("27419.35", "2026-03-15T00:00:00Z")


async def test_an_upgrade_between_plans_that_pay_in_advance(shop: Open) -> None:
    """Lago's inputs: 20 to 40 a month on the 11th of May: 27.10 is charged, 13.55 given back; and June follows."""
    lago = shop(day(5, 1))
    await lago.publish("small", "20", paysIn="advance")
    await lago.publish("large", "40", paysIn="advance")
    await lago.house.open(TENANT, plan="small")
    await lago.house.at(day(5, 11))
    await lago.house.do(ChangePlan(tenant_id=TENANT, plan="large"))

    assert sorted(await lago.amounts()) == ["-13.55", "27.10", "40.00"]


@pytest.mark.parametrize(("proration", "amount"), [("day", "6.00"), ("second", "5.99")])
async def test_a_change_in_the_month_in_which_clocks_go_back(shop: Open, proration: str, amount: str) -> None:
    """31.00 a month in Berlin, from the 26th of October: by days 6 / 31, by seconds 518,400 / 2,682,000."""
    house = shop(datetime(2026, 10, 1, tzinfo=BERLIN))
    await house.publish("nothing", "0", proration=proration)
    await house.publish("plan", "31.00", proration=proration)
    await house.house.open(TENANT, plan="nothing", time_zone="Europe/Berlin")
    await house.house.at(datetime(2026, 10, 26, tzinfo=BERLIN))
    await house.house.do(ChangePlan(tenant_id=TENANT, plan="plan"))

    assert await house.total() == amount


async def test_a_price_changes_for_who_has_the_plan_on_a_day_of_its_own(shop: Open) -> None:
    """Kill Bill: 30, and 60 from the 15th of January, from the 1st of March for who has it: 30 in February, then 60."""
    killbill = shop(day(1, 1))
    await killbill.publish("plan", "30", paysIn="advance")
    await killbill.house.open(TENANT, plan="plan")
    await killbill.publish_version(
        "plan", "60", paysIn="advance", startsAt="2026-01-15T00:00:00Z", reachesExistingAt="2026-03-01T00:00:00Z"
    )
    await killbill.house.at(day(1, 20))

    assert await killbill.total() == "30.00"
    await killbill.house.at(day(2, 20))
    assert await killbill.total() == "60.00"


def metered(price: Mapping[str, Any], **terms: Any) -> list[dict[str, Any]]:
    return [{"meter": METER, "currency": "USD", "price": price} | terms]


def tiers(model: str, *each: tuple[str | None, str, str]) -> dict[str, Any]:
    bounds = [{"upTo": up_to, "unitAmount": unit, "flatAmount": flat} for up_to, unit, flat in each]
    return {"model": model, "tiers": bounds}


GRADUATED = tiers("graduated", ("10", "10", "2"), ("20", "5", "3"), (None, "5", "3"))
VOLUME = tiers("volume", ("5", "7", "0"), ("10", "6.5", "0"), (None, "6", "0"))
LARGE = tiers(
    "volume",
    ("10000", "0.0010", "10"),
    ("50000", "0.0008", "10"),
    ("100000", "0.0006", "10"),
    (None, "0.0004", "10"),
)
PACKAGES = {"model": "package", "package": {"size": "10", "amount": "100"}}


@pytest.mark.parametrize(
    ("price", "used", "total"),
    [
        pytest.param(GRADUATED, "11", "110.00", id="Lago, graduated"),
        pytest.param(GRADUATED, "21", "163.00", id="Lago, graduated into the third tier"),
        pytest.param(VOLUME, "6", "39.00", id="Stripe, volume"),
        pytest.param(VOLUME, "25", "150.00", id="Stripe, volume in the last tier"),
        pytest.param(LARGE, "65000", "49.00", id="Lago, volume"),
        pytest.param(PACKAGES, "121", "1300.00", id="Lago, packages"),
    ],
)
async def test_usage_of_a_month(shop: Open, price: Mapping[str, Any], used: str, total: str) -> None:
    house = shop(day(3, 1))
    await house.publish("plan", "0", charges=metered(price))
    await house.house.open(TENANT, plan="plan")
    house.house.metrics.use(TENANT, METER, used, at=day(3, 20))
    await house.house.at(day(4, 3))

    assert await house.house.totals(TENANT) == [(day(4, 1), total)]


@pytest.mark.parametrize(
    ("price", "used", "late", "totals"),
    [
        pytest.param({"model": "per_unit", "unitAmount": "10"}, "5", "2", ["50.00", "20.00"], id="OpenMeter, per unit"),
        pytest.param(
            tiers("volume", ("15", "10", "0"), (None, "5", "0")),
            "15",
            "1",
            ["150.00", "-70.00"],
            id="OpenMeter, volume",
        ),
    ],
)
async def test_late_usage_is_the_difference_on_the_next_invoice(
    shop: Open, price: Mapping[str, Any], used: str, late: str, totals: list[str]
) -> None:
    house = shop(day(3, 1))
    await house.publish("plan", "0", charges=metered(price))
    await house.house.open(TENANT, plan="plan")
    house.house.metrics.use(TENANT, METER, used, at=day(3, 20))
    house.house.metrics.use(TENANT, METER, late, at=day(3, 30), stored_at=day(4, 10))
    await house.house.at(day(5, 3))

    assert [total for _, total in await house.house.totals(TENANT)] == totals
    (line,) = [each for each in await house.house.lines(2) if Decimal(each[1])]
    assert line[0].startswith("correction of invoice 00000001: ")
