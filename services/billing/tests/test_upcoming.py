"""The preview of the next invoice: what the loop will say, before it does."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter

from services.billing.api import preview_of_invoices
from services.billing.tests.invoicing_kit import GRACE, PER_CALL, House, publish
from services.billing.tests.support import NOON, on
from services.billing.tests.test_invoicing import FIRST
from shared.contracts.billing import ChangePlan, CloseAccount, UsageRequested
from shared.http import create_api
from shared.postgres import Pool

KEY = "a-key-of-the-administrator"


@pytest.fixture
def house(pool: Pool) -> House:
    return House(pool, start=NOON)


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter()
    router.include_router(preview_of_invoices.routes(house.pool, house.clock, GRACE))
    api = create_api("billing", routers=[router], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def preview(client: httpx2.AsyncClient, **query: str) -> Any:
    answer = await client.get("/v1/invoices/preview", params={"tenantId": "t1"} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_says_what_the_invoice_will(house: House, client: httpx2.AsyncClient, pool: Pool) -> None:
    await publish(pool, "small", "30", pays="advance")
    await publish(pool, "large", "300", pays="advance")
    await house.at(FIRST[4])
    await house.open("t1", plan="small")
    await house.at(on(16, month=4))
    await house.do(ChangePlan(tenant_id="t1", plan="large"))
    before = await house.content()

    said = await preview(client)
    assert await house.content() == before
    await house.at(FIRST[5])

    number = 2
    assert [(line["description"], line["amount"]) for line in said["lines"]] == await house.lines(number)
    assert {name: value for name, value in said.items() if name != "lines"} == {
        "tenantId": "t1",
        "currency": "USD",
        "closesAt": "2026-05-01T00:00:00Z",
        "total": "435.00",
        "isComplete": True,
    }
    line = said["lines"][-1]
    assert (line["unit"], line["since"], line["until"]) == ("day", "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z")


async def test_it_looks_ahead_over_invoices_that_are_not_made_yet(house: House, client: httpx2.AsyncClient) -> None:
    await house.open("t1")
    await house.settle()

    ahead = await preview(client, at="2027-02-01T00:00:01Z")

    assert (ahead["closesAt"], ahead["total"], len(ahead["lines"])) == ("2027-03-01T00:00:00Z", "49.00", 1)


async def test_it_tells_whether_the_usage_is_known(house: House, client: httpx2.AsyncClient, pool: Pool) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    house.metrics.use("t1", "calls", "100", at=on(5))
    house.metrics.is_away = True
    await house.at(FIRST[4] + GRACE)
    unknown = await preview(client)
    request = house.metrics.report((await house.told(UsageRequested))[0], now=house.clock.now())
    await house.keep(request)
    known = await preview(client)

    assert (unknown["closesAt"], unknown["total"], unknown["isComplete"]) == ("2026-04-01T00:00:00Z", "10.00", False)
    assert (known["closesAt"], known["total"], known["isComplete"]) == ("2026-04-01T00:00:00Z", "11.00", True)


async def test_before_the_activation_there_is_nothing_to_say(house: House, client: httpx2.AsyncClient) -> None:
    await house.open_only("t1")

    said = await preview(client)

    assert (said["closesAt"], said["lines"], said["total"], said["isComplete"]) == (None, [], "0.00", True)


async def test_what_is_closed_or_not_there_has_no_next_invoice(house: House, client: httpx2.AsyncClient) -> None:
    await house.open("t1")
    await house.do(CloseAccount(tenant_id="t1"))

    for tenant_id in ("t1", "t9"):
        answer = await client.get("/v1/invoices/preview", params={"tenantId": tenant_id})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_account")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({}, "query/tenantId"),
        ({"tenantId": "t1", "at": (NOON - timedelta(seconds=1)).isoformat()}, "query/at"),
        ({"tenantId": "t1", "at": (NOON + timedelta(days=367)).isoformat()}, "query/at"),
        ({"tenantId": "t1", "at": "soon"}, "query/at"),
        ({"tenantId": "t1", "at": "9999-12-31T23:59:59Z"}, "query/at"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], pointer: str
) -> None:
    answer = await client.get("/v1/invoices/preview", params=query)

    assert (answer.status_code, [each["pointer"] for each in answer.json()["errors"]]) == (422, [pointer])


async def test_amounts_are_exact(house: House, client: httpx2.AsyncClient) -> None:
    await house.open("t1", licences=[{"product": "chess", "plan": "premium"}])

    said = await preview(client, at="2026-03-02T00:00:00Z")

    assert Decimal(said["total"]) == sum(Decimal(line["amount"]) for line in said["lines"]) == Decimal("548.00")
