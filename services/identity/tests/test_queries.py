from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from services.identity.invitations import Invitation, Person
from services.identity.queries import invitations, people
from services.identity.queries import members as queries
from services.identity.queries.members import Block
from services.identity.roster import InvitationRecord, Roster
from shared.postgres import Connection, Pool

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEFORE_ALL = UUID(int=0)
ANNA, BELA, CLEO = (
    Person(UUID(int=number), f"{name}@example.org", f"{name}@example.org", NOW)
    for number, name in enumerate(("anna", "bela", "cleo"), start=1)
)


async def invite(connection: Connection, tenant_id: str, *invited: Person) -> None:
    await queries.upsert_users(connection, invited)
    made = [
        Invitation(UUID(int=int(tenant_id) * 100 + person.user_id.int), tenant_id, person.user_id, bytes(32))
        for person in invited
    ]
    await queries.make_administrators(connection, made, now=NOW)
    await queries.invite_administrators(connection, made, now=NOW, expires_at=NOW + timedelta(days=7))


async def test_users_come_in_pages_oldest_first_with_all_their_memberships(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA, CLEO)
        await invite(connection, "2", ANNA)

        first = await people.users(connection, after=BEFORE_ALL, limit=2)
        rest = await people.users(connection, after=BELA.user_id, limit=2)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, BELA.email, CLEO.email]
    assert first[0]["memberships"] == [
        {"tenantId": "1", "role": "TenantAdmin", "blocked": False},
        {"tenantId": "2", "role": "TenantAdmin", "blocked": False},
    ]


async def test_members_of_a_tenant_come_in_pages_and_show_their_other_tenants(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", BELA)
        await invite(connection, "2", CLEO, ANNA)
        await invite(connection, "3", ANNA)

        first = await people.users_of_tenant(connection, "2", after=BEFORE_ALL, limit=1)
        rest = await people.users_of_tenant(connection, "2", after=ANNA.user_id, limit=9)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, CLEO.email]
    assert [membership["tenantId"] for membership in first[0]["memberships"]] == ["2", "3"]


async def test_a_user_is_found_by_its_identity(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)

        found = await people.user(connection, ANNA.user_id)

        assert found is not None
        assert found["email"] == ANNA.email
        assert await people.user(connection, BELA.user_id) is None


async def test_invitations_come_in_pages_oldest_first_and_never_with_the_hash_of_their_token(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA)
        await invite(connection, "2", CLEO)

        first = await invitations.invitations(connection, tenant_id=None, after=BEFORE_ALL, limit=2)
        rest = await invitations.invitations(connection, tenant_id=None, after=first[-1]["invitation_id"], limit=2)

    assert [(row["tenant_id"], row["email"]) for row in (*first, *rest)] == [
        ("1", ANNA.email),
        ("1", BELA.email),
        ("2", CLEO.email),
    ]
    assert "token_hash" not in dict(first[0])


async def test_invitations_into_one_tenant_come_in_pages(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", CLEO)
        await invite(connection, "2", BELA, ANNA)

        first = await invitations.invitations(connection, tenant_id="2", after=BEFORE_ALL, limit=1)
        rest = await invitations.invitations(connection, tenant_id="2", after=first[-1]["invitation_id"], limit=9)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, BELA.email]


async def test_the_administrators_of_the_tenants_that_are_named_come_with_their_tenants(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA)
        await invite(connection, "2", ANNA)
        await invite(connection, "3", CLEO)
        await connection.execute("UPDATE membership SET role = 'TenantUser' WHERE user_id = $1", BELA.user_id)

        found = await queries.administrators(connection, ["1", "2"])

    assert sorted(found) == [("1", ANNA), ("2", ANNA)]


async def test_a_roster_has_users_who_are_no_members_but_nobody_who_is_no_user(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)
        await invite(connection, "2", BELA)
        keys = [(tenant_id, person.user_id) for tenant_id in ("1", "2") for person in (ANNA, CLEO)]

        rows = await queries.roster(connection, keys)

    assert {(row["tenant_id"], row["email"], row["role"]) for row in rows} == {
        ("1", ANNA.email, "TenantAdmin"),
        ("2", ANNA.email, None),
    }


