"""The asks that change what a tenant is charged for, and their undos; `services.billing.handlers` lists them.

All of them lock the subscriptions of the batch, work on a `Ledger` in memory and write what is different. What happens
to the account's own subscription happens to its licences, but for another plan; licences.py has what happens to them,
and closing.py how all of it ends.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from services.billing import books, queries
from services.billing.books import Prices
from services.billing.charging import Before, Ledger, Subscription
from services.billing.refusals import NO_ACCOUNT, PAST_DUE, why_no_price
from services.billing.stretch import Stretch
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts.base import Ask, Fact
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection


async def change_plans(
    connection: Connection, asks: Sequence[contracts.ChangePlan], *, clock: Clock
) -> Sequence[Changed]:
    """Charge each account by another plan from now on; one that is on the plan already keeps its agreed amount.

    Of whom something is past due the plan stays, also where the other one is cheaper.
    """
    ledger = await books.read(connection, asks)
    now = clock.now()
    prices = await books.prices(connection, (ask.plan for ask in asks), now=now)
    behind = await queries.dunning.behind_of(connection, (ask.tenant_id for ask in asks))
    changes = [_plan_change(ledger, ask, prices, now, is_behind=ask.tenant_id in behind) for ask in asks]
    await books.write(connection, ledger)
    return changes


def _plan_change(
    ledger: Ledger, ask: contracts.ChangePlan, prices: Prices, now: datetime, *, is_behind: bool
) -> Changed:
    found = ledger.of(ask.tenant_id)
    if found is None or found.state == "ended":
        return _no_plan_change(ask, *NO_ACCOUNT)
    if why_not := why_no_price(prices, ask.plan, found.currency.code):
        return _no_plan_change(ask, *why_not)
    answer = contracts.PlanChanged(tenant_id=ask.tenant_id)
    if found.plan == ask.plan:
        return Changed(answer)
    if is_behind:
        return _no_plan_change(ask, *PAST_DUE)
    ledger.change_plan(found, prices[ask.plan][found.currency.code], now=now)
    return Changed(answer, Before.image(found))


def _no_plan_change(ask: contracts.ChangePlan, code: str, detail: str) -> Changed:
    return Changed(contracts.PlanChangeRefused(tenant_id=ask.tenant_id, code=code, detail=detail))


async def restore_plans(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge by the plan that was found, also for the time in between."""
    await books.bring_back(connection, restorations, Before, Ledger.restore)
    return [contracts.PlanRestored(tenant_id=each.tenant_id) for each in restorations]


async def pause_billing(
    connection: Connection, asks: Sequence[contracts.PauseBilling], *, clock: Clock
) -> Sequence[Changed]:
    """Charge nothing from now on; what is paused already stays so."""
    ledger = await books.read(connection, asks)
    now = clock.now()
    changes = [_pause(ledger, ask, now) for ask in asks]
    await books.write(connection, ledger)
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
    licences = ledger.licences_with(found)
    for each in (found, *licences):
        ledger.pause(each, now=now)
    return Changed(answer, Before.image(found, licences))


async def unpause_billing(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge on as if there had been no pause."""
    await books.bring_back(connection, restorations, Before, Ledger.restore)
    return [contracts.BillingUnpaused(tenant_id=each.tenant_id) for each in restorations]


async def resume_billing(
    connection: Connection, asks: Sequence[contracts.ResumeBilling], *, clock: Clock
) -> Sequence[Changed]:
    """Charge what is paused again from now on; what is charged already goes on."""
    ledger = await books.read(connection, asks)
    stretches = await books.stretches(connection, ledger)
    now = clock.now()
    changes = [_resumption(ledger, ask, stretches, now) for ask in asks]
    await books.write(connection, ledger)
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
    licences = ledger.licences_with(found)
    for each in (found, *licences):
        ledger.resume(each, now=now, last_end=books.last_end(stretches.get(each.subscription_id, ())))
    return Changed(answer, Before.image(found, licences))


async def withdraw_resumptions(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge nothing, as if the pause had gone on."""
    await books.bring_back(connection, restorations, Before, Ledger.restore)
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
