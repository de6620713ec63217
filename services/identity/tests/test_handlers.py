import asyncio
from collections.abc import Sequence
from datetime import timedelta

from asyncpg import Record
from asyncpg.connection import LoggedQuery

from services.identity import handlers
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask, Fact
from shared.contracts.identity import (
    AdministratorsCreated,
    AdministratorsRefused,
    AdministratorsRemoved,
    CreateAdministrators,
    RemoveAdministrators,
)
from shared.ids import TimeOrderedIds
from shared.postgres import Connection, Pool, transaction
from shared.testing import eventually

ANNA, BELA, CLEO = "anna@example.org", "bela@example.org", "cleo@example.org"
WEEK = timedelta(days=7)


def ask(tenant_id: str, *emails: str) -> CreateAdministrators:
    return CreateAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


async def create(pool: Pool, *asks: CreateAdministrators, clock: ManualClock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.create_administrators(
            connection, asks, clock=clock or ManualClock(), ids=TimeOrderedIds(), invitation_lifetime=WEEK
        )


async def remove(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        removed = await handlers.remove_administrators(
            connection, [RemoveAdministrators(tenant_id=tenant_id) for tenant_id in tenant_ids], clock=ManualClock()
        )
    return [each.answer for each in removed]


async def members(pool: Pool) -> set[tuple[str, str, str]]:
    rows = await pool.fetch("SELECT tenant_id, email, role FROM membership JOIN users USING (user_id)")
    return {(row["tenant_id"], row["email"], row["role"]) for row in rows}


async def emails(pool: Pool) -> list[str]:
    return [row["email"] for row in await pool.fetch("SELECT email FROM users ORDER BY email")]


async def only_invitation(pool: Pool) -> Record:
    (row,) = await pool.fetch("SELECT * FROM invitation")
    return row


async def are_waiting(pool: Pool, count: int) -> bool:
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)


async def set_role(pool: Pool, email: str, role: str) -> None:
    await pool.execute(
        "UPDATE membership SET role = $2 FROM users WHERE users.user_id = membership.user_id AND email = $1",
        email,
        role,
    )


async def lock_user(connection: Connection, email: str) -> None:
    await connection.execute("SELECT FROM users WHERE email = $1 FOR UPDATE", email)


async def statements_for(connection: Connection, asks: Sequence[CreateAdministrators]) -> int:
    """Create and remove the administrators of these tenants, and count what is sent to the database for it."""
    sent: list[LoggedQuery] = []
    with connection.query_logger(sent.append):
        created = await handlers.create_administrators(
            connection, asks, clock=ManualClock(), ids=TimeOrderedIds(), invitation_lifetime=WEEK
        )
        removed = await handlers.remove_administrators(
            connection, [RemoveAdministrators(tenant_id=one.tenant_id) for one in asks], clock=ManualClock()
        )
    assert [fact.tenant_id for fact in created] == [one.tenant_id for one in asks]
    assert [each.answer.tenant_id for each in removed] == [one.tenant_id for one in asks]
    return len(sent)


async def test_each_address_becomes_an_administrator_with_an_open_invitation(pool: Pool) -> None:
    clock = ManualClock()

    (fact,) = await create(pool, ask("t1", BELA, ANNA), clock=clock)

    assert isinstance(fact, AdministratorsCreated)
    assert await members(pool) == {("t1", ANNA, "TenantAdmin"), ("t1", BELA, "TenantAdmin")}
    invitations = await pool.fetch("SELECT * FROM invitation JOIN users USING (user_id)")
    assert {invitation["email"] for invitation in invitations} == {ANNA, BELA}
    assert {invitation["role"] for invitation in invitations} == {"TenantAdmin"}
    assert {invitation["delivery"] for invitation in invitations} == {"pending"}
    assert {invitation["expires_at"] for invitation in invitations} == {clock.now() + WEEK}
    assert {invitation["accepted_at"] for invitation in invitations} == {None}


async def test_the_answer_names_the_users_in_the_order_of_the_addresses(pool: Pool) -> None:
    (fact,) = await create(pool, ask("t1", CLEO, ANNA, BELA))

    assert isinstance(fact, AdministratorsCreated)
    rows = await pool.fetch("SELECT user_id, email FROM users")
    email_of = {str(row["user_id"]): row["email"] for row in rows}
    assert [email_of[user_id] for user_id in fact.user_ids] == [CLEO, ANNA, BELA]


async def test_a_batch_is_answered_ask_by_ask_and_a_refusal_stops_no_other(pool: Pool) -> None:
    first, second, third = await create(pool, ask("t1", ANNA), ask("t2"), ask("t3", BELA))

    assert isinstance(first, AdministratorsCreated)
    assert isinstance(second, AdministratorsRefused)
    assert isinstance(third, AdministratorsCreated)
    assert [fact.tenant_id for fact in (first, second, third)] == ["t1", "t2", "t3"]
    assert second.code == "no_administrators"
    assert await members(pool) == {("t1", ANNA, "TenantAdmin"), ("t3", BELA, "TenantAdmin")}


async def test_repeated_addresses_of_an_ask_and_of_a_batch_are_one_user(pool: Pool) -> None:
    first, second = await create(pool, ask("t1", ANNA, ANNA.upper()), ask("t2", f" {ANNA} "))

    assert isinstance(first, AdministratorsCreated)
    assert isinstance(second, AdministratorsCreated)
    assert first.user_ids == second.user_ids
    assert await emails(pool) == [ANNA]
    assert await members(pool) == {("t1", ANNA, "TenantAdmin"), ("t2", ANNA, "TenantAdmin")}


async def test_a_user_of_another_tenant_gets_another_membership_and_keeps_its_spelling(pool: Pool) -> None:
    (before,) = await create(pool, ask("t1", "Anna@example.org"))

    (after,) = await create(pool, ask("t2", ANNA))

    assert isinstance(before, AdministratorsCreated)
    assert isinstance(after, AdministratorsCreated)
    assert before.user_ids == after.user_ids
    assert await members(pool) == {
        ("t1", "Anna@example.org", "TenantAdmin"),
        ("t2", "Anna@example.org", "TenantAdmin"),
    }


async def test_who_is_asked_for_again_keeps_the_open_invitation(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA))
    before = await only_invitation(pool)

    await create(pool, ask("t1", ANNA), ask("t1", ANNA))

    assert await only_invitation(pool) == before


