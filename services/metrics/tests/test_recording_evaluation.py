"""What meters make of events."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from services.metrics.meter import Aggregation, Meter, Place
from services.metrics.recording.evaluation import Measure, measure
from services.metrics.recording.event import Reception, parse
from services.metrics.recording.reading import read
from services.metrics.recording.refusal import RefusedError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GB = Place(("gb",))
MAX = Meter("storage", "x", Aggregation.MAX, GB)


def measured(data: str, *meters: Meter, type_: str = "x") -> list[Measure]:
    document = {"specversion": "1.0", "id": "1", "source": "/s", "type": type_, "subject": "t1"}
    event = parse(document | {"data": read(data.encode())}, Reception.at(NOW, tenant_id=None))
    return measure(event, {"x": meters})


def value(text: str, meter: Meter = MAX) -> Any:
    return measured(f'{{"gb":{text}}}', meter)[0].value


def refusal(data: str, meter: Meter = MAX) -> tuple[str, str | None]:
    with pytest.raises(RefusedError) as refused:
        measured(data, meter)
    return refused.value.code, refused.value.pointer


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("0", "0"), ("-0.0", "0"), ("7", "7"), ("0.1", "0.1"), ("1e3", "1000"), ("1.5E+2", "150"),
        ("1E-9", "0.000000001"),
        ("999999999999999", "999999999999999"), ("999999999999999.999999999", "999999999999999.999999999"),
        ('"12.50"', "12.5"), ('"007"', "7"), ('"999999999999999.999999999"', "999999999999999.999999999"),
    ],
)  # fmt: skip
def test_a_value_is_taken_exactly(text: str, quantity: str) -> None:
    assert value(text) == Decimal(quantity)


@pytest.mark.parametrize(
    "text",
    [
        "null", "true", "[]", "{}", "[1]", '""', '"a"', '"1e3"', '"+1"', '" 1"',
         '"1."', '".5"', '"NaN"', '"Infinity"', '"٣"',
        "1000000000000000", "1e15", "1e30", "1e300", '"1000000000000000"', f'"{10**30}"', str(10**39), f'"{"9" * 100}"',
        "0.1234567891", '"0.1234567891"', "1e-10", "1e-5000", "123456789012345.0000000001",
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text: str) -> None:
    assert refusal(f'{{"gb":{text}}}') == ("invalid_value", "/data/gb")


def test_a_value_that_is_not_there_is_refused() -> None:
    assert refusal("{}") == refusal('{"GB":1}') == ("invalid_value", "/data/gb")


def test_values_below_zero_are_taken_by_meters_that_allow_them() -> None:
    meter = Meter("balance", "x", Aggregation.SUM, GB, allows_negative=True)

    assert value("-1.5", meter) == value('"-1.5"', meter) == Decimal("-1.5")
    assert refusal('{"gb":-0.000000001}') == refusal('{"gb":"-1"}') == ("negative_value", "/data/gb")
    assert refusal('{"gb":-1e15}', meter) == ("invalid_value", "/data/gb")


def test_an_event_counts_as_one_whatever_is_in_it() -> None:
    counting = Meter("calls", "x", Aggregation.COUNT)

    assert measured('{"gb":"much"}', counting) == [Measure(counting, Decimal(1), None)]


def test_different_values_are_told_apart() -> None:
    unique = Meter("users", "x", Aggregation.UNIQUE, GB)
    texts = [
        '"1"',
        "1",
        "2",
        "true",
        '"true"',
        '"True"',
        "false",
        '""',
        "-1",
        '"é"',
        '"e\\u0301"',
        "12345678901234567890123",
    ]

    assert len({value(text, unique) for text in texts}) == len(texts)
    assert value("1", unique) == value("1.0", unique) == value("10e-1", unique)
    for text in ("null", "[]", "{}", "1.5", "1e41", "0.00000000000000000000001"):
        assert refusal(f'{{"gb":{text}}}', unique) == ("invalid_value", "/data/gb")


def test_dimensions_are_texts() -> None:
    places = {"a": Place(("a",)), "b": Place(("b", 0)), "c": Place(("c",))}
    meter = Meter("calls", "x", Aggregation.COUNT, dimensions=places)

    def dimensions(data: str) -> Any:
        (measured_,) = measured(data, meter)
        return orjson.loads(measured_.dimensions or "null")

    assert dimensions('{"a":"eu","b":[2.50],"c":false}') == {"a": "eu", "b": "2.5", "c": "false"}
    assert dimensions('{"a":7,"b":[1e16],"c":0.00000012}') == {"a": "7", "b": "10000000000000000", "c": "0.00000012"}
    assert dimensions('{"a":null,"b":[]}') == {"a": "", "b": "", "c": ""}
    assert dimensions(f'{{"a":"{"x" * 128}"}}')["a"] == "x" * 128
    assert refusal(f'{{"a":"{"x" * 129}"}}', meter) == ("invalid_dimension", "/data/a")
    assert refusal('{"b":[{}]}', meter) == ("invalid_dimension", "/data/b/0")


def test_an_event_feeds_all_meters_that_take_it_or_none() -> None:
    counting = Meter("calls", "x", Aggregation.COUNT)

    assert [each.meter for each in measured('{"gb":1}', counting, MAX)] == [counting, MAX]
    with pytest.raises(RefusedError):
        measured('{"gb":-1}', counting, MAX)


def test_an_event_that_no_meter_takes_is_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        measured("{}", MAX, type_="y")
    assert (refused.value.code, refused.value.pointer) == ("unknown_meter", "/type")
