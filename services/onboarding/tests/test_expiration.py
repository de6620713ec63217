"""The end of a contract acts, on the day and by the clock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.onboarding import expiration, reviews
from services.onboarding.definition import Definition
from services.onboarding.expiration import Review, Terms, review
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.orders import Order
from services.onboarding.reviews import Reviews
from services.onboarding.saga import Cancel
from services.onboarding.tests.support import Desk, account, open_desk, stored
from services.onboarding.workflow import Status
from shared import failpoints
from shared.clock import ManualClock
from shared.contracts.onboarding import TenantExpiring
from shared.http import Problem
from shared.messaging.event import decode
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

DAY = 86_400.0
HOUR = 3600.0
NEVER = date(9999, 12, 31)
TERMS = Terms(warning=timedelta(days=14), grace=timedelta(days=30))
END = date(2026, 3, 1)
"""The day on which contracts end here; the clock stands at 2026-01-01, 59 days before."""

DAYS_BEFORE = 59
UPDATE: Mapping[str, Any] = {
    "customerName": "Bolt",
    "expiration": END.isoformat(),
    "products": [],
    "adminEmails": ["ada@example.com"],
}


def at(day: date, *, hours: float = 0) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours)


# What is decided


def customer(**known: Any) -> Mapping[str, Any]:
    """Return an account that nothing is wrong with."""
    usual = {"expiration": END, "suspended_for": None, "warned_for": None, "is_busy": False, "is_onboarded": True}
    return {"tenant_id": "t1", "name_key": "acme", **usual, **known}


WARNING_DAY, LAST_DAY = END - timedelta(days=14), END + timedelta(days=30)
NIGHT_BEFORE = timedelta(seconds=-1)
SUSPENDED = {"suspended_for": "expiration"}
BY_OPERATOR = {"suspended_for": "operator"}
WARNED = {"warned_for": END}

DECISIONS: list[tuple[str, Mapping[str, Any], datetime, Review]] = [
    ("no end", {"expiration": None}, at(END), Review(None)),
    ("no end, but at work", {"expiration": None, "is_busy": True}, at(END), Review(None)),
    ("long before", {}, at(date(2026, 1, 1)), Review(at(WARNING_DAY))),
    ("just before the warning", {}, at(WARNING_DAY) + NIGHT_BEFORE, Review(at(WARNING_DAY))),
    ("the warning", {}, at(WARNING_DAY), Review(at(END), warns=True)),
    ("late for the warning", {}, at(END) + NIGHT_BEFORE, Review(at(END), warns=True)),
    ("warned already", WARNED, at(WARNING_DAY), Review(at(END))),
    ("warned of another day", {"warned_for": date(2025, 3, 1)}, at(WARNING_DAY), Review(at(END), warns=True)),
    ("suspended by an operator", BY_OPERATOR, at(WARNING_DAY), Review(at(END), warns=True)),
    ("the end, suspended by an operator", BY_OPERATOR, at(END), Review(at(LAST_DAY))),
    ("the end, suspended for it", SUSPENDED, at(END, hours=5), Review(at(LAST_DAY))),
    ("at work before", {"is_busy": True}, at(WARNING_DAY), Review(at(WARNING_DAY) + timedelta(minutes=1))),
    ("at work at the end", {"is_busy": True}, at(END), Review(at(END) + timedelta(minutes=1))),
    ("at work when it must go", {"is_busy": True}, at(LAST_DAY), Review(at(LAST_DAY) + timedelta(minutes=1))),
    ("not onboarded yet", {"is_onboarded": False}, at(END), Review(at(END) + timedelta(minutes=1))),
    ("for ever", {"expiration": NEVER}, at(END), Review(at(NEVER - timedelta(days=14)))),
]
"""What an account is like, when, and what is to be done where nothing is to be ordered."""

ORDERS: list[tuple[str, Mapping[str, Any], datetime, datetime, Definition, Mapping[str, Any]]] = [
    ("the end", {}, at(END), at(END, hours=1), SUSPEND, {"reason": "expired", "suspendedFor": "expiration"}),
    ("late at the end", WARNED, at(END, hours=7), at(END, hours=8), SUSPEND, {"reason": "expired"}),
    ("late for the suspension", {}, at(LAST_DAY, hours=-0.5), at(LAST_DAY), SUSPEND, {"reason": "expired"}),
    (
        "the grace is over",
        SUSPENDED,
        at(LAST_DAY),
        at(LAST_DAY, hours=1),
        OFFBOARD,
        {"reason": "expired", "graceDays": 0, "export": True},
    ),
    ("suspended by an operator", BY_OPERATOR, at(LAST_DAY), at(LAST_DAY, hours=1), OFFBOARD, {"graceDays": 0}),
    ("late for everything", {}, at(LAST_DAY, hours=99), at(LAST_DAY, hours=100), OFFBOARD, {"graceDays": 0}),
    ("prolonged", SUSPENDED, at(END) + NIGHT_BEFORE, at(END, hours=1) + NIGHT_BEFORE, REACTIVATE, {}),
    ("prolonged long before", SUSPENDED, at(date(2026, 1, 1)), at(date(2026, 1, 1), hours=1), REACTIVATE, {}),
]
"""What an account is like, when, when to look again, and what is ordered."""


@pytest.mark.parametrize(
    ("known", "now", "expected"), [case[1:] for case in DECISIONS], ids=[case[0] for case in DECISIONS]
)
def test_where_nothing_is_to_be_ordered_it_is_known_when_to_look_again(
    known: dict[str, Any], now: datetime, expected: Review
) -> None:
    assert review(customer(**known), now=now, terms=TERMS) == expected


@pytest.mark.parametrize("case", ORDERS, ids=[case[0] for case in ORDERS])
def test_what_the_end_of_a_contract_orders(case: Any) -> None:
    _, known, now, next_at, definition, request = case

    made = review(customer(**known), now=now, terms=TERMS)

    assert made.order is not None
    assert (made.next_at, made.warns, made.order.definition) == (next_at, False, definition)
    assert {"tenantId": "t1", **request}.items() <= made.order.request.items()
    assert made.order.insists == {"expiration": END}


def test_without_a_warning_and_without_grace_a_tenant_goes_on_the_day() -> None:
    terms = Terms(warning=timedelta(0), grace=timedelta(0))

    assert review(customer(), now=at(END) + NIGHT_BEFORE, terms=terms) == Review(at(END))
    made = review(customer(), now=at(END), terms=terms)
    assert made.order is not None
    assert made.order.definition is OFFBOARD


# What is done


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


@pytest.fixture
async def other_desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


@pytest.fixture
async def tenant_id(desk: Desk) -> str:
    return await desk.tenant("Acme", expiration=END.isoformat())


def reviewer(desk: Desk, terms: Terms = TERMS) -> Reviews:
    return Reviews(desk.kernel, desk.intake, terms)


async def look(desk: Desk) -> int:
    """Look once, and let whatever is ordered come to its end; return how many customers were looked at."""
    count = await reviewer(desk).review()
    for workflow_id in await running(desk.pool):
        await desk.go_on(workflow_id)
    return count


async def running(pool: Pool) -> list[UUID]:
    rows = await pool.fetch("SELECT id FROM workflow WHERE status = 'running' ORDER BY id")
    return [row["id"] for row in rows]


async def ordered(pool: Pool) -> list[str]:
    """Return what was done besides onboarding, in order."""
    rows = await pool.fetch("SELECT kind FROM workflow WHERE kind <> 'onboard' ORDER BY id")
    return [row["kind"] for row in rows]


async def warnings(pool: Pool) -> list[TenantExpiring]:
    rows = await pool.fetch("SELECT event FROM outbox WHERE routing_key LIKE 'warning.%' ORDER BY id")
    messages = [decode(orjson.loads(row["event"])).message for row in rows]
    return [message for message in messages if isinstance(message, TenantExpiring)]


async def next_look(pool: Pool, name_key: str = "acme") -> datetime:
    moment: datetime = await pool.fetchval("SELECT review_at FROM customer WHERE name_key = $1", name_key)
    return moment


async def prolong(desk: Desk, tenant_id: str, until: date, *, refuse: str | None = None) -> None:
    request = {**UPDATE, "customerName": "Acme", "expiration": until.isoformat()}
    await desk.finish(UPDATE_ACCOUNT, tenant_id, refuse=refuse, **request)


async def test_the_whole_end_of_a_contract(desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str) -> None:
    """Looked at every hour, from long before until the tenant has gone."""
    begun = clock.now()
    happened: list[tuple[int, str]] = []
    while await pool.fetchval("SELECT count(*) FROM customer"):
        before = len(await ordered(pool)), len(await warnings(pool))
        await look(desk)
        day = (clock.now() - begun).days - DAYS_BEFORE
        happened += [(day, kind) for kind in (await ordered(pool))[before[0] :]]
        happened += [(day, "warning") for _ in (await warnings(pool))[before[1] :]]
        assert day < 40
        await clock.advance(6 * HOUR)

    assert happened == [(-14, "warning"), (0, "suspend"), (30, "offboard")]
    assert await account(pool, tenant_id) == {}


async def test_what_is_ordered_says_why(desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str) -> None:
    usual = {"tenantId": tenant_id, "customerName": "Acme", "reason": "expired"}
    await clock.advance(DAYS_BEFORE * DAY)
    await look(desk)
    await clock.advance(30 * DAY)
    await reviewer(desk).review()

    rows = await pool.fetch("SELECT kind, request FROM workflow WHERE kind <> 'onboard' ORDER BY id")
    assert [(row["kind"], row["request"]) for row in rows] == [
        ("suspend", {**usual, "suspendedFor": "expiration"}),
        ("offboard", {**usual, "graceDays": 0, "export": True}),
    ]


async def test_everybody_is_warned_once_of_both_days(
    desk: Desk, pool: Pool, clock: ManualClock, broker: MemoryBroker, tenant_id: str
) -> None:
    broker.declare_queue("listener")
    broker.bind("tenure.status", "listener", "warning.#")
    await clock.advance((DAYS_BEFORE - 14) * DAY - 1)
    await look(desk)
    assert await warnings(pool) == []

    for _ in range(3):
        await clock.advance(1)
        await desk.finish(CHANGE_PRODUCTS, tenant_id, products=[])  # what has changed is looked at anew
        assert await look(desk) == 1

    (warning,) = await warnings(pool)
    assert (warning.tenant_id, warning.expiration, warning.offboarded_on) == (tenant_id, END, LAST_DAY)
    assert warning.occurred_at == at(WARNING_DAY)
    assert [message.routing_key for message in broker.messages("listener")] == [f"warning.expiration.{tenant_id}"]
    assert ((await account(pool, tenant_id))["warned_for"], await next_look(pool)) == (END, at(END))


async def test_a_tenant_is_suspended_when_the_day_begins_and_not_a_second_before(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance(DAYS_BEFORE * DAY - 1)
    await look(desk)
    assert await ordered(pool) == []

    await clock.advance(1)
    await look(desk)

    assert await ordered(pool) == ["suspend"]
    assert (await account(pool, tenant_id))["suspended_for"] == "expiration"
    assert await look(desk) == 1  # once more, because the suspension has changed the account
    assert (await look(desk), await next_look(pool)) == (0, at(LAST_DAY))


async def test_a_contract_that_is_prolonged_before_its_end_is_warned_of_anew(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance((DAYS_BEFORE - 3) * DAY)
    await look(desk)
    await prolong(desk, tenant_id, date(2026, 6, 1))
    await clock.advance(5 * DAY)
    await look(desk)

    assert (await ordered(pool), len(await warnings(pool))) == (["update-account"], 1)
    assert await next_look(pool) == at(date(2026, 5, 18))
    await clock.advance(100 * DAY)
    await look(desk)
    assert [each.expiration for each in await warnings(pool)] == [END]  # too late to warn: it is suspended
    assert await ordered(pool) == ["update-account", "suspend"]


async def test_a_contract_that_is_prolonged_after_its_end_lets_the_tenant_in_again(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance((DAYS_BEFORE + 3) * DAY)
    await look(desk)
    await prolong(desk, tenant_id, date(2027, 3, 1))
    await look(desk)

    assert await ordered(pool) == ["suspend", "update-account", "reactivate"]
    assert (await account(pool, tenant_id))["suspended_for"] is None
    assert await look(desk) == 1
    assert (await look(desk), await next_look(pool)) == (0, at(date(2027, 2, 15)))


async def test_a_prolongation_that_was_undone_prolongs_nothing(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await prolong(desk, tenant_id, date(2027, 3, 1), refuse="deploy-products")
    await clock.advance(DAYS_BEFORE * DAY)
    await look(desk)

    assert await ordered(pool) == ["update-account", "suspend"]


async def test_what_an_operator_has_suspended_stays_suspended_however_long_the_contract(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")
    await prolong(desk, tenant_id, date(2027, 3, 1))
    await clock.advance(DAY)
    await look(desk)

    assert (await account(pool, tenant_id))["suspended_for"] == "operator"


async def test_a_busy_tenant_is_looked_at_a_minute_later(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance(DAYS_BEFORE * DAY)
    workflow_id = await desk.begin(UPDATE_ACCOUNT, tenant_id, **UPDATE)

    assert await reviewer(desk).review() == 1
    await clock.advance(59)
    assert await reviewer(desk).review() == 0
    await clock.advance(1)
    assert await reviewer(desk).review() == 1
    assert await ordered(pool) == ["update-account"]
    await desk.go_on(workflow_id)

    assert await look(desk) == 1
    assert await ordered(pool) == ["update-account", "suspend"]


async def test_the_name_that_a_renaming_has_taken_is_no_customer_to_look_at(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await desk.begin(UPDATE_ACCOUNT, tenant_id, **UPDATE)
    for _ in range(3):
        assert await reviewer(desk).review() == 1
        await clock.advance(60)

    due = await pool.fetch("SELECT name_key FROM customer WHERE review_at <= $1", clock.now())
    assert [row["name_key"] for row in due] == ["acme"]


async def test_an_attempt_that_came_to_nothing_is_repeated_after_an_hour(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance(DAYS_BEFORE * DAY)
    await reviewer(desk).review()
    (workflow_id,) = await running(pool)
    await desk.go_on(workflow_id, refuse="pause-billing")
    await clock.advance(HOUR - 1)
    assert await look(desk) == 0

    await clock.advance(1)
    await look(desk)

    assert await ordered(pool) == ["suspend", "suspend"]
    assert (await account(pool, tenant_id))["suspended_for"] == "expiration"


async def test_an_off_boarding_that_an_operator_cancelled_is_repeated_unless_the_contract_is_prolonged(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance((DAYS_BEFORE + 30) * DAY)
    for _ in range(2):
        await reviewer(desk).review()
        (workflow_id,) = await running(pool)
        async with transaction(pool) as connection:
            assert await desk.engine.act(connection, workflow_id, Cancel("ada", "They will pay."))
        await desk.go_on(workflow_id)
        assert (await stored(pool, workflow_id)).workflow.status is Status.COMPENSATED
        await clock.advance(HOUR)
    await prolong(desk, tenant_id, date(2027, 3, 1))
    await clock.advance(HOUR)
    await look(desk)

    assert await ordered(pool) == ["offboard", "offboard", "update-account"]


async def test_what_was_ordered_of_a_contract_that_is_prolonged_meanwhile_is_refused(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    """Between the decision and its order somebody may have paid; the tenant's data must not go."""
    await clock.advance((DAYS_BEFORE + 30) * DAY)
    decided = [
        Order(SUSPEND, {"tenantId": tenant_id, "suspendedFor": "expiration"}, {"expiration": END}),
        review(customer(tenant_id=tenant_id), now=clock.now(), terms=TERMS).order,
    ]
    await prolong(desk, tenant_id, date(2027, 3, 1))

    for order in decided:
        assert order is not None
        with pytest.raises(Problem) as refused:
            await desk.order(order)
        assert (refused.value.status, refused.value.code) == (409, "tenant_differs")
    assert await ordered(pool) == ["update-account"]


