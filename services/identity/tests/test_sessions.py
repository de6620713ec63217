"""Sessions: who sees them, who ends them, and what ends them by itself."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from services.identity.sweeping import Sweeper
from services.identity.tests.house import House
from shared.contracts import identity as contracts
from shared.contracts.base import Ask
from shared.contracts.identity import SessionsRevoked, TenantAccessChanged
from shared.messaging.event import Event
from shared.postgres import transaction
from shared.testing import eventually
from shared.testing.three_services import asked

ANNA, BELA, CLEO, OTTO = "anna@example.org", "bela@example.org", "cleo@example.org", "otto@example.org"


@pytest.fixture(autouse=True)
async def people(house: House) -> dict[str, UUID]:
    return {
        ANNA: await house.user(ANNA, {"t1": "TenantAdmin", "t2": "TenantUser"}),
        BELA: await house.user(BELA, {"t1": "TenantUser"}),
        CLEO: await house.user(CLEO, {"t2": "TenantAdmin"}),
        OTTO: await house.operator(OTTO, "CustomerSupport"),
    }


async def ask(house: House, *asks: Ask) -> list[Event]:
    """Have the service asked by a workflow, and what it says sent."""
    kernel = house.service.kernel
    events = [asked(each) for each in asks]
    async with transaction(house.pool) as connection:
        outgoing = await kernel.dispatch.handle(connection, events)
    await kernel.relay.send(outgoing)
    return events


async def end(house: House, session_id: str, token: str) -> int:
    answer = await house.client.delete(f"/v1/sessions/{session_id}", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


async def listed(house: House, token: str, **query: str) -> list[dict[str, Any]]:
    answer = await house.get("/v1/sessions", token, params=query)
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def is_good(house: House, tokens: dict[str, Any]) -> bool:
    status = (await house.get("/v1/sessions", tokens["access_token"])).status_code
    assert status in {200, 401}
    return status == 200


async def test_a_user_sees_its_own_sessions_an_administrator_those_of_its_tenant(house: House) -> None:
    anna, bela, cleo = [(await house.sign_in(each))["access_token"] for each in (ANNA, BELA, CLEO)]
    anna_in_t2 = (await house.sign_in(ANNA, tenant_id="t2"))["access_token"]

    def seen(sessions: list[dict[str, Any]]) -> set[tuple[str, str]]:
        return {(each["email"], each["tenantId"]) for each in sessions}

    assert seen(await listed(house, anna)) == {(ANNA, "t1"), (BELA, "t1")}
    assert seen(await listed(house, bela)) == {(BELA, "t1")}
    assert seen(await listed(house, cleo)) == {(CLEO, "t2"), (ANNA, "t2")}
    assert seen(await listed(house, anna_in_t2)) == {(ANNA, "t1"), (ANNA, "t2")}
    assert await listed(house, anna, tenantId="t2") == []
    assert await listed(house, bela, userId=(await listed(house, cleo))[0]["userId"]) == []


async def test_a_session_of_others_is_as_absent_as_one_that_is_not(house: House) -> None:
    anna, bela, cleo = [await house.sign_in(each) for each in (ANNA, BELA, CLEO)]
    (theirs,) = await listed(house, cleo["access_token"])
    (own,) = await listed(house, bela["access_token"])

    assert await end(house, theirs["sessionId"], anna["access_token"]) == 404
    assert await end(house, theirs["sessionId"], bela["access_token"]) == 404
    assert await end(house, "no-session", anna["access_token"]) == 404
    assert await is_good(house, cleo)
    assert await end(house, own["sessionId"], anna["access_token"]) == 204
    assert not await is_good(house, bela)


async def test_an_ended_session_is_told_to_everybody(house: House) -> None:
    bela = await house.sign_in(BELA)
    (own,) = await listed(house, bela["access_token"])

    assert await end(house, own["sessionId"], bela["access_token"]) == 204

    for service in ("onboarding", "tenant", "billing", "metrics", "provisioning"):
        told = [fact for fact in house.told(service) if isinstance(fact, SessionsRevoked)]
        assert [fact.session_ids for fact in told] == [(own["sessionId"],)]
    assert (await house.refresh(bela["refresh_token"])).status_code == 400


async def test_blocking_a_tenant_ends_its_sessions_and_no_others(house: House) -> None:
    anna, bela, cleo = [await house.sign_in(each) for each in (ANNA, BELA, CLEO)]

    await ask(house, contracts.BlockSignIn(tenant_id="t1", reason="unpaid"))

    assert [await is_good(house, each) for each in (anna, bela, cleo)] == [False, False, True]
    assert (await house.refresh(anna["refresh_token"])).status_code == 400
    told = [fact for fact in house.told("metrics") if isinstance(fact, TenantAccessChanged)]
    assert [(fact.tenant_id, fact.epoch, fact.is_blocked) for fact in told] == [("t1", 1, True)]


async def test_a_tenant_that_is_let_in_again_gets_new_sessions_and_none_of_the_old(house: House) -> None:
    anna = await house.sign_in(ANNA)
    (blocked,) = await ask(house, contracts.BlockSignIn(tenant_id="t1"))
    await ask(house, contracts.AllowSignIn(tenant_id="t1"))

    assert not await is_good(house, anna)
    assert await is_good(house, await house.sign_in(ANNA, tenant_id="t1"))
    told = [fact for fact in house.told() if isinstance(fact, TenantAccessChanged)]
    assert [(fact.epoch, fact.is_blocked) for fact in told] == [(1, True), (2, False)]
    assert blocked.message.tenant_id == "t1"


async def test_a_block_that_is_taken_back_is_told_like_any_change(house: House) -> None:
    (block,) = await ask(house, contracts.BlockSignIn(tenant_id="t1"))
    async with transaction(house.pool) as connection:
        await house.service.kernel.dispatch.handle(
            connection, [asked(contracts.UnblockSignIn(tenant_id="t1"), workflow_id=block.workflow_id)]
        )

    assert await is_good(house, await house.sign_in(ANNA, tenant_id="t1"))


@pytest.mark.parametrize("undo", [contracts.RemoveAdministrators, contracts.PurgeUsers])
async def test_what_is_left_of_a_purged_tenant_is_forgotten_a_day_later(house: House, undo: type[Ask]) -> None:
    anna = await house.sign_in(ANNA, tenant_id="t1")

    await ask(house, undo(tenant_id="t1"))

    assert not await is_good(house, anna)
    (told,) = [fact for fact in house.told() if isinstance(fact, TenantAccessChanged)]
    assert told.is_blocked
    assert told.forget_at is not None
    assert await house.pool.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = 't1'") == 0
    assert await house.pool.fetchval("SELECT count(*) FROM session WHERE tenant_id = 't1'") == 0


async def test_a_tenant_that_nobody_could_enter_is_forgotten_without_a_word(house: House) -> None:
    await ask(house, contracts.PurgeUsers(tenant_id="t1"))

    assert [fact for fact in house.told() if isinstance(fact, TenantAccessChanged)] == []


async def test_an_administrator_who_is_dismissed_is_out_at_once(house: House) -> None:
    anna, bela = await house.sign_in(ANNA), await house.sign_in(BELA)

    await ask(house, contracts.SetAdministrators(tenant_id="t1", customer_name="Acme", emails=(BELA,)))

    assert not await is_good(house, anna)
    assert await is_good(house, bela)
    told = [fact for fact in house.told() if isinstance(fact, SessionsRevoked)]
    assert [(fact.tenant_id, len(fact.session_ids)) for fact in told] == [("t1", 1)]


async def test_support_acts_in_one_tenant_for_a_reason_and_a_while(house: House) -> None:
    otto = (await house.sign_in(OTTO))["access_token"]
    cleo = (await house.sign_in(CLEO))["access_token"]

    begun = await house.client.post(
        "/v1/support-sessions",
        json={"tenantId": "t2", "reason": "ticket 4711", "minutes": 10},
        headers={"Authorization": f"Bearer {otto}"},
    )

    assert begun.status_code == 201
    token = begun.json()["accessToken"]
    assert {each["tenantId"] for each in await listed(house, token)} == {"t2"}
    (support,) = [each for each in await listed(house, cleo) if each["reason"]]
    assert (support["reason"], support["email"]) == ("ticket 4711", OTTO)
    await house.clock.advance(10 * 60 + 60)
    assert (await house.get("/v1/sessions", token)).status_code == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [({"reason": ""}, 422), ({"minutes": 61}, 422), ({"tenantId": "t9"}, 404), ({"tenantId": "_"}, 404)],
)
async def test_support_without_a_reason_an_end_or_a_tenant_is_refused(
    house: House, change: dict[str, Any], status: int
) -> None:
    otto = (await house.sign_in(OTTO))["access_token"]
    body = {"tenantId": "t2", "reason": "ticket 4711", "minutes": 10}

    answer = await house.client.post(
        "/v1/support-sessions", json={**body, **change}, headers={"Authorization": f"Bearer {otto}"}
    )

    assert answer.status_code == status


async def test_no_member_gives_support(house: House) -> None:
    cleo = (await house.sign_in(CLEO))["access_token"]

    answer = await house.client.post(
        "/v1/support-sessions",
        json={"tenantId": "t1", "reason": "curiosity"},
        headers={"Authorization": f"Bearer {cleo}"},
    )

    assert answer.status_code == 403


async def test_what_has_expired_is_swept(house: House) -> None:
    await house.sign_in(ANNA)
    sweeper = Sweeper(house.pool, clock=house.clock)
    await sweeper.sweep()
    assert await house.pool.fetchval("SELECT count(*) FROM session") == 1

    await house.clock.advance(14 * 86400)
    await sweeper.sweep()

    for table in ("session", "refresh_token", "authorization_code", "throttle"):
        assert await house.pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_who_is_dismissed_while_signing_in_gets_no_session(house: House) -> None:
    tokens = await house.sign_in(ANNA, tenant_id="t1")
    anna = await house.pool.fetchval("SELECT user_id FROM users WHERE email = $1", ANNA)
    async with asyncio.TaskGroup() as group, transaction(house.pool) as dismissing:
        await dismissing.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", anna)
        refreshing = group.create_task(house.refresh(tokens["refresh_token"]))
        await eventually(lambda: is_waiting(house), describe="the refresh waits")
        await dismissing.execute("DELETE FROM invitation WHERE user_id = $1 AND tenant_id = 't1'", anna)
        await dismissing.execute("DELETE FROM membership WHERE user_id = $1 AND tenant_id = 't1'", anna)

    assert refreshing.result().json()["error"] == "invalid_grant"


async def is_waiting(house: House) -> bool:
    count = await house.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(count)


async def test_an_administrator_who_is_dismissed_and_taken_back_has_the_same_password(house: House) -> None:
    dora = "dora@example.org"
    await house.user(dora, {"t2": "TenantAdmin"})
    (setting,) = await ask(house, contracts.SetAdministrators(tenant_id="t2", customer_name="Bolt", emails=(CLEO,)))
    assert not await house.pool.fetchval("SELECT EXISTS (SELECT FROM users WHERE email = $1)", dora)

    async with transaction(house.pool) as connection:
        await house.service.kernel.dispatch.handle(
            connection, [asked(contracts.RestoreAdministrators(tenant_id="t2"), workflow_id=setting.workflow_id)]
        )

    assert await is_good(house, await house.sign_in(dora))
