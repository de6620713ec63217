"""Whoever does not pay is suspended and goes, whoever has paid is let in again; together with the contract's end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.onboarding import handlers, overdue, queries
from services.onboarding.definition import Definition
from services.onboarding.expiration import Review, Terms
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.reviews import Reviews, review
from services.onboarding.tests.support import Desk, account, blocked, open_desk
from shared.clock import ManualClock
from shared.contracts.billing import Overdue, OverdueChanged
from shared.contracts.onboarding import DecisionRecorded
from shared.http import Problem
from shared.messaging.event import decode
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

DAY = 86_400.0
HOUR = 3600.0
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TERMS = Terms(warning=timedelta(days=14), grace=timedelta(days=30))
ENDED, LASTS = date(2026, 2, 20), date(2027, 2, 20)
SOON = date(2026, 3, 5)
"""Days on which contracts end: before, long after, and shortly after `NOW`."""

IN_A_MINUTE, IN_AN_HOUR = NOW + timedelta(minutes=1), NOW + timedelta(hours=1)
WARNING_DAY = datetime(2027, 2, 6, tzinfo=UTC)
GRACE_ENDS = datetime(2026, 3, 22, tzinfo=UTC)

UNPAID = {"reason": "unpaid", "suspendedFor": "payment"}
EXPIRED = {"reason": "expired", "suspendedFor": "expiration"}
GONE_UNPAID = {"reason": "unpaid", "graceDays": 0, "export": True}
GONE_EXPIRED = {"reason": "expired", "graceDays": 0, "export": True}


def customer(**known: Any) -> Mapping[str, Any]:
    """Return an account that nothing is wrong with and whose contract has no end."""
    usual = {"expiration": None, "suspended_for": None, "warned_for": None, "is_busy": False, "is_onboarded": True}
    return {"tenant_id": "t1", "name_key": "acme", "overdue": "clear", **usual, **known}


# What is decided

NOTHING: list[tuple[str, Mapping[str, Any], Review]] = [
    ("all is well", {}, Review(None)),
    ("told only", {"overdue": "past_due"}, Review(None)),
    ("suspended already", {"overdue": "suspension", "suspended_for": "payment"}, Review(None)),
    ("suspended by an operator", {"overdue": "suspension", "suspended_for": "operator"}, Review(None)),
    ("an operator's, who has paid", {"suspended_for": "operator"}, Review(None)),
    ("at work", {"overdue": "suspension", "is_busy": True}, Review(IN_A_MINUTE)),
    ("at work when it must go", {"overdue": "termination", "is_busy": True}, Review(IN_A_MINUTE)),
    ("at work when it has paid", {"suspended_for": "payment", "is_busy": True}, Review(IN_A_MINUTE)),
    ("at work, nothing to do", {"overdue": "past_due", "is_busy": True}, Review(None)),
    ("not onboarded yet", {"overdue": "suspension", "is_onboarded": False}, Review(IN_A_MINUTE)),
    ("the contract goes on", {"expiration": LASTS}, Review(WARNING_DAY)),
    ("told only, and warned", {"overdue": "past_due", "expiration": SOON}, Review(NOW + timedelta(days=4), warns=True)),
    (
        "suspended already, and warned",
        {"overdue": "suspension", "suspended_for": "payment", "expiration": SOON},
        Review(NOW + timedelta(days=4), warns=True),
    ),
    (
        "the contract is prolonged of one that does not pay",
        {"overdue": "suspension", "suspended_for": "expiration", "expiration": LASTS},
        Review(IN_AN_HOUR),
    ),
    (
        "one has paid whose contract has ended",
        {"suspended_for": "payment", "expiration": ENDED},
        Review(IN_AN_HOUR),
    ),
]
"""What a customer is like, and what is found where nothing is to be ordered."""

ORDERS: list[tuple[str, Mapping[str, Any], datetime, Definition, Mapping[str, Any], str]] = [
    ("does not pay", {"overdue": "suspension"}, IN_AN_HOUR, SUSPEND, UNPAID, "dunning"),
    ("never pays", {"overdue": "termination"}, IN_AN_HOUR, OFFBOARD, GONE_UNPAID, "dunning"),
    (
        "never pays, suspended for it",
        {"overdue": "termination", "suspended_for": "payment"},
        IN_AN_HOUR,
        OFFBOARD,
        GONE_UNPAID,
        "dunning",
    ),
    (
        "never pays, suspended by an operator",
        {"overdue": "termination", "suspended_for": "operator"},
        IN_AN_HOUR,
        OFFBOARD,
        GONE_UNPAID,
        "dunning",
    ),
    ("has paid", {"suspended_for": "payment"}, IN_AN_HOUR, REACTIVATE, {}, "dunning"),
    ("has paid the oldest", {"suspended_for": "payment", "overdue": "past_due"}, IN_AN_HOUR, REACTIVATE, {}, "dunning"),
    (
        "does not pay, with a contract",
        {"overdue": "suspension", "expiration": LASTS},
        IN_AN_HOUR,
        SUSPEND,
        UNPAID,
        "dunning",
    ),
    (
        "does not pay, and the contract has ended",
        {"overdue": "suspension", "expiration": ENDED},
        IN_AN_HOUR,
        SUSPEND,
        EXPIRED,
        "expiration",
    ),
    (
        "never pays, suspended because the contract has ended",
        {"overdue": "termination", "expiration": ENDED, "suspended_for": "expiration"},
        IN_AN_HOUR,
        OFFBOARD,
        GONE_UNPAID,
        "dunning",
    ),
    (
        "suspended for payment, and the contract ended long ago",
        {"overdue": "suspension", "expiration": date(2026, 1, 1), "suspended_for": "payment"},
        IN_AN_HOUR,
        OFFBOARD,
        GONE_EXPIRED,
        "expiration",
    ),
    (
        "the contract is prolonged of one that is behind a little",
        {"overdue": "past_due", "expiration": LASTS, "suspended_for": "expiration"},
        IN_AN_HOUR,
        REACTIVATE,
        {},
        "expiration",
    ),
]
"""What a customer is like, when to look again, what is ordered, and by whom."""


@pytest.mark.parametrize(("known", "expected"), [case[1:] for case in NOTHING], ids=[case[0] for case in NOTHING])
def test_where_nothing_is_to_be_ordered_it_is_known_when_to_look_again(
    known: Mapping[str, Any], expected: Review
) -> None:
    assert review(customer(**known), now=NOW, terms=TERMS) == expected


@pytest.mark.parametrize("case", ORDERS, ids=[case[0] for case in ORDERS])
def test_what_a_review_orders(case: Any) -> None:
    _, known, next_at, definition, request, principal = case

    made = review(customer(**known), now=NOW, terms=TERMS)

    assert made.order is not None
    assert (made.next_at, made.order.definition, made.principal) == (next_at, definition, principal)
    assert made.order.request == {"tenantId": "t1", **request}
    insists = "overdue" if principal == "dunning" else "expiration"
    assert made.order.insists == {insists: customer(**known)[insists]}


def test_a_suspension_for_payment_is_looked_at_when_the_grace_of_the_contract_is_over() -> None:
    known = customer(overdue="suspension", suspended_for="payment", expiration=ENDED)

    assert review(known, now=NOW, terms=TERMS) == Review(GRACE_ENDS)


# What is heard


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


@pytest.fixture
async def tenant_id(desk: Desk) -> str:
    return await desk.tenant("Acme")


async def tell(pool: Pool, *told: tuple[str, Overdue, int]) -> None:
    """Hear in one batch how far tenants are behind, each with the edition of that."""
    facts = [
        OverdueChanged(tenant_id=tenant_id, overdue=state, edition=edition, changed_at=NOW)
        for tenant_id, state, edition in told
    ]
    async with transaction(pool) as connection:
        assert await handlers.keep_overdue(connection, facts) == []


async def look(desk: Desk) -> int:
    """Look once, and let whatever is ordered come to its end; return how many customers were looked at."""
    count = await Reviews(desk.kernel, desk.intake, TERMS).review()
    for workflow_id in await running(desk.pool):
        await desk.go_on(workflow_id)
    return count


async def running(pool: Pool) -> list[UUID]:
    return [row["id"] for row in await pool.fetch("SELECT id FROM workflow WHERE status = 'running' ORDER BY id")]


async def ordered(pool: Pool) -> list[str]:
    """Return what was done besides onboarding, in order."""
    rows = await pool.fetch("SELECT kind FROM workflow WHERE kind <> 'onboard' ORDER BY id")
    return [row["kind"] for row in rows]


async def known(pool: Pool, tenant_id: str) -> tuple[str, str | None]:
    (row,) = await pool.fetch("SELECT overdue, suspended_for FROM customer WHERE tenant_id = $1", tenant_id)
    return row["overdue"], row["suspended_for"]


async def test_whoever_does_not_pay_is_suspended_once_and_let_in_again_when_it_has_paid(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    await tell(pool, (tenant_id, "past_due", 1))
    assert (await look(desk), await ordered(pool)) == (1, [])

    await tell(pool, (tenant_id, "suspension", 2))
    assert await look(desk) == 1
    assert (await ordered(pool), await known(pool, tenant_id)) == (["suspend"], ("suspension", "payment"))
    assert (await look(desk), await look(desk)) == (1, 0)  # once more, because the suspension has changed the account

    await tell(pool, (tenant_id, "clear", 3))
    await look(desk)
    assert (await ordered(pool), await known(pool, tenant_id)) == (["suspend", "reactivate"], ("clear", None))
    assert (await look(desk), await look(desk)) == (1, 0)


async def test_whoever_never_pays_goes(desk: Desk, pool: Pool, tenant_id: str) -> None:
    await tell(pool, (tenant_id, "suspension", 1))
    await look(desk)
    await tell(pool, (tenant_id, "termination", 2))
    await look(desk)

    assert (await ordered(pool), await account(pool, tenant_id)) == (["suspend", "offboard"], {})
    request = await pool.fetchval("SELECT request FROM workflow WHERE kind = 'offboard'")
    assert request == {"tenantId": tenant_id, "customerName": "Acme"} | GONE_UNPAID
    await tell(pool, (tenant_id, "clear", 3))  # too late: there is nobody any more
    assert await look(desk) == 0


async def test_of_what_is_told_the_newest_counts_in_whatever_order_it_comes(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    other = await desk.tenant("Bolt")

    await tell(pool, (other, "past_due", 1), (tenant_id, "clear", 3), (tenant_id, "suspension", 2))
    assert (await known(pool, tenant_id), await known(pool, other)) == (("clear", None), ("past_due", None))
    await tell(pool, (tenant_id, "suspension", 2), (tenant_id, "past_due", 3), ("nobody", "termination", 7))

    assert await known(pool, tenant_id) == ("clear", None)
    await look(desk)
    assert await ordered(pool) == []


async def test_customers_are_locked_in_one_order_so_that_nobody_waits_for_each_other(desk: Desk, pool: Pool) -> None:
    names = [f"customer {number}" for number in range(4)]
    tenants = [await desk.tenant(name) for name in reversed(names)]
    lock = "SELECT FROM customer WHERE name_key = $1 FOR UPDATE"

    async with transaction(pool) as connection:
        await connection.execute(lock, names[0])
        telling = asyncio.create_task(tell(pool, *((each, "past_due", 1) for each in tenants)))
        await eventually(lambda: _is_waiting(pool))
        for name in names[1:]:
            await connection.execute(lock, name)
    await telling

    (row,) = await pool.fetch("SELECT DISTINCT overdue, overdue_edition FROM customer")
    assert tuple(row) == ("past_due", 1)


async def _is_waiting(pool: Pool) -> bool:
    return await blocked(pool) == 1


async def test_a_customer_that_is_renamed_meanwhile_is_told_of_all_the_same(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    renaming = {"customerName": "Bolt", "expiration": "2099-01-01", "products": [], "adminEmails": ["a@example.com"]}
    workflow_id = await desk.begin(UPDATE_ACCOUNT, tenant_id, **renaming)
    await tell(pool, (tenant_id, "suspension", 1))

    assert await Reviews(desk.kernel, desk.intake, TERMS).review() == 1
    assert await pool.fetchval("SELECT count(*) FROM customer WHERE review_at <= $1", clock.now()) == 0
    await desk.go_on(workflow_id)
    await look(desk)

    assert await ordered(pool) == ["update-account", "suspend"]
    assert await known(pool, tenant_id) == ("suspension", "payment")


async def test_an_attempt_that_came_to_nothing_is_repeated_after_an_hour(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await tell(pool, (tenant_id, "suspension", 1))
    await Reviews(desk.kernel, desk.intake, TERMS).review()
    (workflow_id,) = await running(pool)
    await desk.go_on(workflow_id, refuse="pause-billing")
    await clock.advance(HOUR - 1)
    assert await look(desk) == 0

    await clock.advance(1)
    await look(desk)

    assert await ordered(pool) == ["suspend", "suspend"]
    assert await known(pool, tenant_id) == ("suspension", "payment")


async def test_what_an_operator_reactivates_that_does_not_pay_is_suspended_again(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    await tell(pool, (tenant_id, "suspension", 1))
    await look(desk)
    await desk.finish(REACTIVATE, tenant_id)
    await look(desk)

    assert await ordered(pool) == ["suspend", "reactivate", "suspend"]


async def test_what_was_ordered_of_one_that_pays_meanwhile_is_refused(desk: Desk, pool: Pool, tenant_id: str) -> None:
    """Between the decision and its order a payment may be told; the tenant's data must not go."""
    decided = [
        overdue.review(customer(tenant_id=tenant_id, overdue=each), now=NOW).order
        for each in ("suspension", "termination")
    ]
    await tell(pool, (tenant_id, "past_due", 1))

    for order in decided:
        assert order is not None
        with pytest.raises(Problem) as refused:
            await desk.order(order)
        assert (refused.value.status, refused.value.code) == (409, "tenant_differs")
    assert await ordered(pool) == []


