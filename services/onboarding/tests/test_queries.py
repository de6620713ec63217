"""What single statements promise to whoever calls them."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.onboarding import queries
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.tests.support import Desk, go_on
from shared.postgres import Pool, transaction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def claim(name_key: str, number: int) -> Mapping[str, Any]:
    return {"name_key": name_key, "tenant_id": f"t{number}", "workflow_id": UUID(int=number)}


def answer(key: str, number: int) -> Mapping[str, Any]:
    return {
        "principal": "root",
        "key": key,
        "fingerprint": "beef",
        "workflow_id": UUID(int=number),
        "answer": {"id": number},
        "created_at": NOON,
    }


async def test_of_two_claims_of_one_name_in_a_batch_the_first_wins(pool: Pool) -> None:
    async with transaction(pool) as connection:
        won = await queries.claim_names(connection, [claim("b", 1), claim("a", 2), claim("b", 3), claim("a", 4)])
        later = await queries.claim_names(connection, [claim("a", 5), claim("c", 6)])
        holders = await queries.name_holders(connection, ["a", "b", "d"])

    assert (won, later) == ({UUID(int=1), UUID(int=2)}, {UUID(int=6)})
    assert {key: row["tenant_id"] for key, row in holders.items()} == {"a": "t2", "b": "t1"}


async def test_only_the_names_of_the_given_workflows_are_freed(pool: Pool) -> None:
    async with transaction(pool) as connection:
        await queries.claim_names(connection, [claim("a", 1), claim("b", 2)])
        await queries.free_names(connection, [UUID(int=1), UUID(int=9)])
        assert await queries.claim_names(connection, [claim("a", 3), claim("b", 4)]) == {UUID(int=3)}


async def test_a_first_answer_is_never_replaced(pool: Pool) -> None:
    async with transaction(pool) as connection:
        assert await queries.keep_answers(connection, [answer("k1", 1), answer("k2", 2)]) == 2
        assert await queries.keep_answers(connection, [answer("k2", 3), answer("k3", 3)]) == 1
        rows = await queries.first_answers(connection, [("root", "k2"), ("root", "k9"), ("other", "k1")])

    (row,) = rows
    assert (row["key"], row["fingerprint"], row["answer"]) == ("k2", b"\xbe\xef", {"id": 2})


async def test_two_workflows_never_work_on_one_tenant_at_the_same_time(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    again = """
        INSERT INTO workflow (
            id, kind, version, tenant_id, customer_name, name_key, plan, request, created_at, updated_at)
        SELECT $1, kind, version, tenant_id, customer_name, name_key, plan, request, created_at, updated_at
        FROM workflow
    """

    with pytest.raises(asyncpg.UniqueViolationError, match="workflow_one_active"):
        await pool.execute(again, UUID(int=7))
    await go_on(pool, workflow_id)
    await pool.execute(again, UUID(int=7))


async def test_of_due_workflows_the_longest_due_come_first(desk: Desk, pool: Pool) -> None:
    started = [await desk.start(f"Customer {number}") for number in range(3)]
    for number, workflow_id in enumerate(started):
        due_at = NOON - timedelta(seconds=number)
        await pool.execute("UPDATE step SET due_at = $1 WHERE workflow_id = $2", due_at, workflow_id)

    async with transaction(pool) as connection:
        rows = await queries.lock_due_workflows(connection, now=NOON, limit=1)
        assert [row["id"] for row in rows] == started[2:]
        assert len(await queries.lock_due_workflows(connection, now=NOON - timedelta(seconds=1), limit=9)) == 2


async def test_progress_is_told_of_each_that_is_asked_for(desk: Desk, pool: Pool) -> None:
    first, second = (await desk.submit("Acme")).workflow, (await desk.submit("Bolt")).workflow
    await go_on(pool, UUID(first["id"]), refuse="register-tenant")

    async with pool.acquire() as connection:
        reached = await queries.progress(connection, [UUID(first["id"]), UUID(second["id"]), UUID(int=7)])
        positions = await queries.progress_of_tenants(connection, [first["tenantId"], second["tenantId"], "nobody"])

    assert reached == {UUID(first["id"]): 6, UUID(second["id"]): 2}
    assert positions == {first["tenantId"]: 8, second["tenantId"]: 4, "nobody": 0}


async def test_what_is_left_of_a_tenant_is_its_name_and_what_is_still_going_on(desk: Desk, pool: Pool) -> None:
    async def left(tenant_id: str) -> list[str]:
        rows = await pool.fetch("SELECT place FROM live_record WHERE tenant_id = $1 ORDER BY place", tenant_id)
        return [row["place"] for row in rows]

    done, undone = (await desk.submit("Acme")).workflow, (await desk.submit("Bolt")).workflow
    assert await left(done["tenantId"]) == ["customer", "workflow in progress"]

    await go_on(pool, UUID(done["id"]))
    await go_on(pool, UUID(undone["id"]), refuse="activate-tenant")

    assert (await left(done["tenantId"]), await left(undone["tenantId"])) == (["customer"], [])


async def test_only_a_name_whose_customer_has_an_expiration_is_looked_at(pool: Pool) -> None:
    async with transaction(pool) as connection:
        claims = [{**claim("ends", 1), "expires": True}, {**claim("lasts", 2), "expires": False}]
        await queries.claim_names(connection, claims)
        rows = await connection.fetch("SELECT name_key FROM customer WHERE review_at <= $1", NOON)

    assert [row["name_key"] for row in rows] == ["ends"]


async def test_of_each_definition_that_is_at_work_every_step_is_told_once(desk: Desk, pool: Pool) -> None:
    await asyncio.gather(*(desk.start(f"Customer {number}") for number in range(3)))
    await desk.submit("Acme")
    await desk.begin(CHANGE_PRODUCTS, await desk.tenant("Bolt"), products=[])

    async with pool.acquire() as connection:
        rows = await queries.active_definitions(connection)

    assert sorted((row["name"], row["version"], row["step"]) for row in rows) == sorted(
        [("onboard", 1, name) for name in ONBOARD.steps]
        + [("change-products", CHANGE_PRODUCTS.version, name) for name in CHANGE_PRODUCTS.steps]
    )
