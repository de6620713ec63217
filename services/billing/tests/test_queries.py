from decimal import Decimal

import asyncpg
import pytest

from deploy.local.throwaway import FreshDatabases
from services.billing import queries
from services.billing.tests.support import activated, ask, hear, open_accounts
from shared.postgres import Pool


async def test_plans_come_in_pages_by_rank_with_all_their_prices(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await queries.plans(connection, after=0, limit=2)
        rest = await queries.plans(connection, after=first[-1]["rank"], limit=2)

    assert [(row["name"], row["currencies"], row["amounts"]) for row in (*first, *rest)] == [
        ("free", ["EUR", "USD"], [Decimal("0.00"), Decimal("0.00")]),
        ("standard", ["EUR", "USD"], [Decimal("45.00"), Decimal("49.00")]),
        ("premium", ["EUR", "USD"], [Decimal("459.00"), Decimal("499.00")]),
    ]


async def test_amounts_have_the_digits_of_their_currency(fresh_database: FreshDatabases) -> None:
    owner = await asyncpg.connect((await fresh_database.urls("billing")).owner)
    await owner.execute("INSERT INTO currency VALUES ('JPY', 0), ('KWD', 3)")
    await owner.execute("INSERT INTO plan_price VALUES ('free', 'JPY', 7000), ('free', 'KWD', 15.25)")

    rows = await queries.plans(owner, after=0, limit=1)
    await owner.close()

    amounts = dict(zip(rows[0]["currencies"], map(str, rows[0]["amounts"]), strict=True))
    assert amounts == {"EUR": "0.00", "JPY": "7000", "KWD": "15.250", "USD": "0.00"}


async def test_subscriptions_come_in_pages_in_the_order_of_their_creation(pool: Pool) -> None:
    for tenant_id in ("t3", "t1", "t2"):
        await open_accounts(pool, ask(tenant_id))

    async with pool.acquire() as connection:
        first = await queries.subscriptions(connection, after=None, limit=2, tenant_id=None)
        rest = await queries.subscriptions(connection, after=first[-1]["subscription_id"], limit=2, tenant_id=None)
        of_one = await queries.subscriptions(connection, after=None, limit=2, tenant_id="t1")

    assert [row["tenant_id"] for row in (*first, *rest)] == ["t3", "t1", "t2"]
    assert [row["tenant_id"] for row in of_one] == ["t1"]


async def test_an_agreed_amount_outlives_the_price_it_came_from(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await pool.execute("UPDATE plan_price SET amount = 60 WHERE plan = 'standard' AND currency = 'USD'")

    async with pool.acquire() as connection:
        (row,) = await queries.subscriptions(connection, after=None, limit=1, tenant_id="t1")

    assert row["amount"] == Decimal("49.00")


async def test_every_table_in_which_a_tenant_leaves_something_is_audited_for_residue(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))

    tables = await pool.fetch(
        """
        SELECT DISTINCT table_name FROM information_schema.columns JOIN information_schema.tables
            USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name IN ('tenant_id', 'account_id')
        """
    )
    places = await pool.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = 't1'")
    assert {row["place"] for row in places} == {row["table_name"] for row in tables}


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE subscription SET state = 'pending'", asyncpg.CheckViolationError),
        ("UPDATE subscription SET started_at = NULL", asyncpg.CheckViolationError),
        ("UPDATE subscription SET withdrawn_by = activated_by", asyncpg.CheckViolationError),
        ("UPDATE subscription SET amount = -1", asyncpg.CheckViolationError),
        ("UPDATE subscription SET currency = 'JPY'", asyncpg.ForeignKeyViolationError),
        (
            """
            INSERT INTO subscription (subscription_id, account_id, plan, currency, amount)
            SELECT gen_random_uuid(), account_id, 'free', 'USD', 0 FROM account
            """,
            asyncpg.UniqueViolationError,
        ),
        ("UPDATE plan SET currency = 'JPY'", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM plan_price WHERE plan = 'free' AND currency = 'USD'", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO currency VALUES ('usd', 2)", asyncpg.CheckViolationError),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    pool: Pool, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    await open_accounts(pool, ask("t1"))
    await hear(pool, activated("t1"))

    with pytest.raises(error):
        await pool.execute(statement)
