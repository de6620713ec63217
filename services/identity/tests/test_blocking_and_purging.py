"""Blocks of sign-in, how they are taken back, and what a purge leaves: nothing."""

import asyncio
from collections.abc import Callable

import pytest
from asyncpg import Record

from services.identity import handlers
from services.identity.tests.world import ANNA, BELA, CLEO, World, undo_of
from shared.contracts.identity import (
    AllowSignIn,
    BlockSignIn,
    CreateAdministrators,
    PurgeUsers,
    SignInAllowed,
    SignInBlocked,
    SignInDisallowed,
    SignInUnblocked,
    UsersPurged,
)
from shared.postgres import transaction
from shared.testing import eventually
from shared.testing.three_services import asked


def creation(tenant_id: str, *emails: str) -> CreateAdministrators:
    return CreateAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


def block(tenant_id: str, reason: str | None = "unpaid") -> BlockSignIn:
    return BlockSignIn(tenant_id=tenant_id, reason=reason)


def allow(tenant_id: str) -> AllowSignIn:
    return AllowSignIn(tenant_id=tenant_id)


def purged(tenant_id: str, *, memberships: int = 0, invitations: int = 0, users: int = 0) -> UsersPurged:
    deleted = {"memberships": memberships, "invitations": invitations, "users": users}
    return UsersPurged(tenant_id=tenant_id, deleted=deleted)


async def blocks(world: World) -> list[Record]:
    return await world.pool.fetch("SELECT * FROM tenant_block ORDER BY tenant_id")


async def test_a_tenant_is_blocked_for_a_reason_and_unblocked_again(world: World) -> None:
    blocked = asked(block("t1"))

    assert await world.handle(blocked) == [SignInBlocked(tenant_id="t1")]
    assert [tuple(row) for row in await blocks(world)] == [("t1", "unpaid", world.clock.now())]

    assert await world.undo(blocked) == SignInUnblocked(tenant_id="t1")
    assert await blocks(world) == []


async def test_a_tenant_that_is_blocked_already_stays_so_for_its_first_reason(world: World) -> None:
    await world.do(block("t1", "expired"))
    found = await world.snapshot()
    await world.clock.advance(60)

    again = await world.do(block("t1", "unpaid"))
    assert await world.snapshot() == found

    await world.undo(again)
    assert await world.snapshot() == found


async def test_a_block_that_is_ended_comes_back_as_it_was(world: World) -> None:
    await world.do(block("t1"))
    await world.do(block("t2", None))
    found = await world.snapshot()
    await world.clock.advance(60.000001)
    allowed = [asked(allow("t1")), asked(allow("t2"))]

    assert await world.handle(*allowed) == [SignInAllowed(tenant_id=each) for each in ("t1", "t2")]
    assert await blocks(world) == []

    assert await world.handle(*map(undo_of, allowed)) == [SignInDisallowed(tenant_id=each) for each in ("t1", "t2")]
    assert await world.snapshot() == found


async def test_allowing_what_is_not_blocked_is_nothing_to_undo(world: World) -> None:
    allowed = await world.do(allow("t1"))
    await world.undo(allowed)

    assert await blocks(world) == []


@pytest.mark.parametrize("ask", [block, allow])
async def test_an_undo_that_comes_first_keeps_the_change_from_happening(
    world: World, ask: Callable[[str], BlockSignIn | AllowSignIn]
) -> None:
    await world.do(block("t1", "first"))
    late = asked(ask("t1"))
    found = await world.snapshot()

    assert len(await world.handle(undo_of(late))) == 1
    assert await world.handle(late) == []

    assert await world.snapshot() == found


async def test_an_undo_that_is_repeated_spoils_no_later_change(world: World) -> None:
    blocked = await world.do(block("t1", "first"))
    await world.undo(blocked)
    await world.do(block("t1", "second"))

    await world.handle(undo_of(blocked), undo_of(blocked))
    assert [row["reason"] for row in await blocks(world)] == ["second"]

    allowed = await world.do(allow("t1"))
    await world.undo(allowed)
    await world.do(allow("t1"))

    await world.undo(allowed)
    assert await blocks(world) == []


