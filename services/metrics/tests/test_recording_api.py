"""`POST /v1/usage`: what is taken, what is refused, and that it is said of each."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import httpx2
import orjson
import pytest

from services.metrics.recording.body import BATCH, EVENT, MOST_EVENTS, NDJSON
from services.metrics.recording.recorder import Recorder
from services.metrics.tests.support import KEY, api_of, define_meter, hours_of, take_usage_of, usage_event
from shared.clock import ManualClock
from shared.http import overloaded
from shared.postgres import Pool
from shared.testing.principals import Cast, as_

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR = "2026-03-01T12:00"


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    await take_usage_of(pool, "t1", "t2", now=NOW)
    api = api_of(pool, clock=ManualClock(NOW), credentials=Cast("t1"))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def post(
    client: httpx2.AsyncClient, sent: Any, *, media_type: str = "application/json", who: str = KEY
) -> httpx2.Response:
    content = sent if isinstance(sent, bytes) else orjson.dumps(sent)
    return await client.post("/v1/usage", content=content, headers={"Content-Type": media_type, **as_(who)})


async def outcomes(client: httpx2.AsyncClient, sent: Any, **how: Any) -> list[tuple[str, str | None, str | None]]:
    """Return status, code and pointer of each event of a batch."""
    answer = await post(client, sent, **how)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    statuses = [result["status"] for result in document["results"]]
    names = {"accepted": "accepted", "duplicates": "duplicate", "conflicts": "conflict", "refused": "refused"}
    assert {name: document[name] for name in names} == {name: statuses.count(each) for name, each in names.items()}
    return [(result["status"], result["code"], result["pointer"]) for result in document["results"]]


ACCEPTED, DUPLICATE, CONFLICT = (("accepted", None, None), ("duplicate", None, None), ("conflict", None, None))


async def test_events_are_taken_one_by_one_in_batches_and_by_the_line(client: httpx2.AsyncClient, pool: Pool) -> None:
    lines = b"\n".join([orjson.dumps(usage_event(5)), b"  ", orjson.dumps(usage_event(6)) + b"\r", b""])

    answer = await post(client, usage_event(1))
    assert (answer.status_code, answer.json()) == (200, {
        "accepted": 1, "duplicates": 0, "conflicts": 0, "refused": 0,
        "results": [{"id": "1", "status": "accepted", "code": None, "detail": None, "pointer": None}],
    })  # fmt: skip
    assert await outcomes(client, usage_event(2), media_type=f"{EVENT}; charset=utf-8") == [ACCEPTED]
    assert await outcomes(client, [usage_event(3)]) == [ACCEPTED]
    assert await outcomes(client, [usage_event(4)], media_type=BATCH) == [ACCEPTED]
    assert await outcomes(client, lines, media_type=NDJSON) == [ACCEPTED, ACCEPTED]
    for sent, media_type in (([usage_event(7)], EVENT), (usage_event(7), BATCH)):
        assert (await post(client, sent, media_type=media_type)).status_code == 422
    assert await outcomes(client, []) == await outcomes(client, b"\n", media_type=NDJSON) == []
    assert await hours_of(pool) == {("api_calls", HOUR): 6}


async def test_the_same_event_counts_once_and_another_one_conflicts(client: httpx2.AsyncClient, pool: Pool) -> None:
    event = usage_event(1, data={"a": 1})

    assert await outcomes(client, [event, event, {**event, "data": {"a": 2}}]) == [ACCEPTED, DUPLICATE, CONFLICT]
    assert await outcomes(client, [{**event, "data": {"a": 2}}, event]) == [CONFLICT, DUPLICATE]
    assert await outcomes(client, event) == [DUPLICATE]
    answer = await post(client, {**event, "type": "seat", "data": {"user": "ada"}})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert await hours_of(pool) == {("api_calls", HOUR): 1}


async def test_the_same_id_of_another_source_or_tenant_is_another_event(client: httpx2.AsyncClient, pool: Pool) -> None:
    pairs = [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("b", "a"), ('a","b', "c"), ("a", 'b","c')]
    events = [usage_event(id_, source=source) for source, id_ in pairs]

    assert await outcomes(client, [*events, usage_event("c", source="a-b", tenant_id="t2")]) == [ACCEPTED] * 7
    assert await hours_of(pool) == {("api_calls", HOUR): 6}
    assert await hours_of(pool, "t2") == {("api_calls", HOUR): 1}


REFUSALS = [
    (7, "invalid_event", ""),
    (usage_event("", data={}), "invalid_event", "/id"),
    (usage_event(1, tenant_id=None), "invalid_event", "/subject"),
    (usage_event(1, tenant_id="t3"), "unknown_tenant", "/subject"),
    (usage_event(1, "dreams"), "unknown_meter", "/type"),
    (usage_event(1, "retired"), "unknown_meter", "/type"),
    (usage_event(1, time="2026-01-25T12:29:59Z"), "too_late", "/time"),
    (usage_event(1, time="2026-03-01T12:35:00.000001Z"), "in_the_future", "/time"),
    (usage_event(1, "storage"), "invalid_value", "/data/gb"),
    (usage_event(1, "storage", data={"gb": "1" + "0" * 30}), "invalid_value", "/data/gb"),
    (usage_event(1, "storage", data={"gb": 1e30}), "invalid_value", "/data/gb"),
    (usage_event(1, "storage", data={"gb": {"gb": [[{}]]}}), "invalid_value", "/data/gb"),
    (usage_event(1, "storage", data={"gb": "NaN"}), "invalid_value", "/data/gb"),
    (usage_event(1, "storage", data={"gb": -1}), "negative_value", "/data/gb"),
    (usage_event(1, "told_apart", data={"d": []}), "invalid_dimension", "/data/d"),
]


async def test_of_a_batch_each_event_is_taken_or_refused_for_itself(client: httpx2.AsyncClient, pool: Pool) -> None:
    await define_meter(pool, "retired", aggregation="count", retired_at=NOW)
    await define_meter(pool, "told_apart", aggregation="count", dimensions={"d": "$.d"})
    sent = [each for document, _, _ in REFUSALS for each in (document, usage_event(f"after {document}"))]

    told = await outcomes(client, sent)

    assert told[::2] == [("refused", code, pointer) for _, code, pointer in REFUSALS]
    assert set(told[1::2]) == {ACCEPTED}
    assert await hours_of(pool) == {("api_calls", HOUR): len(REFUSALS)}
    for document, code, pointer in REFUSALS:  # and none of them has taken an id
        answer = await post(client, document)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


async def test_a_line_that_cannot_be_read_is_refused_for_itself(client: httpx2.AsyncClient, pool: Pool) -> None:
    lines = [
        b"{", b"nonsense", b'{"id":1,"id":2}', b'{"a":NaN}', b'{"a":1e400}', b'{"a":"\\u0000"}', b'{"a":"\\ud800"}',
        b"\xff", b"[" * 40 + b"]" * 40, b"[" * 9000, b'{"a":' + b"9" * 41 + b"}", orjson.dumps(usage_event(1)),
    ]  # fmt: skip

    told = await outcomes(client, b"\n".join(lines), media_type=NDJSON)

    assert told == [("refused", "unreadable", None)] * (len(lines) - 1) + [ACCEPTED]
    assert await hours_of(pool) == {("api_calls", HOUR): 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"[" * 9000, 400), (b'{"id":1,"id":2}', 400), (b'[{"a":NaN}]', 400), (b'[{"a":"\\ud800"}]', 400),
        (b'["\\u0000"]', 400), (b"\xff", 400), (b"", 422), (b"null", 422), (b"1", 422), (b'"text"', 422),
        (b"[" + b",".join([b"1"] * (MOST_EVENTS + 1)) + b"]", 413), (b"[" + b" " * 1024 * 1024 + b"]", 413),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
async def test_what_is_no_event_at_all_is_a_problem(client: httpx2.AsyncClient, body: bytes, status: int) -> None:
    answer = await post(client, body)

    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


async def test_a_thousand_events_are_taken_and_not_one_more(client: httpx2.AsyncClient, pool: Pool) -> None:
    events = [usage_event(number) for number in range(MOST_EVENTS)]
    lines = b"\n".join([b"{}"] * (MOST_EVENTS + 1))

    assert await outcomes(client, events) == [ACCEPTED] * MOST_EVENTS
    for answer in (await post(client, [*events, usage_event("more")]), await post(client, lines, media_type=NDJSON)):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_events")
    assert await hours_of(pool) == {("api_calls", HOUR): MOST_EVENTS}
    assert (await post(client, b"a=1", media_type="application/x-www-form-urlencoded")).status_code == 415


async def test_data_is_kept_as_it_was_sent(client: httpx2.AsyncClient, pool: Pool) -> None:
    data = (
        b'{"\xc3\xa9": "\\ud83d\\ude00 \xe2\x80\xa8", "n": 0.10000000000000000001, "big": '
        + b"9" * 40
        + b', "x": 1e-9999999}'
    )
    event = orjson.dumps(usage_event(1)).replace(b'"source"', b'"data":' + data + b',"source"')

    assert await outcomes(client, event) == [ACCEPTED]
    async with pool.acquire() as connection:
        stored = await connection.fetchval("SELECT data::text FROM usage_event")
    assert stored == '{"n": 0.10000000000000000001, "x": 0.0, "é": "😀 \u2028", "big": ' + "9" * 40 + "}"


async def test_a_tenant_writes_for_itself_alone(client: httpx2.AsyncClient, pool: Pool) -> None:
    foreign = {"tenantid": "t2", "tenant_id": "t2", "tenantId": "t2", "data": {"tenantId": "t2"}}
    events = [usage_event(1), usage_event(2, tenant_id=None), usage_event(3, tenant_id=None) | foreign]

    for who in ("administrator", "visitor"):
        told = await outcomes(client, [*events, usage_event(4, tenant_id="t2")], who=who)
        assert told[-1] == ("refused", "wrong_tenant", "/subject")
        answer = await post(client, usage_event(4, tenant_id="t2"), who=who)
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_tenant")
        absent = await post(client, usage_event(4, tenant_id="t9"), who=who)
        assert absent.content == answer.content  # nothing tells whether a tenant is there
    assert await hours_of(pool) == {("api_calls", HOUR): 3}
    assert await hours_of(pool, "t2") == {}

    for who, code in (("user", "forbidden"), ("support", "forbidden"), ("reader", "insufficient_scope")):
        answer = await post(client, usage_event(5), who=who)
        assert (answer.status_code, answer.json()["code"]) == (403, code)


async def test_events_land_in_the_hours_of_their_tenants_however_late_they_come(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    await take_usage_of(pool, "india", now=NOW, time_zone="Asia/Kolkata")
    times = [NOW, NOW - timedelta(minutes=1), NOW - timedelta(days=35), NOW + timedelta(minutes=5)]
    events = [
        usage_event(number, tenant_id="india", time=f"{time:%Y-%m-%dT%H:%M:%SZ}") for number, time in enumerate(times)
    ]

    assert await outcomes(client, events[::-1]) == [ACCEPTED] * 4
    assert await hours_of(pool, "india") == {
        ("api_calls", "2026-03-01T12:30"): 2,
        ("api_calls", "2026-03-01T11:30"): 1,
        ("api_calls", "2026-01-25T12:30"): 1,
    }


async def test_what_cannot_be_taken_now_may_be_sent_again(
    client: httpx2.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool.acquire() as connection:
        await connection.execute("SELECT keep_usage_partitions('{}', '2999-01-01')")
    without_partition = await post(client, [usage_event(1)])
    await take_usage_of(pool, now=NOW)

    answers = [without_partition]
    faults = [
        overloaded(),
        OSError(),
        TimeoutError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.InterfaceError("closed"),
    ]
    for fault in faults:
        monkeypatch.setattr(Recorder, "_record_once", AsyncMock(side_effect=fault))
        answers.append(await post(client, [usage_event(1)]))
    monkeypatch.undo()

    for answer in answers:
        assert (answer.status_code, answer.json()["retryable"]) == (503, True), answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert await outcomes(client, [usage_event(1)]) == [ACCEPTED]
