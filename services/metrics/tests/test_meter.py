from typing import Any

import pytest

from services.metrics.meter import MISSING, Aggregation, Meter, Place
from services.metrics.paths import parse_path

DATA = {"gb": 1.5, "user": {"a/b": "ada"}, "items": [{"n": 1}, {"n": 2}], "text": "abc", "nothing": None, "0": "zero"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.gb", 1.5),
        ("$['user']['a/b']", "ada"),
        ("$.items[0].n", 1),
        ("$.items[-1].n", 2),
        ("$.items[2]", MISSING),
        ("$.items[-3]", MISSING),
        ("$.items.n", MISSING),
        ("$.text[0]", MISSING),
        ("$.gb.gb", MISSING),
        ("$[0]", MISSING),
        ("$['0']", "zero"),
        ("$.nothing", None),
        ("$.nowhere", MISSING),
    ],
)
def test_a_path_finds_one_value_or_none(path: str, found: Any) -> None:
    assert Place(parse_path(path)).find(DATA) == found


def test_a_place_has_the_pointer_of_what_it_finds_in_the_event() -> None:
    assert Place(parse_path("$.user['a/b']['~'][0]")).pointer == "/data/user/a~1b/~0/0"


def test_a_row_of_the_catalog_is_a_meter() -> None:
    row = {"name": "seats", "event_type": "seat", "aggregation": "unique", "value_path": "$.user",
           "dimensions": {"zone": "$.z", "area": "$.a[0]"}, "allows_negative": False}  # fmt: skip

    meter = Meter.of(row)

    assert meter == Meter(
        "seats", "seat", Aggregation.UNIQUE, Place(("user",)), {"zone": Place(("z",)), "area": Place(("a", 0))}
    )
    assert list(meter.dimensions) == ["area", "zone"]  # in the order of canonical JSON


def test_a_row_that_cannot_be_read_is_no_meter() -> None:
    row = {"name": "a", "event_type": "a", "aggregation": "sum", "value_path": "$..a",
           "dimensions": {}, "allows_negative": False}  # fmt: skip

    with pytest.raises(ValueError, match="one place"):
        Meter.of(row)
