from collections.abc import Sequence

import pytest

from shared.clock import Clock, ManualClock
from shared.contracts.base import Fact
from shared.contracts.billing import AccountOpened, AccountVoided, OpenAccount, VoidAccount
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Kind, Subscriptions, bind, do, follow, hear, undo
from shared.postgres import Connection


async def open_accounts(
    connection: Connection, asks: Sequence[OpenAccount], *, clock: Clock, currency: str
) -> Sequence[Fact]:
    return [AccountOpened(tenant_id=ask.tenant_id, account_id=f"{currency} {clock.now():%Y}") for ask in asks]


async def void_accounts(connection: Connection, asks: Sequence[VoidAccount]) -> Sequence[Fact]:
    return [AccountVoided(tenant_id=ask.tenant_id) for ask in asks]


async def look(connection: Connection, events: Sequence[Event], *, clock: Clock) -> Sequence[Outgoing]:
    return []


TABLE: Subscriptions = {
    OpenAccount: do(open_accounts),
    VoidAccount: undo(void_accounts),
    TenantActivated: follow(look),
    TenantDeactivated: follow(look),
}


async def test_a_handler_gets_the_dependencies_that_it_names_and_no_others() -> None:
    bound = bind(TABLE, clock=ManualClock(), currency="EUR", unused=object())

    [opened] = await bound[OpenAccount].handler(None, [OpenAccount(tenant_id="t1", customer_name="A", plan="p")])
    [voided] = await bound[VoidAccount].handler(None, [VoidAccount(tenant_id="t1")])

    assert opened == AccountOpened(tenant_id="t1", account_id="EUR 2026")
    assert voided == AccountVoided(tenant_id="t1")


def test_the_kind_is_what_the_table_says() -> None:
    bound = bind(TABLE, clock=ManualClock(), currency="EUR")

    assert {message: each.kind for message, each in bound.items()} == {
        OpenAccount: Kind.DO,
        VoidAccount: Kind.UNDO,
        TenantActivated: Kind.FOLLOW,
        TenantDeactivated: Kind.FOLLOW,
    }
    assert hear(void_accounts).kind is Kind.HEAR


def test_types_that_share_a_handler_share_it_bound_too() -> None:
    bound = bind(TABLE, clock=ManualClock(), currency="EUR")

    assert bound[TenantActivated].handler is bound[TenantDeactivated].handler


def test_a_dependency_that_nobody_offers_is_named_together_with_the_handler() -> None:
    with pytest.raises(LookupError, match="open_accounts needs clock, currency"):
        bind(TABLE)


def test_binding_leaves_the_table_as_it_was() -> None:
    bind(TABLE, clock=ManualClock(), currency="EUR")

    assert TABLE[OpenAccount].handler is open_accounts
