"""What cannot be corrected, and how it is refused."""

from collections.abc import Sequence
from typing import Any

from services.metrics.tests.metering import Office
from shared.postgres import Pool

TIME = "2026-03-15T12:00:00Z"
ADJUST = {"meter": "a_sum", "time": TIME, "quantity": "1"}


WRONG: Sequence[tuple[dict[str, Any], str]] = [
    ({"source": "/app"}, "/id"),
    ({"id": "1"}, "/source"),
    ({"meter": "a_sum"}, "/time"),
    ({"meter": "a_sum", "time": TIME}, "/quantity"),
    ({"meter": "a_sum", "quantity": "1"}, "/time"),
    ({"time": TIME, "quantity": "1"}, "/meter"),
    ({"source": "/app", "id": "1", "quantity": "1"}, "/quantity"),
    ({"source": None, "id": "1"}, "/source"),
    (ADJUST | {"quantity": 1}, "/quantity"),
    (ADJUST | {"quantity": "0.000"}, "/quantity"),
    (ADJUST | {"quantity": "NaN"}, "/quantity"),
    (ADJUST | {"quantity": "1e3"}, "/quantity"),
    (ADJUST | {"quantity": "1" * 16}, "/quantity"),
    (ADJUST | {"quantity": "0.0000000001"}, "/quantity"),
    (ADJUST | {"meter": "a_count", "quantity": "0.5"}, "/quantity"),
    (ADJUST | {"meter": "a_max"}, "/meter"),
    (ADJUST | {"meter": "A sum"}, "/meter"),
    (ADJUST | {"time": "yesterday"}, "/time"),
    (ADJUST | {"time": "2026-03-15T12:05:01Z"}, "/time"),
    (ADJUST | {"time": "2025-02-07T12:00:00Z"}, "/time"),
    (ADJUST | {"reason": ""}, "/reason"),
    (ADJUST | {"reason": None}, "/reason"),
    (ADJUST | {"tenantId": "no tenant"}, "/tenantId"),
    (ADJUST | {"by": "me"}, "/by"),
    ({"source": "/app", "id": "x" * 256}, "/id"),
]


async def test_what_cannot_be_corrected_is_refused_by_its_field(office: Office, pool: Pool) -> None:
    for aggregation in ("count", "sum", "max"):
        await office.define(f"a_{aggregation}", aggregation)

    for body, pointer in WRONG:
        answer = await office.amend(**body)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), body
        assert answer.json()["errors"][0]["pointer"] == pointer, body

    assert await pool.fetchval("SELECT count(*) FROM usage_amendment") == 0
    assert await pool.fetchval("SELECT count(*) FROM audit_entry WHERE tenant_id = 't1'") == 0


async def test_nothing_that_is_not_there_is_corrected(office: Office) -> None:
    await office.define("a_sum", "sum")
    known = await office.send(v=1)
    refusals = {
        "unknown_event": {"source": "/app", "id": "another"},
        "unknown_meter": ADJUST | {"meter": "dreams"},
        "unknown_tenant": ADJUST | {"tenantId": "t0"},
    }
    for code, body in refusals.items():
        answer = await office.amend(**body)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    elsewhere = await office.amend(source="/other", id=known)
    assert (elsewhere.status_code, elsewhere.json()["errors"][0]["pointer"]) == (404, "/id")
