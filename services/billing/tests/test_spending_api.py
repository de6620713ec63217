"""Spending limits over HTTP: who sets them, what is refused, and what the audit trail is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest

from services.billing.tests.spending_kit import Purse
from services.billing.tests.support import NOON, all_routes, do_it, on, open_active
from shared.clock import ManualClock
from shared.contracts.billing import CloseAccount, DecisionRecorded, SpendingBlockChanged
from shared.http import create_api
from shared.messaging.event import decode
from shared.postgres import Pool
from shared.testing.principals import Cast, as_, told

OWN, OTHER, ABSENT = "own", "oth", "abs"
_CHANGES = ({"amount": "60.00", "action": "block"}, {"amount": "70.00", "action": "alert"})
ORDER = {"amount": "60", "currency": "USD", "action": "block"}


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    """Two tenants with accounts, of 49.00 a month."""
    await open_active(pool, OWN, OTHER)
    router = all_routes(pool, clock=ManualClock(NOON))
    api = create_api("billing", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers=as_("operator")
    ) as client:
        yield client


async def put(client: httpx2.AsyncClient, tenant_id: str = OWN, **more: Any) -> httpx2.Response:
    return await client.put(f"/v1/spending-limits/{tenant_id}", json=ORDER | more)


async def decided(pool: Pool) -> list[tuple[str, str, Any, Any]]:
    rows = await pool.fetch("SELECT event FROM outbox")
    messages = [decode(orjson.loads(row["event"])).message for row in rows]
    return [
        (each.tenant_id, each.action, each.before, each.after)
        for each in messages
        if isinstance(each, DecisionRecorded)
    ]


async def test_a_limit_is_set_read_changed_and_taken_away(client: httpx2.AsyncClient, pool: Pool) -> None:
    made = await put(client)
    same = await put(client, amount="60.00")
    other = await put(client, amount="70", action="alert")
    read = await client.get(f"/v1/spending-limits/{OWN}")
    gone = await client.delete(f"/v1/spending-limits/{OWN}")
    again = await client.delete(f"/v1/spending-limits/{OWN}")

    assert [each.status_code for each in (made, same, other, read, gone)] == [201, 200, 200, 200, 204]
    assert (
        made.json()
        == same.json()
        == {
            "tenantId": OWN,
            "amount": "60.00",
            "currency": "USD",
            "action": "block",
            "month": None,
            "spent": None,
            "reviewedAt": None,
            "isBlocked": False,
        }
    )
    assert read.json() == other.json() == made.json() | {"amount": "70.00", "action": "alert"}
    assert (again.status_code, again.json()["code"]) == (404, "unknown_spending_limit")
    assert sorted(await decided(pool), key=str) == sorted(
        [
            (OWN, "spending_limit.set", None, {"amount": "60.00", "currency": "USD", "action": "block"}),
            (OWN, "spending_limit.set", *_CHANGES),
            (OWN, "spending_limit.deleted", {"amount": "70.00", "currency": "USD", "action": "alert"}, None),
        ],
        key=str,
    )


async def test_what_was_spent_is_shown_as_it_was_found_last(pool: Pool, client: httpx2.AsyncClient) -> None:
    await put(client, amount="49")
    purse = Purse(pool, start=on(7))

    await purse.settle()

    shown = (await client.get(f"/v1/spending-limits/{OWN}", headers=as_("administrator"))).json()
    assert {name: shown[name] for name in ("month", "spent", "reviewedAt", "isBlocked")} == {
        "month": "2026-03",
        "spent": "49.00",
        "reviewedAt": "2026-03-07T12:00:00Z",
        "isBlocked": True,
    }


async def test_usage_is_taken_again_when_the_limit_is_taken_away(pool: Pool, client: httpx2.AsyncClient) -> None:
    await put(client, amount="49")
    await Purse(pool, start=on(7)).settle()

    await client.delete(f"/v1/spending-limits/{OWN}")

    rows = await pool.fetch("SELECT event FROM outbox")
    blocks = [decode(orjson.loads(row["event"])).message for row in rows]
    told_ = [(each.is_blocked, each.edition) for each in blocks if isinstance(each, SpendingBlockChanged)]
    assert sorted(told_, key=lambda each: each[1]) == [(True, 1), (False, 2)]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"amount": "0"}, "/amount"),
        ({"amount": "-1"}, "/amount"),
        ({"amount": "NaN"}, "/amount"),
        ({"amount": "1e9"}, "/amount"),
        ({"amount": 60}, "/amount"),
        ({"amount": "1234567890123456"}, "/amount"),
        ({"amount": "60.001"}, "/amount"),
        ({"currency": "EUR"}, "/currency"),
        ({"currency": "XXX"}, "/currency"),
        ({"action": "forgive"}, "/action"),
        ({"more": "1"}, "/more"),
    ],
)
async def test_what_is_no_limit_is_refused_by_its_field(
    client: httpx2.AsyncClient, pool: Pool, wrong: dict[str, Any], pointer: str
) -> None:
    answer = await put(client, **wrong)

    assert (answer.status_code, [each["pointer"] for each in answer.json()["errors"]]) == (422, [pointer])
    assert await pool.fetchval("SELECT count(*) FROM spending_limit") == 0


async def test_the_greatest_amount_is_kept_as_it_is(client: httpx2.AsyncClient) -> None:
    answer = await put(client, amount="999999999999999.99")

    assert (answer.status_code, answer.json()["amount"]) == (201, "999999999999999.99")


async def test_only_an_open_account_has_a_limit(client: httpx2.AsyncClient, pool: Pool) -> None:
    await do_it(pool, CloseAccount(tenant_id=OTHER), at=on(5))

    for tenant_id in (OTHER, ABSENT):
        answer = await put(client, tenant_id)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_account")


async def test_a_member_reads_the_limit_of_its_tenant_and_of_no_other(client: httpx2.AsyncClient) -> None:
    for tenant_id in (OWN, OTHER):
        await put(client, tenant_id)

    own, other, absent = [
        await client.get(f"/v1/spending-limits/{tenant_id}", headers=as_("administrator"))
        for tenant_id in (OWN, OTHER, ABSENT)
    ]

    assert (own.status_code, own.json()["tenantId"]) == (200, OWN)
    assert told(other, OTHER) == told(absent, ABSENT)
    assert other.status_code == 404


async def test_a_limit_that_is_put_in_many_times_at_once_is_one(client: httpx2.AsyncClient, pool: Pool) -> None:
    answers = await asyncio.gather(*(put(client) for _ in range(6)))

    assert sorted(each.status_code for each in answers) == [200] * 5 + [201]
    assert len(await decided(pool)) == 1
