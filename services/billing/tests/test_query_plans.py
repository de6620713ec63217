"""How the database finds what is asked for where there are many accounts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
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
STANDING = {
    "tenant_id": "t1",
    "overdue": "past_due",
    "overdue_since": NOON,
    "overdue_edition": 1,
    "look_at": NOON,
}
SCHEDULE = {"tenant_id": "t1", "closes_at": NOON, "usage_wanted_at": None, "look_at": NOON}
REVIEW = {"tenant_id": "t1", "look_at": NOON, "month": NOON, "spent": Decimal(1), "reviewed_at": NOON} | {
    "usage_wanted_at": None,
    "percent_told": 80,
    "invoiced_at": None,
    "is_blocked": False,
}
HELD_BILL = {
    "invoice_id": UUID(int=1),
    "edition": 1,
    "held_until": NOON,
    "news": 0,
    "reference": "in_1",
    "state": "open",
    "is_known": True,
    "ask_at": None,
    "asked_at": None,
    "failures": 0,
    "look_at": None,
}

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
BOOKS: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "issued_after": lambda connection: queries.receivables.issued_after(connection, 7, limit=500),
    "lock_debtors": lambda connection: queries.receivables.lock(connection, TENANTS),
    "add_balances": lambda connection: queries.receivables.add_balances(connection, [("t1", "USD"), ("t2", "EUR")]),
    "balances_of": lambda connection: queries.receivables.balances(connection, TENANTS),
    "of_invoices": lambda connection: queries.receivables.of_invoices(connection, [UUID(int=1), UUID(int=2)]),
    "open_receivables": lambda connection: queries.receivables.open_receivables(connection, TENANTS, [UUID(int=1)]),
    "standing": lambda connection: queries.receivables.standing(connection, UUID(int=1)),
    "currencies": lambda connection: queries.receivables.currencies(connection, "t1"),
    "add_receivables": lambda connection: queries.receivables.add(connection, [UUID(int=1)], collects=True),
    "save_receivables": lambda connection: queries.receivables.save(
        connection, [(UUID(int=1), Decimal(), Decimal(), Decimal())], now=NOON
    ),
    "save_credit": lambda connection: queries.receivables.save_credit(connection, [("t1", "USD", Decimal())]),
    "balances": lambda connection: queries.receivables.page(connection, after=("t1", "USD"), limit=50, tenant_id=None),
    "payments_of": lambda connection: queries.ledger.payments_of(connection, [("manual", "r7")]),
    "payments": lambda connection: queries.ledger.payments(connection, after=None, limit=50, tenant_id="t1"),
    "credit_notes": lambda connection: queries.ledger.notes(connection, after=None, limit=50, tenant_id="t1"),
    "credit_entries": lambda connection: queries.ledger.entries(connection, after=None, limit=50, tenant_id="t1"),
    "credit_entry": lambda connection: queries.ledger.entry(connection, UUID(int=1)),
    "credit_note": lambda connection: queries.ledger.note(connection, UUID(int=1)),
    "debtors_due": lambda connection: queries.dunning.due(connection, now=NOON, limit=500),
    "debtors_behind": lambda connection: queries.dunning.behind(connection, limit=500),
    "behind_of": lambda connection: queries.dunning.behind_of(connection, TENANTS),
    "lock_due_debtors": lambda connection: queries.dunning.lock(connection, TENANTS),
    "oldest_receivables": lambda connection: queries.dunning.oldest(connection, TENANTS),
    "reschedule_debtors": lambda connection: queries.dunning.reschedule(connection, [STANDING]),
}
PROVIDER: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "unbilled": lambda connection: queries.bills.unbilled(connection, now=NOON, limit=500),
    "bills_to_look_at": lambda connection: queries.bills.to_look_at(connection, "stripe", now=NOON, limit=64),
    "lock_debtors_of_bills": lambda connection: queries.bills.lock(connection, TENANTS),
    "make_bills": lambda connection: queries.bills.make(connection, "stripe", [UUID(int=1)], now=NOON),
    "hold_bills": lambda connection: queries.bills.hold(connection, "stripe", [UUID(int=1)], now=NOON, until=NOON),
    "ask_for_bills": lambda connection: queries.bills.ask(connection, [(UUID(int=1), 1)], now=NOON),
    "let_go_bills": lambda connection: queries.bills.let_go(connection, [HELD_BILL], now=NOON),
    "count_attempts": lambda connection: queries.bills.count(
        connection, {UUID(int=1): 1}, again=[UUID(int=1)], now=NOON
    ),
    "know_customers": lambda connection: queries.bills.know_customers(connection, "stripe", {"t1": "cus"}, now=NOON),
    "hear": lambda connection: queries.bills.hear(connection, "stripe", "evt_new", "invoice.paid", "in_7", now=NOON),
}
SPENDING: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "spending_limit": lambda connection: queries.spending.limit(connection, "t1"),
    "due_limits": lambda connection: queries.spending.due(connection, now=NOON, limit=500),
    "lock_due_limits": lambda connection: queries.spending.lock_due(connection, TENANTS, now=NOON),
    "reschedule_limits": lambda connection: queries.spending.reschedule(connection, [REVIEW]),
    "look_at_limits_again": lambda connection: queries.spending.look_again(connection, TENANTS),
    "park_limit": lambda connection: queries.spending.park(connection, "t1", until=NOON),
    "next_editions": lambda connection: queries.spending.next_editions(connection, TENANTS),
}
CATALOG = ("prices", "versions", "plans")
"""What reads of the catalog as much as it is asked for; whoever opens accounts joins it as a whole."""


_ACCOUNTS = """
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
"""
"""A catalog, accounts on it, and what was invoiced."""

_BOOKS = """
    INSERT INTO debtor (tenant_id) SELECT tenant_id FROM account;
    INSERT INTO balance (tenant_id, currency) SELECT tenant_id, 'USD' FROM debtor;
    INSERT INTO receivable (invoice_id, tenant_id, number, currency, total, paid, issued_at, settled_at)
    SELECT invoice_id, tenant_id, number, currency, total, CASE WHEN number % 9 > 0 THEN total ELSE 0 END,
           issued_at, CASE WHEN number % 9 > 0 THEN issued_at END
    FROM invoice WHERE number <= 20000;
    INSERT INTO payment SELECT gen_random_uuid(), tenant_id, invoice_id, 'manual', 'r' || number, currency, total,
                               issued_at, issued_at
    FROM receivable;
    INSERT INTO credit_note SELECT gen_random_uuid(), number, invoice_id, tenant_id, currency, total, 'a', issued_at
    FROM receivable;
    INSERT INTO credit_entry SELECT gen_random_uuid(), tenant_id, 'overpaid', currency, 1, invoice_id, NULL, NULL,
                                    issued_at
    FROM receivable;
    INSERT INTO bill
        (invoice_id, edition, tenant_id, provider, currency, amount, reference, state, look_at, made_at)
    SELECT invoice_id, 1, tenant_id, 'stripe', currency, total, 'in_' || number,
           CASE WHEN due > 0 THEN 'open' ELSE 'paid' END, CASE WHEN due > 0 THEN '2027-01-01'::timestamptz END,
           issued_at
    FROM receivable;
    INSERT INTO provider_event SELECT 'stripe', 'evt_' || number, 'invoice.paid', issued_at FROM receivable;
    INSERT INTO provider_customer SELECT 'stripe', tenant_id, 'cus_' || tenant_id, now() FROM debtor;
    INSERT INTO spending_limit (tenant_id, amount, action, look_at)
    SELECT tenant_id, 100, 'alert', '2027-01-01' FROM account;
"""
"""What is due of that, what has come in, and what may be spent."""


@pytest.fixture
async def many_accounts(fresh_database: FreshDatabases) -> AsyncIterator[Connection]:
    """A connection to full tables whose statistics are fresh, which takes the owner's rights."""
    urls = await fresh_database.urls("billing")
    connection = await asyncpg.connect(urls.owner)
    await use_json(connection)
    await connection.execute(_ACCOUNTS)
    await connection.execute(_BOOKS)
    await connection.execute("ANALYZE")
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
    hot = HOT | BOOKS | PROVIDER | SPENDING
    plans = {name: await plan_of(many_accounts, statement) for name, statement in hot.items()}

    large = ("account", "subscription", "charged_period", "invoice", "debtor", "balance", "receivable", "payment")
    full = [
        f"Seq Scan on {table}"
        for table in (*large, "credit_note", "credit_entry", "bill", "provider_event", "spending_limit")
    ]
    assert {name: plan for name, plan in plans.items() if any(each in plan for each in full)} == {}
    assert {name for name in CATALOG if "Seq Scan on plan" in plans[name]} == set()
