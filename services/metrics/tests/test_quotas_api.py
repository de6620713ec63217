"""What tenants have used of their quotas, over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from services.metrics import handlers, queries
from services.metrics.tests.quota_kit import NOON, Shop
from services.metrics.tests.support import KEY, api_of, usage_event
from shared.contracts.provisioning import MailReported
from shared.postgres import Pool, transaction
from shared.testing.plans import general_plan


@pytest.fixture
async def shop(pool: Pool) -> Shop:
    shop = Shop(pool)
    await shop.open()
    return shop


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(api_of(shop.pool, clock=shop.clock))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        yield client


async def shown(client: httpx2.AsyncClient) -> dict[str, tuple[str, str]]:
    answer = await client.get("/v1/quotas", params={"tenantId": "t1"})
    assert answer.status_code == 200, answer.text
    return {item["meter"]: (item["month"], item["used"]) for item in answer.json()["items"]}


async def test_what_is_used_is_shown_whether_it_is_kept_or_not(client: httpx2.AsyncClient, shop: Shop) -> None:
    await shop.track()
    await shop.use("tokens", "2.50", 1)
    await shop.use("users", "a", "b", "a")
    await shop.use("peak", 4, 3)
    await shop.use("level", 5, at=NOON)
    await shop.use("tokens", 7, at=datetime(2026, 2, 28, tzinfo=UTC))
    await shop.track(tokens=10, users=5, peak=9, level=9, calls=9, seats=3, mail_sends=9)
    async with transaction(shop.pool) as connection:
        fact = MailReported(tenant_id="t1", hour=NOON, counts={"send": 2})
        await handlers.meter_mail(connection, [fact], clock=shop.clock)

    quantities = {
        "calls": "2", "level": "5", "mail_sends": "2", "peak": "4", "seats": "0", "tokens": "3.5", "users": "2",
    }  # fmt: skip
    assert await shown(client) == {meter: ("2026-03", used) for meter, used in quantities.items()}

    await shop.use("tokens", "0.5")
    await shop.use("users", "c")
    assert len(await shop.used()) == 3
    more = {**quantities, "calls": "3", "tokens": "4", "users": "3"}
    assert await shown(client) == {meter: ("2026-03", used) for meter, used in more.items()}


async def test_the_month_is_that_of_the_tenants_time_zone(client: httpx2.AsyncClient, shop: Shop) -> None:
    await shop.track(time_zone="Pacific/Auckland", tokens=10)
    await shop.clock.advance((datetime(2026, 3, 31, 12, tzinfo=UTC) - NOON).total_seconds())
    await shop.make_room()
    await shop.use("tokens", 4, at=datetime(2026, 3, 31, 10, tzinfo=UTC))
    await shop.use("tokens", 3, at=datetime(2026, 3, 31, 11, tzinfo=UTC))

    assert await shown(client) == {"tokens": ("2026-04", "3")}


async def test_an_event_that_exceeds_a_quota_is_refused_by_itself(client: httpx2.AsyncClient, shop: Shop) -> None:
    await shop.track(tokens=10)
    events = [usage_event(str(number), "tokens", data={"v": 4}, time=NOON.isoformat()) for number in range(4)]

    batch = await client.post("/v1/usage", json=events[:3])
    single = await client.post("/v1/usage", json=events[3])

    assert [each["status"] for each in batch.json()["results"]] == ["accepted", "accepted", "refused"]
    detail = "It exceeds the quota of the meter tokens, which is 10 in 2026-03."
    assert batch.json()["results"][2] == {
        "id": "2", "status": "refused", "code": "quota_exceeded", "detail": detail, "pointer": None,
    }  # fmt: skip
    assert single.status_code == 422
    assert (single.json()["code"], single.json()["detail"]) == ("quota_exceeded", detail)


async def amend(client: httpx2.AsyncClient, **details: Any) -> None:
    answer = await client.post("/v1/usage/amendments", json={"tenantId": "t1", "reason": "a mistake", **details})
    assert answer.status_code == 201, answer.text


async def test_corrections_free_what_they_take_back(client: httpx2.AsyncClient, shop: Shop) -> None:
    await shop.track(tokens=10, users=1)
    await shop.use("tokens", 6, id_="six")
    await shop.use("tokens", 4)
    await shop.use("users", "a", id_="a")
    assert await shop.use("tokens", 1) == "x"
    assert await shop.use("users", "b") == "x"

    await amend(client, source="/app", id="six")
    await amend(client, source="/app", id="a")
    await amend(client, meter="tokens", time=NOON.isoformat(), quantity="-1")

    assert await shown(client) == {"tokens": ("2026-03", "3"), "users": ("2026-03", "0")}
    assert await shop.use("tokens", 7, 1) == "ax"
    assert await shop.use("users", "b", "a") == "ax"


async def test_less_than_nothing_is_shown_as_nothing_of_a_meter_without_it(
    client: httpx2.AsyncClient, shop: Shop
) -> None:
    await shop.track(balance=10, calls=10)
    await shop.use("balance", -3)
    await amend(client, meter="calls", time=NOON.isoformat(), quantity="-5")

    assert await shown(client) == {"balance": ("2026-03", "-3"), "calls": ("2026-03", "0")}


async def test_quotas_are_found_by_indexes(shop: Shop) -> None:
    async with shop.pool.acquire() as connection:
        plan = await general_plan(connection, queries.quotas.page(connection, "t1", now=NOON, after="", limit=100))

    assert "Seq Scan" not in plan
    assert "Index Cond: ((tenant_id = $1) AND (meter = quota.meter) AND (hour >= " in plan