async def test_an_expired_invitation_is_renewed_with_another_token(pool: Pool) -> None:
    clock = ManualClock()
    await create(pool, ask("t1", ANNA), clock=clock)
    await pool.execute("UPDATE invitation SET delivery = 'sent'")
    before = await only_invitation(pool)
    await clock.advance(WEEK.total_seconds())

    await create(pool, ask("t1", ANNA), clock=clock)

    after = await only_invitation(pool)
    assert after["token_hash"] != before["token_hash"]
    assert after["expires_at"] == clock.now() + WEEK
    assert after["delivery"] == "pending"


async def test_who_accepted_long_ago_is_not_invited_again(pool: Pool) -> None:
    clock = ManualClock()
    await create(pool, ask("t1", ANNA), clock=clock)
    await pool.execute("UPDATE invitation SET accepted_at = created_at")
    before = await only_invitation(pool)
    await clock.advance(10 * WEEK.total_seconds())

    await create(pool, ask("t1", ANNA), clock=clock)

    assert await only_invitation(pool) == before


async def test_a_plain_user_of_the_tenant_becomes_administrator_and_support_stays_support(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA, BELA))
    await set_role(pool, ANNA, "TenantUser")
    await set_role(pool, BELA, "CustomerSupport")

    await create(pool, ask("t1", ANNA, BELA))

    assert await members(pool) == {("t1", ANNA, "TenantAdmin"), ("t1", BELA, "CustomerSupport")}


async def test_removing_leaves_no_live_record_and_forgets_the_users(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA, BELA), ask("t2", CLEO))

    facts = await remove(pool, "t1")

    assert facts == [AdministratorsRemoved(tenant_id="t1")]
    assert await emails(pool) == [CLEO]
    rows = await pool.fetch("SELECT tenant_id, place FROM live_record")
    assert {(row["tenant_id"], row["place"]) for row in rows} == {("t2", "membership"), ("t2", "invitation")}


async def test_a_user_of_two_tenants_is_forgotten_with_the_second(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA), ask("t2", ANNA))

    await remove(pool, "t1")
    assert await members(pool) == {("t2", ANNA, "TenantAdmin")}

    await remove(pool, "t2")
    assert await emails(pool) == []


