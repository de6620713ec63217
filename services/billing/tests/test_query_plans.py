"""How the database finds what is asked for where there are many accounts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from deploy.local.throwaway import FreshDatabases
from services.billing import queries
from services.billing.tests.support import NOON, activated, ask, deactivated, on
from shared.postgres import Connection, use_json

OPENING: dict[str, Any] = ask("new", licences=[{"product": "chess", "plan": "free"}]).model_dump()
IDENTITIES = {"account_id": UUID(int=1), "subscription_id": UUID(int=2)}
LICENCES = [each | {"subscription_id": UUID(int=3)} for each in OPENING["licences"]]
TENANTS = ["t1", "t2"]
WINDOWS = dict.fromkeys(TENANTS, on(1, month=1))
REPORT = {"tenant_id": "t1", "since": on(1), "until": on(2), "quantities": {}, "stated_at": NOON}
SCHEDULE = {"tenant_id": "t1", "closes_at": NOON, "usage_wanted_at": None, "look_at": NOON}

HOT: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "open_accounts": lambda connection: queries.accounts.open_accounts(
        connection, [OPENING | IDENTITIES | {"licences": LICENCES}], now=NOON
    ),
    "prices": lambda connection: queries.catalog.prices(connection, ["standard", "p7"], now=NOON),
    "versions": lambda connection: queries.catalog.versions(connection, ["standard", "p7"]),
    "plans": lambda connection: queries.catalog.plans(connection, after=7, limit=50, now=NOON),
    "lock_subscriptions": lambda connection: queries.subscriptions.lock(connection, TENANTS),
    "standing_subscriptions": lambda connection: queries.subscriptions.standing(connection, TENANTS),
    "start_subscriptions": lambda connection: queries.subscriptions.start(connection, [activated("t1")]),
    "withdraw_subscriptions": lambda connection: queries.subscriptions.withdraw(connection, [deactivated("t1")]),
    "charged_periods": lambda connection: queries.subscriptions.charged_periods(connection, [UUID(int=1), UUID(int=2)]),
    "remove_licences": lambda connection: queries.subscriptions.remove_licences(connection, [UUID(int=1), UUID(int=2)]),
    "void_accounts": lambda connection: queries.accounts.void(connection, TENANTS),
    "purge_accounts": lambda connection: queries.accounts.purge(connection, TENANTS, now=NOON),
    "due_accounts": lambda connection: queries.invoicing.due(connection, now=NOON, limit=500),
    "stuck_accounts": queries.invoicing.stuck,
    "lock_due_accounts": lambda connection: queries.invoicing.lock_due(connection, TENANTS, now=NOON),
    "stretches": lambda connection: queries.invoicing.stretches(connection, TENANTS),
    "billed": lambda connection: queries.invoicing.billed(connection, WINDOWS),
    "usage_reports": lambda connection: queries.usage.reports(connection, WINDOWS),
    "keep_usage_reports": lambda connection: queries.usage.keep(connection, [REPORT]),
    "issue_invoices": lambda connection: queries.invoices.issue(connection, {UUID(int=1): 1}, now=NOON),
    "reschedule_accounts": lambda connection: queries.invoicing.reschedule(connection, [SCHEDULE]),
    "look_again": lambda connection: queries.invoicing.look_again(connection, TENANTS),
    "begin_again": lambda connection: queries.invoicing.begin_again(connection, TENANTS),
    "want_usage": lambda connection: queries.invoicing.want_usage(connection, TENANTS, now=NOON),
    "park_account": lambda connection: queries.invoicing.park(connection, "t1", now=NOON, until=NOON),
    "settle_revenue": lambda connection: queries.revenue.settle(connection, TENANTS),
    "end_revenue": lambda connection: queries.revenue.end(connection, TENANTS),
    "subscriptions": lambda connection: queries.subscriptions.page(connection, after=None, limit=50, tenant_id="t1"),
}
CATALOG = ("prices", "versions", "plans")
"""What reads of the catalog as much as it is asked for; whoever opens accounts joins it as a whole."""


@pytest.fixture
async def many_accounts(fresh_database: FreshDatabases) -> AsyncIterator[Connection]:
    """A connection to full tables whose statistics are fresh, which takes the owner's rights."""
    urls = await fresh_database.urls("billing")
    connection = await asyncpg.connect(urls.owner)
    await use_json(connection)
    await connection.execute(
        """
        INSERT INTO plan (name, rank, interval, currency)
        SELECT 'p' || number, number + 10, 'month', 'USD' FROM generate_series(1, 2000) AS number;
        INSERT INTO plan_price (plan, currency, amount) SELECT name, 'USD', 1 FROM plan ON CONFLICT DO NOTHING;
        INSERT INTO plan_version (plan, version, pays, starts_at)
        SELECT name, version, 'arrears', '-infinity' FROM plan CROSS JOIN generate_series(2, 5) AS version;
        INSERT INTO plan_version_price (plan, version, currency, amount)
        SELECT plan, version, 'USD', 1 FROM plan_version ON CONFLICT DO NOTHING;
        INSERT INTO plan_charge (plan, version, currency, meter, price)
        SELECT plan, version, 'USD', 'calls', '{"model": "flat", "flatAmount": "1"}' FROM plan_version;
        INSERT INTO account (account_id, tenant_id, customer_name, currency, opened_at)
        SELECT gen_random_uuid(), 't' || number, 'Customer t' || number, 'USD', now()
        FROM generate_series(1, 20000) AS number;
        INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount, state, started_at)
        SELECT gen_random_uuid(), account_id, product, 'standard', 'USD', 49, 'active', now()
        FROM account CROSS JOIN unnest('{"", chess}'::text[]) AS product;
        INSERT INTO charged_period (subscription_id, plan, currency, amount, started_at, ended_at)
        SELECT subscription_id, plan, currency, amount, now() - interval '1 day', now() FROM subscription;
        UPDATE account SET look_at = '2027-01-01', closes_at = '2027-01-01';
        INSERT INTO usage_report (tenant_id, since, until, quantities, stated_at)
        SELECT tenant_id, month, month + interval '1 month', '{}', now()
        FROM account CROSS JOIN generate_series('2026-01-01'::timestamptz, '2026-02-01', '1 month') AS month;
        ALTER TABLE invoice_line DISABLE TRIGGER USER;
        INSERT INTO invoice (invoice_id, tenant_id, customer_name, currency, state, total, drafted_at, issued_at,
                             number, kind, closes_at)
        SELECT gen_random_uuid(), tenant_id, customer_name, 'USD', 'final', 49, now(), now(),
               row_number() OVER (), 'periodic', month
        FROM account CROSS JOIN generate_series('2026-01-01'::timestamptz, '2026-03-01', '1 month') AS month;
        INSERT INTO invoice_line (invoice_id, position, item_key, description, quantity, amount, since, until)
        SELECT invoice_id, 1, 'key', 'line', 1, 49, closes_at, closes_at FROM invoice;
        ANALYZE;
        """
    )
    yield connection
    await connection.close()


async def plan_of(connection: Connection, statement: Callable[[Connection], Awaitable[Any]]) -> str:
    """Run the statement of a query and take it back; return how it is run. Others may come before it, about types."""
    sent: list[LoggedQuery] = []
    attempt = connection.transaction()
    await attempt.start()
    with connection.query_logger(sent.append):
        await statement(connection)
    await attempt.rollback()  # meanwhile the logger is called, in the loop's next turn
    return "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + sent[-1].query, *sent[-1].args))


async def test_no_statement_reads_a_whole_table(many_accounts: Connection) -> None:
    plans = {name: await plan_of(many_accounts, statement) for name, statement in HOT.items()}

    full = ["Seq Scan on account", "Seq Scan on subscription", "Seq Scan on charged_period"]
    assert {name: plan for name, plan in plans.items() if any(each in plan for each in full)} == {}
    assert {name for name in CATALOG if "Seq Scan on plan" in plans[name]} == set()
