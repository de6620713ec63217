"""Tenants whose people are in Amazon Cognito: how accounts and pools come, let people in, and go without a trace."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from deploy.local.throwaway import FreshDatabases
from services.identity.caretaking import ARRIVAL, GRACE, Caretaker
from services.identity.handlers import create_administrators, purge_users, remove_administrators
from services.identity.invitations import Token
from services.identity.providers.cognito import UserPool
from services.identity.queries import invitations as queries
from services.identity.tests.amazon import Amazon, open_cognito
from services.identity.tests.house import PASSWORD, Challenge, House, claims_of, open_house, sent
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION
from shared.contracts.identity import CreateAdministrators, PurgeUsers, RemoveAdministrators
from shared.ids import TimeOrderedIds
from shared.postgres import transaction
from shared.testing.amazon import REGION

ANNA, BELA, OLGA = "anna@example.org", "bela@example.org", "olga@operators.example"
CHOSEN, ANOTHER = "a password of my choice", "quite another password"


class Cloud:
    """The service and Cognito, and what becomes of tenants in both."""

    def __init__(self, house: House, amazon: Amazon, shared: UserPool, caretaker: Caretaker) -> None:
        self.house = house
        self.amazon = amazon
        self.shared = shared
        self.caretaker = caretaker

    async def onboard(self, tenant_id: str, *emails: str, isolation: str = "pool") -> None:
        """Do what onboarding asks for."""
        ask = CreateAdministrators(
            tenant_id=tenant_id, customer_name=tenant_id, emails=emails or (ANNA,), isolation=isolation
        )
        async with transaction(self.house.pool) as connection:
            await create_administrators(
                connection, [ask], clock=self.house.clock, ids=TimeOrderedIds(), invitation_lifetime=timedelta(7),
                in_cognito=True,
            )  # fmt: skip

    async def look(self) -> int:
        """Have done what is due, when nothing is on its way any more."""
        await self.house.clock.advance(ARRIVAL.total_seconds())
        return await self.caretaker.look()

    async def purge(self, tenant_id: str) -> None:
        """Do what off-boarding asks for at last."""
        async with transaction(self.house.pool) as connection:
            await purge_users(connection, [PurgeUsers(tenant_id=tenant_id)], clock=self.house.clock)

    async def undo(self, tenant_id: str) -> None:
        """Take an onboarding back."""
        async with transaction(self.house.pool) as connection:
            ask = RemoveAdministrators(tenant_id=tenant_id)
            await remove_administrators(connection, [ask], clock=self.house.clock)

    async def accept(self, tenant_id: str, email: str = ANNA, *, password: str | None = CHOSEN) -> httpx2.Response:
        """Accept an invitation with the token of its mail."""
        token = Token.new()
        await self.house.pool.execute(
            "UPDATE invitation SET token_hash = $1 FROM users "
            "WHERE users.user_id = invitation.user_id AND tenant_id = $2 AND email = $3",
            token.hash,
            tenant_id,
            email,
        )
        return await self.house.client.post(
            "/v1/invitations/accept", json={"token": token.text, **({"password": password} if password else {})}
        )

    async def enter(self, tenant_id: str, email: str = ANNA, *, password: str = CHOSEN) -> None:
        """Have a tenant with somebody in it."""
        await self.onboard(tenant_id, email)
        assert (answer := await self.accept(tenant_id, email, password=password)).status_code == 200, answer.text

    async def tries(self, email: str, password: str, **more: str) -> httpx2.Response:
        """Return what the page answers."""
        form = await self.house.form(Challenge.new(), **more)
        return await self.house.post("/oauth/authorize", {**form, "email": email, "password": password})

    async def remove(self, tenant_id: str, email: str) -> None:
        """Let somebody be no member any more."""
        user_id = await self.user_id(email)
        url = f"/v1/users/{user_id}/memberships/{tenant_id}"
        answer = await self.house.client.delete(url, headers=self.house.administrator)
        assert answer.status_code == 204, answer.text

    async def user_id(self, email: str) -> UUID:
        user_id: UUID = await self.house.pool.fetchval("SELECT user_id FROM users WHERE email = $1", email)
        return user_id

    def accounts(self, pool_id: str | None = None) -> set[str]:
        """Return the names of all accounts of a pool, the shared one if none is named."""
        listed = self.amazon.client.list_users(UserPoolId=pool_id or self.shared.pool_id)
        return {each["Username"] for each in listed["Users"]}

    async def left(self, tenant_id: str) -> list[str]:
        """Return where the tenant has left something here."""
        rows = await self.house.pool.fetch("SELECT place FROM live_record WHERE tenant_id = $1", tenant_id)
        return sorted({row["place"] for row in rows})


@pytest.fixture
async def cloud(fresh_database: FreshDatabases, amazon: Amazon) -> AsyncIterator[Cloud]:
    shared = amazon.shared_pool()
    told = {
        "TENURE_IDENTITY_PROVIDER": "cognito",
        "TENURE_IDENTITY_COGNITO_REGION": REGION,
        "TENURE_IDENTITY_COGNITO_POOL_ID": shared.pool_id,
        "TENURE_IDENTITY_COGNITO_CLIENT_ID": shared.client_id,
        "TENURE_IDENTITY_COGNITO_ENDPOINT_URL": amazon.url,
        "TENURE_IDENTITY_COGNITO_KEYS_URL": f"{amazon.url}/{{pool_id}}/.well-known/jwks.json",
        "TENURE_IDENTITY_PROVIDER_NETWORKS": "127.0.0.0/8",
    }
    async with (
        open_house(await fresh_database("identity"), ManualClock(datetime.now(UTC)), **told) as house,
        open_cognito(amazon.terms(shared)) as cognito,
    ):
        await house.register()
        yield Cloud(house, amazon, shared, Caretaker(house.pool, cognito, clock=house.clock))


async def test_who_accepts_has_an_account_and_gets_in_by_its_password(cloud: Cloud) -> None:
    await cloud.onboard("t1")

    assert (await cloud.accept("t1")).status_code == 200
    tokens = await cloud.house.sign_in(ANNA, password=CHOSEN)

    assert (claims_of(tokens)["tenant_id"], claims_of(tokens)["role"]) == ("t1", "TenantAdmin")
    assert cloud.accounts() == {f"t1.{await cloud.user_id(ANNA)}"}
    assert await cloud.house.pool.fetchval("SELECT count(*) FROM password") == 0
    assert (await cloud.tries(ANNA, "not the password")).status_code == 401
    assert (await cloud.tries("nobody@example.org", CHOSEN)).status_code == 401


async def test_nobody_is_asked_for_where_everybody_is(cloud: Cloud) -> None:
    await cloud.enter("t1")
    asked = cloud.amazon.asked

    for more in ({}, {"tenant_id": "t1"}):
        asked.clear()
        assert (await cloud.tries("nobody@example.org", CHOSEN, **more)).status_code == 401
        assert asked == ["AdminInitiateAuth"]
    asked.clear()
    assert (await cloud.tries("nobody@example.org", CHOSEN, tenant_id="another")).status_code == 401
    assert asked == ["AdminInitiateAuth"]


async def test_a_password_is_needed_and_must_not_be_weak(cloud: Cloud) -> None:
    await cloud.onboard("t1")

    for password in (None, "password1234"):
        answer = await cloud.accept("t1", password=password)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/password")
    assert cloud.accounts() == set()


async def test_each_tenants_password_opens_that_tenant(cloud: Cloud) -> None:
    await cloud.enter("t1")
    await cloud.enter("t2", password=ANOTHER)

    first = await cloud.house.sign_in(ANNA, password=CHOSEN, tenant_id="t1")
    second = await cloud.house.sign_in(ANNA, password=ANOTHER, tenant_id="t2")

    assert (claims_of(first)["tenant_id"], claims_of(second)["tenant_id"]) == ("t1", "t2")
    assert (await cloud.tries(ANNA, CHOSEN, tenant_id="t2")).status_code == 401
    assert (await cloud.house.refresh(first["refresh_token"], tenant_id="t2")).status_code == 400


async def test_passwords_of_ours_are_good_where_they_were_and_nowhere_else(cloud: Cloud) -> None:
    await cloud.house.user(ANNA, {"before": "TenantUser", INSTALLATION: "SystemAdmin"})
    await cloud.enter("t1")

    own = await cloud.house.sign_in(ANNA, password=PASSWORD, tenant_id="before")

    assert claims_of(own)["tenant_id"] == "before"
    assert (await cloud.house.refresh(own["refresh_token"], tenant_id="t1")).status_code == 400
    assert (await cloud.tries(ANNA, PASSWORD, tenant_id="t1")).status_code == 401


async def test_a_silo_has_a_pool_of_its_own_as_soon_as_it_is_made(cloud: Cloud) -> None:
    await cloud.onboard("t1", isolation="silo")
    early = await cloud.accept("t1")

    await cloud.look()
    late = await cloud.accept("t1")

    assert (early.status_code, early.json()["code"]) == (503, "identity_provider_unavailable")
    assert late.status_code == 200
    assert claims_of(await cloud.house.sign_in(ANNA, password=CHOSEN))["tenant_id"] == "t1"
    assert cloud.accounts() == set()
    shown = (await cloud.house.client.get("/v1/identity-providers/t1", headers=cloud.house.administrator)).json()
    assert cloud.accounts(shown["poolId"]) == {f"t1.{await cloud.user_id(ANNA)}"}


async def test_a_pool_whose_making_was_not_answered_is_found_and_not_made_twice(cloud: Cloud) -> None:
    await cloud.onboard("t1", isolation="silo")
    with cloud.amazon.losing_answers("CreateUserPool", times=5):
        await cloud.look()
    assert await cloud.house.pool.fetchval("SELECT pool_id FROM provider_pool") is None
    assert len(cloud.amazon.pool_names()) > 1

    await cloud.house.clock.advance(600)
    await cloud.look()

    assert len(cloud.amazon.pool_names()) == 2  # with the shared one
    assert (await cloud.accept("t1")).status_code == 200


@pytest.mark.parametrize("isolation", ["pool", "silo"])
async def test_of_a_tenant_that_goes_nothing_stays_anywhere(cloud: Cloud, isolation: str) -> None:
    await cloud.onboard("t1", isolation=isolation)
    await cloud.onboard("t2", BELA)
    await cloud.look()
    assert (await cloud.accept("t1")).status_code == 200
    assert (await cloud.accept("t2", BELA)).status_code == 200
    await cloud.house.sign_in(ANNA, password=CHOSEN)

    await cloud.purge("t1")
    assert await cloud.left("t1") != []  # until it is gone out there
    await cloud.look()
    await cloud.look()

    assert await cloud.left("t1") == []
    assert cloud.accounts() == {f"t2.{await cloud.user_id(BELA)}"}
    assert cloud.amazon.pool_names() == ["shared"]
    assert (await cloud.tries(ANNA, CHOSEN)).status_code == 401


async def test_an_onboarding_that_is_undone_while_its_pool_is_being_made_leaves_none(cloud: Cloud) -> None:
    await cloud.onboard("t1", isolation="silo")
    with cloud.amazon.losing_answers("CreateUserPool", times=5):
        await cloud.look()

    await cloud.undo("t1")
    await cloud.house.clock.advance(600)
    await cloud.look()

    assert cloud.amazon.pool_names() == ["shared"]
    assert await cloud.left("t1") == []


async def test_an_account_whose_making_was_not_answered_is_made_again_or_deleted(cloud: Cloud) -> None:
    for tenant_id in ("t1", "t2"):
        await cloud.onboard(tenant_id)
        with cloud.amazon.losing_answers("AdminSetUserPassword", times=5):
            assert (await cloud.accept(tenant_id)).status_code == 503
    assert len(cloud.accounts()) == 2

    assert (await cloud.accept("t1", password=ANOTHER)).status_code == 200
    await cloud.undo("t2")
    await cloud.look()

    assert claims_of(await cloud.house.sign_in(ANNA, password=ANOTHER))["tenant_id"] == "t1"
    assert cloud.accounts() == {f"t1.{await cloud.user_id(ANNA)}"}
    assert await cloud.left("t2") == []


async def test_a_members_account_goes_an_hour_after_it(cloud: Cloud) -> None:
    await cloud.onboard("t1", ANNA, BELA)
    await cloud.accept("t1", ANNA)
    await cloud.accept("t1", BELA, password=ANOTHER)
    belas = f"t1.{await cloud.user_id(BELA)}"

    await cloud.remove("t1", BELA)
    await cloud.look()
    assert belas in cloud.accounts()
    assert (await cloud.tries(BELA, ANOTHER)).status_code == 401
    await cloud.house.clock.advance(GRACE.total_seconds() + 1)
    await cloud.look()

    assert cloud.accounts() == {f"t1.{await cloud.user_id(ANNA)}"}
    assert await cloud.house.pool.fetchval("SELECT count(*) FROM provider_account") == 1


async def test_who_is_a_member_again_within_the_hour_keeps_its_account(cloud: Cloud) -> None:
    await cloud.onboard("t1", ANNA, BELA)
    await cloud.accept("t1", BELA)
    user_id = await cloud.user_id(BELA)
    row = await cloud.house.pool.fetchrow("SELECT * FROM membership WHERE user_id = $1", user_id)
    await cloud.house.pool.execute("DELETE FROM invitation WHERE user_id = $1", user_id)
    await cloud.house.pool.execute("DELETE FROM membership WHERE user_id = $1", user_id)
    await cloud.look()

    await cloud.house.pool.execute("INSERT INTO membership SELECT ($1::membership).*", row)
    await cloud.house.clock.advance(GRACE.total_seconds() + 1)
    await cloud.look()
    await cloud.look()

    assert f"t1.{user_id}" in cloud.accounts()
    assert await cloud.house.pool.fetchval("SELECT member_id FROM provider_account") == user_id


async def test_an_account_that_is_being_deleted_is_waited_for(cloud: Cloud) -> None:
    await cloud.onboard("t1")
    await cloud.accept("t1")
    await cloud.undo("t1")
    with cloud.amazon.refusing("AdminDeleteUser", "TooManyRequestsException"):
        await cloud.look()

    await cloud.onboard("t1")
    user_id = await cloud.user_id(ANNA)
    await cloud.house.pool.execute("UPDATE provider_account SET user_id = $1", user_id)
    early = await cloud.accept("t1")
    await cloud.house.clock.advance(600)
    await cloud.look()

    assert early.status_code == 503
    assert (await cloud.accept("t1")).status_code == 200


async def test_while_cognito_is_away_deleting_waits_and_nobody_else_does(cloud: Cloud) -> None:
    await cloud.enter("t1")
    own = await cloud.house.operator(OLGA, "SystemAdmin")
    await cloud.purge("t1")

    with cloud.amazon.away():
        await cloud.look()
        assert (await cloud.house.sign_in(OLGA))["access_token"]
    assert own
    assert await cloud.left("t1") == ["provider_account"]
    assert await cloud.caretaker.look() == 0  # not before its time

    assert await cloud.look() == 1
    assert (await cloud.left("t1"), cloud.accounts()) == ([], set())


async def test_nothing_is_deleted_while_what_makes_it_may_be_on_its_way(cloud: Cloud) -> None:
    await cloud.enter("t1")
    await cloud.purge("t1")

    assert await cloud.caretaker.look() == 0
    await cloud.house.clock.advance(ARRIVAL.total_seconds())
    assert await cloud.caretaker.look() == 1


async def test_without_cognito_what_is_due_there_waits(cloud: Cloud) -> None:
    await cloud.enter("t1")
    await cloud.purge("t1")

    await cloud.house.clock.advance(ARRIVAL.total_seconds())
    assert await Caretaker(cloud.house.pool, None, clock=cloud.house.clock).look() == 1

    assert await cloud.left("t1") == ["provider_account"]
    await cloud.house.clock.advance(600)
    await cloud.look()
    assert await cloud.left("t1") == []


async def test_a_password_is_changed_where_it_is_kept(cloud: Cloud) -> None:
    await cloud.enter("t1")
    tokens, other = [await cloud.house.sign_in(ANNA, password=CHOSEN) for _ in range(2)]

    answer = await cloud.house.client.put(
        "/v1/users/me/password",
        json={"currentPassword": CHOSEN, "newPassword": ANOTHER},
        headers={"Authorization": f"Bearer {tokens['access_token']}"},
    )

    assert answer.status_code == 204, answer.text
    assert (await cloud.house.refresh(other["refresh_token"])).status_code == 400
    assert (await cloud.tries(ANNA, CHOSEN)).status_code == 401
    assert sent(await cloud.tries(ANNA, ANOTHER))["code"]
    assert await cloud.house.pool.fetchval("SELECT count(*) FROM password") == 0


async def test_while_cognito_is_away_nobody_learns_whether_a_password_is_right(cloud: Cloud) -> None:
    await cloud.enter("t1")

    with cloud.amazon.away():
        answers = [(await cloud.tries(ANNA, password)).status_code for password in (CHOSEN, "wrong")]

    assert answers == [503, 503]


@pytest.mark.parametrize("pool", ["shared", "own"])
async def test_an_administrator_moves_a_tenant_that_nobody_has_got_into(cloud: Cloud, pool: str) -> None:
    await cloud.house.user(ANNA, {"t1": "TenantAdmin"}, password=None, accepted=False)
    url, body = "/v1/identity-providers/t1", {"kind": "cognito", "pool": pool}

    answer = await cloud.house.client.put(url, json=body, headers=cloud.house.administrator)
    again = await cloud.house.client.put(url, json=body, headers=cloud.house.administrator)
    await cloud.look()

    assert (answer.status_code, again.status_code) == (200, 200)
    assert (await cloud.accept("t1")).status_code == 200
    taken = await cloud.house.client.delete(url, headers=cloud.house.administrator)
    assert (taken.status_code, taken.json()["code"]) == (409, "passwords_elsewhere")


async def test_who_accepts_while_the_tenant_is_moved_begins_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cloud.onboard("t1")
    read = queries.by_token

    async def by_token_before(*told: Any, **more: Any) -> dict[str, Any]:
        return {**(await read(*told, **more) or {}), "kind": None}

    monkeypatch.setattr(queries, "by_token", by_token_before)
    early = await cloud.accept("t1")
    monkeypatch.undo()

    assert (early.status_code, early.json()["code"]) == (503, "identity_provider_changing")
    assert await cloud.house.pool.fetchval("SELECT count(*) FROM password") == 0


async def test_a_tenant_that_people_have_got_into_stays_where_it_is(cloud: Cloud) -> None:
    await cloud.house.user(ANNA, {"t1": "TenantAdmin"})
    body = {"kind": "cognito", "pool": "shared"}
    token = (await cloud.house.sign_in(ANNA))["access_token"]

    entered = await cloud.house.client.put("/v1/identity-providers/t1", json=body, headers=cloud.house.administrator)
    own = await cloud.house.client.put(
        "/v1/identity-providers/t1", json=body, headers={"Authorization": f"Bearer {token}"}
    )

    assert (entered.status_code, entered.json()["code"]) == (409, "passwords_elsewhere")
    assert own.status_code == 403
