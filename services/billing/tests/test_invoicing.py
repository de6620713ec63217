"""The loop that makes invoices: when, of what, once, and what it waits for."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from deploy.local.throwaway import FreshDatabases
from services.billing import dossiers, queries
from services.billing.tests.invoicing_kit import GRACE, PER_CALL, House, both, publish
from services.billing.tests.support import NOON, licences, on
from shared.contracts.billing import (
    ChangePlan,
    CloseAccount,
    InvoiceIssued,
    PauseBilling,
    ReopenAccount,
    ResumeBilling,
    UsageRequested,
)
from shared.contracts.metrics import UsageReported
from shared.messaging import outbox
from shared.postgres import Pool, open_pool

FIRST = {month: datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 13)}


@pytest.fixture(autouse=True)
def plain_tracebacks() -> None:
    """Log an exception without the values of all variables, which takes longer than the test."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest.fixture
def house(pool: Pool) -> House:
    return House(pool, start=NOON)


async def test_every_month_has_its_invoice(house: House) -> None:
    await house.open("t1")

    await house.at(on(2, month=6))

    assert await house.totals() == [(FIRST[4], "49.00"), (FIRST[5], "49.00"), (FIRST[6], "49.00")]
    assert [(each.number, each.total, each.issued_at) for each in await house.told(InvoiceIssued)] == [
        ("00000001", "49.00", FIRST[4]),
        ("00000002", "49.00", FIRST[5]),
        ("00000003", "49.00", FIRST[6]),
    ]


async def test_an_outage_of_months_is_caught_up_with_the_invoices_that_there_would_have_been(
    house: House, pool: Pool
) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await publish(pool, "ahead", "30", pays="advance")
    await house.open("t1")
    await house.open("t2", plan="metered")
    await house.open("t3", plan="ahead")
    house.metrics.use("t2", "calls", "500", at=on(3, month=4))

    await house.move_to(on(2, month=6))
    await house.settle()

    assert await house.totals("t1") == [(FIRST[month], "49.00") for month in (4, 5, 6)]
    assert await house.totals("t2") == [(FIRST[4], "10.00"), (FIRST[5], "15.00"), (FIRST[6], "10.00")]
    assert await house.totals("t3") == [(NOON, "30.00"), *((FIRST[month], "30.00") for month in (4, 5, 6))]
    assert [number for _, number, _, _ in await house.invoices()] == list(range(1, 11))


async def test_what_pays_in_advance_is_billed_at_the_activation(house: House, pool: Pool) -> None:
    await publish(pool, "ahead", "31", pays="advance")
    await house.at(on(17))
    await house.open("t1", plan="ahead")

    await house.settle()

    assert await house.totals() == [(on(17), "15.00")]


async def test_usage_is_billed_with_what_was_stored_before_the_cutoff_and_later_usage_with_the_next(
    house: House, pool: Pool
) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    cutoff = FIRST[4] + GRACE
    house.metrics.use("t1", "calls", "1000", at=on(20))
    house.metrics.use("t1", "calls", "200", at=on(31), stored_at=cutoff)
    house.metrics.use("t1", "calls", "30", at=on(31), stored_at=cutoff + timedelta(seconds=1))

    await house.at(cutoff - timedelta(seconds=1))
    assert await house.totals() == []
    await house.at(cutoff)
    assert await house.totals() == [(FIRST[4], "22.00")]
    before = await house.content()
    await house.at(on(3, month=5))

    assert await house.totals() == [(FIRST[4], "22.00"), (FIRST[5], "10.30")]
    assert (await house.content())[: len(before)] == before
    late = await pool.fetchrow("SELECT since, until, amount FROM invoice_line WHERE description LIKE 'correction%'")
    assert late is not None
    assert (late["since"], late["until"]) == (FIRST[3], FIRST[4])
    cutoffs = await pool.fetch("SELECT usage_stated_at FROM invoice ORDER BY number")
    assert [row["usage_stated_at"] for row in cutoffs] == [cutoff, FIRST[5] + GRACE]


async def test_without_usage_charges_there_is_no_wait(house: House) -> None:
    await house.open("t1")

    await house.at(FIRST[4])

    assert await house.totals() == [(FIRST[4], "49.00")]
    assert await house.told(UsageRequested) == []


async def test_metrics_that_is_away_is_asked_again_and_the_invoice_waits(house: House, pool: Pool) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    await house.open("t2")
    house.metrics.is_away = True

    await house.at(FIRST[4] + GRACE + timedelta(minutes=12))

    asked = await house.told(UsageRequested)
    assert [each.requested_at - FIRST[4] - GRACE for each in asked] == [timedelta(minutes=each) for each in (0, 5, 10)]
    assert {each.periods for each in asked} == {asked[0].periods}
    assert [(each.since, each.until) for each in asked[0].periods] == [(FIRST[3], FIRST[4])]
    assert [tenant_id for tenant_id, *_ in await house.invoices()] == ["t2"]

    async with pool.acquire() as connection:
        await queries.invoicing.look_again(connection, ["t1"])
    await house.settle()
    assert await house.told(UsageRequested) == asked

    await house.report(asked[0])
    await house.settle()
    assert [tenant_id for tenant_id, *_ in await house.invoices()] == ["t2", "t1"]