async def test_customers_whose_contracts_do_not_end_are_never_looked_at_again(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    tenants = [await desk.tenant(f"Customer {number}") for number in range(3)]
    assert await reviewer(desk).review() == 0

    await desk.finish(SUSPEND, tenants[0], suspendedFor="operator")
    assert (await reviewer(desk).review(), await reviewer(desk).review()) == (1, 0)
    await clock.advance(5000 * DAY)
    assert await reviewer(desk).review() == 0
    assert await pool.fetchval("SELECT count(*) FROM customer WHERE review_at = 'infinity'") == 3


async def test_a_customer_of_the_release_before_is_looked_at_too(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    ends, lasts = tenant_id, await desk.tenant("Bolt")
    await pool.execute("UPDATE customer SET review_at = DEFAULT")
    await clock.advance(DAYS_BEFORE * DAY)

    assert await look(desk) == 2

    assert (await account(pool, ends))["suspended_for"] == "expiration"
    assert (await account(pool, lasts))["suspended_for"] is None
    assert (await next_look(pool, "bolt")).year == 9999


async def test_a_customer_that_is_just_being_onboarded_is_let_alone(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    await desk.start("Acme", expiration="2026-01-02")
    await clock.advance(DAY)

    assert await reviewer(desk).review() == 1
    assert (await ordered(pool), await next_look(pool)) == ([], clock.now() + timedelta(minutes=1))


# Several at once


async def test_two_replicas_never_act_on_the_same_customer(
    desk: Desk, other_desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    tenants = {await desk.tenant(f"Customer {number}", expiration=END.isoformat()) for number in range(12)}
    await clock.advance((DAYS_BEFORE - 1) * DAY)
    await asyncio.gather(*(reviewer(each).review() for _ in range(4) for each in (desk, other_desk)))
    assert sorted(each.tenant_id for each in await warnings(pool)) == sorted(tenants)

    await clock.advance(DAY)
    counts = await asyncio.gather(*(reviewer(each).review() for _ in range(4) for each in (desk, other_desk)))

    assert sum(counts) == 12
    rows = await pool.fetch("SELECT tenant_id FROM workflow WHERE kind = 'suspend'")
    assert sorted(row["tenant_id"] for row in rows) == sorted(tenants)


async def test_a_customer_that_another_replica_looks_at_is_left_to_it(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance(DAYS_BEFORE * DAY)

    async with transaction(pool) as connection:
        await connection.execute("SELECT 1 FROM customer WHERE tenant_id = $1 FOR UPDATE", tenant_id)
        async with asyncio.timeout(5):
            assert await reviewer(desk).review() == 0
    assert await reviewer(desk).review() == 1


async def test_more_customers_than_one_look_takes_are_all_looked_at(
    desk: Desk, pool: Pool, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "_LIMIT", 3)
    for number in range(7):
        await desk.tenant(f"Customer {number}", expiration=END.isoformat())
    await clock.advance((DAYS_BEFORE - 1) * DAY)

    async with _running(desk):
        await eventually(lambda: _has_warned(pool, 7))  # without the clock going on: in one look


# Failing


async def test_a_look_whose_transaction_failed_has_neither_warned_nor_put_off(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance((DAYS_BEFORE - 1) * DAY)

    with failpoints.armed("outbox_inserted=raise"), pytest.raises(failpoints.FailpointError):
        await reviewer(desk).review()

    assert (await warnings(pool), (await account(pool, tenant_id))["warned_for"]) == ([], None)
    await look(desk)
    assert len(await warnings(pool)) == 1


async def test_it_looks_again_and_again_whatever_the_database_does(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance((DAYS_BEFORE - 1) * DAY)
    async with _running(desk) as running:
        with failpoints.armed("outbox_inserted=raise"):
            await _let_time_pass_until(clock, lambda: _has_struck("outbox_inserted"))
        await _let_time_pass_until(clock, lambda: _has_warned(pool, 1))
        assert not running.done()
    assert (await account(pool, tenant_id))["warned_for"] == END


async def test_what_one_look_orders_is_accepted_in_one_transaction(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    for number in range(4):
        await desk.tenant(f"Customer {number}", expiration=END.isoformat())
    await clock.advance(DAYS_BEFORE * DAY)

    assert await reviewer(desk).review() == 5

    transactions = await pool.fetch("SELECT xmin::text, count(*) FROM workflow WHERE kind = 'suspend' GROUP BY 1")
    assert [row["count"] for row in transactions] == [5]


async def test_an_order_whose_acceptance_is_not_known_stops_nothing(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str
) -> None:
    await clock.advance(DAYS_BEFORE * DAY)

    with failpoints.armed("before_202=raise"):
        assert await reviewer(desk).review() == 1
        assert failpoints.hits("before_202") == 1

    assert await ordered(pool) == ["suspend"]


async def test_an_order_that_is_refused_stops_nothing(
    desk: Desk, pool: Pool, clock: ManualClock, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.tenant("Bolt", expiration=END.isoformat())
    await clock.advance(DAYS_BEFORE * DAY)
    monkeypatch.setattr(expiration, "SUSPEND", REACTIVATE)  # which a tenant that is not suspended is refused

    assert await reviewer(desk).review() == 2

    assert await ordered(pool) == []
    monkeypatch.undo()
    await clock.advance(HOUR)
    await look(desk)
    assert await ordered(pool) == ["suspend", "suspend"]
    assert (await account(pool, tenant_id))["suspended_for"] == "expiration"


@asynccontextmanager
async def _running(desk: Desk) -> AsyncIterator["asyncio.Task[None]"]:
    """Look for ever, for as long as a block lasts."""
    task = asyncio.create_task(reviewer(desk).run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _let_time_pass_until(clock: ManualClock, condition: Callable[[], Awaitable[bool]]) -> None:
    async def holds() -> bool:
        await clock.advance(1)
        return await condition()

    await eventually(holds)


async def _has_struck(name: str) -> bool:
    return failpoints.hits(name) >= 1


async def _has_warned(pool: Pool, count: int) -> bool:
    return len(await warnings(pool)) == count
