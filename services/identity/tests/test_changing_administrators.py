"""Adding and setting administrators, and how that is taken back."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest
from asyncpg.connection import LoggedQuery

from services.identity import handlers
from services.identity.tests.world import ANNA, BELA, CLEO, WEEK, World, undo_of
from shared.contracts.identity import (
    AddAdministrators,
    AddedAdministratorsRemoved,
    AdministratorAdditionRefused,
    AdministratorsAdded,
    AdministratorSettingRefused,
    AdministratorsRestored,
    AdministratorsSet,
    CreateAdministrators,
    PurgeUsers,
    RemoveAdministrators,
    SetAdministrators,
)
from shared.ids import TimeOrderedIds
from shared.messaging.subscriptions import Restoration
from shared.postgres import Connection, transaction
from shared.testing import eventually
from shared.testing.three_services import asked

Ask = Callable[..., AddAdministrators | SetAdministrators]
EVERYBODY = (ANNA, BELA, CLEO, "dora@example.org")


def creation(tenant_id: str, *emails: str) -> CreateAdministrators:
    return CreateAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


def addition(tenant_id: str, *emails: str) -> AddAdministrators:
    return AddAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


def setting(tenant_id: str, *emails: str) -> SetAdministrators:
    return SetAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails)


def administrators(tenant_id: str, *emails: str) -> set[tuple[str, str, str]]:
    return {(tenant_id, email, "TenantAdmin") for email in emails}


async def statements_for(connection: Connection, world: World, tenant_ids: Sequence[str]) -> int:
    """Add, set and restore administrators of these tenants, and count what is sent to the database for it."""
    sent: list[LoggedQuery] = []
    ids = TimeOrderedIds()
    with connection.query_logger(sent.append):
        added = await handlers.add_administrators(
            connection,
            [addition(each, ANNA, f"{each}@example.org") for each in tenant_ids],
            clock=world.clock,
            ids=ids,
            invitation_lifetime=WEEK,
        )
        swapped = await handlers.set_administrators(
            connection,
            [setting(each, BELA, f"{each}@example.org") for each in tenant_ids],
            clock=world.clock,
            ids=ids,
            invitation_lifetime=WEEK,
        )
        for changes in (swapped, added):
            await handlers.restore_administrators(
                connection,
                [Restoration(each.answer.tenant_id, each.before) for each in changes],
                clock=world.clock,
            )
    return len(sent)


async def test_who_is_added_is_an_invited_administrator_beside_the_others(world: World) -> None:
    await world.do(creation("t1", ANNA))
    await world.clock.advance(60)

    (answer,) = await world.handle(asked(addition("t1", CLEO, BELA)))

    assert isinstance(answer, AdministratorsAdded)
    assert await world.members() == administrators("t1", ANNA, BELA, CLEO)
    rows = await world.pool.fetch("SELECT * FROM users JOIN invitation USING (user_id) ORDER BY expires_at, email DESC")
    assert [row["email"] for row in rows] == [ANNA, CLEO, BELA]
    assert [str(row["user_id"]) for row in rows[1:]] == list(answer.user_ids)
    assert {(row["role"], row["delivery"], row["accepted_at"]) for row in rows} == {("TenantAdmin", "pending", None)}
    assert rows[1]["expires_at"] == world.clock.now() + WEEK


async def test_who_was_added_is_forgotten_when_that_is_taken_back(world: World) -> None:
    await world.do(creation("t1", ANNA))
    found = await world.snapshot()
    added = await world.do(addition("t1", BELA, CLEO))

    assert await world.undo(added) == AddedAdministratorsRemoved(tenant_id="t1")

    assert await world.snapshot() == found


async def test_who_was_added_but_belongs_elsewhere_stays_there(world: World) -> None:
    await world.do(creation("t1", ANNA))
    added = await world.do(addition("t1", BELA))
    await world.do(creation("t2", BELA))

    await world.undo(added)

    assert await world.members() == administrators("t1", ANNA) | administrators("t2", BELA)


async def test_who_was_an_administrator_before_it_was_added_stays_one(world: World) -> None:
    await world.do(creation("t1", ANNA, BELA))
    found = await world.snapshot()

    added = await world.do(addition("t1", BELA.upper()))
    assert await world.snapshot() == found
    assert await world.pool.fetchval("SELECT count(*) FROM operation WHERE before IS NOT NULL") == 0

    await world.undo(added)
    assert await world.snapshot() == found


async def test_what_is_as_asked_already_is_not_written_again(world: World) -> None:
    await world.do(creation("t1", ANNA))
    written = "SELECT membership.xmin, invitation.xmin FROM membership JOIN invitation USING (tenant_id, user_id)"
    before = await world.pool.fetch(written)

    await world.do(addition("t1", ANNA))

    assert await world.pool.fetch(written) == before


@pytest.mark.parametrize("change", [addition, setting])
async def test_a_role_that_was_raised_is_lowered_again(world: World, change: Ask) -> None:
    await world.do(creation("t1", ANNA, BELA))
    await world.set_role("t1", BELA, "TenantUser")
    found = await world.snapshot()

    changed = await world.do(change("t1", ANNA, BELA))
    assert await world.members() == administrators("t1", ANNA, BELA)

    await world.undo(changed)
    assert await world.snapshot() == found


@pytest.mark.parametrize("role", ["SystemAdmin", "CustomerSupport"])
@pytest.mark.parametrize("change", [addition, setting])
async def test_who_has_another_role_keeps_it(world: World, role: str, change: Ask) -> None:
    await world.do(creation("t1", ANNA))
    await world.set_role("t1", ANNA, role)
    found = await world.snapshot()

    await world.do(change("t1", ANNA))

    assert await world.snapshot() == found


@pytest.mark.parametrize("change", [addition, setting])
async def test_an_expired_invitation_is_renewed_and_expired_again_when_that_is_taken_back(
    world: World, change: Ask
) -> None:
    await world.do(creation("t1", ANNA))
    await world.pool.execute("UPDATE invitation SET delivery = 'sent'")
    await world.clock.advance(WEEK.total_seconds())
    found = await world.snapshot()

    changed = await world.do(change("t1", ANNA))

    row = await world.invitation_of("t1", ANNA)
    assert {row["invitation_id"]} == {invitation[0] for invitation in found["invitation"]}
    now = world.clock.now()
    assert (row["created_at"], row["expires_at"], row["delivery"]) == (now, now + WEEK, "pending")
    assert row["token_hash"] not in {column for invitation in found["invitation"] for column in invitation}
    await world.undo(changed)
    assert await world.snapshot() == found


@pytest.mark.parametrize("change", [addition, setting])
async def test_an_invitation_that_was_accepted_is_neither_renewed_nor_taken_back(world: World, change: Ask) -> None:
    await world.do(creation("t1", ANNA))
    await world.accept_invitations()
    await world.do(addition("t1", BELA))
    await world.clock.advance(WEEK.total_seconds())

    changed = await world.do(change("t1", ANNA, BELA))
    await world.accept_invitations()
    left = await world.snapshot()

    await world.undo(changed)
    assert await world.snapshot() == left


async def test_a_member_without_invitation_gets_one_and_loses_it_again(world: World) -> None:
    await world.do(creation("t1", ANNA))
    await world.pool.execute("DELETE FROM invitation")
    found = await world.snapshot()

    added = await world.do(addition("t1", ANNA))
    assert await world.pool.fetchval("SELECT count(*) FROM invitation") == 1
    # What sends the mail replaces the token's hash; the invitation is still the one that was given.
    await world.pool.execute("UPDATE invitation SET delivery = 'sent', token_hash = sha256('another')")

    await world.undo(added)
    assert await world.snapshot() == found


async def test_an_invitation_that_was_not_changed_is_not_changed_back(world: World) -> None:
    await world.do(creation("t1", ANNA))
    await world.set_role("t1", ANNA, "TenantUser")
    added = await world.do(addition("t1", ANNA))
    await world.pool.execute("UPDATE invitation SET delivery = 'sent', token_hash = sha256('another')")
    sent = await world.invitation_of("t1", ANNA)

    await world.undo(added)

    assert await world.members() == {("t1", ANNA, "TenantUser")}
    assert await world.invitation_of("t1", ANNA) == sent


async def test_these_and_no_others_are_administrators_and_plain_users_stay(world: World) -> None:
    await world.do(creation("t1", ANNA, BELA, CLEO))
    await world.do(creation("t2", ANNA, BELA))
    await world.set_role("t1", CLEO, "TenantUser")
    found = await world.snapshot()

    (answer,) = await world.handle(changed := asked(setting("t1", "dora@example.org", BELA)))

    assert isinstance(answer, AdministratorsSet)
    rows = await world.pool.fetch("SELECT user_id, email FROM users")
    emails = {str(row["user_id"]): row["email"] for row in rows}
    assert [emails[user_id] for user_id in answer.user_ids] == ["dora@example.org", BELA]
    assert await world.members() == (
        administrators("t1", "dora@example.org", BELA) | {("t1", CLEO, "TenantUser")} | administrators("t2", ANNA, BELA)
    )
    assert await world.undo(changed) == AdministratorsRestored(tenant_id="t1")
    assert await world.snapshot() == found


async def test_who_is_no_administrator_any_more_is_forgotten_and_comes_back_the_same(world: World) -> None:
    await world.do(creation("t1", "Anna@example.org"))
    await world.accept_invitations()
    found = await world.snapshot()
    await world.clock.advance(60)

    changed = await world.do(setting("t1", BELA))
    assert await world.emails() == {BELA}

    await world.undo(changed)
    assert await world.snapshot() == found


async def test_who_was_forgotten_and_made_anew_elsewhere_is_the_administrator_again(world: World) -> None:
    await world.do(creation("t1", ANNA))
    found = await world.snapshot()
    changed = await world.do(setting("t1", BELA))
    await world.do(creation("t2", "Anna@Example.org"))

    await world.undo(changed)

    spelling = "Anna@Example.org"
    assert await world.members() == administrators("t1", spelling) | administrators("t2", spelling)
    assert await world.emails() == {spelling}
    (before,) = found["invitation"]
    after = await world.invitation_of("t1", spelling)
    assert tuple(after)[:2] + tuple(after)[3:] == before[:2] + before[3:]  # all but the user


async def test_who_has_come_back_as_a_plain_user_is_administrator_again(world: World) -> None:
    await world.do(creation("t1", ANNA))
    changed = await world.do(setting("t1", BELA))
    await world.do(creation("t1", ANNA))
    await world.set_role("t1", ANNA, "TenantUser")
    invitation = await world.invitation_of("t1", ANNA)

    await world.undo(changed)

    assert await world.members() == administrators("t1", ANNA)
    assert await world.invitation_of("t1", ANNA) == invitation


async def test_a_restoration_leaves_what_somebody_else_has_changed_since(world: World) -> None:
    await world.do(creation("t1", ANNA, BELA, CLEO))
    await world.set_role("t1", BELA, "TenantUser")
    await world.set_role("t1", CLEO, "TenantUser")
    changed = await world.do(setting("t1", ANNA, BELA, CLEO))
    await world.set_role("t1", BELA, "CustomerSupport")
    await world.expel("t1", CLEO)

    await world.undo(changed)

    assert await world.members() == {("t1", ANNA, "TenantAdmin"), ("t1", BELA, "CustomerSupport")}


@pytest.mark.parametrize(
    ("change", "refusal", "answer"),
    [
        (addition, AdministratorAdditionRefused, AdministratorsAdded),
        (setting, AdministratorSettingRefused, AdministratorsSet),
    ],
)
async def test_an_ask_that_names_nobody_is_refused_and_stops_no_other(
    world: World,
    change: Ask,
    refusal: type[AdministratorAdditionRefused | AdministratorSettingRefused],
    answer: type[AdministratorsAdded | AdministratorsSet],
) -> None:
    await world.do(creation("t1", ANNA))
    invitation = await world.invitation_of("t1", ANNA)
    refused = asked(change("t1"))

    first, second, third = await world.handle(refused, asked(change("t1", ANNA)), asked(change("t2", BELA)))

    assert isinstance(first, refusal)
    assert first.code == "no_administrators"
    assert isinstance(second, answer)
    assert isinstance(third, answer)
    assert await world.members() == administrators("t1", ANNA) | administrators("t2", BELA)
    assert await world.invitation_of("t1", ANNA) == invitation
    await world.undo(refused)
    assert await world.members() == administrators("t1", ANNA) | administrators("t2", BELA)


@pytest.mark.parametrize("change", [addition, setting])
async def test_an_undo_that_comes_first_keeps_the_change_from_happening(world: World, change: Ask) -> None:
    await world.do(creation("t1", ANNA))
    found = await world.snapshot()
    late = asked(change("t1", BELA))

    assert len(await world.handle(undo_of(late))) == 1
    assert await world.handle(late) == []

    assert await world.snapshot() == found


@pytest.mark.parametrize("change", [addition, setting])
async def test_an_undo_that_is_repeated_spoils_no_later_change(world: World, change: Ask) -> None:
    await world.do(creation("t1", ANNA))
    undone = await world.do(change("t1", BELA))
    await world.undo(undone)
    await world.do(change("t1", BELA))
    left = await world.snapshot()

    assert await world.undo(undone) is not None
    assert len(await world.handle(undo_of(undone), undo_of(undone))) == 2

    assert await world.snapshot() == left


async def test_two_settings_of_one_tenant_in_a_batch_are_undone_one_after_the_other(world: World) -> None:
    await world.do(creation("t1", ANNA))
    found = await world.snapshot()
    first, second = asked(setting("t1", BELA)), asked(setting("t1", ANNA, CLEO))

    await world.handle(first, second)
    assert await world.members() == administrators("t1", ANNA, CLEO)
    assert await world.emails() == {ANNA, CLEO}

    await world.undo(second)
    assert await world.members() == administrators("t1", BELA)
    assert await world.emails() == {BELA}

    await world.undo(first)
    assert await world.snapshot() == found


async def test_a_plain_user_whom_a_later_ask_of_the_batch_names_is_not_dismissed_by_an_earlier_one(
    world: World,
) -> None:
    await world.do(creation("t1", ANNA, BELA))
    await world.set_role("t1", BELA, "TenantUser")
    found = await world.snapshot()
    first, second = asked(setting("t1", ANNA)), asked(setting("t1", BELA))
    await world.handle(first, second)
    assert await world.members() == administrators("t1", BELA)

    await world.undo(second)
    assert await world.snapshot() == found


async def test_one_user_leaves_two_tenants_in_a_batch_and_returns_to_both_in_another(world: World) -> None:
    await world.do(creation("t1", ANNA))
    await world.do(creation("t2", ANNA))
    found = await world.snapshot()
    changes = [asked(setting("t1", BELA)), asked(setting("t2", BELA))]

    await world.handle(*changes)
    assert await world.emails() == {BELA}

    await world.handle(*map(undo_of, changes))
    assert await world.snapshot() == found


async def test_a_restoration_after_the_tenant_was_purged_leaves_no_user_behind(world: World) -> None:
    await world.do(creation("t1", ANNA))
    added = await world.do(addition("t1", BELA))
    await world.do(PurgeUsers(tenant_id="t1"))

    await world.undo(added)

    assert not any((await world.snapshot()).values())


async def test_who_was_forgotten_and_came_in_another_way_stays(world: World) -> None:
    added = await world.do(addition("t1", ANNA))
    await world.do(PurgeUsers(tenant_id="t1"))
    await world.do(creation("t1", ANNA))
    left = await world.snapshot()

    await world.undo(added)

    assert await world.snapshot() == left


async def test_who_returns_is_who_left_not_who_had_the_address_meanwhile(world: World) -> None:
    await world.do(creation("t1", ANNA))
    found = await world.snapshot()
    changed = await world.do(setting("t1", BELA))
    await world.clock.advance(60)
    other = await world.do(setting("t2", "Anna@Example.org"))
    await world.do(PurgeUsers(tenant_id="t2"))

    await world.handle(undo_of(other), undo_of(changed))

    assert await world.snapshot() == found


@pytest.mark.parametrize("seed", range(15))
async def test_whatever_is_done_and_undone_in_turn_is_as_it_was_found(world: World, seed: int) -> None:
    choices = random.Random(seed)
    await world.do(creation("t1", *choices.sample(EVERYBODY, 2)))
    await world.do(creation("t2", *choices.sample(EVERYBODY, 2)))
    await world.set_role("t1", choices.choice(EVERYBODY), "TenantUser")
    for _ in range(8):
        await world.clock.advance(choices.choice([1, WEEK.total_seconds()]))
        found = await world.snapshot()
        emails = choices.sample(EVERYBODY, choices.randint(1, 3))
        changed = await world.do(choices.choice([addition, setting])(choices.choice(["t1", "t2"]), *emails))
        if choices.random() < 0.6:  # else the workflow completes, and nobody undoes what it did
            await world.undo(changed)
            assert await world.snapshot() == found


@pytest.mark.parametrize("seed", range(15))
async def test_tenants_that_share_users_are_restored_in_any_order_to_what_they_were(world: World, seed: int) -> None:
    choices = random.Random(seed)
    tenant_ids = ["t1", "t2", "t3"]
    for tenant_id in tenant_ids:
        await world.do(creation(tenant_id, *choices.sample(EVERYBODY, 2)))
    found = await world.members()
    changed = [
        await world.do(
            choices.choice([addition, setting])(tenant_id, *choices.sample(EVERYBODY, choices.randint(1, 3)))
        )
        for tenant_id in choices.sample(tenant_ids, 3)
    ]

    for each in choices.sample(changed, 3):
        await world.undo(each)

    assert await world.members() == found
    assert await world.pool.fetchval("SELECT count(*) FROM live_record WHERE place = 'users'") == 0


async def test_five_hundred_tenants_take_as_many_statements_as_one(world: World) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    async with transaction(world.pool) as connection:
        await statements_for(connection, world, tenant_ids[:1])  # asyncpg asks once for the types
        for_one = await statements_for(connection, world, tenant_ids[:1])
        for_all = await statements_for(connection, world, tenant_ids)

    assert for_all == for_one
    assert await world.emails() == set()


async def test_a_setting_locks_those_it_dismisses_in_the_order_in_which_everybody_locks_users(world: World) -> None:
    await world.do(creation("t0", BELA))
    await world.do(addition("t0", ANNA))
    async with world.pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await blocker.execute("SELECT FROM users WHERE email = $1 FOR UPDATE", ANNA)
        group.create_task(world.do(creation("t1", ANNA, BELA)))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")
        group.create_task(world.do(setting("t0", BELA)))
        await eventually(lambda: world.has_waiting(2), describe="two wait for a lock")

    assert await world.members() == administrators("t0", BELA) | administrators("t1", ANNA, BELA)


async def test_a_restoration_locks_users_in_the_order_in_which_everybody_does(world: World) -> None:
    await world.do(creation("t0", ANNA))
    changed = await world.do(setting("t0", CLEO, BELA))
    async with world.pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await blocker.execute("SELECT FROM users WHERE email = $1 FOR UPDATE", BELA)
        group.create_task(world.do(creation("t1", BELA, CLEO)))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")
        group.create_task(world.undo(changed))
        await eventually(lambda: world.has_waiting(2), describe="two wait for a lock")

    assert await world.members() == administrators("t0", ANNA) | administrators("t1", BELA, CLEO)


async def test_who_is_dismissed_while_joining_another_tenant_stays_there(world: World) -> None:
    await world.do(creation("t1", ANNA))
    async with asyncio.TaskGroup() as group, transaction(world.pool) as joining:
        await handlers.create_administrators(
            joining, [creation("t2", ANNA)], clock=world.clock, ids=TimeOrderedIds(), invitation_lifetime=WEEK
        )
        group.create_task(world.do(setting("t1", BELA)))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")

    assert await world.members() == administrators("t1", BELA) | administrators("t2", ANNA)


async def test_who_is_gone_before_it_can_be_dismissed_is_not_made_anew(world: World) -> None:
    await world.do(creation("t1", ANNA))
    async with asyncio.TaskGroup() as group, transaction(world.pool) as leaving:
        await handlers.remove_administrators(leaving, [RemoveAdministrators(tenant_id="t1")], clock=world.clock)
        group.create_task(world.do(setting("t1", BELA)))
        await eventually(lambda: world.has_waiting(1), describe="one waits for a lock")

    assert await world.members() == administrators("t1", BELA)
    assert await world.emails() == {BELA}
