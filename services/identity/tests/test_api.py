from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast
from uuid import UUID

import httpx2
import pytest

from services.identity import handlers
from services.identity.api import PATHS, routes
from shared.clock import ManualClock
from shared.contracts.identity import CreateAdministrators
from shared.http import create_api
from shared.ids import SeededIds
from shared.postgres import Pool, transaction

ANNA, BELA, CLEO = "anna@example.org", "bela@example.org", "cleo@example.org"
KEY = "a-key-of-the-administrator"
WEEK = timedelta(days=7)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def client(pool: Pool, clock: ManualClock) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("identity", routers=[routes(pool, clock=clock)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


@pytest.fixture(autouse=True)
async def two_tenants(pool: Pool, clock: ManualClock) -> None:
    asks = [
        CreateAdministrators(tenant_id="t1", customer_name="Acme", emails=(ANNA, BELA)),
        CreateAdministrators(tenant_id="t2", customer_name="Bolt", emails=(CLEO, ANNA)),
    ]
    async with transaction(pool) as connection:
        await handlers.create_administrators(
            connection, asks, clock=clock, ids=SeededIds(1, clock), invitation_lifetime=WEEK
        )


async def every_page(client: httpx2.AsyncClient, path: str, **query: str) -> list[list[dict[str, object]]]:
    """Follow the cursors of a list from its beginning to its end."""
    pages: list[list[dict[str, object]]] = []
    while True:
        answer = (await client.get(path, params=query)).raise_for_status().json()
        pages.append(answer["items"])
        if answer["nextCursor"] is None:
            return pages
        query["cursor"] = answer["nextCursor"]


async def test_users_are_listed_in_pages_each_user_once(client: httpx2.AsyncClient) -> None:
    pages = await every_page(client, "/v1/users", limit="2")

    assert [len(page) for page in pages] == [2, 1]
    assert {user["email"] for page in pages for user in page} == {ANNA, BELA, CLEO}


async def test_the_users_of_a_tenant_are_listed_in_pages(client: httpx2.AsyncClient) -> None:
    pages = await every_page(client, "/v1/users", limit="1", tenantId="t2")

    assert [len(page) for page in pages] == [1, 1]
    assert {user["email"] for page in pages for user in page} == {ANNA, CLEO}


async def test_a_user_is_shown_with_every_membership(client: httpx2.AsyncClient) -> None:
    (page,) = await every_page(client, "/v1/users")
    listed = next(user for user in page if user["email"] == ANNA)

    answer = await client.get(f"/v1/users/{listed['userId']}")

    assert answer.json() == listed
    assert listed == {
        "userId": str(UUID(str(listed["userId"]))),
        "email": ANNA,
        "memberships": [
            {"tenantId": "t1", "role": "TenantAdmin", "blocked": False},
            {"tenantId": "t2", "role": "TenantAdmin", "blocked": False},
        ],
        "createdAt": "2026-01-01T00:00:00Z",
    }


async def test_a_user_is_shown_to_be_blocked_in_the_tenant_that_is(client: httpx2.AsyncClient, pool: Pool) -> None:
    await pool.execute("INSERT INTO tenant_block VALUES ('t2', 'unpaid', now())")

    (page,) = await every_page(client, "/v1/users", tenantId="t1")

    assert {
        (user["email"], membership["tenantId"], membership["blocked"])
        for user in page
        for membership in cast("list[dict[str, object]]", user["memberships"])
    } == {(ANNA, "t1", False), (ANNA, "t2", True), (BELA, "t1", False)}


@pytest.mark.parametrize("user_id", ["00000000-0000-0000-0000-000000000000", "nobody", str(UUID(int=7))])
async def test_an_identity_that_is_nobodys_is_unknown(client: httpx2.AsyncClient, user_id: str) -> None:
    answer = await client.get(f"/v1/users/{user_id}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_user"


async def test_invitations_are_listed_in_pages(client: httpx2.AsyncClient) -> None:
    pages = await every_page(client, "/v1/invitations", limit="3")

    assert [len(page) for page in pages] == [3, 1]
    assert {(invitation["tenantId"], invitation["email"]) for page in pages for invitation in page} == {
        ("t1", ANNA),
        ("t1", BELA),
        ("t2", ANNA),
        ("t2", CLEO),
    }


async def test_an_invitation_shows_all_but_its_token(client: httpx2.AsyncClient) -> None:
    (page,) = await every_page(client, "/v1/invitations", tenantId="t1")

    assert [invitation["email"] for invitation in page] == [ANNA, BELA]
    assert page[0] == {
        "invitationId": str(UUID(str(page[0]["invitationId"]))),
        "tenantId": "t1",
        "email": ANNA,
        "role": "TenantAdmin",
        "status": "open",
        "delivery": "pending",
        "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2026-01-08T00:00:00Z",
    }


async def test_the_status_of_an_invitation_is_that_of_the_moment(
    client: httpx2.AsyncClient, pool: Pool, clock: ManualClock
) -> None:
    await pool.execute("UPDATE invitation SET accepted_at = created_at WHERE tenant_id = 't2'")
    await clock.advance(WEEK.total_seconds())

    (page,) = await every_page(client, "/v1/invitations")

    assert {(invitation["tenantId"], invitation["status"]) for invitation in page} == {
        ("t1", "expired"),
        ("t2", "accepted"),
    }


@pytest.mark.parametrize("path", ["/v1/users", "/v1/invitations"])
async def test_a_tenant_that_nobody_belongs_to_has_an_empty_list(client: httpx2.AsyncClient, path: str) -> None:
    assert await every_page(client, path, tenantId="t0") == [[]]


@pytest.mark.parametrize("path", ["/v1/users", "/v1/invitations"])
@pytest.mark.parametrize("query", [{"tenantId": "no tenant"}, {"limit": "0"}, {"cursor": "made-up"}])
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, path: str, query: dict[str, str]
) -> None:
    answer = await client.get(path, params=query)

    (name,) = query
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("path", [*PATHS, "/v1/users/x"])
async def test_nothing_is_shown_without_the_administrators_key(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Authorization": "Bearer another"})

    assert answer.status_code == 401
