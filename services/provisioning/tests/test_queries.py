import asyncpg
import pytest

from services.provisioning.queries import environments, jobs
from services.provisioning.tests.support import ask
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import ThrottleEnvironment
from shared.testing.three_services import asked


async def test_environments_come_in_pages_in_the_order_of_their_creation(world: PostgresWorld) -> None:
    for tenant_id in ("t3", "t1", "t2"):
        await world.provision(tenant_id)

    async with world.pool.acquire() as connection:
        first = await environments.page(connection, after=None, limit=2, tenant_id=None)
        rest = await environments.page(connection, after=first[-1]["environment_id"], limit=2, tenant_id=None)
        of_one = await environments.page(connection, after=None, limit=2, tenant_id="t1")

    assert [row["tenant_id"] for row in (*first, *rest)] == ["t3", "t1", "t2"]
    assert [row["tenant_id"] for row in of_one] == ["t1"]


async def test_jobs_come_in_pages_in_the_order_in_which_they_were_asked_for(world: PostgresWorld) -> None:
    await world.take(*(asked(ask(tenant_id)) for tenant_id in ("t3", "t1", "t2")))

    async with world.pool.acquire() as connection:
        first = await jobs.page(connection, after=None, limit=2, tenant_id=None)
        rest = await jobs.page(connection, after=first[-1]["job_id"], limit=2, tenant_id=None)
        of_one = await jobs.page(connection, after=None, limit=2, tenant_id="t1")

    assert [row["tenant_id"] for row in (*first, *rest)] == ["t3", "t1", "t2"]
    assert [row["tenant_id"] for row in of_one] == ["t1"]


async def test_every_table_that_knows_a_tenant_is_audited_for_residue(world: PostgresWorld) -> None:
    await world.provision("a", products=[{"name": "notes", "version": "1.0"}])
    await world.do(ThrottleEnvironment(tenant_id="a"))
    await world.pool.execute("INSERT INTO mail_sending (tenant_id) VALUES ('a')")
    await world.pool.execute("INSERT INTO mail_count VALUES ('a', '2026-01-01 00:00Z', 'send', 1, 1)")

    tables = await world.pool.fetch(
        """
        SELECT table_name FROM information_schema.columns JOIN information_schema.tables
            USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'tenant_id'
        """
    )
    places = await world.pool.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = 'a'")
    meant_to_stay = {
        "export",
        "access_tenant",
        "access_api_key",
    }  # until their time, see `shared.access.replica.forget`
    assert {row["place"] for row in places} | meant_to_stay == {row["table_name"] for row in tables}


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE environment SET state = 'nearly'", asyncpg.CheckViolationError),
        ("UPDATE environment SET isolation = 'castle'", asyncpg.CheckViolationError),
        ("UPDATE environment SET status = 'nearly'", asyncpg.CheckViolationError),
        ("UPDATE job SET state = 'nearly'", asyncpg.CheckViolationError),
        ("UPDATE job SET due_at = now()", asyncpg.CheckViolationError),
        ("UPDATE job SET failure = '{}'", asyncpg.CheckViolationError),
        ("UPDATE job SET operation = 'dance'", asyncpg.CheckViolationError),
        ("UPDATE environment SET connections = 0", asyncpg.CheckViolationError),
        ("UPDATE environment SET throttled_at = NULL, throttle_reason = 'open'", asyncpg.CheckViolationError),
        ("INSERT INTO export_chunk VALUES (gen_random_uuid(), 0, 'x')", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO export_chunk VALUES (gen_random_uuid(), 0, '')", asyncpg.CheckViolationError),
        (
            "INSERT INTO export_chunk VALUES (gen_random_uuid(), 0, convert_to(repeat('x', 1048577), 'UTF8'))",
            asyncpg.CheckViolationError,
        ),
        (
            "INSERT INTO export VALUES (gen_random_uuid(), 'a', now(), now(), '{}', 1, 'not a hash')",
            asyncpg.CheckViolationError,
        ),
        ("INSERT INTO deployment VALUES ('b', 'notes', '1.0')", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO mail_sending (tenant_id) VALUES ('b')", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO mail_sending (tenant_id, paused_at) VALUES ('a', now())", asyncpg.CheckViolationError),
        ("INSERT INTO mail_sending (tenant_id, claimed_until) VALUES ('a', now())", asyncpg.CheckViolationError),
        ("INSERT INTO mail_count VALUES ('a', '2026-01-01 00:00Z', 'send', 1, 1)", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO mail_count VALUES ('a', '2026-01-01 00:01Z', 'send', 1, 1)", asyncpg.CheckViolationError),
        ("INSERT INTO mail_count VALUES ('a', '2026-01-01 00:00Z', 'send', 1, 2)", asyncpg.CheckViolationError),
        ("INSERT INTO mail_oddity VALUES ('2026-01-01 00:01Z', 'stranger', 1)", asyncpg.CheckViolationError),
        ("SELECT keep_mail_days('2026-01-01', '2027-01-01')", asyncpg.RaiseError),
        (
            """
            INSERT INTO environment (environment_id, tenant_id, isolation, region, created_at)
            VALUES (gen_random_uuid(), 'a', 'pool', 'local', now())
            """,
            asyncpg.UniqueViolationError,
        ),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    world: PostgresWorld, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    await world.provision("a")
    await world.do(ThrottleEnvironment(tenant_id="a"))

    with pytest.raises(error):
        await world.pool.execute(statement)
