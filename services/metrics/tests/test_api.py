from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from services.metrics import handlers
from services.metrics.api import PATHS
from services.metrics.tests.support import KEY, api_of
from shared.clock import ManualClock
from shared.contracts.metrics import TrackTenant
from shared.contracts.provisioning import MailReported
from shared.postgres import Pool, transaction


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    api = api_of(pool)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


@pytest.fixture(autouse=True)
async def two_tenants(pool: Pool) -> None:
    asks = [
        TrackTenant(tenant_id="t1", quotas={"api_calls": 10_000, "seats": 3, "storage_gb": 1}),
        TrackTenant(tenant_id="t2", quotas={"seats": 25}),
    ]
    async with transaction(pool) as connection:
        await handlers.track_tenants(connection, asks, clock=ManualClock())


async def test_the_quotas_of_one_tenant_are_listed_in_pages_by_meter(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/quotas", params={"tenantId": "t1", "limit": 2})).json()
    rest = (await client.get("/v1/quotas", params={"tenantId": "t1", "cursor": first["nextCursor"]})).json()

    unused = {"month": f"{ManualClock().now():%Y-%m}", "used": "0"}
    assert first["items"] == [
        {"meter": "api_calls", "limit": 10_000, "unit": "call", "enforcement": "soft", **unused},
        {"meter": "seats", "limit": 3, "unit": "seat", "enforcement": "hard", **unused},
    ]
    assert rest == {
        "items": [{"meter": "storage_gb", "limit": 1, "unit": "GB", "enforcement": "soft", **unused}],
        "nextCursor": None,
    }


async def test_a_tenant_that_is_not_tracked_has_an_empty_list(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/quotas", params={"tenantId": "t0"})

    assert answer.json() == {"items": [], "nextCursor": None}


async def test_the_catalog_is_listed_in_pages_by_name(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/meters", params={"limit": 2})).json()
    rest = (await client.get("/v1/meters", params={"cursor": first["nextCursor"]})).json()

    names = [meter["name"] for meter in (*first["items"], *rest["items"])]
    assert names == sorted(names)
    assert {"api_calls", "mail_sends", "seats"} <= set(names)
    assert rest["items"][-1] == {
        "name": "storage_gb",
        "unit": "GB",
        "enforcement": "soft",
        "eventType": "storage",
        "aggregation": "max",
        "valuePath": "$.gb",
        "dimensions": {},
        "allowsNegative": False,
        "createdAt": None,
        "retiredAt": None,
    }
    assert rest["nextCursor"] is None


NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


async def use(pool: Pool, tenant_id: str, hours: int, **counts: int) -> None:
    async with transaction(pool) as connection:
        fact = MailReported(tenant_id=tenant_id, hour=NOON + timedelta(hours=hours), counts=counts)
        await handlers.meter_mail(connection, [fact], clock=ManualClock())


async def used(client: httpx2.AsyncClient, **query: str | int) -> list[tuple[str, str, str]]:
    answer = await client.get("/v1/usage", params={"tenantId": "t1", **query})
    assert answer.status_code == 200, answer.text
    return [(item["from"][:13], item["meter"], item["quantity"]) for item in answer.json()["items"]]


async def test_usage_is_added_up_by_the_hour_the_day_and_the_month(client: httpx2.AsyncClient, pool: Pool) -> None:
    await use(pool, "t1", 0, send=3, open=1)
    await use(pool, "t1", 1, send=40)
    await use(pool, "t1", 12, send=500)
    await use(pool, "t2", 0, send=6000)

    assert await used(client) == [
        ("2026-03-31T12", "mail_opens", "1"),
        ("2026-03-31T12", "mail_sends", "3"),
        ("2026-03-31T13", "mail_sends", "40"),
        ("2026-04-01T00", "mail_sends", "500"),
    ]
    assert await used(client, window="day", meter="mail_sends") == [
        ("2026-03-31T00", "mail_sends", "43"),
        ("2026-04-01T00", "mail_sends", "500"),
    ]
    assert await used(client, window="month") == [
        ("2026-03-01T00", "mail_opens", "1"),
        ("2026-03-01T00", "mail_sends", "43"),
        ("2026-04-01T00", "mail_sends", "500"),
    ]
    between = {"from": "2026-03-31T13:00:00Z", "to": "2026-04-01T00:00:00Z"}
    assert await used(client, **between) == [("2026-03-31T13", "mail_sends", "40")]


async def test_usage_comes_in_pages_by_time_and_meter(client: httpx2.AsyncClient, pool: Pool) -> None:
    for hours in range(3):
        await use(pool, "t1", hours, send=1, open=1)

    query: dict[str, str | int] = {"tenantId": "t1", "limit": 2}
    pages = []
    while True:
        pages.append((await client.get("/v1/usage", params=query)).json())
        if pages[-1]["nextCursor"] is None:
            break
        query["cursor"] = pages[-1]["nextCursor"]

    assert [len(each["items"]) for each in pages] == [2, 2, 2]
    items = [(item["from"], item["meter"]) for each in pages for item in each["items"]]
    assert items == sorted(set(items))
    assert len(items) == 6


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({}, "tenantId"),
        ({"tenantId": "no tenant"}, "tenantId"),
        ({"tenantId": "t1", "limit": "0"}, "limit"),
        ({"tenantId": "t1", "cursor": "made-up"}, "cursor"),
    ],
)
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], name: str
) -> None:
    answer = await client.get("/v1/quotas", params=query)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_shown_without_the_administrators_key(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"tenantId": "t1"}, headers={"Authorization": "Bearer another"})

    assert answer.status_code == 401
