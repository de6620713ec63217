"""What the billing service does when it is asked, or told. The last lines list all it hears and all it says."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from services.billing import queries
from services.billing.changes import (
    change_plans,
    close_accounts,
    pause_billing,
    reopen_accounts,
    restore_plans,
    resume_billing,
    unpause_billing,
    withdraw_resumptions,
)
from services.billing.licences import change_licences, restore_licences
from services.billing.refusals import why_not
from shared.access import replica
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts import tenant
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Changed, Restoration, Subscriptions, change, do, follow, restore, undo
from shared.messaging.topology import exchange_of
from shared.postgres import Connection


async def open_accounts(
    connection: Connection, asks: Sequence[contracts.OpenAccount], *, clock: Clock, ids: Ids
) -> Sequence[Fact]:
    """Open each account on its plan and with its licences, with nothing to pay until the tenant is activated."""
    outcomes = await queries.accounts.open_accounts(
        connection, [_with_identities(ask, ids) for ask in asks], now=clock.now()
    )
    return [_opening(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)]


def _with_identities(ask: contracts.OpenAccount, ids: Ids) -> dict[str, Any]:
    fresh = {"account_id": ids.new(), "subscription_id": ids.new()}
    licences = [licence.model_dump() | {"subscription_id": ids.new()} for licence in ask.licences]
    return ask.model_dump() | fresh | {"licences": licences}


def _opening(ask: contracts.OpenAccount, outcome: asyncpg.Record) -> Fact:
    if code := outcome["refusal"]:
        detail = why_not(code, outcome["plan"], outcome["currency"], outcome["product"])
        return contracts.AccountRefused(tenant_id=ask.tenant_id, code=code, detail=detail)
    return contracts.AccountOpened(tenant_id=ask.tenant_id, account_id=str(outcome["account_id"]))


async def void_accounts(connection: Connection, asks: Sequence[contracts.VoidAccount]) -> Sequence[Fact]:
    """Remove each tenant's account, if there is one."""
    await queries.accounts.void(connection, [ask.tenant_id for ask in asks])
    return [contracts.AccountVoided(tenant_id=ask.tenant_id) for ask in asks]


async def update_accounts(connection: Connection, asks: Sequence[contracts.UpdateAccount]) -> Sequence[Changed]:
    """Make invoices out to another name from now on; what is drafted already stays as it is."""
    rows = await queries.accounts.lock(connection, [ask.tenant_id for ask in asks])
    names = {row["tenant_id"]: row["customer_name"] for row in rows}
    changes = [_update(names, ask) for ask in asks]
    renamed = {each.answer.tenant_id for each in changes if each.before is not None}
    await queries.accounts.rename(connection, {tenant_id: names[tenant_id] for tenant_id in sorted(renamed)})
    return changes


def _update(names: dict[str, str], ask: contracts.UpdateAccount) -> Changed:
    found = names.get(ask.tenant_id)
    if found is None:
        return Changed(
            contracts.AccountUpdateRefused(
                tenant_id=ask.tenant_id, code="unknown_account", detail="The tenant has no account."
            )
        )
    names[ask.tenant_id] = ask.customer_name
    before = None if found == ask.customer_name else {"customer_name": found}
    return Changed(contracts.AccountUpdated(tenant_id=ask.tenant_id), before)


