"""Who comes near a limit, or to it, is told of once, whatever fails in between."""

from datetime import datetime, timedelta

import pytest

from services.metrics import handlers
from services.metrics.tests.quota_kit import NOON, Shop
from shared.contracts import Fact
from shared.contracts.metrics import QuotaCrossed
from shared.contracts.provisioning import MailReported
from shared.failpoints import FailpointError, armed
from shared.postgres import Pool, transaction


@pytest.fixture
async def shop(pool: Pool) -> Shop:
    shop = Shop(pool)
    await shop.open()
    return shop


@pytest.mark.parametrize("enforcement", ["hard", "soft"])
async def test_four_fifths_and_all_of_a_limit_are_told_when_they_are_used(shop: Shop, enforcement: str) -> None:
    await shop.track(balance=10, hard=enforcement == "hard")

    await shop.use("balance", 3, 4)
    assert await shop.told() == []
    await shop.use("balance", 1)
    await shop.use("balance", 1)
    assert await shop.told() == [("balance", 80, "8", 10)]
    await shop.use("balance", 1)
    await shop.use("balance", -5)
    await shop.use("balance", 5)

    assert await shop.told() == [("balance", 80, "8", 10), ("balance", 100, "10", 10)]


async def test_it_says_whose_and_of_which_month_and_is_sent_at_once(shop: Shop) -> None:
    await shop.track(tokens=10, time_zone="Asia/Tokyo")

    await shop.use("tokens", "9.5", at=NOON - timedelta(days=15))  # 2026-02-28T12:00Z

    row = await shop.pool.fetchrow("SELECT routing_key, exchange, due_at FROM outbox")
    assert row is not None
    assert tuple(row) == ("metrics.quota_crossed.v1", "tenure.metrics", NOON)
    fact = QuotaCrossed(
        tenant_id="t1", meter="tokens", percent=80, used="9.5", limit_value=10, month="2026-02", enforcement="hard",
        occurred_at=NOON,
    )  # fmt: skip
    assert await shop.said() == [fact]


async def test_what_a_hard_limit_keeps_out_tells_that_the_limit_is_reached(shop: Shop) -> None:
    await shop.track(tokens=10, users=2)

    assert await shop.use("tokens", 5, 6) == "ax"
    assert await shop.use("tokens", 6) == "x"

    assert await shop.told() == [("tokens", 100, "5", 10)]


async def test_of_a_limit_of_nothing_it_is_told_when_something_is_used(shop: Shop) -> None:
    await shop.track(tokens=0, calls=0, hard=False)

    await shop.use("tokens", 0)
    assert await shop.told() == [("calls", 80, "1", 0), ("calls", 100, "1", 0)]


async def test_every_month_and_every_limit_is_told_by_itself(shop: Shop) -> None:
    await shop.track(tokens=10)
    await shop.use("tokens", 8)
    await shop.use("tokens", 8, at=datetime.fromisoformat("2026-02-28T12:00Z"))
    assert [each.month for each in await shop.said()] == ["2026-03", "2026-02"]

    await shop.change(tokens=12)
    await shop.use("tokens", 1)
    assert len(await shop.told()) == 2
    await shop.use("tokens", 1)
    await shop.change(tokens=10)
    await shop.use("tokens", 0)

    assert (await shop.told())[2:] == [("tokens", 80, "10", 12), ("tokens", 100, "10", 10)]


@pytest.mark.parametrize("place", ["usage_inserted", "outbox_inserted", "usage_committed"])
async def test_it_is_told_once_whatever_fails_and_is_sent_again(shop: Shop, place: str) -> None:
    await shop.track(tokens=10)
    events = [shop.event("tokens", value) for value in (8, 2, 1)]

    with armed(f"{place}=raise"), pytest.raises(FailpointError):
        await shop.recorder.record(events)
    assert await shop.told() == [] or place == "usage_committed"
    await shop.recorder.record(events)
    await shop.recorder.record(events)

    assert await shop.told() == [("tokens", 80, "10", 10), ("tokens", 100, "10", 10)]
    assert (await shop.used()).popitem()[1] == 10


async def test_what_was_corrected_and_is_used_again_is_not_told_again(shop: Shop) -> None:
    await shop.track(tokens=10)
    await shop.use("tokens", 8)
    async with transaction(shop.pool) as connection:
        await connection.execute("UPDATE usage_hour SET quantity = 1; DELETE FROM quota_use")

    assert await shop.use("tokens", 7, 3) == "ax"

    assert await shop.told() == [("tokens", 80, "8", 10), ("tokens", 100, "8", 10)]


async def hear(shop: Shop, *counts: int) -> list[Fact]:
    async with transaction(shop.pool) as connection:
        facts = [MailReported(tenant_id="t1", hour=NOON, counts={"send": count}) for count in counts]
        return list(await handlers.meter_mail(connection, facts, clock=shop.clock))


async def test_mails_use_quotas_and_are_never_refused(shop: Shop) -> None:
    await shop.track(mail_sends=10, mail_opens=1)

    assert await hear(shop, 3, 4) == []
    (fact,) = await hear(shop, 2)
    assert fact == QuotaCrossed(
        tenant_id="t1", meter="mail_sends", percent=80, used="9", limit_value=10, month="2026-03", enforcement="hard",
        occurred_at=NOON,
    )  # fmt: skip
    (fact,) = await hear(shop, 40)
    assert isinstance(fact, QuotaCrossed)
    assert (fact.percent, fact.used) == (100, "49")
    assert await hear(shop, 1) == []
