"""The loop that tells how far tenants are behind with their payments, and what they are refused meanwhile."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from services.billing import queries
from services.billing.booking import Booking
from services.billing.dunning import Dunning
from services.billing.overdue import Terms
from services.billing.receivables import MANUAL, Incoming, receive
from services.billing.tests.invoicing_kit import House
from services.billing.tests.support import NOON, are_waiting, licences, on
from shared.contracts.billing import (
    ChangePlan,
    InvoiceIssued,
    LicencesChanged,
    LicencesChangeRefused,
    OverdueChanged,
    PlanChanged,
    PlanChangeRefused,
    PurgeAccount,
)
from shared.messaging import outbox
from shared.messaging.subscriptions import Changed
from shared.postgres import Pool, transaction
from shared.testing import eventually

DAY = timedelta(days=1)
TERMS = Terms(past_due=10 * DAY, suspension=14 * DAY, termination=21 * DAY)
ISSUED = datetime(2026, 4, 1, tzinfo=UTC)
"""When the first invoice is issued of whoever is charged since `NOON`."""


class Office:
    """A billing service that makes invoices, books them, and looks who pays."""

    def __init__(self, pool: Pool) -> None:
        self.house = House(pool, start=NOON)
        self.pool = pool
        self.booking = Booking(self.house.kernel(), collects=False)
        self.dunning = self.loop(TERMS)

    def loop(self, terms: Terms | None) -> Dunning:
        """Return another loop on the same database."""
        return Dunning(self.house.kernel(), terms)

    def use(self, terms: Terms | None) -> None:
        """Start anew with other terms."""
        self.dunning = self.loop(terms)

    async def at(self, moment: datetime) -> None:
        """Let everything happen that is due until a moment, each thing at its time."""
        await self.house.at(self.house.clock.now())
        await self.settle()
        while (due_at := await self._due_at()) is not None and due_at <= moment:
            await self.house.at(due_at)
            await self.settle()
        await self.house.at(moment)
        await self.settle()

    async def settle(self) -> None:
        """Do all that is due now."""
        while await self.booking.round() or await self.dunning.round():
            pass

    async def _due_at(self) -> datetime | None:
        found: datetime | None = await self.pool.fetchval(
            """
            SELECT min(look_at) FROM (SELECT look_at FROM debtor UNION ALL SELECT look_at FROM account) AS looks
            WHERE look_at > $1 AND look_at < 'infinity'
            """,
            self.house.clock.now(),
        )
        return found

    async def pay(self, *invoices: InvoiceIssued) -> None:
        """Book that invoices are paid in full."""
        now = self.house.clock.now()
        incoming = [
            Incoming(
                invoice_id=UUID(each.invoice_id),
                provider=MANUAL,
                reference=each.number,
                amount=Decimal(each.total),
                received_at=now,
            )
            for each in invoices
        ]
        async with transaction(self.pool) as connection:
            await receive(connection, incoming, now=now, ids=self.house.ids)

    async def issued(self, tenant_id: str = "t1") -> Sequence[InvoiceIssued]:
        return [each for each in await self.house.told(InvoiceIssued) if each.tenant_id == tenant_id]

    async def told(self, tenant_id: str = "t1") -> list[tuple[str, int, datetime]]:
        """Return how far behind a tenant was told to be, the edition and when, in order."""
        facts = await self.house.told(OverdueChanged)
        return [(each.overdue, each.edition, each.changed_at) for each in facts if each.tenant_id == tenant_id]

    async def overdue(self, tenant_id: str = "t1") -> str:
        found: str = await self.pool.fetchval("SELECT overdue FROM debtor WHERE tenant_id = $1", tenant_id)
        return found

    async def debtors(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pool.fetch("SELECT * FROM debtor ORDER BY tenant_id")]


@pytest.fixture
def office(pool: Pool) -> Office:
    return Office(pool)


def day(days: float) -> datetime:
    """Return a moment so many days after the first invoice was issued."""
    return ISSUED + timedelta(days=days)


# What is told


async def test_whoever_never_pays_is_told_once_of_each_step_on_its_day(office: Office) -> None:
    await office.house.open("t1")

    await office.at(day(40))

    assert await office.told() == [("past_due", 1, day(10)), ("suspension", 2, day(14)), ("termination", 3, day(21))]


async def test_whoever_has_paid_is_clear_at_once_and_told_so(office: Office) -> None:
    await office.house.open("t1", "t2")
    await office.at(day(15))

    await office.pay(*await office.issued())
    await office.at(day(40))

    assert await office.told() == [
        ("past_due", 1, day(10)),
        ("suspension", 2, day(14)),
        ("clear", 3, day(15)),
        ("past_due", 4, day(40)),  # of the invoice of May
    ]
    assert (await office.told("t2"))[-1] == ("termination", 3, day(21))


async def test_whoever_pays_in_time_is_told_nothing(office: Office) -> None:
    await office.house.open("t1")
    for month in (4, 5, 6):
        await office.at(on(9, month=month))
        await office.pay((await office.issued())[-1])
    await office.at(on(30, month=6))

    assert await office.told() == []


async def test_whoever_has_paid_the_oldest_is_as_far_behind_as_the_next_one_is_old(office: Office) -> None:
    office.use(Terms(past_due=2 * DAY, suspension=5 * DAY, termination=None))
    await office.house.open("t1")
    await office.at(day(33))
    assert len(await office.issued()) == 2

    await office.pay((await office.issued())[0])
    await office.at(day(36))

    assert await office.told() == [
        ("past_due", 1, day(2)),
        ("suspension", 2, day(5)),
        ("past_due", 3, day(33)),
        ("suspension", 4, day(36)),  # three days after it was told, not five after the issue
    ]


async def test_what_is_told_is_what_is_known(office: Office) -> None:
    await office.house.open("t1")
    await office.at(day(14))

    (row,) = await office.pool.fetch("SELECT overdue, overdue_since, overdue_edition, look_at FROM debtor")

    assert tuple(row) == ("suspension", day(14), 2, day(15))
    await office.pay(*await office.issued())
    await office.settle()
    assert await office.pool.fetchval("SELECT look_at = 'infinity' FROM debtor")


async def test_a_tenant_that_has_gone_is_not_told_but_still_known_to_owe(office: Office) -> None:
    await office.house.open("t1")
    await office.at(day(12))
    await office.house.answer(PurgeAccount(tenant_id="t1"))
    await office.at(day(15))

    assert (await office.told(), await office.overdue()) == ([("past_due", 1, day(10))], "suspension")
    await office.pay(*await office.issued())
    await office.settle()
    assert (len(await office.told()), await office.overdue()) == (1, "clear")


async def test_who_is_found_far_behind_after_an_outage_is_told_before_anything_worse(office: Office) -> None:
    await office.house.open("t1")
    await office.house.at(day(60))

    await office.at(day(75))

    assert await office.told() == [("past_due", 1, day(60)), ("suspension", 2, day(64)), ("termination", 3, day(71))]


async def test_other_terms_count_within_a_day(office: Office) -> None:
    await office.house.open("t1")
    await office.at(day(3.5))

    office.use(Terms(past_due=2 * DAY, suspension=5 * DAY, termination=None))
    await office.at(day(4))

    assert await office.told() == [("past_due", 1, day(4))]


# Off


async def test_with_dunning_off_nobody_is_behind(office: Office) -> None:
    office.use(None)
    await office.house.open("t1")
    await office.at(day(40))

    assert (await office.told(), await office.overdue()) == ([], "clear")


async def test_switched_off_it_lets_everybody_in_and_switched_on_it_begins_anew(office: Office) -> None:
    await office.house.open("t1", "t2")
    await office.at(day(15))
    await office.pay(*await office.issued("t2"))
    await office.settle()

    office.use(None)
    await office.at(day(16))
    assert (await office.told())[2:] == [("clear", 3, day(15))]
    assert (await office.told("t2"))[2:] == [("clear", 3, day(15))]  # because it has paid

    office.use(TERMS)
    await office.at(day(20))
    assert (await office.told())[3:] == [("past_due", 4, day(16)), ("suspension", 5, day(20))]
    assert len(await office.told("t2")) == 3


# What is refused


async def test_another_plan_and_other_licences_are_refused_until_all_is_clear(office: Office) -> None:
    """A cheaper plan too."""
    await office.house.open("t1", "t2", licences=[{"product": "chess", "plan": "standard"}])
    await office.at(day(9))
    await office.pay(*await office.issued("t2"))
    await office.at(day(10))
    before = await office.pool.fetch("SELECT * FROM subscription ORDER BY 1")

    for wanted in (
        ChangePlan(tenant_id="t1", plan="premium"),
        ChangePlan(tenant_id="t1", plan="free"),
        licences("t1", chess="standard", go="free"),
        licences("t1"),
    ):
        done = await office.house.do(wanted)
        assert isinstance(done.answer, PlanChangeRefused | LicencesChangeRefused)
        assert (done.answer.code, done.answer.retryable, done.before) == ("past_due", False, None)
    assert await office.pool.fetch("SELECT * FROM subscription ORDER BY 1") == before

    for wanted in (ChangePlan(tenant_id="t1", plan="standard"), licences("t1", chess="standard")):
        done = await office.house.do(wanted)  # which changes nothing, so nothing is refused
        assert (isinstance(done.answer, PlanChanged | LicencesChanged), done.before) == (True, None)
    both = await office.house.do_all(ChangePlan(tenant_id="t1", plan="free"), ChangePlan(tenant_id="t2", plan="free"))
    assert [type(each.answer) for each in both if isinstance(each, Changed)] == [PlanChangeRefused, PlanChanged]
    assert (await _code(office, ChangePlan(tenant_id="t1", plan="none"))) == "unknown_plan"

    await office.pay(*await office.issued("t1"))
    await office.settle()
    assert isinstance((await office.house.do(ChangePlan(tenant_id="t1", plan="free"))).answer, PlanChanged)
    assert isinstance((await office.house.do(licences("t1"))).answer, LicencesChanged)


async def _code(office: Office, wanted: ChangePlan) -> str:
    code: str = (await office.house.do(wanted)).answer.model_dump()["code"]
    return code


# Several at once, and failing


async def test_two_loops_tell_everything_once(office: Office) -> None:
    tenants = [f"t{number:02}" for number in range(20)]
    await office.house.open(*tenants)
    await office.house.at(day(10))
    await office.booking.round()

    async def all_rounds(loop: Dunning) -> None:
        while await loop.round(3):
            pass

    await asyncio.gather(*(all_rounds(office.loop(TERMS)) for _ in range(3)))

    assert [await office.told(each) for each in tenants] == [[("past_due", 1, day(10))]] * 20


STATEMENTS = (
    (queries.dunning, "due"),
    (queries.dunning, "lock"),
    (queries.dunning, "oldest"),
    (queries.dunning, "reschedule"),
    (outbox, "insert"),
)


async def test_a_loop_that_dies_between_any_two_statements_leaves_nothing_half_done(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.house.open("t1", "t2", "t3")
    await office.at(day(9))
    await office.house.move_to(day(10))

    for module, name in STATEMENTS:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _dies_after(getattr(module, name)))
            before = await office.debtors()
            with pytest.raises(ConnectionResetError):
                await office.dunning.round(2)
            assert (await office.debtors(), await office.told()) == (before, [])
    await office.settle()

    assert [await office.told(each) for each in ("t1", "t2", "t3")] == [[("past_due", 1, day(10))]] * 3


def _dies_after(statement: Any) -> Any:
    async def run_and_die(*given: Any, **more: Any) -> Any:
        await statement(*given, **more)
        raise ConnectionResetError

    return run_and_die


async def test_an_outage_is_waited_out(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.house.open("t1")
    await office.at(day(9))
    await office.house.move_to(day(10))
    failures = itertools.count()
    due = queries.dunning.due

    async def away_at_first(*given: Any, **more: Any) -> Any:
        if next(failures) < 2:
            raise ConnectionResetError
        return await due(*given, **more)

    monkeypatch.setattr(queries.dunning, "due", away_at_first)
    running = asyncio.create_task(office.dunning.run())

    async def is_told() -> bool:
        await office.house.clock.advance(1)
        return bool(await office.told())

    await eventually(is_told)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert next(failures) > 2


async def test_a_payment_that_is_being_booked_is_waited_for(office: Office) -> None:
    await office.house.open("t1")
    await office.at(day(9))
    await office.house.move_to(day(10))

    async with transaction(office.pool) as connection:
        await queries.receivables.lock(connection, ["t1"])
        looking = asyncio.create_task(office.dunning.round())
        await eventually(lambda: are_waiting(office.pool, 1))
        await connection.execute("UPDATE receivable SET paid = due, settled_at = $1", day(10))
    await looking
    await office.settle()

    assert await office.told() == []
