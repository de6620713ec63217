"""The asks that change what a tenant is charged for, and their undos; `services.billing.handlers` lists them.

All of them lock the subscriptions of the batch, work on a `Ledger` in memory and write what is different.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from services.billing import queries
from services.billing.charging import Before, Ledger, Subscription
from services.billing.final_invoice import Stretch, final_invoice
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts.base import Ask, Fact
from shared.ids import Ids
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection


async def change_plans(
    connection: Connection, asks: Sequence[contracts.ChangePlan], *, clock: Clock
) -> Sequence[Changed]:
    """Charge each account by another plan from now on; one that is on the plan already keeps its agreed amount."""
    ledger = await _read(connection, asks)
    prices = await queries.prices(connection, sorted({ask.plan for ask in asks}))
    amounts: dict[str, dict[str, Decimal]] = {}
    for price in prices:
        amounts.setdefault(price["plan"], {})[price["currency"]] = price["amount"]
    now = clock.now()
    changes = [_plan_change(ledger, ask, amounts.get(ask.plan), now) for ask in asks]
    await _write(connection, ledger)
    return changes


def _plan_change(
    ledger: Ledger, ask: contracts.ChangePlan, amounts: Mapping[str, Decimal] | None, now: datetime
) -> Changed:
    found = ledger.of(ask.tenant_id)
    if found is None or found.state == "ended":
        return _no_plan_change(ask, "unknown_account", "The tenant has no account that can be charged.")
    if amounts is None:
        return _no_plan_change(ask, "unknown_plan", f"There is no plan {ask.plan!r}.")
    if found.currency.code not in amounts:
        return _no_plan_change(
            ask, "unsupported_currency", f"The plan {ask.plan!r} is not sold in {found.currency.code}."
        )
    answer = contracts.PlanChanged(tenant_id=ask.tenant_id)
    if found.plan == ask.plan:
        return Changed(answer)
    ledger.change_plan(found, ask.plan, amounts[found.currency.code], now=now)
    return Changed(answer, Before.image(found))


def _no_plan_change(ask: contracts.ChangePlan, code: str, detail: str) -> Changed:
    return Changed(contracts.PlanChangeRefused(tenant_id=ask.tenant_id, code=code, detail=detail))


async def restore_plans(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge by the plan that was found, also for the time in between."""
    await _bring_back(connection, restorations)
    return [contracts.PlanRestored(tenant_id=each.tenant_id) for each in restorations]


async def pause_billing(
    connection: Connection, asks: Sequence[contracts.PauseBilling], *, clock: Clock
) -> Sequence[Changed]:
    """Charge nothing from now on; what is paused already stays so."""
    ledger = await _read(connection, asks)
    now = clock.now()
    changes = [_pause(ledger, ask, now) for ask in asks]
    await _write(connection, ledger)
    return changes


def _pause(ledger: Ledger, ask: contracts.PauseBilling, now: datetime) -> Changed:
    found = ledger.of(ask.tenant_id)
    if found is None:
        return Changed(_refusal(contracts.BillingPauseRefused, ask))
    if found.state in ("pending", "ended"):
        return Changed(_refusal(contracts.BillingPauseRefused, ask, found))
    answer = contracts.BillingPaused(tenant_id=ask.tenant_id)
    if found.state == "paused":
        return Changed(answer)
    ledger.pause(found, now=now)
    return Changed(answer, Before.image(found))


