"""How the database finds what is asked for where there are many accounts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from deploy.local.throwaway import FreshDatabases
from services.billing import queries
from services.billing.tests.support import NOON, activated, ask, deactivated
from shared.postgres import Connection, use_json

OPENING: dict[str, Any] = ask("new", licences=[{"product": "chess", "plan": "free"}]).model_dump()
IDENTITIES = {"account_id": UUID(int=1), "subscription_id": UUID(int=2)}
LICENCES = [each | {"subscription_id": UUID(int=3)} for each in OPENING["licences"]]
TENANTS = ["t1", "t2"]

HOT: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "open_accounts": lambda connection: queries.accounts.open_accounts(
        connection, [OPENING | IDENTITIES | {"licences": LICENCES}], now=NOON
    ),
    "lock_subscriptions": lambda connection: queries.subscriptions.lock(connection, TENANTS),
    "standing_subscriptions": lambda connection: queries.subscriptions.standing(connection, TENANTS),
    "start_subscriptions": lambda connection: queries.subscriptions.start(connection, [activated("t1")]),
    "withdraw_subscriptions": lambda connection: queries.subscriptions.withdraw(connection, [deactivated("t1")]),
    "charged_periods": lambda connection: queries.subscriptions.charged_periods(connection, [UUID(int=1), UUID(int=2)]),
    "remove_licences": lambda connection: queries.subscriptions.remove_licences(connection, [UUID(int=1), UUID(int=2)]),
    "void_accounts": lambda connection: queries.accounts.void(connection, TENANTS),
    "purge_accounts": lambda connection: queries.accounts.purge(connection, TENANTS, now=NOON),
    "subscriptions": lambda connection: queries.subscriptions.page(connection, after=None, limit=50, tenant_id="t1"),
}


@pytest.fixture
async def many_accounts(fresh_database: FreshDatabases) -> AsyncIterator[Connection]:
    """A connection to full tables whose statistics are fresh, which takes the owner's rights."""
    urls = await fresh_database.urls("billing")
    connection = await asyncpg.connect(urls.owner)
    await use_json(connection)
    await connection.execute(
        """
        INSERT INTO account (account_id, tenant_id, customer_name, currency, opened_at)
        SELECT gen_random_uuid(), 't' || number, 'Customer t' || number, 'USD', now()
        FROM generate_series(1, 50000) AS number;
        INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount, state, started_at)
        SELECT gen_random_uuid(), account_id, product, 'standard', 'USD', 49, 'active', now()
        FROM account CROSS JOIN unnest('{"", chess}'::text[]) AS product;
        INSERT INTO charged_period (subscription_id, plan, currency, amount, started_at, ended_at)
        SELECT subscription_id, plan, currency, amount, now() - interval '1 day', now() FROM subscription;
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

    full = ("Seq Scan on account", "Seq Scan on subscription", "Seq Scan on charged_period")
    assert {name: plan for name, plan in plans.items() if any(each in plan for each in full)} == {}