async def restore_accounts(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Make invoices out to the name that was found."""
    names = {each.tenant_id: each.before["customer_name"] for each in restorations if each.before is not None}
    await queries.accounts.lock(connection, list(names))
    await queries.accounts.rename(connection, names)
    return [contracts.AccountRestored(tenant_id=each.tenant_id) for each in restorations]


async def purge_accounts(
    connection: Connection, asks: Sequence[contracts.PurgeAccount], *, clock: Clock
) -> Sequence[Fact]:
    """Issue each final invoice and forget the account; one that is not there counts nothing."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.subscriptions.lock(connection, tenant_ids)  # so that a closing that is under way is waited for
    rows = await queries.accounts.purge(connection, tenant_ids, now=clock.now())
    purged = {row["tenant_id"]: row for row in rows}
    first = {ask.tenant_id: ask for ask in reversed(asks)}
    return [_purge(ask, purged[ask.tenant_id], counts=ask is first[ask.tenant_id]) for ask in asks]


def _purge(ask: contracts.PurgeAccount, row: asyncpg.Record, *, counts: bool) -> Fact:
    return contracts.AccountPurged(
        tenant_id=ask.tenant_id,
        invoice_id=None if row["invoice_id"] is None else str(row["invoice_id"]),
        deleted={name: row[name] if counts else 0 for name in ("accounts", "subscriptions")},
    )


async def start_charging(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Outgoing]:
    """Start the subscription of each activated tenant; one without an account, or charged already, changes nothing.

    It follows the facts with their envelopes, because they may arrive after the fact that their activation was taken
    back: the workflow they belong to tells.
    """
    await queries.subscriptions.lock(connection, [event.message.tenant_id for event in events])
    started = await queries.subscriptions.start(connection, events)
    causes = {(event.message.tenant_id, event.workflow_id): event for event in events}
    return [
        _told(
            contracts.SubscriptionStarted(tenant_id=row["tenant_id"], plan=row["plan"]),
            because=causes[row["tenant_id"], row["activated_by"]],
            clock=clock,
            ids=ids,
        )
        for row in started
    ]


async def stop_charging(connection: Connection, events: Sequence[Event]) -> Sequence[Outgoing]:
    """Take the start back where the activation was taken back; whichever of the two facts arrives first."""
    await queries.subscriptions.lock(connection, [event.message.tenant_id for event in events])
    await queries.subscriptions.withdraw(connection, events)
    return []


def _told(fact: Fact, *, because: Event, clock: Clock, ids: Ids) -> Outgoing:
    event = Event(
        id=ids.new(),
        publisher=contracts.OpenAccount.owner,
        time=clock.now(),
        message=fact,
        workflow_id=because.workflow_id,
        causation_id=because.id,
    )
    return Outgoing(event.id, exchange_of(event.publisher), event.type, event.encode())


SUBSCRIPTIONS: Subscriptions = {
    contracts.OpenAccount: do(open_accounts),
    contracts.VoidAccount: undo(void_accounts),
    contracts.ChangePlan: change(change_plans),
    contracts.RestorePlan: restore(restore_plans),
    contracts.ChangeLicences: change(change_licences),
    contracts.RestoreLicences: restore(restore_licences),
    contracts.PauseBilling: change(pause_billing),
    contracts.UnpauseBilling: restore(unpause_billing),
    contracts.ResumeBilling: change(resume_billing),
    contracts.WithdrawResumption: restore(withdraw_resumptions),
    contracts.UpdateAccount: change(update_accounts),
    contracts.RestoreAccount: restore(restore_accounts),
    contracts.CloseAccount: change(close_accounts),
    contracts.ReopenAccount: restore(reopen_accounts),
    contracts.PurgeAccount: do(purge_accounts),
    tenant.TenantActivated: follow(start_charging),
    tenant.TenantDeactivated: follow(stop_charging),
    **replica.SUBSCRIPTIONS,
}
PUBLISHES = (
    contracts.AccountOpened,
    contracts.AccountRefused,
    contracts.AccountVoided,
    contracts.SubscriptionStarted,
    contracts.PlanChanged,
    contracts.PlanChangeRefused,
    contracts.PlanRestored,
    contracts.LicencesChanged,
    contracts.LicencesChangeRefused,
    contracts.LicencesRestored,
    contracts.BillingPaused,
    contracts.BillingPauseRefused,
    contracts.BillingUnpaused,
    contracts.BillingResumed,
    contracts.BillingResumptionRefused,
    contracts.ResumptionWithdrawn,
    contracts.AccountUpdated,
    contracts.AccountUpdateRefused,
    contracts.AccountRestored,
    contracts.AccountClosed,
    contracts.AccountClosingRefused,
    contracts.AccountReopened,
    contracts.AccountPurged,
    contracts.ApiKeysUsed,
)
