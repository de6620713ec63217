"""What the billing service does when it is asked, or told. The last lines list all it hears and all it says."""

from collections.abc import Sequence

import asyncpg

from services.billing import queries
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts import tenant
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Subscriptions, do, follow, undo
from shared.messaging.topology import exchange_of
from shared.postgres import Connection


async def open_accounts(
    connection: Connection, asks: Sequence[contracts.OpenAccount], *, clock: Clock, ids: Ids
) -> Sequence[Fact]:
    """Open each account on its plan, with nothing to pay until the tenant is activated."""
    fresh = [{"account_id": ids.new(), "subscription_id": ids.new()} for _ in asks]
    rows = [ask.model_dump() | identities for ask, identities in zip(asks, fresh, strict=True)]
    outcomes = await queries.open_accounts(connection, rows, now=clock.now())
    return [_opening(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)]


def _opening(ask: contracts.OpenAccount, outcome: asyncpg.Record) -> Fact:
    if outcome["refusal"] is not None:
        return contracts.AccountRefused(
            tenant_id=ask.tenant_id, code=outcome["refusal"], detail=_why_not(ask, outcome["refusal"])
        )
    return contracts.AccountOpened(tenant_id=ask.tenant_id, account_id=str(outcome["account_id"]))


def _why_not(ask: contracts.OpenAccount, code: str) -> str:
    return {
        "unknown_plan": f"There is no plan {ask.plan!r}.",
        "unsupported_currency": f"The plan {ask.plan!r} is not sold in {ask.currency}.",
    }[code]


async def void_accounts(connection: Connection, asks: Sequence[contracts.VoidAccount]) -> Sequence[Fact]:
    """Remove each tenant's account, if there is one."""
    await queries.void_accounts(connection, [ask.tenant_id for ask in asks])
    return [contracts.AccountVoided(tenant_id=ask.tenant_id) for ask in asks]


async def start_charging(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Outgoing]:
    """Start the subscription of each activated tenant; one without an account, or charged already, changes nothing.

    It follows the facts with their envelopes, because they may arrive after the fact that their activation was taken
    back: the workflow they belong to tells.
    """
    started = await queries.start_subscriptions(connection, events)
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
    await queries.withdraw_subscriptions(connection, events)
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
    tenant.TenantActivated: follow(start_charging),
    tenant.TenantDeactivated: follow(stop_charging),
}
PUBLISHES = (
    contracts.AccountOpened,
    contracts.AccountRefused,
    contracts.AccountVoided,
    contracts.SubscriptionStarted,
)