async def test_what_was_read_into_a_roster_is_written_exactly_as_it_was(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)
        await connection.execute(
            "UPDATE invitation SET delivery = 'failed', accepted_at = now(), customer_name = 'Acme', attempts = 3, "
            "invited_by = 'user:1', next_attempt_at = now()"
        )
        await connection.execute("UPDATE users SET name = 'Anna'")
        found = await connection.fetch("SELECT * FROM invitation JOIN membership USING (tenant_id, user_id)")
        key = ("1", ANNA.user_id)
        read = Roster.of(await queries.roster(connection, [key]))
        await queries.withdraw_invitations(connection, [key])
        await queries.end_memberships(connection, [key])
        assert await connection.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = '1'") == 0

        await queries.put_memberships(connection, read.found)
        await queries.put_invitations(
            connection, {key: member.invitation for key, member in read.found.items() if member.invitation}
        )

        assert await connection.fetch("SELECT * FROM invitation JOIN membership USING (tenant_id, user_id)") == found


async def test_an_invitation_is_replaced_in_every_column(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)
        days = [NOW + timedelta(days=number) for number in (1, 9, 2)]
        made, until, accepted = days
        later = NOW + timedelta(days=4)
        record = InvitationRecord(
            UUID(int=7), "TenantUser", "ff" * 32, "sent", made, until, accepted, "Acme", "user:1", 3, later
        )

        await queries.put_invitations(connection, {("1", ANNA.user_id): record})

        row = await connection.fetchrow("SELECT * FROM invitation")
    assert row is not None
    assert tuple(row) == (
        UUID(int=7),
        "1",
        ANNA.user_id,
        "TenantUser",
        bytes([255] * 32),
        "sent",
        *days,
        "Acme",
        "user:1",
        3,
        later,
    )


async def test_a_tenant_is_blocked_once_and_its_block_is_ended_once(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await queries.block_tenants(connection, {"1": Block("first", NOW)}) == {"1"}
        assert await queries.block_tenants(
            connection, {"2": Block(None, NOW), "1": Block("second", NOW + timedelta(days=1))}
        ) == {"2"}

        assert await queries.unblock_tenants(connection, ["1", "1", "0"]) == {"1": Block("first", NOW)}
        assert await queries.unblock_tenants(connection, ["1", "2"]) == {"2": Block(None, NOW)}


async def test_every_table_that_knows_a_tenant_is_audited_for_residue(pool: Pool) -> None:
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.columns JOIN information_schema.tables "
        "USING (table_schema, table_name) "
        "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'tenant_id'"
    )
    view = await pool.fetchval("SELECT pg_get_viewdef('live_record'::regclass)")

    # Those of the kernel are audited in every service alike: see deploy/audit.py.
    own = {row["table_name"] for row in tables if not row["table_name"].startswith("access_")}
    assert {table for table in own if f"'{table}'::text AS place" in view or f"'{table}'::text" in view} == own
    assert {"membership", "session", "api_key", "tenant_block"} <= own


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE users SET email_key = ''", asyncpg.CheckViolationError),
        ("UPDATE users SET email_key = 'x'", asyncpg.UniqueViolationError),
        ("UPDATE membership SET role = 'King'", asyncpg.CheckViolationError),
        ("UPDATE invitation SET role = 'King'", asyncpg.CheckViolationError),
        ("UPDATE invitation SET token_hash = '\\x00'", asyncpg.CheckViolationError),
        ("UPDATE invitation SET delivery = 'lost'", asyncpg.CheckViolationError),
        ("UPDATE invitation SET expires_at = created_at", asyncpg.CheckViolationError),
        ("DELETE FROM membership", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM users", asyncpg.ForeignKeyViolationError),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    pool: Pool, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA)

        with pytest.raises(error):
            await connection.execute(statement)
