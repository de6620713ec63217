"""What tenants may spend in a month: when it is told, when usage is refused and when an invoice is made at once."""

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from services.billing import dossiers, queries
from services.billing.spending import SpendingWatch
from services.billing.tests.invoicing_kit import GRACE, PER_CALL, publish
from services.billing.tests.spending_kit import Purse
from services.billing.tests.support import NOON, licences, on, residue
from shared.access import ADMINISTRATOR
from shared.contracts.billing import (
    ChangePlan,
    CloseAccount,
    InvoiceIssued,
    PauseBilling,
    PurgeAccount,
    ResumeBilling,
    SpendingLimitReached,
    UsageRequested,
    VoidAccount,
)
from shared.messaging import outbox
from shared.messaging.subscriptions import Changed
from shared.postgres import Pool

FIRST = {month: datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 13)}
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def plain_tracebacks() -> None:
    """Log an exception without the values of all variables, which takes longer than the test."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest.fixture
async def purse(pool: Pool) -> Purse:
    """With a plan of 10.00 a month and 0.01 a call."""
    await publish(pool, "metered", "10", charges=[("calls", PER_CALL)])
    return Purse(pool, start=NOON)


async def test_what_is_reached_of_a_limit_is_told_once_a_month_each(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20")
    for day, calls in ((5, 599), (6, 1), (7, 300), (8, 100), (9, 1000)):
        purse.metrics.use("t1", "calls", str(calls), at=on(day))
    purse.metrics.use("t1", "calls", "600", at=on(3, month=4))

    await purse.days(on(5), on(6, 11))
    assert await purse.reached() == []
    await purse.days(on(6))
    assert await purse.reached() == [("t1", 80, "16.00", "2026-03")]
    await purse.days(on(7))
    assert len(await purse.reached()) == 1
    await purse.days(on(8), on(9), on(3, month=4), on(20, month=4))

    assert await purse.reached() == [
        ("t1", 80, "16.00", "2026-03"),
        ("t1", 100, "20.00", "2026-03"),
        ("t1", 80, "16.00", "2026-04"),
    ]
    first, *_ = await purse.told(SpendingLimitReached)
    assert (first.currency, first.limit, first.action) == ("USD", "20.00", "alert")
    assert await purse.blocks() == []
    assert await purse.totals() == [(FIRST[4], "30.00")]


async def test_a_base_fee_counts_and_what_is_reached_at_once_is_told_in_order(purse: Purse) -> None:
    await purse.open("t1")

    await purse.limit("t1", "49")

    assert await purse.reached() == [("t1", 80, "49.00", "2026-03"), ("t1", 100, "49.00", "2026-03")]
    assert await purse.told(UsageRequested) == []


async def test_who_was_never_charged_has_spent_nothing(purse: Purse) -> None:
    await purse.open_only("t1")

    await purse.limit("t1", "0.01", "block")

    assert (await purse.reached(), await purse.blocks()) == ([], [])


async def test_the_month_is_that_of_the_account(purse: Purse) -> None:
    await purse.open("t1", plan="metered", time_zone="Asia/Tokyo")
    purse.metrics.use("t1", "calls", "2000", at=on(31, 14))
    purse.metrics.use("t1", "calls", "1000", at=on(31, 15))
    await purse.limit("t1", "20")

    await purse.days(on(31, 14), on(31, 15), on(3, month=4))

    assert await purse.reached() == [
        ("t1", 80, "30.00", "2026-03"),
        ("t1", 100, "30.00", "2026-03"),
        ("t1", 80, "20.00", "2026-04"),
        ("t1", 100, "20.00", "2026-04"),
    ]


async def test_metrics_is_asked_once_an_hour_what_was_used_in_the_running_month(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20")
    purse.metrics.is_away = True

    await purse.hours(3)

    asked = await purse.told(UsageRequested)
    assert [each.requested_at - NOON for each in asked] == [number * HOUR for number in range(4)]
    assert {(period.since, period.until) for each in asked for period in each.periods} == {(FIRST[3], FIRST[4])}


async def test_usage_is_refused_from_the_limit_on_until_the_month_is_over(purse: Purse) -> None:
    await purse.open("t1", plan="metered", time_zone="Europe/Berlin")
    await purse.limit("t1", "20", "block")
    purse.metrics.use("t1", "calls", "1000", at=on(5))

    await purse.days(on(5, 11))
    assert await purse.blocks() == []
    await purse.days(on(5))
    assert await purse.blocks() == [(True, 1)]
    end = datetime(2026, 3, 31, 22, tzinfo=UTC)  # in Berlin
    await purse.days(end - timedelta(seconds=1))
    assert await purse.blocks() == [(True, 1)]
    await purse.days(end)

    assert await purse.blocks() == [(True, 1), (False, 2)]


async def test_usage_is_taken_again_when_the_limit_is_raised_or_only_alerts_and_refused_when_it_is_lowered(
    purse: Purse,
) -> None:
    await purse.open("t1", plan="metered")
    purse.metrics.use("t1", "calls", "1000", at=NOON)
    for amount, action in (("20", "block"), ("20", "block"), ("30", "block"), ("15", "block"), ("15", "alert")):
        await purse.limit("t1", amount, action)

    assert await purse.blocks() == [(True, 1), (False, 2), (True, 3), (False, 4)]
    told = await purse.told(SpendingLimitReached)
    assert sorted((each.limit, each.action, each.percent) for each in told) == [
        ("15.00", "alert", 80),
        ("15.00", "alert", 100),
        ("15.00", "block", 80),
        ("15.00", "block", 100),
        ("20.00", "block", 80),
        ("20.00", "block", 100),
    ]


async def test_usage_is_taken_again_when_the_limit_goes_and_a_new_one_goes_on_counting(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    purse.metrics.use("t1", "calls", "1000", at=NOON)
    await purse.limit("t1", "20", "block")

    await purse.limits.delete(ADMINISTRATOR, "t1")
    await purse.limit("t1", "20", "block")

    assert await purse.blocks() == [(True, 1), (False, 2), (True, 3)]


async def test_what_was_used_is_invoiced_at_once_and_the_month_s_own_invoice_corrects_it(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20", "invoice_now")
    purse.metrics.use("t1", "calls", "1000", at=on(5))
    purse.metrics.use("t1", "calls", "300", at=on(6))

    await purse.days(on(5))
    early = on(5)
    assert await purse.totals() == [(early, "10.00")]
    assert await purse.lines(1) == [("metered, calls in 2026-03: 1000 at 0.01 USD each", "10.00")]
    await purse.days(on(6))
    assert await purse.pool.fetchval("SELECT round(spent, 2)::text FROM spending_limit") == "23.00"
    await purse.days(on(3, month=4))

    assert await purse.totals() == [(early, "10.00"), (FIRST[4], "13.00")]
    assert await purse.lines(2) == [
        ("metered, 2026-03-01 to 2026-03-31: 31 of 31 days at 10.00 USD a month", "10.00"),
        ("correction of invoice 00000001: metered, calls in 2026-03: 1300 at 0.01 USD each, 300 more", "3.00"),
    ]
    assert [each.total for each in await purse.told(InvoiceIssued)] == ["10.00", "13.00"]
    assert [(percent, spent) for _, percent, spent, _ in await purse.reached()] == [(80, "20.00"), (100, "20.00")]


async def test_it_is_invoiced_again_whenever_as_much_was_used_as_the_limit(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20", "invoice_now")
    for day, calls in ((5, 1500), (6, 1999), (7, 1), (8, 100)):
        purse.metrics.use("t1", "calls", str(calls), at=on(day))

    await purse.days(on(5), on(6), on(7), on(8), on(2, month=4))

    assert await purse.totals() == [(on(5), "15.00"), (on(7), "20.00"), (FIRST[4], "11.00")]


async def test_what_was_invoiced_early_is_left_alone_by_an_invoice_in_the_middle_of_the_month(
    purse: Purse, pool: Pool
) -> None:
    await publish(pool, "tried", "30", pays="advance", trial_days=10)
    await purse.days(FIRST[4])
    await purse.open("t1", plan="metered")
    await purse.do(licences("t1", chess="tried"))
    await purse.limit("t1", "20", "invoice_now")
    purse.metrics.use("t1", "calls", "3000", at=on(5, month=4))

    await purse.days(on(5, month=4), on(2, month=5))

    assert await purse.totals() == [
        (on(5, month=4), "30.00"),
        (on(11, 0, month=4), "20.00"),
        (FIRST[5], "40.00"),  # the base fee of April, and of May for chess
    ]


async def test_none_is_made_early_while_that_of_the_month_before_is_to_come(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20", "invoice_now")
    purse.metrics.use("t1", "calls", "5000", at=on(1, 6, month=4))

    await purse.days(FIRST[4] + timedelta(hours=7), FIRST[4] + GRACE - timedelta(seconds=1))
    assert await purse.totals() == []
    await purse.days(FIRST[4] + GRACE)

    assert await purse.totals() == [(FIRST[4], "10.00"), (FIRST[4] + GRACE, "50.00")]


async def test_none_is_made_of_an_account_that_is_closed_and_its_last_one_knows_the_early_ones(purse: Purse) -> None:
    await purse.open("t1", plan="metered")
    await purse.limit("t1", "20", "invoice_now")
    purse.metrics.use("t1", "calls", "2000", at=on(5))
    purse.metrics.use("t1", "calls", "3000", at=on(6, 11))
    await purse.days(on(5))
    await purse.move_to(on(6))

    (pending,) = await purse.do_all(CloseAccount(tenant_id="t1"))
    assert isinstance(pending, Changed)
    await purse.report(*(each for each in pending.tells if isinstance(each, UsageRequested)))
    done = await purse.do(CloseAccount(tenant_id="t1"))
    await purse.settle()
    assert await purse.pool.fetchval("SELECT round(spent, 2)::text FROM spending_limit") == "51.61"
    await purse.days(on(2, month=5))

    assert done.answer.model_dump()["total"] == "31.61"  # five of 31 days, and 3000 calls
    assert await purse.totals() == [(on(5), "20.00")]


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_is_invoiced_early_pays_the_same_in_the_end(purse: Purse, pool: Pool, seed: int) -> None:
    """Two tenants with the same history, whatever it is; one of them has a limit."""
    chance = random.Random(seed)
    tiers = {"model": "graduated", "tiers": [
        {"upTo": "700", "unitAmount": "0.03", "flatAmount": "1"}, {"upTo": None, "unitAmount": "0.01"}]}  # fmt: skip
    await publish(pool, "other", "25", pays="advance", trial_days=chance.choice((0, 40)), charges=[("calls", tiers)])
    await purse.open("t1", "t2", plan=chance.choice(("metered", "other")))
    await purse.limit("t1", chance.choice(("11", "20", "35")), "invoice_now")
    asks = itertools.cycle(
        chance.sample([lambda each: ChangePlan(tenant_id=each, plan="other"), lambda each: PauseBilling(tenant_id=each),
                       lambda each: ChangePlan(tenant_id=each, plan="metered")], 3)
    )  # fmt: skip

    for day in range(1, 80, 6):
        now = NOON + timedelta(days=day, seconds=chance.randrange(86_400))
        await purse.days(now)
        calls = str(chance.randrange(1500))
        happened_at = now - timedelta(days=chance.randrange(4))
        ask: Any = next(asks)
        for tenant_id in ("t1", "t2"):
            purse.metrics.use(tenant_id, "calls", calls, at=happened_at, stored_at=now)
            if day % 4 == 1:
                await purse.do(ask(tenant_id))
            elif day % 4 == 3:
                await purse.do(ResumeBilling(tenant_id=tenant_id))
    await purse.days(on(3, month=9))

    rows = await pool.fetch("SELECT tenant_id, count(*), sum(total) FROM invoice GROUP BY 1 ORDER BY 1")
    (_, many, total), (_, few, same) = (tuple(row) for row in rows)
    assert (total, many > few) == (same, True), rows


async def test_nothing_of_a_limit_is_left_when_the_account_goes(purse: Purse) -> None:
    await purse.open_only("t1")
    await purse.open("t2")
    for tenant_id in ("t1", "t2"):
        await purse.limit(tenant_id, "49", "block")
    assert ("t2", "spending_limit") in await residue(purse.pool)

    await purse.answer(VoidAccount(tenant_id="t1"))
    await purse.do(CloseAccount(tenant_id="t2"))
    await purse.answer(PurgeAccount(tenant_id="t2"))
    await purse.settle()

    assert await residue(purse.pool) == []


async def test_two_watches_tell_and_invoice_everything_once(purse: Purse) -> None:
    tenants = [f"t{number:02}" for number in range(12)]
    await purse.open(*tenants, plan="metered")
    for tenant_id in tenants:
        purse.metrics.use(tenant_id, "calls", "1000", at=NOON)
        await purse.only_limit(tenant_id, "100")
    await purse.settle()
    for tenant_id in tenants:
        await purse.only_limit(tenant_id, "10", "invoice_now")
    await purse.move_to(NOON + timedelta(minutes=1))

    async def all_rounds(watch: SpendingWatch) -> None:
        while await watch.round(3):
            pass

    await asyncio.gather(*(all_rounds(SpendingWatch(purse.kernel())) for _ in range(3)))

    assert sorted((each, percent) for each, percent, *_ in await purse.reached()) == [
        (each, percent) for each in tenants for percent in (80, 100)
    ]
    assert sorted((each, total) for each, _, _, total in await purse.invoices()) == [
        (each, "10.00") for each in tenants
    ]


STATEMENTS = (
    (queries.subscriptions, "lock"),
    (queries.spending, "lock_due"),
    (queries.invoices, "issue"),
    (queries.spending, "next_editions"),
    (queries.spending, "reschedule"),
    (outbox, "insert"),
)


async def test_a_watch_that_dies_between_any_two_statements_leaves_nothing_half_done(
    purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await purse.open("t1", "t2", plan="metered")
    for tenant_id in ("t1", "t2"):
        purse.metrics.use(tenant_id, "calls", "1000", at=NOON)
        await purse.only_limit(tenant_id, "100")
    await purse.settle()
    for tenant_id, action in {"t1": "invoice_now", "t2": "block"}.items():
        await purse.only_limit(tenant_id, "20", action)

    for module, name in STATEMENTS:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _dies_after(getattr(module, name)))
            before = await purse.pool.fetch("SELECT * FROM spending_limit ORDER BY 1")
            with pytest.raises(ConnectionResetError):
                await purse.watch.round()
            assert await purse.pool.fetch("SELECT * FROM spending_limit ORDER BY 1") == before
            assert (await purse.invoices(), await purse.reached(), await purse.blocks("t2")) == ([], [], [])
    await purse.move_to(NOON + timedelta(minutes=1))
    await purse.settle()

    assert [(each, total) for each, _, _, total in await purse.invoices()] == [("t1", "10.00")]
    assert len(await purse.reached()) == 4
    assert await purse.blocks("t2") == [(True, 1)]


async def test_a_limit_that_fails_keeps_no_other_waiting_and_is_looked_at_again(
    purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [f"t{number}" for number in range(7)]
    await purse.open(*tenants)
    await purse.settle()
    of_sound = dossiers.Dossier.total

    def of_one_is_broken(dossier: dossiers.Dossier, *args: Any) -> Any:
        if dossier.tenant_id == "t3":
            raise LookupError("no such version")
        return of_sound(dossier, *args)

    with monkeypatch.context() as patch:
        patch.setattr(dossiers.Dossier, "total", of_one_is_broken)
        for tenant_id in tenants:
            await purse.only_limit(tenant_id, "60", "alert")
        await purse.days(NOON + HOUR - timedelta(seconds=1))
        assert [each for each, *_ in await purse.reached()] == [each for each in tenants if each != "t3"]

    await purse.days(NOON + HOUR)

    assert [each for each, *_ in await purse.reached()] == tenants


def _dies_after(statement: Any) -> Any:
    async def dies(*args: Any, **more: Any) -> Any:
        await statement(*args, **more)
        raise ConnectionResetError("the process is gone")

    return dies
