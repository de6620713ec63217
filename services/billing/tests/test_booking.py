"""Invoices become receivables: each once, in the order of their numbers, whatever happens meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.billing import queries
from services.billing.tests.support import NOON, do_it, on, open_active, purge
from services.billing.tests.till import Till
from shared.contracts.billing import CloseAccount, InvoiceSettled
from shared.postgres import Pool


@pytest.fixture
def till(pool: Pool) -> Till:
    return Till(pool)


async def test_an_invoice_is_due_as_soon_as_it_is_issued(till: Till, pool: Pool) -> None:
    invoice_id = await till.invoice("t1", "49.00")

    (row,) = await pool.fetch("SELECT invoice_id, number, issued_at, collect_at, settled_at FROM receivable")
    assert tuple(row) == (invoice_id, 1, NOON, None, None)
    assert await till.receivables() == [("49.00", "0.00", "0.00", "0.00", "49.00")]
    assert await till.booking.round() == 0


async def test_the_last_invoice_of_a_tenant_that_is_gone_is_due_too(till: Till, pool: Pool) -> None:
    await open_active(pool, "t1")
    await do_it(pool, CloseAccount(tenant_id="t1"), at=on(11))
    await till.book()
    assert await till.receivables() == []

    await purge(pool, "t1", at=on(12))
    await till.book()

    assert await till.receivables() == [("15.81", "0.00", "0.00", "0.00", "15.81")]


async def test_a_provider_is_asked_at_once_where_there_is_one(till: Till, pool: Pool) -> None:
    await till.issue("t1", "49.00")
    await till.replica(collects=True).round()

    assert await pool.fetchval("SELECT collect_at FROM receivable") == NOON


async def test_credit_is_used_before_a_provider_is_asked(till: Till, pool: Pool) -> None:
    await till.invoice("t1", "-60.00")
    await till.issue("t1", "49.00")
    await till.issue("t1", "20.00")
    await till.replica(collects=True).round()

    rows = await pool.fetch("SELECT round(due, 2)::text, collect_at FROM receivable ORDER BY number")
    assert [tuple(row) for row in rows] == [("0.00", None), ("9.00", NOON)]


async def test_an_invoice_of_nothing_leaves_nothing_and_one_below_zero_is_credit(till: Till) -> None:
    await till.invoice("t1", "0.00")
    assert await till.credit() == {}

    await till.invoice("t1", "-12.50")

    assert (await till.receivables(), await till.credit()) == ([], {"USD": "12.50"})
    await till.check()


async def test_what_is_settled_by_credit_is_told(till: Till) -> None:
    await till.invoice("t1", "-50.00")
    await till.house.move_to(on(2))
    first = await till.issue("t1", "30.00")
    await till.issue("t1", "30.00")
    await till.book()

    assert await till.receivables() == [
        ("30.00", "0.00", "30.00", "0.00", "0.00"),
        ("30.00", "0.00", "20.00", "0.00", "10.00"),
    ]
    assert await till.told(InvoiceSettled) == [
        InvoiceSettled(tenant_id="t1", invoice_id=str(first), number="00000002", settled_at=till.clock.now())
    ]
    assert await till.pool.fetchval("SELECT settled_at FROM receivable WHERE due = 0") == till.clock.now()
    await till.check()


async def test_what_is_in_another_currency_is_not_settled_by_it(till: Till) -> None:
    await till.invoice("t1", "-50.00")
    await till.invoice("t1", "30.00", currency="EUR")

    assert await till.receivables() == [("30.00", "0.00", "0.00", "0.00", "30.00")]
    assert await till.credit() == {"USD": "50.00", "EUR": "0.00"}
    await till.invoice("t1", "-40.00", currency="EUR")
    assert await till.credit() == {"USD": "50.00", "EUR": "10.00"}
    await till.check()


async def test_whoever_is_invoiced_is_looked_at_how_far_it_is_behind(till: Till, pool: Pool) -> None:
    await till.invoice("t1", "30.00")
    await pool.execute("UPDATE debtor SET look_at = 'infinity'")

    await till.invoice("t1", "30.00")
    await till.invoice("t2", "0.00")

    looked_at = await pool.fetch("SELECT tenant_id FROM debtor WHERE look_at = '-infinity'")
    assert [row["tenant_id"] for row in looked_at] == ["t1"]


async def test_booking_that_is_killed_in_the_middle_goes_on_where_it_was(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 8):
        await till.issue(f"t{number % 3}", "10.00" if number % 2 else "-15.00")
    assert await till.booking.round(3) == 3
    before = await till.content()

    for name in ("add", "save", "save_credit", "book_until"):
        with monkeypatch.context() as patch:
            patch.setattr(queries.receivables, name, _dies_after(getattr(queries.receivables, name)))
            with pytest.raises(asyncio.CancelledError):
                await till.booking.round(3)
        assert await till.content() == before

    await till.book()
    assert await till.pool.fetchval("SELECT last FROM booking") == 7
    assert await till.pool.fetchval("SELECT count(*) FROM receivable") == 4
    await till.check()


def _dies_after(statement: Any) -> Any:
    async def dying(*given: Any, **named: Any) -> None:
        await statement(*given, **named)
        raise asyncio.CancelledError

    return dying


async def test_two_that_book_at_once_book_everything_once(till: Till) -> None:
    for number in range(40):
        await till.issue(f"t{number % 7}", "10.00" if number % 3 else "-15.00")

    async def rounds(loop: Any) -> Sequence[int]:
        counts = []
        while count := await loop.round(3):
            counts.append(count)
        return counts

    counts = await asyncio.gather(*map(rounds, (till.booking, till.replica(), till.replica())))

    assert sum(map(sum, counts)) == 40
    assert await till.pool.fetchval("SELECT count(*) FROM receivable") == 26
    await till.check()


async def test_an_invoice_that_is_not_committed_yet_is_waited_for(till: Till, pool: Pool) -> None:
    """Its number is lower than that of whatever is committed meanwhile: so nothing is committed meanwhile."""
    async with pool.acquire() as connection:
        under_way = connection.transaction()
        await under_way.start()
        await connection.execute("UPDATE invoice_series SET last = last + 1 WHERE name = 'invoice'")
        later = asyncio.create_task(till.issue("t2", "10.00"))
        await asyncio.sleep(0.1)
        assert await till.booking.round() == 0
        assert not later.done()
        await under_way.rollback()
    await later

    assert await till.booking.round() == 1


async def test_an_invoice_says_what_is_due_of_it(till: Till, pool: Pool) -> None:
    unbooked, due = await till.issue("t1", "5.00"), await till.issue("t1", "49.00")
    async with pool.acquire() as connection:
        before = await queries.invoices.invoice(connection, unbooked, within=None)
        await till.book()
        await till.pay(due, "9.00")
        after = await queries.invoices.invoice(connection, due, within="t1")

    assert before is not None
    assert after is not None
    assert (before["due"], before["settled_at"]) == (None, None)
    assert (str(after["due"]), after["settled_at"]) == ("40.00", None)
