"""What the billing service does when it is asked, or told. The last lines list all it hears and all it says."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.billing import dossiers, queries, revenue
from services.billing.changes import (
    change_plans,
    pause_billing,
    restore_plans,
    resume_billing,
    unpause_billing,
    withdraw_resumptions,
)
from services.billing.closing import close_accounts, reopen_accounts
from services.billing.issuing import CLOSING, draft, issue, issued
from services.billing.licences import change_licences, restore_licences
from services.billing.refusals import why_not
from services.billing.revenue import telling
from services.billing.usage import keep_reports
from shared.access import replica
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts import metrics, tenant
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import (
    Answered,
    Changed,
    Restoration,
    Subscriptions,
    change,
    do,
    follow,
    hear,
    restore,
    undo,
)
from shared.messaging.topology import exchange_of
from shared.postgres import Connection
from shared.text import is_time_zone


async def open_accounts(
    connection: Connection, asks: Sequence[contracts.OpenAccount], *, clock: Clock, ids: Ids
) -> Sequence[Fact]:
    """Open each account on its plan and with its licences, with nothing to pay until the tenant is activated."""
    accepted = [ask for ask in asks if is_time_zone(ask.time_zone)]
    outcomes = iter(
        await queries.accounts.open_accounts(
            connection, [_with_identities(ask, ids) for ask in accepted], now=clock.now()
        )
    )
    return [_opening(ask, next(outcomes)) if is_time_zone(ask.time_zone) else _no_time_zone(ask) for ask in asks]


def _with_identities(ask: contracts.OpenAccount, ids: Ids) -> dict[str, Any]:
    fresh = {"account_id": ids.new(), "subscription_id": ids.new()}
    licences = [licence.model_dump() | {"subscription_id": ids.new()} for licence in ask.licences]
    return ask.model_dump() | fresh | {"licences": licences}


def _opening(ask: contracts.OpenAccount, outcome: asyncpg.Record) -> Fact:
    if code := outcome["refusal"]:
        detail = why_not(code, outcome["plan"], outcome["currency"], outcome["product"])
        return contracts.AccountRefused(tenant_id=ask.tenant_id, code=code, detail=detail)
    return contracts.AccountOpened(tenant_id=ask.tenant_id, account_id=str(outcome["account_id"]))


def _no_time_zone(ask: contracts.OpenAccount) -> Fact:
    detail = f"There is no time zone {ask.time_zone}."
    return contracts.AccountRefused(tenant_id=ask.tenant_id, code="unknown_time_zone", detail=detail)


async def void_accounts(
    connection: Connection, asks: Sequence[contracts.VoidAccount], *, clock: Clock
) -> Sequence[Answered]:
    """Remove each tenant's account, if there is one; what was billed already is taken back by an invoice of its own."""
    tenant_ids = sorted({ask.tenant_id for ask in asks})
    await queries.subscriptions.lock(connection, tenant_ids)
    facts: list[Fact] = [*await revenue.ended(connection, tenant_ids, clock=clock)]
    facts += await _take_back(connection, tenant_ids, now=clock.now())
    await queries.accounts.void(connection, tenant_ids)
    return _with_tells([contracts.AccountVoided(tenant_id=ask.tenant_id) for ask in asks], facts)


async def _take_back(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> Sequence[Fact]:
    accounts = await dossiers.read(connection, await queries.invoicing.accounts(connection, tenant_ids))
    return await issue(
        connection,
        [draft(each, each.taken_back(), kind=CLOSING, closes_at=now) for each in accounts if each.billed],
        now=now,
    )


def _with_tells(answers: Sequence[Fact], facts: Sequence[Fact]) -> Sequence[Answered]:
    """Have each fact told with the first answer to its tenant."""
    told: dict[str, list[Fact]] = {}
    for fact in facts:
        told.setdefault(fact.tenant_id, []).append(fact)
    return [Answered(answer, tells=told.pop(answer.tenant_id, ())) for answer in answers]


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
) -> Sequence[Answered]:
    """Issue each final invoice and forget the account; one that is not there counts nothing."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.subscriptions.lock(connection, tenant_ids)  # so that a closing that is under way is waited for
    now = clock.now()
    facts: list[Fact] = [*await revenue.ended(connection, tenant_ids, clock=clock)]
    rows = await queries.accounts.purge(connection, tenant_ids, now=now)
    facts += [issued(row, row["number"], now=now) for row in rows if row["number"] is not None]
    purged = {row["tenant_id"]: row for row in rows}
    first = {ask.tenant_id: ask for ask in reversed(asks)}
    answers = [_purge(ask, purged[ask.tenant_id], counts=ask is first[ask.tenant_id]) for ask in asks]
    return _with_tells(answers, facts)


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
    tenant_ids = [event.message.tenant_id for event in events]
    await queries.subscriptions.lock(connection, tenant_ids)
    started = await queries.subscriptions.start(connection, events)
    await queries.invoicing.begin_again(connection, [row["tenant_id"] for row in started])
    causes = {(event.message.tenant_id, event.workflow_id): event for event in events}
    told = [
        _told(
            contracts.SubscriptionStarted(tenant_id=row["tenant_id"], plan=row["plan"]),
            because=causes[row["tenant_id"], row["activated_by"]],
            clock=clock,
            ids=ids,
        )
        for row in started
    ]
    return [*told, *await _revenue_told(connection, events, clock=clock, ids=ids)]


async def stop_charging(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Outgoing]:
    """Take the start back where the activation was taken back; whichever of the two facts arrives first."""
    tenant_ids = [event.message.tenant_id for event in events]
    await queries.subscriptions.lock(connection, tenant_ids)
    await queries.subscriptions.withdraw(connection, events)
    return await _revenue_told(connection, events, clock=clock, ids=ids)


async def _revenue_told(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Outgoing]:
    """Return what is told of other amounts that tenants are charged, because of the last event that is about them."""
    causes = {event.message.tenant_id: event for event in events}
    facts = await revenue.settled(connection, causes, clock=clock)
    return [_told(fact, because=causes[fact.tenant_id], clock=clock, ids=ids) for fact in facts]


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
    contracts.ChangePlan: change(telling(change_plans)),
    contracts.RestorePlan: restore(telling(restore_plans)),
    contracts.ChangeLicences: change(telling(change_licences)),
    contracts.RestoreLicences: restore(telling(restore_licences)),
    contracts.PauseBilling: change(telling(pause_billing)),
    contracts.UnpauseBilling: restore(telling(unpause_billing)),
    contracts.ResumeBilling: change(telling(resume_billing)),
    contracts.WithdrawResumption: restore(telling(withdraw_resumptions)),
    contracts.UpdateAccount: change(update_accounts),
    contracts.RestoreAccount: restore(restore_accounts),
    contracts.CloseAccount: change(telling(close_accounts)),
    contracts.ReopenAccount: restore(telling(reopen_accounts)),
    contracts.PurgeAccount: do(purge_accounts),
    tenant.TenantActivated: follow(start_charging),
    tenant.TenantDeactivated: follow(stop_charging),
    metrics.UsageReported: hear(keep_reports),
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
    contracts.UsageRequested,
    contracts.InvoiceIssued,
    contracts.InvoiceSettled,
    contracts.PaymentReceived,
    contracts.PaymentFailed,
    contracts.CreditIssued,
    contracts.RecurringRevenueChanged,
    contracts.OverdueChanged,
    contracts.SpendingLimitReached,
    contracts.SpendingBlockChanged,
    contracts.DecisionRecorded,
    contracts.ApiKeysUsed,
)
