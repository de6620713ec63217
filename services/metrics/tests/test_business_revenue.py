"""Recurring revenue by month: what came, grew, shrank and went, right in whatever order it is told."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.metrics.api.business import percent
from services.metrics.tests.metering import Office
from services.metrics.tests.trade import charged, listed, tell
from shared.messaging.event import Event
from shared.postgres import Pool

MOVEMENTS = ("new", "expansion", "reactivation", "contraction", "churn")


async def month(client: httpx2.AsyncClient, name: str = "2026-02", **query: Any) -> Mapping[str, Any]:
    (found,) = [each for each in await listed(client, "revenue", **query) if each["month"] == name]
    return found


async def test_retention_of_a_month_that_loses_what_it_gains(office: Office, pool: Pool) -> None:
    """100k + 15k - 5k - 10k keeps 100 % (metrickittools)."""
    before = {"grows": "40000.00", "shrinks": "30000.00", "goes": "10000.00", "stays": "20000.00"}
    after = {"grows": "55000.00", "shrinks": "25000.00", "goes": "0.00"}
    await tell(pool, *(charged(name, amount, "2026-01-10", 1) for name, amount in before.items()))
    await tell(pool, *(charged(name, amount, "2026-02-10", 2) for name, amount in after.items()))

    assert await month(office.client) == {
        "month": "2026-02",
        "currency": "USD",
        "start": "100000.00",
        "new": "0.00",
        "expansion": "15000.00",
        "reactivation": "0.00",
        "contraction": "5000.00",
        "churn": "10000.00",
        "end": "100000.00",
        "netRetentionPercent": "100.00",
        "grossRetentionPercent": "85.00",
        "tenantsAtStart": 4,
        "tenantsLeft": 1,
        "logoChurnPercent": "25.00",
    }


async def test_retention_is_of_the_tenants_of_the_start_alone(office: Office, pool: Pool) -> None:
    """200k - 6k - 4k + 20k keeps 105 %, and 95 % without what it grew (dnoise); who comes anew is no part of either."""
    await tell(
        pool,
        *(charged(name, "50000.00", "2026-01-01", 1) for name in ("a", "b", "c")),
        charged("d", "46000.00", "2026-01-31T23:59", 1),
        charged("e", "4000.00", "2026-01-20", 1),
        charged("a", "44000.00", "2026-02-01", 2),
        charged("b", "70000.00", "2026-02-28T23:59", 2),
        charged("e", "0.00", "2026-02-14", 2),
        charged("newcomer", "99000.00", "2026-02-14", 1),
    )

    found = await month(office.client)

    assert (found["start"], found["new"], found["end"]) == ("200000.00", "99000.00", "309000.00")
    assert (found["netRetentionPercent"], found["grossRetentionPercent"]) == ("105.00", "95.00")


async def test_who_comes_back_is_not_new(office: Office, pool: Pool) -> None:
    await tell(
        pool,
        charged("back", "10.00", "2026-01-05", 1),
        charged("back", "0.00", "2026-02-05", 2),
        charged("back", "7.50", "2026-03-05", 3),
        charged("new", "2.00", "2026-03-05", 1),
        # Charged and not, within a month: that was never revenue of a month.
        charged("brief", "5.00", "2026-02-05", 1),
        charged("brief", "0.00", "2026-02-06", 2),
    )

    march = await month(office.client, "2026-03")

    assert (march["new"], march["reactivation"], march["start"], march["end"]) == ("2.00", "7.50", "0.00", "9.50")
    assert (march["netRetentionPercent"], march["grossRetentionPercent"], march["logoChurnPercent"]) == (None,) * 3
    assert (await month(office.client, "2026-02"))["tenantsLeft"] == 1


async def test_currencies_are_never_mixed(office: Office, pool: Pool) -> None:
    await tell(
        pool,
        charged("a", "10.00", "2026-01-05", 1, "EUR"),
        charged("a", "0.00", "2026-02-05", 2, "EUR"),
        charged("a", "1200", "2026-02-05", 3, "JPY"),
        charged("b", "0.125", "2026-02-05", 1, "KWD"),
    )

    assert [(each["month"], each["currency"], each["new"], each["churn"], each["end"])
            for each in await listed(office.client, "revenue", limit=1)] == [
        ("2026-01", "EUR", "10.00", "0.00", "10.00"),
        ("2026-02", "EUR", "0.00", "10.00", "0.00"),
        ("2026-02", "JPY", "1200", "0", "1200"),
        ("2026-02", "KWD", "0.125", "0.000", "0.125"),
        ("2026-03", "EUR", "0.00", "0.00", "0.00"),
        ("2026-03", "JPY", "0", "0", "1200"),
        ("2026-03", "KWD", "0.000", "0.000", "0.125"),
    ]  # fmt: skip


async def test_months_are_those_that_begin_in_the_range_and_have_begun(office: Office, pool: Pool) -> None:
    await tell(pool, charged("a", "10.00", "2025-11-05", 1), charged("a", "20.00", "2026-02-28T23:59:59.999999", 2))

    async def months(**query: str) -> list[str]:
        return [each["month"] for each in await listed(office.client, "revenue", **query)]

    assert await months() == ["2025-11", "2025-12", "2026-01", "2026-02", "2026-03"]
    assert await months(to="2030-01-01T00:00:00Z") == await months()
    assert await months(**{"from": "2026-02-01T00:00:00Z"}) == ["2026-02", "2026-03"]
    assert await months(**{"from": "2026-02-01T00:00:01Z", "to": "2026-03-01T00:00:01Z"}) == ["2026-03"]
    assert await months(**{"from": "2025-12-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}) == ["2025-12"]
    assert (await month(office.client, "2026-02", **{"from": "2026-02-01T00:00:00Z"}))["expansion"] == "10.00"


async def test_an_older_edition_is_past_wherever_it_says_that_it_begins(office: Office, pool: Pool) -> None:
    """Clocks of two replicas may differ: the later edition says that it began before the earlier one."""
    told = [charged("a", "10.00", "2026-01-05", 1), charged("a", "30.00", "2026-01-31", 3)]
    await tell(pool, *told, charged("a", "20.00", "2026-02-01", 2))

    assert [each["end"] for each in await listed(office.client, "revenue")] == ["30.00"] * 3


History = Mapping[tuple[str, str], Sequence[tuple[str, int]]]

MONTHS = ("2025-12", "2026-01", "2026-02", "2026-03")

histories = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["EUR", "USD"])),
    st.lists(st.tuples(st.sampled_from(MONTHS), st.sampled_from([0, 0, 1, 250, 999])), max_size=5).map(
        lambda changes: sorted(changes, key=lambda change: change[0])
    ),
    min_size=1,
)
"""What tenants are charged in cents, by tenant and currency, in the order in which that was decided."""


def told_of(history: History) -> list[Event]:
    return [
        charged(tenant_id, f"{Decimal(cents) / 100:.2f}", f"{name}-{10 + number}", number, currency)
        for (tenant_id, currency), changes in history.items()
        for number, (name, cents) in enumerate(changes)
    ]


def worked_out(changes: Sequence[tuple[str, int]]) -> list[tuple[int, int, bool]]:
    """Return what a tenant is charged at the beginning and the end of each month, and whether it was before."""
    ends = [next((cents for name, cents in reversed(changes) if name <= month), 0) for month in MONTHS]
    starts = [0, *ends[:-1]]
    return [(start, end, any(ends[:number])) for number, (start, end) in enumerate(zip(starts, ends, strict=True))]


def moved(start: int, end: int, *, was_charged: bool) -> str:
    if start == 0:
        return "reactivation" if was_charged else "new"
    return "churn" if end == 0 else "expansion" if end > start else "contraction"


def expected(history: History) -> dict[tuple[str, str], dict[str, Decimal]]:
    """Work out the movements of each month and currency from what was decided."""
    found: dict[tuple[str, str], dict[str, Decimal]] = {}
    for (_, currency), changes in history.items():
        for name, (start, end, was_charged) in zip(MONTHS, worked_out(changes), strict=True):
            row = found.setdefault((name, currency), dict.fromkeys(("start", "end", *MOVEMENTS), Decimal()))
            row["start"] += Decimal(start) / 100
            row["end"] += Decimal(end) / 100
            if start != end:
                row[moved(start, end, was_charged=was_charged)] += abs(Decimal(end - start)) / 100
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories, chance=st.randoms(use_true_random=False), parts=st.integers(1, 4))
async def test_a_month_is_right_in_whatever_order_and_however_often_it_is_told(
    office: Office, pool: Pool, history: History, chance: Any, parts: int
) -> None:
    await pool.execute("DELETE FROM recurring_revenue")
    facts = told_of(history)
    facts += chance.sample(facts, k=len(facts) // 2)
    chance.shuffle(facts)
    for part in range(parts):
        await tell(pool, *facts[part::parts])

    found = {(each["month"], each["currency"]): each for each in await listed(office.client, "revenue")}

    for row in found.values():
        amounts = {name: Decimal(row[name]) for name in ("start", "end", *MOVEMENTS)}
        gained = amounts["new"] + amounts["expansion"] + amounts["reactivation"]
        assert amounts["start"] + gained - amounts["contraction"] - amounts["churn"] == amounts["end"]
    begun = {currency: min(name for name, each in found if each == currency) for _, currency in found}
    wanted = {key: row for key, row in expected(history).items() if key[0] >= begun.get(key[1], "9999")}
    assert {key: {name: Decimal(row[name]) for name in ("start", "end", *MOVEMENTS)} for key, row in found.items()} == (
        wanted
    )


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [("1", "3", "33.33"), ("2", "3", "66.67"), ("0.005", "100", "0.01"), ("1", "0", None), ("0", "7", "0.00"),
     ("0.00005", "1", "0.01"), ("12345678901234567890.12", "0.01", "123456789012345678901200.00")],
)  # fmt: skip
def test_percent_is_rounded_half_up(part: str, whole: str, shown: str | None) -> None:
    assert percent(Decimal(part), Decimal(whole)) == shown


async def test_the_schema_refuses_what_must_never_be(pool: Pool) -> None:
    for values in (
        "'t1', 'USD', '2026-03-01', 1, -0.01",
        "'t1', 'USD', '2026-03-01', 1, 'NaN'",
        "'t1', 'USD', '2026-03-01', 1, 'Infinity'",
        "'t1', 'usd', '2026-03-01', 1, 1",
        "'t1', 'USD', '2026-03-02', 1, 1",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(f"INSERT INTO recurring_revenue VALUES ({values})")
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("INSERT INTO workflow_run VALUES (gen_random_uuid(), 'onboard', now(), now(), NULL)")
