from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from services.identity import queries
from services.identity.invitations import Invitation, Person
from shared.postgres import Connection, Pool

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEFORE_ALL = UUID(int=0)
ANNA, BELA, CLEO = (
    Person(UUID(int=number), f"{name}@example.org", f"{name}@example.org")
    for number, name in enumerate(("anna", "bela", "cleo"), start=1)
)


async def invite(connection: Connection, tenant_id: str, *people: Person) -> None:
    await queries.upsert_users(connection, people, now=NOW)
    invitations = [
        Invitation(UUID(int=int(tenant_id) * 100 + person.user_id.int), tenant_id, person.user_id, bytes(32))
        for person in people
    ]
    await queries.make_administrators(connection, invitations, now=NOW)
    await queries.invite_administrators(connection, invitations, now=NOW, expires_at=NOW + timedelta(days=7))


async def test_users_come_in_pages_oldest_first_with_all_their_memberships(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA, CLEO)
        await invite(connection, "2", ANNA)

        first = await queries.users(connection, after=BEFORE_ALL, limit=2)
        rest = await queries.users(connection, after=BELA.user_id, limit=2)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, BELA.email, CLEO.email]
    assert first[0]["memberships"] == [
        {"tenantId": "1", "role": "TenantAdmin"},
        {"tenantId": "2", "role": "TenantAdmin"},
    ]


async def test_members_of_a_tenant_come_in_pages_and_show_their_other_tenants(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", BELA)
        await invite(connection, "2", CLEO, ANNA)
        await invite(connection, "3", ANNA)

        first = await queries.users_of_tenant(connection, "2", after=BEFORE_ALL, limit=1)
        rest = await queries.users_of_tenant(connection, "2", after=ANNA.user_id, limit=9)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, CLEO.email]
    assert [membership["tenantId"] for membership in first[0]["memberships"]] == ["2", "3"]


async def test_a_user_is_found_by_its_identity(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)

        found = await queries.user(connection, ANNA.user_id)

        assert found is not None
        assert found["email"] == ANNA.email
        assert await queries.user(connection, BELA.user_id) is None


async def test_invitations_come_in_pages_oldest_first_and_never_with_the_hash_of_their_token(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA, BELA)
        await invite(connection, "2", CLEO)

        first = await queries.invitations(connection, after=BEFORE_ALL, limit=2)
        rest = await queries.invitations(connection, after=first[-1]["invitation_id"], limit=2)

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

        first = await queries.invitations_of_tenant(connection, "2", after=BEFORE_ALL, limit=1)
        rest = await queries.invitations_of_tenant(connection, "2", after=first[-1]["invitation_id"], limit=9)

    assert [row["email"] for row in (*first, *rest)] == [ANNA.email, BELA.email]


async def test_every_table_that_knows_a_tenant_is_audited_for_residue(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await invite(connection, "1", ANNA)
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns JOIN information_schema.tables "
            "USING (table_schema, table_name) "
            "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'tenant_id'"
        )
        places = await connection.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = '1'")

    assert {row["place"] for row in places} == {row["table_name"] for row in tables}


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
