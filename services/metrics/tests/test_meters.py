"""Meters that are defined and retired over HTTP."""

import asyncio
from collections.abc import Sequence
from typing import Any

from services.metrics.tests.metering import Office
from shared.postgres import Pool

CALLS = {"name": "calls", "unit": "call", "eventType": "api_call", "aggregation": "count"}
TOKENS = {
    "name": "tokens",
    "unit": "token",
    "enforcement": "hard",
    "eventType": "ai.completion",
    "aggregation": "sum",
    "valuePath": "$.tokens.input",
    "dimensions": {"model": "$.model", "region": "$['at'][0]"},
    "allowsNegative": True,
}
REST: dict[str, Any] = {"enforcement": "soft", "valuePath": None, "dimensions": {}, "allowsNegative": False}
"""What a meter is of which nothing of this is said."""


async def told(pool: Pool) -> list[tuple[str, str, str, Any]]:
    """Return what the audit trail has of the installation."""
    rows = await pool.fetch("SELECT action, subject, actor, after FROM audit_entry WHERE tenant_id = '_' ORDER BY seq")
    return [tuple(row) for row in rows]


async def test_a_meter_is_defined_and_found(office: Office, pool: Pool) -> None:
    answer = await office.client.post("/v1/meters", json=TOKENS)

    when = office.clock.now().isoformat().replace("+00:00", "Z")
    assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/meters/tokens")
    assert answer.json() == TOKENS | {"createdAt": when, "retiredAt": None}
    assert (await office.client.get("/v1/meters/tokens")).json() == answer.json()
    assert answer.json() in (await office.client.get("/v1/meters")).json()["items"]
    assert await told(pool) == [
        (
            "meter.defined",
            "meter:tokens",
            "system-administrator",
            {
                "unit": "token",
                "enforcement": "hard",
                "event_type": "ai.completion",
                "aggregation": "sum",
                "value_path": "$.tokens.input",
                "dimensions": {"model": "$.model", "region": "$['at'][0]"},
                "allows_negative": True,
            },
        )
    ]


async def test_what_is_not_said_of_a_meter_is_left_at_what_is_usual(office: Office) -> None:
    answer = await office.client.post("/v1/meters", json=CALLS)

    assert answer.json() == CALLS | REST | {"createdAt": answer.json()["createdAt"], "retiredAt": None}


async def test_a_meter_is_defined_once_by_however_many(office: Office, pool: Pool) -> None:
    answers = await asyncio.gather(*(office.client.post("/v1/meters", json=TOKENS) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert len(await told(pool)) == 1


DIFFERENCES: Sequence[dict[str, Any]] = [
    {"unit": "word"},
    {"enforcement": "soft"},
    {"eventType": "ai.embedding"},
    {"aggregation": "max"},
    {"valuePath": "$.tokens.output"},
    {"dimensions": {"model": "$.model"}},
    {"allowsNegative": False},
]


async def test_another_meter_of_the_same_name_is_refused(office: Office) -> None:
    first = (await office.client.post("/v1/meters", json=TOKENS)).json()

    for difference in DIFFERENCES:
        answer = await office.client.post("/v1/meters", json=TOKENS | difference)
        assert (answer.status_code, answer.json()["code"]) == (409, "meter_exists"), difference
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/name"]

    assert (await office.client.get("/v1/meters/tokens")).json() == first


WRONG: Sequence[tuple[dict[str, Any], str]] = [
    (CALLS | {"name": "API calls"}, "/name"),
    (CALLS | {"name": "0calls"}, "/name"),
    (CALLS | {"name": "c" * 65}, "/name"),
    (CALLS | {"unit": ""}, "/unit"),
    (CALLS | {"unit": "x" * 65}, "/unit"),
    (CALLS | {"enforcement": "gentle"}, "/enforcement"),
    (CALLS | {"eventType": None}, "/eventType"),
    (CALLS | {"eventType": "x" * 256}, "/eventType"),
    (CALLS | {"aggregation": "average"}, "/aggregation"),
    (CALLS | {"valuePath": "$.calls"}, "/valuePath"),
    (CALLS | {"allowsNegative": True}, "/allowsNegative"),
    (CALLS | {"allowsNegative": 1}, "/allowsNegative"),
    (CALLS | {"aggregation": "sum"}, "/valuePath"),
    (CALLS | {"aggregation": "sum", "valuePath": None}, "/valuePath"),
    (CALLS | {"aggregation": "unique", "valuePath": "$.user", "allowsNegative": True}, "/allowsNegative"),
    (TOKENS | {"valuePath": "$"}, "/valuePath"),
    (TOKENS | {"valuePath": "tokens"}, "/valuePath"),
    (TOKENS | {"valuePath": "$..tokens"}, "/valuePath"),
    (TOKENS | {"valuePath": "$.tokens[*]"}, "/valuePath"),
    (TOKENS | {"valuePath": "$." + "t" * 199}, "/valuePath"),
    (TOKENS | {"valuePath": 7}, "/valuePath"),
    (TOKENS | {"dimensions": {"model": "$..model"}}, "/dimensions/model"),
    (TOKENS | {"dimensions": {"a model": "$.model"}}, "/dimensions/a model"),
    (TOKENS | {"dimensions": {f"d{n}": "$.d" for n in range(6)}}, "/dimensions"),
    (TOKENS | {"dimensions": None}, "/dimensions"),
    (CALLS | {"path": "$.calls"}, "/path"),
    ({name: CALLS[name] for name in ("name", "unit", "eventType")}, "/aggregation"),
]


async def test_what_is_no_meter_is_refused_by_its_field(office: Office, pool: Pool) -> None:
    for body, pointer in WRONG:
        answer = await office.client.post("/v1/meters", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), body
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer], body

    assert await told(pool) == []


async def test_a_retired_meter_takes_no_events_and_keeps_what_it_has(office: Office, pool: Pool) -> None:
    await office.define("kept", "sum")
    await office.define("retired", "sum")
    await office.send(v=2)

    first = await office.client.post("/v1/meters/retired/retire")
    await office.clock.advance(1)
    again = await office.client.post("/v1/meters/retired/retire")
    await office.send(v=3)

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["retiredAt"] is not None
    assert again.json() == first.json() == (await office.client.get("/v1/meters/retired")).json()
    assert await office.quantities() == {"kept": "5", "retired": "2"}
    assert [action for action, *_ in await told(pool)] == ["meter.defined", "meter.defined", "meter.retired"]


async def test_the_name_of_a_retired_meter_stays_taken(office: Office) -> None:
    await office.client.post("/v1/meters", json=TOKENS)
    await office.client.post("/v1/meters/tokens/retire")

    answer = await office.client.post("/v1/meters", json=TOKENS)

    assert (answer.status_code, answer.json()["code"]) == (409, "meter_exists")


async def test_a_meter_that_there_is_not_is_not_found(office: Office) -> None:
    for method, path in (("GET", "/v1/meters/dreams"), ("POST", "/v1/meters/dreams/retire")):
        answer = await office.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_meter")


async def test_an_event_is_taken_as_soon_as_there_is_a_meter(office: Office) -> None:
    for number in range(3):
        await office.define(f"m{number}", "sum")
        await office.send(v=1)

    assert await office.quantities() == {"m0": "3", "m1": "2", "m2": "1"}