async def test_a_payment_that_is_told_while_an_order_is_being_accepted_counts(
    desk: Desk, pool: Pool, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are held against the customer before their workflows are stored."""
    await tell(pool, (tenant_id, "termination", 1))
    order = overdue.review(customer(tenant_id=tenant_id, overdue="termination"), now=NOW).order
    assert order is not None
    store = queries.insert_workflows

    async def store_after_the_payment(*given: Any) -> Any:
        await tell(pool, (tenant_id, "clear", 2))
        return await store(*given)

    monkeypatch.setattr(queries, "insert_workflows", store_after_the_payment)
    with pytest.raises(Problem) as refused:
        await desk.order(order)

    assert refused.value.code == "tenant_differs"
    assert await ordered(pool) == []


async def test_a_look_sees_what_is_told_while_it_waits_for_the_customer(desk: Desk, pool: Pool, tenant_id: str) -> None:
    """What is read must not be older than what is locked, or nobody would look again."""
    await tell(pool, (tenant_id, "past_due", 1))
    async with asyncio.timeout(20):
        for edition in range(2, 30):
            state: Overdue = "suspension" if edition % 2 else "past_due"
            await asyncio.gather(
                tell(pool, (tenant_id, state, edition)), Reviews(desk.kernel, desk.intake, TERMS).review()
            )
    await look(desk)

    assert await known(pool, tenant_id) == ("suspension", "payment")


async def test_what_unpaid_invoices_order_is_decided_by_dunning(
    desk: Desk, pool: Pool, broker: MemoryBroker, tenant_id: str
) -> None:
    broker.go_away()
    await tell(pool, (tenant_id, "suspension", 1))
    await look(desk)

    rows = await pool.fetch("SELECT event FROM outbox ORDER BY id")
    messages = [decode(orjson.loads(row["event"])).message for row in rows]
    decision = [each for each in messages if isinstance(each, DecisionRecorded)][-1]
    assert (decision.actor, decision.role, decision.reason) == ("dunning", None, "unpaid")
    assert (decision.action, decision.before, decision.after) == ("suspend.ordered", {}, {"suspendedFor": "payment"})
