"""Which paths a meter can have, and that the database finds the same by them."""

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.metrics.meter import MISSING, Place
from services.metrics.paths import parse_path, sql_path
from shared.postgres import Pool


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$.tokens.input", ("tokens", "input")),
        ("$['tokens']['in put']", ("tokens", "in put")),
        ("$.items[0].price", ("items", 0, "price")),
        ("$.items[-1]", ("items", -1)),
        ("$['0']", ("0",)),
        ("$.ünïcode", ("ünïcode",)),
        (r"$['\u0041\'']", ("A'",)),
    ],
)
def test_a_path_goes_by_names_and_numbers(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be a JSONPath"),
        ("tokens", "must be a JSONPath"),
        ("$.", "must be a JSONPath"),
        (" $.a", "must be a JSONPath"),
        ("$.a[", "must be a JSONPath"),
        ("$[01]", "must be a JSONPath"),
        ("$[99999999999999999999]", "must be a JSONPath"),
        (r"$['\u0000']", "must be a JSONPath"),
        ("$.a | $.b", "must be a JSONPath"),
        ("$..a", "must name one place"),
        ("$.a[*]", "must name one place"),
        ("$.*", "must name one place"),
        ("$.a[0, 1]", "must name one place"),
        ("$.a[0:1]", "must name one place"),
        ("$.a[?@.b > 1]", "must name one place"),
        ("$", "must go from 1 to 10 steps"),
        ("$" + ".a" * 11, "must go from 1 to 10 steps"),
        ("$." + "a" * 199, "must have at most 200 characters"),
    ],
)
def test_what_names_more_or_less_than_one_place_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_path(text)


NAMES = st.sampled_from(["a", "b", "0", "-1", 'a"b', "a\\b", "ü", "😀", "$", "a.b", ""])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), NAMES)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3))
    ),
    max_size=4,
)
PATHS = st.lists(st.one_of(NAMES, st.integers(-3, 3)), min_size=1, max_size=3).map(tuple)


@example({"a": ["x", "y"]}, ("a", -1))
@example({"a": ["x", "y"]}, ("a", -2))
@example({"a": ["x", "y"]}, ("a", -3))
@example({"a": {"0": "x"}}, ("a", 0))
@example({"a": ["x"]}, ("a", "0"))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(DOCUMENTS, PATHS)
async def test_the_database_finds_what_the_service_finds(
    pool: Pool, data: dict[str, object], path: tuple[str | int, ...]
) -> None:
    found = await pool.fetchrow(
        "SELECT jsonb_path_exists($1, $2::text::jsonpath, silent => true) AS exists, "
        "jsonb_path_query_first($1, $2::text::jsonpath, silent => true) AS value",
        data,
        sql_path(path),
    )

    assert found is not None
    here = Place(path).find(data)
    assert (found["value"] if found["exists"] else MISSING) == here