async def test_removing_twice_or_where_nobody_was_gives_the_same_answer(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA))

    facts = await remove(pool, "t1", "t1", "t0")

    assert facts == [AdministratorsRemoved(tenant_id=tenant_id) for tenant_id in ("t1", "t1", "t0")]
    assert await remove(pool, "t1") == [AdministratorsRemoved(tenant_id="t1")]
    assert await emails(pool) == []


async def test_a_user_without_any_membership_counts_as_residue(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA))

    await pool.execute("DELETE FROM invitation")
    await pool.execute("DELETE FROM membership")

    (row,) = await pool.fetch("SELECT tenant_id, place FROM live_record")
    assert tuple(row) == ("", "users")


async def test_five_hundred_tenants_take_as_many_statements_as_one(pool: Pool) -> None:
    asks = [ask(f"t{number}", f"user{number}@example.org", ANNA) for number in range(500)]
    async with transaction(pool) as connection:
        await statements_for(connection, asks[:1])  # asyncpg asks once for the types
        for_one = await statements_for(connection, asks[:1])
        for_all = await statements_for(connection, asks)

    assert for_all == for_one
    assert await emails(pool) == []


async def test_batches_that_name_the_same_users_in_opposite_orders_wait_for_each_other_and_both_succeed(
    pool: Pool,
) -> None:
    await create(pool, ask("t0", ANNA, BELA))
    async with pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await lock_user(blocker, ANNA)
        group.create_task(create(pool, ask("t1", ANNA, BELA)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")
        group.create_task(create(pool, ask("t2", BELA, ANNA)))
        await eventually(lambda: are_waiting(pool, 2), describe="two wait for a lock")

    assert await members(pool) == {
        (tenant_id, email, "TenantAdmin") for tenant_id in ("t0", "t1", "t2") for email in (ANNA, BELA)
    }


async def test_a_removal_locks_users_in_the_order_in_which_a_creation_does(pool: Pool) -> None:
    await create(pool, ask("t0", BELA))
    await create(pool, ask("t0", ANNA))
    async with pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await lock_user(blocker, ANNA)
        group.create_task(create(pool, ask("t1", ANNA, BELA)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")
        group.create_task(remove(pool, "t0"))
        await eventually(lambda: are_waiting(pool, 2), describe="two wait for a lock")

    assert await members(pool) == {("t1", ANNA, "TenantAdmin"), ("t1", BELA, "TenantAdmin")}


async def test_new_users_of_two_batches_are_made_once(pool: Pool) -> None:
    addresses = [f"user{number}@example.org" for number in range(200)]

    await asyncio.gather(create(pool, ask("t1", *addresses)), create(pool, ask("t2", *reversed(addresses))))

    assert len(await emails(pool)) == 200
    assert len(await members(pool)) == 400


async def test_a_user_who_joins_while_leaving_its_only_tenant_is_made_anew(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA))
    async with asyncio.TaskGroup() as group, transaction(pool) as leaving:
        await handlers.remove_administrators(leaving, [RemoveAdministrators(tenant_id="t1")], clock=ManualClock())
        group.create_task(create(pool, ask("t2", ANNA)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")

    assert await members(pool) == {("t2", ANNA, "TenantAdmin")}


async def test_a_user_who_leaves_its_only_tenant_while_joining_another_stays(pool: Pool) -> None:
    await create(pool, ask("t1", ANNA))
    async with asyncio.TaskGroup() as group, transaction(pool) as joining:
        await handlers.create_administrators(
            joining, [ask("t2", ANNA)], clock=ManualClock(), ids=TimeOrderedIds(), invitation_lifetime=WEEK
        )
        group.create_task(remove(pool, "t1"))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")

    assert await members(pool) == {("t2", ANNA, "TenantAdmin")}


def test_every_ask_of_the_contract_is_heard_and_every_fact_is_said() -> None:
    owned = {message for message in CATALOGUE.values() if message.owner == "identity"}
    asks = {message for message in owned if issubclass(message, Ask)}

    assert {message for message in handlers.SUBSCRIPTIONS if message.owner == "identity"} == asks
    assert set(handlers.PUBLISHES) == owned - asks
