"""The end of an account: its last invoice has the usage on it, and what was billed for nothing is given back."""

from datetime import UTC, datetime, timedelta

import pytest

from services.billing.tests.invoicing_kit import PER_CALL, House, publish
from services.billing.tests.support import NOON, on
from shared.contracts.billing import (
    AccountClosed,
    AccountClosingRefused,
    CloseAccount,
    InvoiceIssued,
    PurgeAccount,
    ReopenAccount,
    UsageRequested,
    VoidAccount,
)
from shared.messaging.subscriptions import Answered, Changed
from shared.postgres import Pool

CLOSE = CloseAccount(tenant_id="t1")


@pytest.fixture
async def house(pool: Pool) -> House:
    """A service with an account whose calls are charged, since `NOON`."""
    house = House(pool, start=NOON)
    await publish(pool, "metered", "31", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    await house.settle()
    return house


async def test_a_metered_account_is_closed_when_its_usage_is_known(house: House) -> None:
    house.metrics.use("t1", "calls", "100", at=on(5))
    await house.at(on(11) + timedelta(minutes=30))

    refused = await house.do(CLOSE)
    request = _request(refused)
    await house.report(request)
    await house.move_to(house.clock.now() + timedelta(seconds=2))
    closed = await house.do(CLOSE)

    assert isinstance(refused.answer, AccountClosingRefused)
    assert (refused.answer.code, refused.answer.retryable, refused.before) == ("usage_pending", True, None)
    assert [(each.since, each.until) for each in request.periods] == [(datetime(2026, 3, 1, tzinfo=UTC), on(11, 13))]
    assert isinstance(closed.answer, AccountClosed)
    assert closed.answer.total == "11.00"


async def test_a_closing_asks_each_time_until_metrics_has_answered(house: House) -> None:
    await house.at(on(11))
    requests = []
    for _ in range(3):
        requests.append(_request(await house.do(CLOSE)))
        await house.move_to(house.clock.now() + timedelta(seconds=1))
    await house.report(requests[-1])

    assert isinstance((await house.do(CLOSE)).answer, AccountClosed)


async def test_what_was_reported_before_a_closing_was_asked_for_is_not_enough(house: House) -> None:
    await house.at(on(11))
    request = _request(await house.do(CLOSE))
    early = house.metrics.report(request, now=on(11) - timedelta(seconds=1))
    await house.pool.execute(
        "INSERT INTO usage_report VALUES ('t1', $1, $2, '{}', $3)",
        early.periods[0].since,
        early.periods[0].until,
        early.stated_at,
    )

    assert isinstance((await house.do(CLOSE)).answer, AccountClosingRefused)


async def test_a_closing_catches_up_with_months_that_were_never_billed(house: House) -> None:
    """The loop was away, or there was none."""
    house.metrics.use("t1", "calls", "100", at=on(5))
    house.metrics.use("t1", "calls", "200", at=on(5, month=6))
    await house.move_to(on(11, month=6))
    await house.report(_request(await house.do(CLOSE)))

    closed = await house.do(CLOSE)

    assert closed.answer.model_dump()["total"] == "106.33"  # 31 + 1, 31, 31, 10 of 30 days and 2


async def test_without_usage_charges_a_closing_waits_for_nothing(house: House) -> None:
    await house.open("t2")

    assert isinstance((await house.do(CloseAccount(tenant_id="t2"))).answer, AccountClosed)


async def test_a_closing_that_is_taken_back_lets_the_loop_go_on(house: House) -> None:
    house.metrics.use("t1", "calls", "100", at=on(5))
    await house.at(on(11))
    await house.report(_request(await house.do(CLOSE)))
    closed = await house.do(CLOSE)
    await house.at(on(3, month=5))
    assert await house.invoices() == []

    await house.undo(ReopenAccount, "t1", closed)
    await house.at(on(4, month=5))

    assert [total for _, total in await house.totals()] == ["32.00", "31.00"]


async def test_a_purge_issues_the_draft_and_tells_of_it(house: House) -> None:
    await house.at(on(11))
    await house.report(_request(await house.do(CLOSE)))
    closed = await house.do(CLOSE)
    await house.at(on(20))

    purged = await house.answer(PurgeAccount(tenant_id="t1"))

    assert isinstance(purged, Answered)
    (issued,) = (each for each in purged.tells if isinstance(each, InvoiceIssued))
    assert (issued.number, issued.total, issued.issued_at) == ("00000001", "10.00", on(20))
    assert issued.invoice_id == closed.answer.model_dump()["invoice_id"] == purged.answer.model_dump()["invoice_id"]
    assert await house.pool.fetch("SELECT * FROM live_record") == []
    again = await house.answer(PurgeAccount(tenant_id="t1"))
    assert isinstance(again, Answered)
    assert (again.tells, again.answer.model_dump()["invoice_id"]) == ((), issued.invoice_id)


async def test_a_report_that_comes_after_the_purge_leaves_nothing(house: House) -> None:
    await house.at(on(11))
    request = _request(await house.do(CLOSE))
    await house.answer(PurgeAccount(tenant_id="t1"))

    await house.report(request)

    assert await house.pool.fetch("SELECT * FROM live_record") == []


async def test_what_was_billed_of_an_activation_that_is_taken_back_is_given_back(house: House, pool: Pool) -> None:
    await publish(pool, "ahead", "31", pays="advance")
    await house.at(on(17))
    await house.open("t2", plan="ahead")
    await house.settle()
    await house.deactivate("t2")
    await house.report(
        UsageRequested.model_validate(
            {"tenant_id": "t2", "periods": [{"since": on(1), "until": on(2)}], "requested_at": NOON}
        )
    )

    voided = await house.answer(VoidAccount(tenant_id="t2"))

    assert isinstance(voided, Answered)
    (issued,) = (each for each in voided.tells if isinstance(each, InvoiceIssued))
    assert issued.total == "-15.00"
    assert [total for _, total in await house.totals("t2")] == ["15.00", "-15.00"]
    assert await house.lines(2) == [
        (f"correction of invoice 00000001: {(await house.lines(1))[0][0]}, taken back", "-15.00")
    ]
    assert [row["tenant_id"] for row in await pool.fetch("SELECT DISTINCT tenant_id FROM live_record")] == ["t1"]


def _request(refused: Changed) -> UsageRequested:
    assert isinstance(refused.answer, AccountClosingRefused)
    (request,) = refused.tells
    assert isinstance(request, UsageRequested)
    return request
