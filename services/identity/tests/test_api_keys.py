import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from deploy.local.throwaway import FreshDatabases
from services.identity.tests.keyring import ANNA, BELA, OPERATOR, Keyring, open_keyring
from shared.access import Role, api_keys

DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
async def keyring(fresh_database: FreshDatabases) -> AsyncIterator[Keyring]:
    async with open_keyring(await fresh_database("identity")) as keyring:
        yield keyring


@pytest.fixture
async def operator(keyring: Keyring) -> AsyncIterator[httpx2.AsyncClient]:
    async with keyring.client() as client:
        yield client


@pytest.fixture
async def anna(keyring: Keyring) -> AsyncIterator[httpx2.AsyncClient]:
    """An administrator of the first tenant."""
    async with keyring.client((await keyring.issue(ANNA)).text) as client:
        yield client


@pytest.fixture
async def bela(keyring: Keyring) -> AsyncIterator[httpx2.AsyncClient]:
    """An administrator of the second tenant."""
    async with keyring.client((await keyring.issue(BELA)).text) as client:
        yield client


async def create(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/api-keys", json={"name": "ci"} | body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def every_page(client: httpx2.AsyncClient, **query: str) -> list[list[dict[str, Any]]]:
    """Follow the cursors of the list from its beginning to its end."""
    pages: list[list[dict[str, Any]]] = []
    while True:
        answer = (await client.get("/v1/api-keys", params=query)).raise_for_status().json()
        pages.append(answer["items"])
        if answer["nextCursor"] is None:
            return pages
        query["cursor"] = answer["nextCursor"]


async def ids(client: httpx2.AsyncClient, **query: str) -> list[str]:
    return [each["keyId"] for page in await every_page(client, **query) for each in page]


# Making


async def test_a_key_is_shown_once_and_then_without_what_proves_it(operator: httpx2.AsyncClient) -> None:
    answer = await operator.post(
        "/v1/api-keys",
        json={"name": " ci ", "tenantId": "t1", "role": "TenantAdmin", "scopes": ["write", "users:read"]},
    )

    created = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"] == f"/v1/api-keys/{created['keyId']}"
    parsed = api_keys.parse(created.pop("key"))
    assert parsed is not None
    assert parsed.id == created["keyId"]
    assert created == {
        "keyId": parsed.id,
        "tenantId": "t1",
        "name": "ci",
        "role": "TenantAdmin",
        "scopes": ["users:read", "write"],
        "status": "active",
        "createdBy": "system-administrator",
        "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": None,
        "overlapUntil": None,
        "lastUsedAt": None,
        "revokedAt": None,
    }
    assert (await operator.get(answer.headers["Location"])).json() == created
    assert await every_page(operator) == [[created]]


async def test_a_tenants_administrator_need_not_name_its_tenant(anna: httpx2.AsyncClient) -> None:
    left_out, named = await create(anna), await create(anna, tenantId="t1")

    assert [(each["tenantId"], each["role"], each["scopes"]) for each in (left_out, named)] == [
        ("t1", "TenantUser", ["read", "write"])
    ] * 2
    assert left_out["createdBy"].startswith("key:")


async def test_an_operator_who_names_no_tenant_makes_an_operators_key(operator: httpx2.AsyncClient) -> None:
    created = await create(operator, role="SystemAdmin")

    assert (created["tenantId"], created["role"]) == (None, "SystemAdmin")


@pytest.mark.parametrize(
    ("end", "expires_at"),
    [
        ({"expiresAt": "2026-02-01T01:00:00+01:00"}, "2026-02-01T00:00:00Z"),
        ({"expiresInDays": 31}, "2026-02-01T00:00:00Z"),
        ({"expiresInDays": None, "expiresAt": None}, None),
    ],
)
async def test_a_key_ends_at_a_time_or_after_days(
    anna: httpx2.AsyncClient, end: dict[str, Any], expires_at: str | None
) -> None:
    assert (await create(anna, **end))["expiresAt"] == expires_at


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": "a" * 101}, "/name"),
        ({"name": "ci", "role": "Owner"}, "/role"),
        ({"name": "ci", "tenantId": "no tenant"}, "/tenantId"),
        ({"name": "ci", "scopes": []}, "/scopes"),
        ({"name": "ci", "scopes": ["read"] * 21}, "/scopes"),
        ({"name": "ci", "scopes": ["read", "admin"]}, "/scopes/1"),
        ({"name": "ci", "scopes": ["usage:*"]}, "/scopes/0"),
        ({"name": "ci", "scopes": [":read"]}, "/scopes/0"),
        ({"name": "ci", "scopes": ["read\n"]}, "/scopes/0"),
        ({"name": "ci", "scopes": ["Usage:read"]}, "/scopes/0"),
        ({"name": "ci", "expiresInDays": 0}, "/expiresInDays"),
        ({"name": "ci", "expiresInDays": 3651}, "/expiresInDays"),
        ({"name": "ci", "expiresAt": "2025-12-31T00:00:00Z"}, "/expiresAt"),
        ({"name": "ci", "expiresAt": "2026-01-01T00:00:00Z"}, "/expiresAt"),
        ({"name": "ci", "expiresAt": "2027-01-01T00:00:00Z", "expiresInDays": 1}, ""),
        ({"name": "ci", "owner": "me"}, "/owner"),
    ],
)
async def test_what_is_wrong_with_an_order_is_named(
    anna: httpx2.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await anna.post("/v1/api-keys", json=body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


# Who may


async def test_who_is_no_administrator_neither_sees_nor_makes_keys(keyring: Keyring) -> None:
    user = await keyring.issue(ANNA, Role.TENANT_USER)

    async with keyring.client(user.text) as client:
        answers = [
            await client.get("/v1/api-keys"),
            await client.get(f"/v1/api-keys/{user.row['key_id']}"),
            await client.post("/v1/api-keys", json={"name": "ci"}),
            await client.post(f"/v1/api-keys/{user.row['key_id']}/rotate"),
            await client.delete(f"/v1/api-keys/{user.row['key_id']}"),
        ]

    assert [(each.status_code, each.json()["code"]) for each in answers] == [(403, "forbidden")] * 5


async def test_support_sees_keys_and_changes_none(keyring: Keyring) -> None:
    issued, support = await keyring.issue(ANNA), await keyring.issue(OPERATOR, Role.CUSTOMER_SUPPORT)
    path = f"/v1/api-keys/{issued.row['key_id']}"

    async with keyring.client(support.text) as client:
        seen = [await client.get("/v1/api-keys"), await client.get(path)]
        changing = [
            await client.post("/v1/api-keys", json={"name": "ci", "tenantId": "t1"}),
            await client.post(f"{path}/rotate"),
            await client.delete(path),
        ]

    assert [each.status_code for each in (*seen, *changing)] == [200, 200, 403, 403, 403]


async def test_a_key_makes_keys_only_with_the_scope_for_it_and_no_larger_ones(
    anna: httpx2.AsyncClient, keyring: Keyring
) -> None:
    reader = await create(anna, role="TenantAdmin", scopes=["read"])
    maker = await create(anna, role="TenantAdmin", scopes=["read", "api-keys:write"])

    async with keyring.client(reader["key"]) as client:
        refused = await client.post("/v1/api-keys", json={"name": "ci", "scopes": ["read"]})
    async with keyring.client(maker["key"]) as client:
        larger = await client.post("/v1/api-keys", json={"name": "ci"})
        created = await create(client, scopes=["users:read", "api-keys:write"])

    assert [(each.status_code, each.json()["code"]) for each in (refused, larger)] == [(403, "insufficient_scope")] * 2
    assert created["createdBy"] == f"key:{maker['keyId']}"


async def test_two_tenants_neither_see_nor_list_nor_guess_each_others_keys(
    anna: httpx2.AsyncClient, bela: httpx2.AsyncClient, operator: httpx2.AsyncClient
) -> None:
    of_anna, of_bela = await ids(anna), await ids(bela)
    (theirs,), unknown = of_bela, api_keys.new_id()
    operators = (await create(operator))["keyId"]

    assert len({*of_anna, *of_bela}) == 2
    assert await ids(anna, tenantId="t2") == await ids(anna, tenantId="t0") == await ids(anna, tenantId="_") == []
    assert await ids(operator, tenantId="_") == []  # no tenant, whatever stands for none inside
    for other in (theirs, operators):
        for method, path in (("GET", ""), ("POST", "/rotate"), ("DELETE", "")):
            answers = [await anna.request(method, f"/v1/api-keys/{each}{path}") for each in (other, unknown)]
            found, missing = [
                {**answer.json(), "detail": "", "instance": ""} | {"status": answer.status_code} for answer in answers
            ]
            assert found == missing
            assert (found["status"], found["code"]) == (404, "unknown_api_key")
    foreign, absent = [
        await anna.post("/v1/api-keys", json={"name": "ci", "tenantId": tenant_id}) for tenant_id in ("t2", "t0")
    ]
    assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown_tenant")
    assert foreign.json() == absent.json() | {"detail": "There is no tenant t2."}
    assert await ids(bela) == of_bela


@pytest.mark.parametrize("text", ["", "another", "tenure_0000000000000000_"])
async def test_without_a_known_key_nothing_is_shown(keyring: Keyring, text: str) -> None:
    async with keyring.client(text) as client:
        answer = await client.get("/v1/api-keys")

    assert answer.status_code == 401


# Listing


async def test_keys_are_listed_in_pages_in_the_order_of_their_creation(
    keyring: Keyring, operator: httpx2.AsyncClient
) -> None:
    made = []
    for number in range(5):
        made.append((await create(operator, tenantId=f"t{1 + number % 2}"))["keyId"])
        await keyring.clock.advance(1 if number else 0)  # the first two were made at the same moment

    pages = await every_page(operator, limit="2")
    listed = [each["keyId"] for page in pages for each in page]

    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(listed[:2]) == sorted(made[:2])
    assert listed[2:] == made[2:]
    assert await ids(operator, limit="1") == listed
    assert await ids(operator, limit="1", tenantId="t2") == [made[1], made[3]]


async def test_a_made_up_cursor_is_refused(operator: httpx2.AsyncClient) -> None:
    answer = await operator.get("/v1/api-keys", params={"cursor": "made-up"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


# Rotating and revoking


async def test_a_rotated_key_keeps_everything_but_its_secret(keyring: Keyring, anna: httpx2.AsyncClient) -> None:
    created = await create(anna, expiresInDays=30)

    answer = await anna.post(f"/v1/api-keys/{created['keyId']}/rotate")

    rotated = answer.json()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert rotated["key"] != created["key"]
    assert rotated["overlapUntil"] == "2026-01-02T00:00:00Z"
    assert rotated == created | {"key": rotated["key"], "overlapUntil": rotated["overlapUntil"]}
    await keyring.clock.advance(DAY_SECONDS)
    assert (await anna.get(f"/v1/api-keys/{created['keyId']}")).json()["overlapUntil"] is None


@pytest.mark.parametrize(("seconds", "until"), [(0, None), (604800, "2026-01-08T00:00:00Z")])
async def test_how_long_both_secrets_are_good_is_up_to_who_rotates(
    anna: httpx2.AsyncClient, seconds: int, until: str | None
) -> None:
    created = await create(anna)

    answer = await anna.post(f"/v1/api-keys/{created['keyId']}/rotate", json={"overlapSeconds": seconds})

    assert answer.json()["overlapUntil"] == until


@pytest.mark.parametrize("seconds", [-1, 604801, "1", 1.5, None])
async def test_an_overlap_has_its_bounds(anna: httpx2.AsyncClient, seconds: object) -> None:
    created = await create(anna)

    answer = await anna.post(f"/v1/api-keys/{created['keyId']}/rotate", json={"overlapSeconds": seconds})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/overlapSeconds")


async def test_a_revoked_key_stays_in_the_list_and_is_revoked_once(keyring: Keyring, anna: httpx2.AsyncClient) -> None:
    created = await create(anna)
    path = f"/v1/api-keys/{created['keyId']}"

    first = await anna.delete(path)
    await keyring.clock.advance(60)
    second = await anna.delete(path)

    assert [(each.status_code, each.content) for each in (first, second)] == [(204, b"")] * 2
    shown = (await anna.get(path)).json()
    assert (shown["status"], shown["revokedAt"]) == ("revoked", "2026-01-01T00:00:00Z")
    assert created["keyId"] in await ids(anna)
    async with keyring.client(created["key"]) as client:
        assert (await client.get(path)).status_code == 401
    assert (await anna.post(f"{path}/rotate")).json()["code"] == "api_key_revoked"


async def test_a_key_that_has_expired_says_so(keyring: Keyring, anna: httpx2.AsyncClient) -> None:
    created = await create(anna, expiresInDays=1)

    await keyring.clock.advance(DAY_SECONDS)

    assert (await anna.get(f"/v1/api-keys/{created['keyId']}")).json()["status"] == "expired"


async def test_of_many_who_revoke_a_key_at_once_one_tells_of_it(keyring: Keyring, anna: httpx2.AsyncClient) -> None:
    created = await create(anna)
    before = len(await keyring.changes())

    answers = await asyncio.gather(*(anna.delete(f"/v1/api-keys/{created['keyId']}") for _ in range(10)))

    assert {answer.status_code for answer in answers} == {204}
    assert len(await keyring.changes()) == before + 1