async def test_a_batch_blocks_each_tenant_once_and_only_the_first_ask_is_to_be_undone(world: World) -> None:
    first, other, second = asked(block("t2", "first")), asked(block("t1")), asked(block("t2", "second"))

    assert await world.handle(first, other, second) == [
        SignInBlocked(tenant_id=tenant_id) for tenant_id in ("t2", "t1", "t2")
    ]
    assert [(row["tenant_id"], row["reason"]) for row in await blocks(world)] == [("t1", "unpaid"), ("t2", "first")]

    await world.undo(second)
    assert len(await blocks(world)) == 2
    await world.undo(first)
    assert [row["tenant_id"] for row in await blocks(world)] == ["t1"]


async def test_a_batch_that_allows_a_tenant_twice_brings_its_block_back_with_the_first(world: World) -> None:
    await world.do(block("t1"))
    found = await world.snapshot()
    first, second = asked(allow("t1")), asked(allow("t1"))
    await world.handle(first, second)

    await world.undo(second)
    assert await blocks(world) == []
    await world.undo(first)
    assert await world.snapshot() == found


async def test_blocks_are_ended_in_one_order_however_they_are_found(world: World) -> None:
    await world.do(block("b"))
    await world.do(block("a"))

    async def end_both(*, without: str) -> None:
        async with transaction(world.pool) as connection:
            await connection.execute(f"SET LOCAL enable_bitmapscan = off; SET LOCAL enable_{without} = off")
            await handlers.allow_sign_in(connection, [allow("a"), allow("b")])

    async with world.pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await blocker.execute("SELECT FROM tenant_block WHERE tenant_id = 'a' FOR UPDATE")
        group.create_task(end_both(without="seqscan"))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")
        group.create_task(end_both(without="indexscan"))
        await eventually(lambda: world.has_waiting(2), describe="two wait for a lock")

    assert await blocks(world) == []


async def test_a_tenant_that_is_blocked_while_its_block_is_being_ended_is_blocked(world: World) -> None:
    await world.do(block("t1", "first"))
    async with asyncio.TaskGroup() as group, transaction(world.pool) as connection:
        await handlers.allow_sign_in(connection, [allow("t1")])
        group.create_task(world.do(block("t1", "second")))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")

    assert [row["reason"] for row in await blocks(world)] == ["second"]


async def test_a_purge_leaves_no_live_record_and_counts_what_it_deleted(world: World) -> None:
    await world.do(creation("t1", ANNA, BELA))
    await world.do(creation("t2", BELA, CLEO))
    await world.withdraw_invitation("t1", ANNA)
    await world.do(block("t1"))
    await world.do(block("t2"))

    facts = await world.handle(asked(PurgeUsers(tenant_id="t0")), asked(PurgeUsers(tenant_id="t1")))

    assert facts == [purged("t0"), purged("t1", memberships=2, invitations=1, users=1)]
    rows = await world.pool.fetch("SELECT DISTINCT tenant_id FROM live_record")
    assert [row["tenant_id"] for row in rows] == ["t2"]
    assert await world.emails() == {BELA, CLEO}
    assert [row["tenant_id"] for row in await blocks(world)] == ["t2"]


async def test_a_block_of_a_tenant_without_members_is_purged(world: World) -> None:
    await world.do(block("t1"))
    rows = await world.pool.fetch("SELECT * FROM live_record")
    assert [tuple(row) for row in rows] == [("t1", "tenant_block")]

    assert await world.handle(asked(PurgeUsers(tenant_id="t1"))) == [purged("t1")]

    assert await world.pool.fetch("SELECT * FROM live_record") == []


async def test_what_is_purged_is_counted_once(world: World) -> None:
    await world.do(creation("t1", ANNA))
    await world.do(creation("t2", ANNA))

    facts = await world.handle(*(asked(PurgeUsers(tenant_id=tenant_id)) for tenant_id in ("t1", "t1", "t2")))

    first, again, second = (fact for fact in facts if isinstance(fact, UsersPurged))
    assert again == purged("t1")
    assert first.deleted["users"] + second.deleted["users"] == 1
    assert (first.deleted["memberships"], second.deleted["memberships"]) == (1, 1)
    assert await world.handle(asked(PurgeUsers(tenant_id="t1"))) == [purged("t1")]
