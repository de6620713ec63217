"""What is true of an event before anything is known of meters."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.metrics.recording.event import EARLIEST, LATEST, Event, Reception, key_of, parse
from services.metrics.recording.reading import LARGEST_DATA, read, written
from services.metrics.recording.refusal import RefusedError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCUMENT = {"specversion": "1.0", "id": "1", "source": "/app", "type": "api_call", "subject": "t1"}


def parsed(tenant_id: str | None = None, **changed: Any) -> Event:
    document = {name: value for name, value in (DOCUMENT | changed).items() if value is not ...}
    return parse(document, Reception.at(NOW, tenant_id=tenant_id))


def refusal(tenant_id: str | None = None, **changed: Any) -> tuple[str, str | None]:
    with pytest.raises(RefusedError) as refused:
        parsed(tenant_id, **changed)
    assert str(refused.value) == refused.value.detail
    return refused.value.code, refused.value.pointer


def test_an_event_is_what_was_sent() -> None:
    event = parsed(time="2026-03-01T12:30:00.25+01:00", data={"b": 1, "a": 0.5}, extension="ignored")

    assert (event.tenant_id, event.source, event.id, event.type) == ("t1", "/app", "1", "api_call")
    assert event.happened_at == datetime(2026, 3, 1, 11, 30, 0, 250_000, tzinfo=UTC)
    assert event.json == b'{"a":0.5,"b":1}'


def test_an_event_without_time_and_data_happened_when_it_was_received() -> None:
    event = parsed(time=None, data=None)

    assert (event.happened_at, event.data) == (NOW, {})


NO_OBJECTS: list[Any] = [[], "text", 1, True]


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"specversion": ...}, "/specversion"),
        ({"specversion": "0.3"}, "/specversion"),
        ({"specversion": 1.0}, "/specversion"),
        *(({name: value}, f"/{name}") for name in ("id", "source", "type") for value in (..., None, "", 7, "x" * 256)),
        ({"subject": ...}, "/subject"),
        ({"subject": 7}, "/subject"),
        ({"subject": "t 1"}, "/subject"),
        ({"subject": "t1\n"}, "/subject"),
        *(
            ({"time": time}, "/time")
            for time in (
                "", "now", 1772366400, "2026-03-01", "2026-03-01T12:00:00", "2026-03-01 12:00:00Z", "20260301T120000Z",
                "2026-02-30T12:00:00Z", "2026-03-01T12:00:60Z", "2026-03-01T12:00:00+99:00",
                "0001-01-01T00:00:00+23:59",
                "\uff12\uff10\uff12\uff16-03-01T12:00:00Z",
            )
        ),
        *(({"data": data}, "/data") for data in NO_OBJECTS),
        ({"data": {"a": "x" * LARGEST_DATA}}, "/data"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused_by_its_field(changed: dict[str, Any], pointer: str) -> None:
    assert refusal(**changed) == ("invalid_event", pointer)


@pytest.mark.parametrize("document", [None, *NO_OBJECTS])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(RefusedError, match="The event must be a JSON object") as refused:
        parse(document, Reception.at(NOW, tenant_id=None))
    assert (refused.value.code, refused.value.pointer) == ("invalid_event", "")


def test_the_longest_texts_are_taken() -> None:
    event = parsed(id="i" * 255, source="s" * 255, type="t" * 255)

    assert len(event.id) == len(event.source) == len(event.type) == 255


def test_events_are_taken_from_35_days_back_to_5_minutes_ahead() -> None:
    second = timedelta(seconds=1)
    assert parsed(time=(NOW - LATEST).isoformat()).happened_at == NOW - timedelta(days=35)
    assert parsed(time=(NOW + EARLIEST).isoformat()).happened_at == NOW + timedelta(minutes=5)

    assert refusal(time=(NOW - LATEST - second).isoformat()) == ("too_late", "/time")
    assert refusal(time=(NOW + EARLIEST + second).isoformat()) == ("in_the_future", "/time")


def test_a_tenants_credential_writes_for_that_tenant_alone() -> None:
    assert parsed("t1", subject="t1").tenant_id == "t1"
    assert parsed("t1", subject=None).tenant_id == "t1"
    assert parsed("t1", subject=..., tenantid="t2", tenantId="t2").tenant_id == "t1"
    for subject in ("t2", "", "t1 ", "T1", 1, ["t1"], {"t1": "t1"}):
        assert refusal("t1", subject=subject) == ("wrong_tenant", "/subject")


def test_an_event_is_known_by_source_and_id_together() -> None:
    assert key_of("a-b", "c") != key_of("a", "b-c")
    assert key_of('a","b', "c") != key_of("a", 'b","c')
    assert key_of("a", "b") != key_of("b", "a")
    assert parsed().key == parsed(type="seat", data={"a": 1}, time=NOW.isoformat()).key == key_of("/app", "1")


def test_the_digest_is_of_what_an_event_says() -> None:
    same: list[dict[str, Any]] = [
        {"time": "2026-03-01T12:00:00Z", "data": {"a": 1, "b": {"c": 2, "d": 3}}},
        {"time": "2026-03-01T13:00:00.000+01:00", "data": {"b": {"d": 3, "c": 2}, "a": 1}},
        {"time": "2026-03-01t12:00:00z", "data": {"a": 1, "b": {"c": 2, "d": 3}}, "subject": "t1", "extension": 1},
    ]
    other: list[dict[str, Any]] = [
        {**same[0], "type": "seat"},
        {**same[0], "time": "2026-03-01T12:00:00.000001Z"},
        {**same[0], "time": None},
        {**same[0], "data": {"a": 1, "b": {"c": 2, "d": "3"}}},
        {**same[0], "data": {"a": 1}},
    ]

    assert len({parsed(**changed).digest for changed in same}) == 1
    assert len({parsed(**changed).digest for changed in (same[0], *other)}) == len(other) + 1


def test_an_event_without_time_is_the_same_one_whenever_it_comes() -> None:
    later = parse(DOCUMENT, Reception.at(NOW + timedelta(days=1), tenant_id=None))

    assert later.digest == parsed().digest


@pytest.mark.parametrize(
    "text",
    ["0.1", "0.10000000000000000001", "123456789012345.123456789", "9007199254740993.5", "1E+400", "1E-400",
     "12345678901234567890123456789012345678", "-9223372036854775809", "18446744073709551616", "0.30000000000000004"],
)  # fmt: skip
def test_numbers_are_kept_to_the_last_digit(text: str) -> None:
    assert written(read(f'{{"n":{text}}}'.encode())) == f'{{"n":{text}}}'.encode()


def test_a_number_that_no_column_takes_is_the_nearest_double() -> None:
    assert written(read(b"[1e-16384]")) == b"[0.0]"
    assert written(read(b"[0." + b"1" * 20_000 + b"]")) == b"[0.1111111111111111]"


def test_a_number_means_the_same_however_it_is_written() -> None:
    assert {written(read(text)) for text in (b"[0.1]", b"[0.10]", b"[1e-1]")} == {b"[0.1]"}