async def unpause_billing(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge on as if there had been no pause."""
    await _bring_back(connection, restorations)
    return [contracts.BillingUnpaused(tenant_id=each.tenant_id) for each in restorations]


async def resume_billing(
    connection: Connection, asks: Sequence[contracts.ResumeBilling], *, clock: Clock
) -> Sequence[Changed]:
    """Charge what is paused again from now on; what is charged already goes on."""
    ledger = await _read(connection, asks)
    stretches = await _stretches(connection, ledger)
    now = clock.now()
    changes = [_resumption(ledger, ask, stretches, now) for ask in asks]
    await _write(connection, ledger)
    return changes


def _resumption(
    ledger: Ledger, ask: contracts.ResumeBilling, stretches: Mapping[UUID, Sequence[Stretch]], now: datetime
) -> Changed:
    found = ledger.of(ask.tenant_id)
    if found is None:
        return Changed(_refusal(contracts.BillingResumptionRefused, ask))
    if found.state in ("pending", "ended"):
        return Changed(_refusal(contracts.BillingResumptionRefused, ask, found))
    answer = contracts.BillingResumed(tenant_id=ask.tenant_id)
    if found.state == "active":
        return Changed(answer)
    last_end = max((each.ended_at for each in stretches.get(found.subscription_id, ())), default=None)
    ledger.resume(found, now=now, last_end=last_end)
    return Changed(answer, Before.image(found))


async def withdraw_resumptions(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge nothing, as if the pause had gone on."""
    await _bring_back(connection, restorations)
    return [contracts.ResumptionWithdrawn(tenant_id=each.tenant_id) for each in restorations]


def _refusal(
    kind: type[contracts.BillingPauseRefused | contracts.BillingResumptionRefused],
    ask: Ask,
    found: Subscription | None = None,
) -> Fact:
    if found is None:
        return kind(tenant_id=ask.tenant_id, code="unknown_account", detail="The tenant has no account.")
    return kind(
        tenant_id=ask.tenant_id,
        code="wrong_state",
        detail=f"The subscription is {found.state}.",
        retryable=found.state == "pending",  # the fact that the tenant is active may still be on its way
    )


async def close_accounts(
    connection: Connection, asks: Sequence[contracts.CloseAccount], *, clock: Clock, ids: Ids
) -> Sequence[Changed]:
    """End all charging and draft the final invoices; an account that is closed already has its draft."""
    ledger = await _read(connection, asks)
    stretches = await _stretches(connection, ledger)
    rows = await queries.drafts(connection, [ask.tenant_id for ask in asks])
    closed = {row["tenant_id"]: _closed(row["tenant_id"], row) for row in rows}
    now = clock.now()
    fresh: list[Mapping[str, Any]] = []
    changes: list[Changed] = []
    for ask in asks:
        found = ledger.of(ask.tenant_id)
        if found is None:
            changes.append(_no_closing(ask))
        elif found.state == "ended" and ask.tenant_id in closed:
            changes.append(Changed(closed[ask.tenant_id]))
        else:
            ledger.end(found, now=now)
            draft = _draft(found, [*stretches.get(found.subscription_id, ()), *ledger.closed_of(found)], ids)
            fresh.append(draft)
            closed[ask.tenant_id] = _closed(ask.tenant_id, draft)
            changes.append(Changed(closed[ask.tenant_id], Before.image(found, invoice_id=draft["invoice_id"])))
    await _write(connection, ledger)
    if fresh:
        await queries.draft_invoices(connection, fresh, now=now)
    return changes


def _draft(found: Subscription, stretches: Iterable[Stretch], ids: Ids) -> Mapping[str, Any]:
    owed = final_invoice(stretches, found.currency)
    return {
        "invoice_id": ids.new(),
        "tenant_id": found.tenant_id,
        "currency": found.currency.code,
        "total": owed.total,
        "lines": [asdict(line) for line in owed.lines],
    }


def _closed(tenant_id: str, draft: Mapping[str, Any] | asyncpg.Record) -> Fact:
    return contracts.AccountClosed(
        tenant_id=tenant_id,
        invoice_id=str(draft["invoice_id"]),
        currency=draft["currency"],
        total=f"{draft['total']:f}",
    )


def _no_closing(ask: contracts.CloseAccount) -> Changed:
    return Changed(
        contracts.AccountClosingRefused(
            tenant_id=ask.tenant_id, code="unknown_account", detail="The tenant has no account."
        )
    )


async def reopen_accounts(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Take the draft back and charge on as if the account had never been closed."""
    await _bring_back(connection, restorations)
    return [contracts.AccountReopened(tenant_id=each.tenant_id) for each in restorations]


async def _bring_back(connection: Connection, restorations: Sequence[Restoration]) -> None:
    """Bring back each subscription as it was found, if there is something to bring back."""
    befores = [(each.tenant_id, Before.model_validate(each.before)) for each in restorations if each.before is not None]
    if not befores:
        return
    ledger = await _read(connection, restorations)
    for tenant_id, before in befores:
        ledger.restore(tenant_id, before)
    await _write(connection, ledger)


async def _read(connection: Connection, messages: Sequence[Ask | Restoration]) -> Ledger:
    rows = await queries.lock_subscriptions(connection, [message.tenant_id for message in messages])
    return Ledger(map(Subscription.of, rows))


async def _stretches(connection: Connection, ledger: Ledger) -> Mapping[UUID, Sequence[Stretch]]:
    stretches: dict[UUID, list[Stretch]] = {}
    for row in await queries.charged_periods(connection, ledger.subscription_ids):
        stretch = Stretch(row["plan"], row["amount"], row["started_at"], row["ended_at"])
        stretches.setdefault(row["subscription_id"], []).append(stretch)
    return stretches


async def _write(connection: Connection, ledger: Ledger) -> None:
    if ledger.changed:
        await queries.save_subscriptions(connection, ledger.changed)
    if ledger.forgotten:
        await queries.forget_charged_periods(connection, ledger.forgotten)
    if ledger.withdrawn_drafts:
        await queries.delete_drafts(connection, ledger.withdrawn_drafts)
    if ledger.closed:
        await queries.add_charged_periods(connection, ledger.closed)
