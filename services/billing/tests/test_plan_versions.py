"""By which version of its plan somebody is charged: the one in force when it was taken."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from services.billing import pricing, queries
from services.billing.catalog import versions_of
from services.billing.money import currency_of
from services.billing.terms import Charge, Terms
from services.billing.tests.support import (
    NOON,
    activated,
    ask,
    do_all,
    do_it,
    hear,
    licences,
    on,
    open_accounts,
    open_active,
    undo_all,
)
from shared.clock import ManualClock
from shared.contracts.billing import (
    AccountRefused,
    ChangeLicences,
    ChangePlan,
    LicencesChangeRefused,
    PauseBilling,
    PlanChangeRefused,
)
from shared.messaging.subscriptions import Changed
from shared.postgres import Pool, transaction

ANEW = on(15)
"""When the second version of the standard plan starts."""

FLAT: Mapping[str, Any] = {"model": "flat", "flatAmount": "5"}
TIERS = [{"upTo": "10", "unitAmount": "2", "flatAmount": "1"}, {"upTo": None, "unitAmount": "1", "flatAmount": "0"}]


async def publish(
    pool: Pool,
    plan: str = "standard",
    version: int = 2,
    *,
    starts_at: datetime = ANEW,
    prices: Mapping[str, str] | None = None,
    **content: Any,
) -> None:
    """Publish a version; of the standard plan the second, at 60 dollars and no other currency."""
    terms: dict[str, Any] = {"pays": "arrears", "trial_days": 0, "proration": "day", "reaches_at": None, "charges": []}
    amounts = {code: Decimal(amount) for code, amount in (prices or {"USD": "60"}).items()}
    digits = {code: currency_of(code).digits for code in amounts}
    async with transaction(pool) as connection:
        await queries.catalog.add_version(
            connection, plan, version, terms | {"starts_at": starts_at, "prices": amounts} | content, digits=digits
        )


async def publish_plan(pool: Pool, name: str, *, starts_at: datetime = NOON, **content: Any) -> None:
    async with transaction(pool) as connection:
        details = {"name": name, "rank": 9, "interval": "month", "currency": "USD"}
        await queries.catalog.add_plan(connection, details)
        await connection.execute("INSERT INTO plan_price VALUES ($1, 'USD', 1)", name)
    await publish(pool, name, 1, starts_at=starts_at, **content)


async def pinned(pool: Pool) -> dict[str, tuple[str, int, str]]:
    """Return of each subscription the plan, its version and the amount; licences are ``t1/product``."""
    rows = await pool.fetch(
        "SELECT tenant_id, product, plan, plan_version, amount FROM subscription JOIN account USING (account_id)"
    )
    return {
        f"{row['tenant_id']}/{row['product']}".rstrip("/"): (row["plan"], row["plan_version"], f"{row['amount']:.2f}")
        for row in rows
    }


async def closed(pool: Pool) -> list[tuple[str, int, str]]:
    """Return the plan, its version and the amount of each stretch that is over."""
    rows = await pool.fetch("SELECT plan, plan_version, amount FROM charged_period ORDER BY started_at, plan")
    return [(row["plan"], row["plan_version"], f"{row['amount']:.2f}") for row in rows]


@pytest.mark.parametrize(("now", "version"), [(on(15, 11), (1, "49.00")), (ANEW, (2, "60.00"))])
async def test_an_account_is_opened_on_the_version_in_force(
    pool: Pool, now: datetime, version: tuple[int, str]
) -> None:
    await publish(pool)

    wanted = [{"product": "chess", "plan": "standard"}, {"product": "go", "plan": "free"}]
    await open_accounts(pool, ask("t1", licences=wanted), clock=ManualClock(now))

    standard = ("standard", *version)
    assert await pinned(pool) == {"t1": standard, "t1/chess": standard, "t1/go": ("free", 1, "0.00")}


async def test_a_new_price_does_not_reach_those_who_have_the_plan(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[{"product": "chess", "plan": "standard"}])
    await publish(pool)

    same_plan = await do_it(pool, ChangePlan(tenant_id="t1", plan="standard"), at=on(20))
    same_licence = await do_it(pool, licences("t1", chess="standard"), at=on(20))
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(21))

    assert (same_plan.before, same_licence.before) == (None, None)
    assert await pinned(pool) == dict.fromkeys(("t1", "t1/chess"), ("standard", 1, "49.00"))
    assert await closed(pool) == [("standard", 1, "49.00")] * 2


async def test_whoever_changes_the_plan_takes_the_version_in_force(pool: Pool) -> None:
    await open_active(pool, "t1", "t2", plan="premium")
    await publish(pool)
    await publish(pool, version=3, starts_at=on(25), prices={"USD": "70"})

    await do_it(pool, ChangePlan(tenant_id="t1", plan="standard"), at=on(14))
    await do_it(pool, ChangePlan(tenant_id="t2", plan="standard"), at=on(16))
    done = await do_it(pool, ChangePlan(tenant_id="t2", plan="premium"), at=on(26))
    changed = await pinned(pool), await closed(pool)
    await undo_all(pool, ChangePlan, ("t2", done))

    premium, first, second = ("premium", 1, "499.00"), ("standard", 1, "49.00"), ("standard", 2, "60.00")
    assert changed == ({"t1": first, "t2": premium}, [premium, premium, second])
    assert (await pinned(pool), await closed(pool)) == ({"t1": first, "t2": second}, [premium, premium])


async def test_whoever_takes_a_licence_takes_the_version_in_force(pool: Pool) -> None:
    await open_active(
        pool, "t1", licences=[{"product": "chess", "plan": "standard"}, {"product": "go", "plan": "free"}]
    )
    await publish(pool)

    ended = await do_it(pool, licences("t1", go="free"), at=on(16))
    done = await do_it(pool, licences("t1", chess="standard", go="standard", shogi="standard"), at=on(17))
    taken = await pinned(pool)
    await undo_all(pool, ChangeLicences, ("t1", done))
    without = await pinned(pool)
    await undo_all(pool, ChangeLicences, ("t1", ended))

    first, second, free = ("standard", 1, "49.00"), ("standard", 2, "60.00"), ("free", 1, "0.00")
    assert taken == {"t1": first, **dict.fromkeys(("t1/chess", "t1/go", "t1/shogi"), second)}
    assert without == await pinned(pool) == {"t1": first, "t1/chess": first, "t1/go": free}


async def test_what_the_release_before_has_kept_of_a_change_is_of_the_first_version(pool: Pool) -> None:
    await open_active(pool, "t1")
    await publish(pool, "premium", starts_at=NOON, prices={"USD": "600"})
    done = await do_it(pool, ChangePlan(tenant_id="t1", plan="premium"), at=on(16))
    assert done.before is not None
    as_before = {name: value for name, value in done.before.items() if name != "plan_version"}
    assert as_before != done.before

    await undo_all(pool, ChangePlan, ("t1", Changed(done.answer, as_before)))

    assert await pinned(pool) == {"t1": ("standard", 1, "49.00")}


async def test_a_plan_that_has_not_started_cannot_be_taken(pool: Pool) -> None:
    await publish_plan(pool, "gold", starts_at=ANEW)
    await open_active(pool, "t1")
    licence = {"product": "chess", "plan": "gold"}

    async def taken(now: datetime) -> list[tuple[type, str | None]]:
        asks = [ask(f"own{now.day}", plan="gold"), ask(f"licence{now.day}", licences=[licence])]
        facts = [
            *(await open_accounts(pool, *asks, clock=ManualClock(now))),
            *(each.answer for each in await do_all(pool, licences("t1", chess="gold"), at=now)),
            *(each.answer for each in await do_all(pool, ChangePlan(tenant_id="t1", plan="gold"), at=now)),
        ]
        return [(type(fact), getattr(fact, "code", None)) for fact in facts]

    refusals = (AccountRefused, AccountRefused, LicencesChangeRefused, PlanChangeRefused)
    assert await taken(on(14)) == [(refusal, "unknown_plan") for refusal in refusals]
    assert [code for _, code in await taken(ANEW)] == [None] * 4


async def test_a_plan_is_sold_in_the_currencies_of_its_version_in_force(pool: Pool) -> None:
    await open_active(pool, "eur", plan="free", currency="EUR")
    await publish(pool, prices={"USD": "60", "JPY": "7000", "KWD": "15.25"})
    codes = ("EUR", "JPY", "KWD")

    before = await open_accounts(pool, *(ask(f"a{each}", currency=each) for each in codes), clock=ManualClock(on(14)))
    after = await open_accounts(pool, *(ask(f"b{each}", currency=each) for each in codes), clock=ManualClock(on(16)))
    change = await do_it(pool, ChangePlan(tenant_id="eur", plan="standard"), at=on(16))

    refused = "unsupported_currency"
    assert [getattr(each, "code", None) for each in before] == [None, refused, refused]
    assert [getattr(each, "code", None) for each in after] == [refused, None, None]
    assert getattr(change.answer, "code", None) == refused
    assert await pinned(pool) == {
        "eur": ("free", 1, "0.00"),
        "aEUR": ("standard", 1, "45.00"),
        "bJPY": ("standard", 2, "7000.00"),
        "bKWD": ("standard", 2, "15.25"),
    }


async def test_the_version_is_of_the_opening_and_not_of_the_activation(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"), clock=ManualClock(on(14)))
    await publish(pool)
    await hear(pool, activated("t1", minutes=60 * 24 * 20))

    assert await pinned(pool) == {"t1": ("standard", 1, "49.00")}


async def test_what_versions_say_is_read_by_currency(pool: Pool) -> None:
    await publish(
        pool,
        prices={"USD": "60", "JPY": "7000"},
        pays="advance",
        trial_days=14,
        proration="second",
        reaches_at=on(1, month=4),
        charges=[
            {"meter": "seats", "currency": "USD", "price": FLAT, "included": "2.5", "minimum": "7"},
            {"meter": "api_calls", "currency": "USD", "price": {"model": "graduated", "tiers": TIERS}, "included": "0"},
            {"meter": "seats", "currency": "JPY", "price": {"model": "per_unit", "unitAmount": "0.5"}, "included": 0},
        ],
    )

    async with pool.acquire() as connection:
        versions = await versions_of(connection, ["standard", "free", "standard", "nothing"])

    first = {code: Terms("standard", 1, Decimal(amount)) for code, amount in (("USD", 49), ("EUR", 45))}
    free = {code: [Terms("free", 1, Decimal(0))] for code in ("USD", "EUR")}
    tiers = [pricing.Tier(Decimal(10), Decimal(2), Decimal(1)), pricing.Tier(None, Decimal(1), Decimal(0))]
    common: dict[str, Any] = {
        "pays_in_advance": True, "trial_days": 14, "by_second": True, "starts_at": ANEW, "reaches_at": on(1, month=4),
    }  # fmt: skip
    in_dollars = (
        Charge("api_calls", pricing.Graduated(tiers)),
        Charge("seats", pricing.Flat(Decimal(5)), Decimal("2.5"), Decimal(7)),
    )
    assert versions == {
        "EUR": {"free": free["EUR"], "standard": [first["EUR"]]},
        "JPY": {
            "standard": [
                Terms(
                    "standard", 2, Decimal(7000), **common, charges=(Charge("seats", pricing.PerUnit(Decimal("0.5"))),)
                )
            ]
        },
        "USD": {
            "free": free["USD"],
            "standard": [first["USD"], Terms("standard", 2, Decimal(60), **common, charges=in_dollars)],
        },
    }


async def test_a_price_change_of_a_plan_is_read_as_it_was_published(pool: Pool) -> None:
    """The example of Kill Bill's documentation: 30, and 60 from 15 January, for who has it from 1 March."""
    await publish_plan(pool, "sports", starts_at=on(1, month=1), prices={"USD": "30"})
    await publish(pool, "sports", starts_at=on(15, month=1), reaches_at=on(1), prices={"USD": "60"})
    await open_accounts(pool, ask("old", plan="sports"), clock=ManualClock(on(2, month=1)))
    await open_accounts(pool, ask("new", plan="sports"), clock=ManualClock(on(16, month=1)))

    async with pool.acquire() as connection:
        versions = (await versions_of(connection, ["sports"]))["USD"]["sports"]

    assert [(each.version, each.amount, each.starts_at, each.reaches_at) for each in versions] == [
        (1, Decimal(30), on(1, month=1), None),
        (2, Decimal(60), on(15, month=1), on(1)),
    ]
    assert await pinned(pool) == {"old": ("sports", 1, "30.00"), "new": ("sports", 2, "60.00")}


async def test_nothing_is_read_of_no_plans(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await versions_of(connection, []) == {}


async def test_an_account_has_the_time_zone_that_is_asked_for(pool: Pool) -> None:
    asks = [ask("t1"), ask("t2", time_zone="Asia/Kolkata"), ask("t3", time_zone="Mars/Base"), ask("t4", time_zone="")]

    facts = await open_accounts(pool, *asks, ask("t5", time_zone="Europe/Berlin"))

    rows = await pool.fetch("SELECT tenant_id, time_zone FROM account")
    assert {row["tenant_id"]: row["time_zone"] for row in rows} == {
        "t1": "UTC", "t2": "Asia/Kolkata", "t5": "Europe/Berlin",
    }  # fmt: skip
    assert [getattr(fact, "code", None) for fact in facts] == [None, None, *["unknown_time_zone"] * 2, None]
    assert [fact.tenant_id for fact in facts] == ["t1", "t2", "t3", "t4", "t5"]
    assert isinstance(facts[2], AccountRefused)
    assert facts[2].detail == "There is no time zone Mars/Base."
