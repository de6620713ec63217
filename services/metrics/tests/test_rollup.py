"""What events add up to, in whatever order and portions they come."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.metrics.meter import Aggregation, Meter, Place
from services.metrics.recording.evaluation import measure
from services.metrics.recording.event import Event, key_of
from services.metrics.recording.rollup import NO_DIMENSIONS, Bucket, Rollup, Total, hour_of, merged
from shared.postgres import Pool

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
METERS = {
    aggregation: Meter(
        aggregation.value, "x", aggregation,
        None if aggregation is Aggregation.COUNT else Place(("v",)), {"d": Place(("d",))}, allows_negative=True,
    )
    for aggregation in Aggregation
}  # fmt: skip

quantities = st.decimals(
    min_value=Decimal("-1e15"), max_value=Decimal("1e15"), places=9, allow_nan=False, allow_infinity=False
).filter(lambda each: abs(each) < 10**15)


@st.composite
def some_events(draw: st.DrawFn) -> list[Event]:
    """Events of one hour, no two with the same id; many at one moment and with one value."""
    values = st.one_of(st.integers(-3, 3), quantities)
    drawn = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), values), max_size=12))
    return [
        Event("t1", "/s", str(n), "x", HOUR + timedelta(seconds=second), {"v": each, "d": str(part)}, b"", key, b"")
        for n, (second, part, each) in enumerate(drawn)
        if (key := key_of("/s", str(n)))
    ]


def added_up(meter: Meter, events: Iterable[Event]) -> Rollup:
    rollup = Rollup()
    for event in events:
        rollup.add(event, HOUR, measure(event, {"x": [meter]}))
    return rollup


def united(meter: Meter, rollups: Sequence[Rollup]) -> tuple[dict[Bucket, Total], dict[Bucket, set[bytes]]]:
    """Put together what portions come to, as the database does."""
    totals: dict[Bucket, Total] = {}
    values: dict[Bucket, set[bytes]] = {}
    for rollup in rollups:
        for bucket, total in rollup.totals.items():
            totals[bucket] = merged(meter.aggregation, totals[bucket], total) if bucket in totals else total
        for bucket, seen in rollup.values.items():
            values[bucket] = values.get(bucket, set()) | seen
    return totals, values


def expected(meter: Meter, events: Sequence[Event]) -> Any:
    """Say what events come to, the simple way."""
    numbers = [event.data.get("v", 0) for event in events]
    match meter.aggregation:
        case Aggregation.COUNT:
            return len(events)
        case Aggregation.SUM:
            return sum(map(Fraction, numbers), Fraction())
        case Aggregation.MAX:
            return max(numbers)
        case Aggregation.LATEST:
            return max(events, key=lambda event: (event.happened_at, event.key)).data["v"]
        case Aggregation.UNIQUE:
            return len(set(numbers))


@pytest.mark.parametrize("aggregation", Aggregation)
@settings(deadline=None)
@given(data=st.data())
def test_neither_order_nor_portions_matter(aggregation: Aggregation, data: st.DataObject) -> None:
    meter = METERS[aggregation]
    events = data.draw(some_events())
    if aggregation is Aggregation.UNIQUE:
        events = [event for event in events if event.data["v"] % 1 == 0]
    shuffled = data.draw(st.permutations(events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    portions = [shuffled[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]

    whole, parts = added_up(meter, events), [added_up(meter, portion) for portion in portions]

    assert united(meter, parts) == united(meter, parts[::-1]) == (whole.totals, whole.values)
    if events:
        bucket = Bucket("t1", meter.name, HOUR, NO_DIMENSIONS)
        is_counted_apart = aggregation is Aggregation.UNIQUE
        quantity = len(whole.values[bucket]) if is_counted_apart else whole.totals[bucket].quantity
        assert quantity == expected(meter, events)


@settings(deadline=None)
@given(st.lists(quantities, min_size=1, max_size=50))
def test_no_digit_of_a_sum_is_lost(numbers: list[Decimal]) -> None:
    total = reduce(lambda one, other: merged(Aggregation.SUM, one, other), map(Total, numbers)).quantity

    assert Fraction(total) == sum(map(Fraction, numbers))


def test_what_is_told_apart_is_added_up_by_itself_too() -> None:
    events = [
        Event("t1", "/s", d + v, "x", HOUR, {"v": Decimal(v), "d": d}, b"", b"", b"") for d, v in ("a1", "b2", "b4")
    ]

    rollup = added_up(METERS[Aggregation.SUM], events)

    assert {bucket.dimensions: total.quantity for bucket, total in rollup.totals.items()} == {
        NO_DIMENSIONS: 7,
        '{"d":"a"}': 1,
        '{"d":"b"}': 6,
    }


@pytest.mark.parametrize(
    ("moment", "time_zone", "hour"),
    [
        ("2026-03-01T12:59:59.999999+00:00", "UTC", "2026-03-01T12:00+00:00"),
        ("2026-03-01T13:00:00+00:00", "UTC", "2026-03-01T13:00+00:00"),
        ("2026-03-01T12:29:59+00:00", "Asia/Kolkata", "2026-03-01T11:30+00:00"),
        ("2026-03-01T12:30:00+00:00", "Asia/Kolkata", "2026-03-01T12:30+00:00"),
        ("2026-03-01T12:14:00+00:00", "Asia/Kathmandu", "2026-03-01T11:15+00:00"),
        # Berlin's clocks go from 2 to 3, and from 3 back to 2: there is no hour too few and no hour twice as long.
        ("2026-03-29T00:59:00+00:00", "Europe/Berlin", "2026-03-29T00:00+00:00"),
        ("2026-03-29T01:00:00+00:00", "Europe/Berlin", "2026-03-29T01:00+00:00"),
        ("2026-10-25T00:30:00+00:00", "Europe/Berlin", "2026-10-25T00:00+00:00"),
        ("2026-10-25T01:30:00+00:00", "Europe/Berlin", "2026-10-25T01:00+00:00"),
        # Lord Howe's go by half an hour.
        ("2026-04-04T15:15:00+00:00", "Australia/Lord_Howe", "2026-04-04T14:30+00:00"),
    ],
)
def test_hours_are_those_of_the_time_zone(moment: str, time_zone: str, hour: str) -> None:
    assert hour_of(datetime.fromisoformat(moment), time_zone) == datetime.fromisoformat(hour)


async def test_the_database_has_the_same_hours(pool: Pool) -> None:
    zones = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham"]
    start = datetime(2026, 1, 1, 0, 7, 30, tzinfo=UTC)
    moments = [start + timedelta(minutes=45) * step for step in range(365 * 32)]
    async with pool.acquire() as connection:
        for zone in zones:
            rows = await connection.fetch(
                "SELECT date_trunc('hour', moment, $2) FROM unnest($1::timestamptz[]) AS moment", moments, zone
            )
            assert [hour_of(moment, zone) for moment in moments] == [row[0] for row in rows]


def test_an_offset_is_a_number_of_quarters_of_an_hour() -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    zones = ("Asia/Kathmandu", "Africa/Monrovia", "Europe/Amsterdam", "Pacific/Marquesas", "Australia/Eucla")
    offsets = {
        (start + timedelta(hours=hour)).astimezone(ZoneInfo(zone)).utcoffset() for zone in zones for hour in range(9000)
    }

    assert all(offset is not None and offset % timedelta(minutes=15) == timedelta() for offset in offsets)
