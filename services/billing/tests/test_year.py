"""A year of many tenants in the real service, against what the plans say; `TENURE_YEAR_TENANTS` says how many."""

import os
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from deploy.local.throwaway import FreshDatabases
from services.billing.statement import Account
from services.billing.tests.oracle import active_days, charged_days, owed
from services.billing.tests.year import Tenant, Year
from shared.postgres import Pool, open_pool

_COUNT = int(os.environ.get("TENURE_YEAR_TENANTS", "20"))
_SEED = int(os.environ.get("TENURE_YEAR_SEED", "1"))


async def totals(pool: Pool) -> Mapping[str, Fraction]:
    """Return what all invoices of each tenant come to."""
    rows = await pool.fetch("SELECT tenant_id, sum(total) AS total FROM invoice GROUP BY tenant_id")
    return {row["tenant_id"]: Fraction(row["total"]) for row in rows}


async def billed_days(pool: Pool) -> Mapping[tuple[str, str], int]:
    """Return how many days each tenant was billed of each product, by plans that charge days."""
    rows = await pool.fetch(
        """
        SELECT tenant_id, split_part(item_key, ':', 2) AS product, sum(quantity) AS days
        FROM invoice_line JOIN invoice USING (invoice_id)
        WHERE item_key LIKE 'base:%' AND item_key NOT LIKE 'base:%:flow.v%' GROUP BY 1, 2
        """
    )
    return {(row["tenant_id"], row["product"]): int(row["days"]) for row in rows}


async def content(pool: Pool) -> list[tuple[Any, ...]]:
    """Return every row of every invoice and line."""
    rows = await pool.fetch("SELECT * FROM invoice JOIN invoice_line USING (invoice_id) ORDER BY 1, position")
    return [tuple(row) for row in rows]


async def gaps(pool: Pool) -> list[int]:
    """Return the numbers that no invoice has."""
    rows = await pool.fetch(
        """
        SELECT number FROM generate_series(1, (SELECT last FROM invoice_series WHERE name = 'invoice')) AS number
        WHERE number NOT IN (SELECT number FROM invoice WHERE number IS NOT NULL)
        """
    )
    return [row["number"] for row in rows]


async def books(pool: Pool) -> list[tuple[str, Any, Any]]:
    """Return of whom what was invoiced is not what was paid and is still due, less the credit that is left."""
    rows = await pool.fetch(
        """
        SELECT tenant_id, invoiced.total,
               coalesce(paid.amount, 0) + coalesce(owed.due, 0) - coalesce(left_over.credit, 0)
        FROM (SELECT tenant_id, sum(total) AS total FROM invoice WHERE state = 'final' GROUP BY tenant_id) AS invoiced
        LEFT JOIN (SELECT tenant_id, sum(amount) AS amount FROM payment GROUP BY tenant_id) AS paid USING (tenant_id)
        LEFT JOIN (SELECT tenant_id, sum(due) AS due FROM receivable GROUP BY tenant_id) AS owed USING (tenant_id)
        LEFT JOIN (SELECT tenant_id, sum(credit) AS credit FROM balance GROUP BY tenant_id) AS left_over
            USING (tenant_id)
        """
    )
    return [tuple(row) for row in rows if row[1] != row[2]]


def over(tenant: Tenant) -> Account:
    """Return a tenant's account as if all were over when its last invoice was closed."""
    end = tenant.closes_at
    stretches = [replace(each, ended_at=each.ended_at or end) for each in tenant.account.stretches]
    return replace(tenant.account, stretches=stretches, is_closed=True)


@pytest.mark.timeout(max(600, 3 * _COUNT))
async def test_all_invoices_of_a_year_say_what_is_owed_and_come_out_the_same_again(
    fresh_database: FreshDatabases,
) -> None:
    contents = []
    for _ in range(2):
        pool = await open_pool(await fresh_database("billing"))
        try:
            year = Year(pool, count=_COUNT, seed=_SEED)
            await year.run()
            contents.append(await content(pool))
            billed, days, missing = await totals(pool), await billed_days(pool), await gaps(pool)
            wrong = await books(pool)
            taken = await pool.fetchval("SELECT sum(amount) FROM payment WHERE provider = 'purses'")
        finally:
            await pool.close()

    assert contents[0] == contents[1]
    assert missing == []
    assert wrong == []
    assert taken == sum(each.amount for each in year.payers.provider.paid.values())
    assert year.refused, year.payers.told
    assert {"failed", "past_due", "suspension", "termination", "clear"} <= year.payers.told.keys()
    expected = {each.tenant_id: owed(each.account, each.usage(), closes_at=each.closes_at) for each in year.tenants}
    assert {tenant_id: total for tenant_id, total in expected.items() if total != billed.get(tenant_id, 0)} == {}
    for tenant in year.tenants:
        for product in {each.product for each in tenant.account.stretches}:
            active = active_days(over(tenant), product)
            charged = charged_days(over(tenant), product, closes_at=tenant.closes_at)
            assert charged <= active
            if tenant.closed_at is not None:
                assert days.get((tenant.tenant_id, product), 0) <= charged
