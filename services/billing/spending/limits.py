"""How limits are set and taken away, by an operator; `SpendingWatch` does what follows."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import asyncpg

from services.billing import queries
from services.billing.money import rounded
from services.billing.spending.blocking import block
from services.billing.spending.deciding import Action
from shared.access import Principal
from shared.audit import changed
from shared.changes import Changes
from shared.http import FieldError, Problem
from shared.postgres import Connection


class SpendingLimits:
    """Lets limits be changed.

    Args:
        changes: make changes in the service's database.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def put(
        self, asker: Principal, tenant_id: str, *, amount: Decimal, currency: str, action: Action
    ) -> tuple[asyncpg.Record, bool]:
        """Give a tenant a limit, and return it and whether there was none; the one that it has changes nothing.

        Another one is looked at at once, and what is reached of it is told, whatever was told of the one before.

        Raises:
            Problem: 404, the tenant has no open account; or 422, of the currency or the digits of the amount.
        """
        async with self._changes.transaction() as change:
            account = await _account(change.connection, tenant_id)
            _check(account, amount, currency)
            found = await queries.spending.limit(change.connection, tenant_id)
            if found is None or (found["amount"], found["action"]) != (amount, action):
                await queries.spending.put(change.connection, tenant_id, amount=amount, action=action)
            there = await _there(change.connection, tenant_id)
            before, after = changed(_told(found), _told(there))
            if after:
                change.decided(
                    asker,
                    "spending_limit.set",
                    f"spending-limit:{tenant_id}",
                    tenant_id=tenant_id,
                    before=before or None,
                    after=after,
                )
        return there, found is None

    async def delete(self, asker: Principal, tenant_id: str) -> None:
        """Let a tenant spend what it likes; usage that is refused because of its limit is taken again.

        Raises:
            Problem: 404, it has no limit.
        """
        async with self._changes.transaction() as change:
            await queries.subscriptions.lock(change.connection, [tenant_id])
            found = await _there(change.connection, tenant_id)
            await queries.spending.delete(change.connection, tenant_id)
            if found["is_blocked"]:
                change.tell(*await block(change.connection, {tenant_id: False}))
            subject = f"spending-limit:{tenant_id}"
            change.decided(asker, "spending_limit.deleted", subject, tenant_id=tenant_id, before=_told(found))


def unknown_limit(tenant_id: str) -> Problem:
    """Return the problem that a tenant has no limit."""
    return Problem(404, code="unknown_spending_limit", detail=f"Tenant {tenant_id} has no spending limit.")


async def _there(connection: Connection, tenant_id: str) -> asyncpg.Record:
    found = await queries.spending.limit(connection, tenant_id)
    if found is None:
        raise unknown_limit(tenant_id)
    return found


async def _account(connection: Connection, tenant_id: str) -> asyncpg.Record:
    """Lock a tenant's subscription and return its account."""
    await queries.subscriptions.lock(connection, [tenant_id])
    found = await queries.invoicing.accounts(connection, [tenant_id])
    if not found or found[0]["state"] == "ended":
        raise Problem(404, code="unknown_account", detail=f"Tenant {tenant_id} has no open account.")
    return found[0]


def _check(account: asyncpg.Record, amount: Decimal, currency: str) -> None:
    errors = []
    if currency != account["currency"]:
        errors.append(FieldError("/currency", f"`currency` must be {account['currency']}, that of the account."))
    elif amount != rounded(amount, account["digits"]):
        errors.append(FieldError("/amount", f"`amount` must have at most {account['digits']} digits behind the point."))
    if errors:
        raise Problem(422, code="validation_failed", detail=errors[0].detail, errors=errors)


def _told(row: asyncpg.Record | None) -> Mapping[str, Any]:
    """Return what the audit trail is told of a limit; nothing where there is none."""
    if row is None:
        return {}
    return {"amount": f"{row['amount']:f}", "currency": row["currency"], "action": row["action"]}