async def test_a_report_from_before_the_cutoff_is_not_enough(house: House, pool: Pool) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    house.metrics.is_away = True
    await house.at(FIRST[4] + GRACE)
    (asked,) = await house.told(UsageRequested)

    await house.pool.execute("DELETE FROM usage_report")
    early = house.metrics.report(asked, now=FIRST[4] + GRACE - timedelta(microseconds=1))
    await _hear(house, early)
    assert await house.totals() == []

    await _hear(house, house.metrics.report(asked, now=FIRST[4] + GRACE))
    assert await house.totals() == [(FIRST[4], "10.00")]


async def test_a_report_that_is_older_than_what_is_known_changes_nothing(house: House, pool: Pool) -> None:
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    await house.open("t1", plan="metered")
    house.metrics.is_away = True
    await house.at(FIRST[4] + GRACE)
    (asked,) = await house.told(UsageRequested)
    older = house.metrics.report(asked, now=FIRST[4] + GRACE)
    house.metrics.use("t1", "calls", "100", at=on(5))
    newer = house.metrics.report(asked, now=FIRST[4] + GRACE + timedelta(seconds=1))

    await _hear(house, newer, older)
    assert await house.totals() == [(FIRST[4], "11.00")]
    await _hear(house, older)

    assert await pool.fetchval("SELECT quantities FROM usage_report") == {"calls": "100"}


async def test_reports_about_unknown_tenants_leave_nothing(house: House, pool: Pool) -> None:
    request = UsageRequested.model_validate(
        {"tenant_id": "t9", "periods": [{"since": FIRST[3], "until": FIRST[4]}], "requested_at": NOON}
    )

    await house.report(request)

    assert await pool.fetchval("SELECT count(*) FROM usage_report") == 0


async def test_another_plan_that_is_paid_in_advance_is_billed_and_the_rest_of_the_old_one_given_back(
    house: House, pool: Pool
) -> None:
    await publish(pool, "small", "30", pays="advance")
    await publish(pool, "large", "300", pays="advance")
    await house.at(FIRST[4])
    await house.open("t1", plan="small")
    await house.at(on(16, month=4))
    await house.do(ChangePlan(tenant_id="t1", plan="large"))

    await house.at(on(1, month=6))

    # In April 15 days of each: 15 + 150, of which 30 were billed. A month of the new plan is paid in advance.
    assert await house.totals() == [(FIRST[4], "30.00"), (FIRST[5], "435.00"), (FIRST[6], "300.00")]


async def test_a_pause_is_not_charged_and_what_was_paid_for_it_is_given_back(house: House, pool: Pool) -> None:
    await publish(pool, "ahead", "30", pays="advance")
    await house.at(FIRST[4])
    await house.open("t1")
    await house.open("t2", plan="ahead")
    await house.at(on(11, month=4))
    for tenant_id in ("t1", "t2"):
        await house.do(PauseBilling(tenant_id=tenant_id))

    await house.at(on(20, month=6))
    for tenant_id in ("t1", "t2"):
        await house.do(ResumeBilling(tenant_id=tenant_id))
    await house.at(FIRST[7])

    assert await house.totals("t1") == [(FIRST[5], "16.33"), (FIRST[7], "17.97")]
    assert await house.totals("t2") == [(FIRST[4], "30.00"), (FIRST[5], "-20.00"), (FIRST[7], "41.00")]


async def test_the_end_of_a_trial_that_is_paid_in_advance_afterwards_is_not_waited_for_until_the_month_is_over(
    house: House, pool: Pool
) -> None:
    await publish(pool, "tried", "30", pays="advance", trial_days=10)
    await house.at(FIRST[4])
    await house.open("t1")
    await house.at(on(2, month=4))
    await house.do(licences("t1", chess="tried"))

    await house.at(on(30, month=4))

    assert await house.totals() == [(datetime(2026, 4, 12, tzinfo=UTC), "19.00")]


async def test_nothing_is_billed_before_the_activation(house: House) -> None:
    await house.open_only("t1")
    for day in (1, 2, 10):
        await house.move_to(on(day, month=6))
        await house.settle()
    assert await house.invoices() == []

    await house.activate("t1")
    await house.at(on(2, month=7))

    assert await house.totals() == [(FIRST[7], "34.30")]


async def test_nothing_is_billed_after_the_closing_but_what_its_draft_says(house: House) -> None:
    await house.open("t1")
    await house.at(on(11, month=4))
    done = await house.do(CloseAccount(tenant_id="t1"))
    await house.at(on(11, month=7))

    assert await house.totals() == [(FIRST[4], "49.00")]
    assert done.answer.model_dump()["total"] == "16.33"


