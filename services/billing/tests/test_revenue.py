"""What a tenant is charged a month: told whenever it has changed, with an edition that grows."""

from collections.abc import Iterable

import pytest

from services.billing.tests.invoicing_kit import House
from services.billing.tests.support import NOON, licences, on
from shared.contracts.base import Fact
from shared.contracts.billing import (
    ChangePlan,
    CloseAccount,
    PauseBilling,
    PurgeAccount,
    RecurringRevenueChanged,
    ReopenAccount,
    RestoreLicences,
    RestorePlan,
    ResumeBilling,
    UnpauseBilling,
    VoidAccount,
    WithdrawResumption,
)
from shared.messaging.subscriptions import Answered
from shared.postgres import Pool


@pytest.fixture
def house(pool: Pool) -> House:
    return House(pool, start=NOON)


def _told(facts: Iterable[Fact]) -> list[tuple[str, int]]:
    return [(each.amount, each.edition) for each in facts if isinstance(each, RecurringRevenueChanged)]


def _of(said: Answered | Fact) -> list[tuple[str, int]]:
    return _told(said.tells) if isinstance(said, Answered) else []


async def test_whatever_changes_what_is_charged_a_month_is_told_with_the_next_edition(house: House) -> None:
    await house.open_only("t1")
    started = await house.activate("t1")
    assert _told(each.message for each in started if isinstance(each.message, Fact)) == [("49.00", 1)]

    changed = await house.do(ChangePlan(tenant_id="t1", plan="premium"))
    licensed = await house.do(licences("t1", chess="standard"))
    await house.at(on(2))
    paused = await house.do(PauseBilling(tenant_id="t1"))
    resumed = await house.do(ResumeBilling(tenant_id="t1"))
    assert [_of(each) for each in (changed, licensed, paused, resumed)] == [
        [("499.00", 2)],
        [("548.00", 3)],
        [("0.00", 4)],
        [("548.00", 5)],
    ]
    closed = await house.do(CloseAccount(tenant_id="t1"))
    undone = [
        await house.undo(ReopenAccount, "t1", closed),
        await house.undo(WithdrawResumption, "t1", resumed),
        await house.undo(UnpauseBilling, "t1", paused),
        await house.undo(RestoreLicences, "t1", licensed),
        await house.undo(RestorePlan, "t1", changed),
    ]
    assert [_of(closed), *map(_of, undone)] == [
        [("0.00", 6)],
        [("548.00", 7)],
        [("0.00", 8)],
        [("548.00", 9)],
        [("499.00", 10)],
        [("49.00", 11)],
    ]

    stopped = await house.deactivate("t1")
    assert _told(each.message for each in stopped if isinstance(each.message, Fact)) == []  # of another workflow


async def test_what_changes_no_amount_tells_nothing(house: House) -> None:
    await house.open("t1")
    again = await house.do(ChangePlan(tenant_id="t1", plan="standard"))
    free = await house.do(licences("t1", chess="free"))
    refused = await house.do(ChangePlan(tenant_id="t1", plan="gold"))

    assert [_of(each) for each in (again, free, refused)] == [[], [], []]


@pytest.mark.parametrize("end", [VoidAccount(tenant_id="t1"), PurgeAccount(tenant_id="t1")])
async def test_an_account_that_goes_is_charged_nothing(house: House, end: VoidAccount | PurgeAccount) -> None:
    await house.open("t1")

    assert _of(await house.answer(end)) == [("0.00", 2)]
    assert _of(await house.answer(end)) == []


async def test_the_end_of_an_account_that_is_charged_nothing_tells_nothing(house: House) -> None:
    await house.open("t1")
    await house.do(PauseBilling(tenant_id="t1"))

    assert _of(await house.answer(PurgeAccount(tenant_id="t1"))) == []


async def test_of_a_batch_each_tenant_is_told_of_once(house: House) -> None:
    await house.open("t1", "t2")
    asks = [
        ChangePlan(tenant_id="t1", plan="premium"),
        ChangePlan(tenant_id="t2", plan="free"),
        ChangePlan(tenant_id="t1", plan="free"),
    ]

    said = await house.do_all(*asks)

    assert [_of(each) for each in said] == [[], [("0.00", 2)], [("0.00", 2)]]
