from decimal import Decimal

import asyncpg
import pytest

from deploy.local.throwaway import FreshDatabases
from services.billing import queries
from services.billing.tests.support import (
    NOON,
    ask,
    charged_tenants,
    do_all,
    do_it,
    licences,
    on,
    open_accounts,
    open_active,
    purge,
    residue,
)
from shared.contracts.billing import ChangePlan, CloseAccount, PauseBilling, ResumeBilling
from shared.postgres import Pool


async def test_plans_come_in_pages_by_rank_with_all_their_prices(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await queries.catalog.plans(connection, after=0, limit=2, now=NOON)
        rest = await queries.catalog.plans(connection, after=first[-1]["rank"], limit=2, now=NOON)

    assert [(row["name"], row["currencies"], row["amounts"]) for row in (*first, *rest)] == [
        ("free", ["EUR", "USD"], [Decimal("0.00"), Decimal("0.00")]),
        ("standard", ["EUR", "USD"], [Decimal("45.00"), Decimal("49.00")]),
        ("premium", ["EUR", "USD"], [Decimal("459.00"), Decimal("499.00")]),
    ]


async def test_amounts_have_the_digits_of_their_currency(fresh_database: FreshDatabases) -> None:
    owner = await asyncpg.connect((await fresh_database.urls("billing")).owner)
    await owner.execute("INSERT INTO currency VALUES ('JPY', 0), ('KWD', 3)")
    await owner.execute("INSERT INTO plan_version_price VALUES ('free', 1, 'JPY', 7000), ('free', 1, 'KWD', 15.25)")

    rows = await queries.catalog.plans(owner, after=0, limit=1, now=NOON)
    await owner.close()

    amounts = dict(zip(rows[0]["currencies"], map(str, rows[0]["amounts"]), strict=True))
    assert amounts == {"EUR": "0.00", "JPY": "7000", "KWD": "15.250", "USD": "0.00"}


async def test_subscriptions_come_in_pages_in_the_order_of_their_creation(pool: Pool) -> None:
    for tenant_id in ("t3", "t1", "t2"):
        await open_accounts(pool, ask(tenant_id))

    async with pool.acquire() as connection:
        first = await queries.subscriptions.page(connection, after=None, limit=2, tenant_id=None)
        rest = await queries.subscriptions.page(connection, after=first[-1]["subscription_id"], limit=2, tenant_id=None)
        of_one = await queries.subscriptions.page(connection, after=None, limit=2, tenant_id="t1")

    assert [row["tenant_id"] for row in (*first, *rest)] == ["t3", "t1", "t2"]
    assert [row["tenant_id"] for row in of_one] == ["t1"]


async def test_an_agreed_amount_outlives_the_price_it_came_from(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await pool.execute("UPDATE plan_version_price SET amount = 60 WHERE plan = 'standard' AND currency = 'USD'")

    async with pool.acquire() as connection:
        (row,) = await queries.subscriptions.page(connection, after=None, limit=1, tenant_id="t1")

    assert row["amount"] == Decimal("49.00")


async def test_every_table_in_which_a_tenant_leaves_something_is_audited_for_residue(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[{"product": "chess", "plan": "free"}])
    await do_it(pool, CloseAccount(tenant_id="t1"), at=on(5))
    await pool.execute("INSERT INTO usage_report VALUES ('t1', $1, $2, '{}', $2)", on(1), on(2))
    await pool.execute("INSERT INTO spending_limit (tenant_id, amount, action) VALUES ('t1', 1, 'alert')")
    assert ("t1", "licence") in await residue(pool)

    tables = await pool.fetch(
        """
        SELECT DISTINCT table_name FROM information_schema.columns JOIN information_schema.tables
            USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
          AND column_name IN ('tenant_id', 'account_id', 'subscription_id')
        """
    )
    places = await pool.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = 't1' AND place <> 'licence'")
    forgotten_in_time = {"access_tenant", "access_api_key"}  # see `shared.access.replica.forget`
    kept = {"debtor", "balance", "receivable", "payment", "credit_note", "credit_entry"}  # as issued invoices are
    kept |= {"bill", "provider_customer", "payment_drift"}
    assert {row["place"] for row in places} | forgotten_in_time | kept == {row["table_name"] for row in tables}


async def test_an_issued_invoice_is_no_residue_and_a_draft_is(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await do_it(pool, CloseAccount(tenant_id="t1"))
    assert await residue(pool) == [("t1", "account"), ("t1", "invoice"), ("t1", "subscription")]

    await purge(pool, "t1")

    assert await residue(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM invoice") == 1


async def test_the_tenants_that_are_charged_at_this_moment_are_known(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await open_active(pool, "t2", "t3", "t4", "t5")
    await do_all(pool, *(PauseBilling(tenant_id=tenant_id) for tenant_id in ("t3", "t4")), at=on(5))
    await do_it(pool, ResumeBilling(tenant_id="t4"), at=on(6))
    await do_it(pool, CloseAccount(tenant_id="t5"), at=on(6))

    assert await charged_tenants(pool) == ["t2", "t4"]


async def test_a_tenant_that_is_charged_for_several_things_is_charged_once(pool: Pool) -> None:
    chess = [{"product": "chess", "plan": "free"}]
    await open_active(pool, "t1", "t2", licences=chess)
    await open_accounts(pool, ask("t3", licences=chess))
    await do_it(pool, PauseBilling(tenant_id="t2"), at=on(5))

    assert await charged_tenants(pool) == ["t1"]


async def stated(pool: Pool, tenant_id: str = "t1") -> dict[str, str]:
    """Return what the residue audit compares with what others state."""
    rows = await pool.fetch("SELECT fact, value FROM audited_fact WHERE tenant_id = $1", tenant_id)
    assert len({row["fact"] for row in rows}) == len(rows)
    return {row["fact"]: row["value"] for row in rows}


async def test_what_a_tenant_is_charged_for_is_stated_for_the_audit(pool: Pool) -> None:
    await open_accounts(pool, ask("t2"))
    await open_active(pool, "t1", licences=[{"product": "chess", "plan": "premium"}])
    await do_it(pool, licences("t1", chess="premium", go="free"), at=on(5))
    assert await stated(pool, "t2") == {"plan": "standard", "charged": "false"}
    assert await stated(pool) == {
        "plan": "standard",
        "charged": "true",
        "licence:chess": "premium",
        "licence:go": "free",
    }

    await do_it(pool, licences("t1", go="free"), at=on(6))
    assert await stated(pool) == {"plan": "standard", "charged": "true", "licence:go": "free"}

    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(7))
    assert await stated(pool) == {"plan": "standard", "charged": "false", "licence:go": "free"}

    await pool.execute("UPDATE subscription SET state = 'active' WHERE product = 'go'")
    assert (await stated(pool))["charged"] == "partly"


async def test_invoices_come_in_pages_in_the_order_in_which_they_close(pool: Pool) -> None:
    for day, tenant_id in enumerate(("t3", "t1", "t2"), start=5):
        await open_active(pool, tenant_id)
        await do_it(pool, CloseAccount(tenant_id=tenant_id), at=on(day))

    async with pool.acquire() as connection:
        first = await queries.invoices.page(connection, after=None, limit=2, tenant_id=None)
        rest = await queries.invoices.page(connection, after=first[-1]["invoice_id"], limit=2, tenant_id=None)
        of_one = await queries.invoices.page(connection, after=None, limit=2, tenant_id="t1")

    assert [row["tenant_id"] for row in (*first, *rest)] == ["t3", "t1", "t2"]
    assert [row["tenant_id"] for row in of_one] == ["t1"]


async def test_an_issued_invoice_can_neither_be_changed_nor_deleted(pool: Pool) -> None:
    await open_active(pool, "t1", "t2")
    await do_all(pool, CloseAccount(tenant_id="t1"), CloseAccount(tenant_id="t2"), at=on(5))
    await purge(pool, "t1", at=on(6))
    issued = await pool.fetchval("SELECT invoice_id FROM invoice WHERE state = 'final'")

    for statement in (
        "UPDATE invoice SET total = 0 WHERE invoice_id = $1",
        "UPDATE invoice SET state = 'draft', issued_at = NULL WHERE invoice_id = $1",
        "DELETE FROM invoice WHERE invoice_id = $1",
        "UPDATE invoice_line SET amount = 0 WHERE invoice_id = $1",
        "DELETE FROM invoice_line WHERE invoice_id = $1",
        "INSERT INTO invoice_line VALUES ($1, 9, 'late', 1, 1)",
        "UPDATE invoice_line SET invoice_id = $1, position = 9 WHERE invoice_id <> $1",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="is issued"):
            await pool.execute(statement, issued)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE subscription SET state = 'pending'", asyncpg.CheckViolationError),
        ("UPDATE subscription SET started_at = NULL", asyncpg.CheckViolationError),
        ("UPDATE subscription SET withdrawn_by = activated_by", asyncpg.CheckViolationError),
        ("UPDATE subscription SET amount = -1", asyncpg.CheckViolationError),
        ("UPDATE subscription SET currency = 'JPY'", asyncpg.ForeignKeyViolationError),
        ("UPDATE subscription SET state = 'paused', started_at = NULL", asyncpg.CheckViolationError),
        ("UPDATE subscription SET state = 'asleep'", asyncpg.CheckViolationError),
        ("UPDATE charged_period SET ended_at = started_at", asyncpg.CheckViolationError),
        ("UPDATE charged_period SET ended_at = '2026-03-09'", asyncpg.ExclusionViolationError),
        ("UPDATE charged_period SET started_at = '2026-03-01 12:00+00'", asyncpg.UniqueViolationError),
        ("UPDATE charged_period SET amount = -1", asyncpg.CheckViolationError),
        ("UPDATE invoice SET state = 'final'", asyncpg.CheckViolationError),
        ("UPDATE invoice SET issued_at = drafted_at", asyncpg.CheckViolationError),
        ("UPDATE invoice SET currency = 'JPY'", asyncpg.ForeignKeyViolationError),
        (
            """
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, currency, total, drafted_at)
            SELECT gen_random_uuid(), tenant_id, customer_name, currency, total, drafted_at FROM invoice
            """,
            asyncpg.UniqueViolationError,
        ),
        (
            """
            INSERT INTO subscription (subscription_id, account_id, plan, currency, amount)
            SELECT gen_random_uuid(), account_id, 'free', 'USD', 0 FROM account
            """,
            asyncpg.UniqueViolationError,
        ),
        (
            """
            INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount)
            SELECT gen_random_uuid(), account_id, 'chess', 'free', 'USD', 0
            FROM account CROSS JOIN generate_series(1, 2)
            """,
            asyncpg.UniqueViolationError,
        ),
        ("UPDATE subscription SET product = 'Chess'", asyncpg.CheckViolationError),
        ("UPDATE plan SET currency = 'JPY'", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM plan_price WHERE plan = 'free' AND currency = 'USD'", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO currency VALUES ('usd', 2)", asyncpg.CheckViolationError),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    pool: Pool, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    await open_active(pool, "t1")
    await open_accounts(pool, ask("t2"))
    await do_it(pool, ChangePlan(tenant_id="t1", plan="free"), at=on(5))
    await do_it(pool, ChangePlan(tenant_id="t1", plan="premium"), at=on(7))
    await do_it(pool, CloseAccount(tenant_id="t2"))

    with pytest.raises(error):
        await pool.execute(statement)