async def test_a_reopened_account_is_billed_on_as_if_it_had_never_been_closed(house: House) -> None:
    await house.open("t1")
    await house.at(on(11, month=4))
    done = await house.do(CloseAccount(tenant_id="t1"))
    await house.at(on(11, month=6))

    await house.undo(ReopenAccount, "t1", done)
    await house.at(on(12, month=6))

    assert await house.totals() == [(FIRST[month], "49.00") for month in (4, 5, 6)]
    assert await house.pool.fetchval("SELECT count(*) FROM invoice WHERE state = 'draft'") == 0


async def test_two_loops_make_every_invoice_once(house: House, pool: Pool) -> None:
    tenants = [f"t{number:02}" for number in range(20)]
    await house.open(*tenants)
    await house.move_to(on(2, month=6))

    await both(house.invoicing, house.replica(), house.replica())

    assert sorted((tenant_id, closes_at) for tenant_id, _, closes_at, _ in await house.invoices()) == [
        (tenant_id, FIRST[month]) for tenant_id in tenants for month in (4, 5, 6)
    ]
    assert [number for _, number, _, _ in await house.invoices()] == list(range(1, 61))


STATEMENTS = (
    (queries.subscriptions, "lock"),
    (queries.invoicing, "lock_due"),
    (queries.invoicing, "stretches"),
    (queries.invoicing, "billed"),
    (queries.usage, "reports"),
    (queries.invoices, "draft"),
    (queries.invoices, "take_numbers"),
    (queries.invoices, "issue"),
    (queries.invoicing, "reschedule"),
    (outbox, "insert"),
)


async def test_a_loop_that_dies_between_any_two_statements_leaves_nothing_half_done(
    house: House, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is done again comes to the same bytes."""
    tenants = ["t1", "t2", "t3"]
    await house.open(*tenants)
    await house.settle()
    await house.move_to(on(2, month=6))
    dying = itertools.cycle(STATEMENTS)

    deaths = 0
    while deaths < 2 * len(STATEMENTS):
        module, name = next(dying)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _dies_after(getattr(module, name)))
            before = await house.content(), await pool.fetch("SELECT * FROM account ORDER BY 1")
            with pytest.raises(ConnectionResetError):
                await house.invoicing.round(2)
            assert (await house.content(), await pool.fetch("SELECT * FROM account ORDER BY 1")) == before
        deaths += 1
        if deaths % 7 == 0:
            await house.invoicing.round(2)
    await house.settle()

    assert sorted((tenant_id, closes_at) for tenant_id, _, closes_at, _ in await house.invoices()) == [
        (tenant_id, FIRST[month]) for tenant_id in tenants for month in (4, 5, 6)
    ]
    assert [number for _, number, _, _ in await house.invoices()] == list(range(1, 10))
    assert len(await house.told(InvoiceIssued)) == 9


async def test_the_same_inputs_give_the_same_invoices_to_the_last_byte(fresh_database: FreshDatabases) -> None:
    """Also where one service made each in time, and the other all of them after an outage."""
    made = []
    for is_in_time in (True, False):
        pool = await open_pool(await fresh_database("billing"))
        house = House(pool, start=NOON)
        await publish(pool, "metered", "10.01", charges=[("calls", PER_CALL)])
        await house.open("t1", plan="metered")
        await house.open("t2", licences=[{"product": "chess", "plan": "premium"}])
        house.metrics.use("t1", "calls", "12345", at=on(5))
        if is_in_time:
            await house.at(on(3, month=5))
        await house.move_to(on(3, month=5))
        await house.settle()
        made.append(await house.content())
        await pool.close()

    in_time, afterwards = made
    assert len(in_time) == 7
    assert afterwards == in_time


async def test_an_account_that_fails_keeps_no_other_waiting_and_is_tried_again(
    house: House, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [f"t{number}" for number in range(7)]
    await house.open(*tenants)
    await house.settle()
    of_sound = dossiers.Dossier.lines

    def of_one_is_broken(dossier: dossiers.Dossier, *args: Any, **more: Any) -> Any:
        if dossier.tenant_id == "t3":
            raise LookupError("no such version")
        return of_sound(dossier, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(dossiers.Dossier, "lines", of_one_is_broken)
        await house.at(FIRST[4])
        assert [tenant_id for tenant_id, *_ in await house.invoices()] == [each for each in tenants if each != "t3"]
        assert await _stuck(house) == 1
        await house.at(FIRST[4] + timedelta(minutes=59))
    assert await _stuck(house) == 1

    await house.at(FIRST[4] + timedelta(hours=1))

    assert ("t3", 7, FIRST[4], "49.00") in await house.invoices()
    assert await _stuck(house) == 0


async def _stuck(house: House) -> int:
    async with house.pool.acquire() as connection:
        return await queries.invoicing.stuck(connection)


async def _hear(house: House, *reports: UsageReported) -> None:
    await house.keep(*reports)
    while await house.invoicing.round():
        pass


def _dies_after(statement: Any) -> Any:
    async def dies(*args: Any, **more: Any) -> Any:
        await statement(*args, **more)
        raise ConnectionResetError("the process is gone")

    return dies
