"""Corrections: what is void counts no more, what is adjusted counts otherwise, and both are told of for ever."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.metrics import audit
from services.metrics.api.quantities import written
from services.metrics.recording.event import key_of
from services.metrics.tests.metering import Office
from shared.http import Problem
from shared.postgres import Pool

HOUR = timedelta(hours=1)


async def define_all(office: Office, **details: Any) -> None:
    for aggregation in ("count", "sum", "max", "unique", "latest"):
        await office.define(f"a_{aggregation}", aggregation, **details)


async def trail(pool: Pool) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM audit_entry WHERE tenant_id = 't1' ORDER BY seq")]


async def test_a_void_event_is_taken_out_of_every_meter(office: Office) -> None:
    await define_all(office)
    now = office.clock.now()
    await office.send(now - timedelta(minutes=3), v=7)
    await office.send(now - timedelta(minutes=2), v=5)
    wrong = await office.send(now - timedelta(minutes=1), v=1000)
    assert await office.quantities() == {
        "a_count": "3",
        "a_sum": "1012",
        "a_max": "1000",
        "a_unique": "3",
        "a_latest": "1000",
    }

    await office.void(wrong)

    assert await office.quantities() == {"a_count": "2", "a_sum": "12", "a_max": "7", "a_unique": "2", "a_latest": "5"}


async def test_what_others_say_too_stays(office: Office) -> None:
    await define_all(office)
    one = await office.send(v=7)
    await office.send(v=7)

    await office.void(one)

    assert await office.quantities() == {"a_count": "1", "a_sum": "7", "a_max": "7", "a_unique": "1", "a_latest": "7"}


async def test_an_hour_of_void_events_alone_has_no_greatest_and_no_latest(office: Office) -> None:
    await define_all(office)
    await office.void(await office.send(v=7))

    assert await office.quantities() == {"a_count": "0", "a_sum": "0"}
    await office.send(v=3)
    assert await office.quantities() == {"a_count": "1", "a_sum": "3", "a_max": "3", "a_unique": "1", "a_latest": "3"}


async def test_an_event_is_taken_out_of_what_it_was_told_apart_by(office: Office) -> None:
    await define_all(office, dimensions={"model": "$.model", "region": "$.at[0]"})
    await office.send(v=7, model="small", at=["eu"])
    await office.send(v=6, model="small", at=["us"])
    await office.send(v=9, model="large", at=["eu"])
    wrong = await office.send(v=8, model="small", at=["eu"])
    without = await office.send(v=10)

    await office.void(wrong)
    await office.void(without)

    assert await office.quantities(meter="a_max", groupBy="model") == {"small": "7", "large": "9"}
    assert await office.quantities(meter="a_max", groupBy="region") == {"eu": "9", "us": "6"}
    assert await office.quantities(meter="a_sum", groupBy="model") == {"small": "13", "large": "9", "": "0"}
    assert await office.quantities(meter="a_unique", groupBy="region") == {"eu": "2", "us": "1"}
    assert (await office.quantities(meter="a_unique"))["a_unique"] == "3"


EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-3, 3) | st.sampled_from(["0.5", "2"]), st.sampled_from(["a", "b", None])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(events=EVENTS, data=st.data())
async def test_what_is_left_is_what_the_others_alone_would_have_made(
    office: Office, pool: Pool, events: list[tuple[int, int | str, str | None]], data: st.DataObject
) -> None:
    """Two tenants: one is sent everything and some of it is void, one is never sent what is void."""
    if await pool.fetchval("SELECT count(*) FROM meter WHERE event_type = 'use'") == 0:
        for aggregation in ("count", "sum", "max", "latest"):
            sign = {} if aggregation == "count" else {"allowsNegative": True}
            await office.define(f"a_{aggregation}", aggregation, dimensions={"d": "$.d"}, **sign)
        await office.define("a_unique", "unique", dimensions={"d": "$.d"}, valuePath="$.u")
    await pool.execute("DELETE FROM tracked_tenant")
    await pool.execute("INSERT INTO tracked_tenant VALUES ('t1', now(), 'UTC'), ('t2', now(), 'UTC')")
    other = Office(office.client, office.clock, "t2")
    void = data.draw(st.sets(st.integers(0, len(events) - 1)))

    for number, (minutes, value, dimension) in enumerate(events):
        at = office.clock.now() - timedelta(minutes=minutes * 20)
        for each in (office, other):
            if each is office or number not in void:
                await each.send(
                    at, event_id=f"e{number}", v=value, u=value if isinstance(value, int) else "x", d=dimension
                )
    for number in void:
        await office.void(f"e{number}")

    for query in ({}, {"groupBy": "d"}):
        # An hour whose events are all void has sums of nothing, which are not told from sums that are zero.
        left, right = (
            [item for item in await office.usage(**query) if item["quantity"] != "0"],
            await other.usage(**query),
        )
        assert left == [item for item in right if item["quantity"] != "0"]


async def test_the_latest_of_one_moment_does_not_depend_on_what_came_first(office: Office) -> None:
    await office.define("a_latest", "latest")
    at = office.clock.now()
    for value in (1, 2, 3):
        await office.send(at, event_id=str(value), v=value)
    *others, last = sorted(("1", "2", "3"), key=lambda event_id: key_of("/app", event_id), reverse=True)
    for event_id in others:
        assert await office.quantities() == {"a_latest": event_id}
        await office.void(event_id)
    assert await office.quantities() == {"a_latest": last}

    await office.send(at + timedelta(seconds=1), event_id="4", v=4)
    await office.void("4")
    assert await office.quantities() == {"a_latest": last}


async def test_an_event_of_the_same_id_and_another_source_stays(office: Office) -> None:
    await define_all(office)
    for source, event_id, value in (("/app", "1", 7), ("/other", "1", 5), ("/app", "2", 9)):
        await office.send(event_id=event_id, source=source, v=value)

    await office.void("2")
    await office.void("1")

    assert await office.quantities() == {"a_count": "1", "a_sum": "5", "a_max": "5", "a_unique": "1", "a_latest": "5"}


async def test_an_event_is_void_once(office: Office, pool: Pool) -> None:
    await office.define("a_sum", "sum")
    await office.send(v=5)
    wrong = await office.send(v=7)

    answers = await asyncio.gather(*(office.amend(source="/app", id=wrong, reason=f"no {n}") for n in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["amendmentId"] for answer in answers}) == 1
    assert await office.quantities() == {"a_sum": "5"}
    assert len(await trail(pool)) == 1


async def test_a_void_event_that_is_sent_again_is_a_duplicate(office: Office) -> None:
    await office.define("a_sum", "sum")
    wrong = await office.send(v=7)
    await office.void(wrong)

    await office.send(event_id=wrong, v=7)

    assert await office.quantities() == {"a_sum": "0"}


async def test_an_event_of_long_ago_is_corrected_in_its_own_hour(office: Office) -> None:
    await office.define("a_max", "max")
    then = office.clock.now() - timedelta(days=34)
    await office.send(then, v=7)
    wrong = await office.send(then, v=9)
    await office.send(v=1)
    await office.clock.advance(timedelta(days=60).total_seconds())

    await office.void(wrong)

    assert [item["quantity"] for item in await office.usage(window="day")] == ["7", "1"]


async def test_a_meter_loses_only_what_it_had(office: Office) -> None:
    await office.define("early", "max")
    before = await office.send(v=9)
    await office.clock.advance(1)
    await office.define("late", "max")
    await office.define("late_sum", "sum")
    await office.send(v=5)
    wrong = await office.send(v=7)
    await office.clock.advance(1)
    assert (await office.client.post("/v1/meters/late/retire")).status_code == 200
    after = await office.send(v=8)

    await office.void(wrong)
    assert await office.quantities() == {"early": "9", "late": "5", "late_sum": "13"}
    await office.void(before)
    await office.void(after)
    assert await office.quantities() == {"early": "5", "late": "5", "late_sum": "5"}


async def test_an_hour_is_adjusted(office: Office, pool: Pool) -> None:
    await office.define("a_sum", "sum", dimensions={"model": "$.model"})
    await office.send(v="10.5", model="small")
    now = office.clock.now()
    time = now + timedelta(minutes=3)

    answer = await office.amend(meter="a_sum", time=time.isoformat(), quantity="-3.250", reason="Promised.\nBy mail.")

    assert answer.status_code == 201
    assert answer.json() == {
        "amendmentId": answer.json()["amendmentId"],
        "tenantId": "t1",
        "source": None,
        "id": None,
        "meter": "a_sum",
        "time": time.isoformat().replace("+00:00", "Z"),
        "quantity": "-3.25",
        "reason": "Promised.\nBy mail.",
        "actor": "system-administrator",
        "amendedAt": now.isoformat().replace("+00:00", "Z"),
    }
    assert [item["quantity"] for item in await office.usage()] == ["7.25"]
    assert await pool.fetchval("SELECT count(*) FROM usage_hour") == 1
    assert await office.quantities(groupBy="model") == {"small": "10.5", "": "0"}
    (entry,) = await trail(pool)
    assert (entry["service"], entry["action"], entry["actor"]) == ("metrics", "usage.adjusted", "system-administrator")
    assert (entry["subject"], entry["reason"]) == (
        f"usage-amendment:{answer.json()['amendmentId']}",
        "Promised.\nBy mail.",
    )
    assert entry["after"] == {"meter": "a_sum", "time": time.isoformat(), "quantity": "-3.250"}


async def test_a_sum_is_never_below_zero_where_no_value_can_be(office: Office) -> None:
    await office.define("calls", "count")
    await office.define("change", "sum", allowsNegative=True)
    await office.send(v=2)
    await office.send(office.clock.now() - HOUR, v=2)
    for meter in ("calls", "change"):
        answer = await office.amend(meter=meter, time=office.clock.now().isoformat(), quantity="-5")
        assert answer.status_code == 201

    assert [(item["meter"], item["quantity"]) for item in await office.usage()] == [
        ("calls", "1"),
        ("change", "2"),
        ("calls", "0"),
        ("change", "-3"),
    ]
    assert await office.quantities() == {"calls": "0", "change": "-1"}
    await office.amend(meter="calls", time=office.clock.now().isoformat(), quantity="6")
    assert await office.quantities(meter="calls") == {"calls": "3"}


async def test_a_mail_meter_is_adjusted_as_well(office: Office) -> None:
    await office.amend(meter="mail_sends", time=office.clock.now().isoformat(), quantity="12")

    assert await office.quantities() == {"mail_sends": "12"}


async def test_an_adjustment_is_made_once_for_an_idempotency_key(office: Office) -> None:
    await office.define("a_sum", "sum")
    asked = {"meter": "a_sum", "time": office.clock.now().isoformat(), "quantity": "1"}

    answers = await asyncio.gather(*(office.amend(key="k", **asked) for _ in range(3)))
    other = await office.amend(key="k", **{**asked, "quantity": "2"})

    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.json()["amendmentId"] for answer in answers}) == 1
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await office.quantities() == {"a_sum": "1"}
    for _ in range(2):
        assert (await office.amend(**asked)).status_code == 201
    assert await office.quantities() == {"a_sum": "3"}


async def test_corrections_wait_for_each_other(office: Office) -> None:
    await office.define("a_max", "max")
    sent = [await office.send(v=value) for value in range(8)]
    await office.send(v=-0)

    await asyncio.gather(*(office.void(event_id) for event_id in sent[2:]), office.send(v=5), office.send(v=4))

    assert await office.quantities() == {"a_max": "5"}


ADJUST = {"meter": "a_sum", "time": "2026-03-15T12:00:00Z", "quantity": "1"}


async def test_an_event_of_another_tenant_stays(office: Office, pool: Pool) -> None:
    await office.define("a_sum", "sum")
    await pool.execute("INSERT INTO tracked_tenant VALUES ('t2', now())")
    other = Office(office.client, office.clock, "t2")
    await office.send(event_id="1", v=1)
    await other.send(event_id="1", v=2)

    await office.void("1")

    assert await other.quantities() == {"a_sum": "2"}
    answer = await office.client.get("/v1/usage/amendments", params={"tenantId": "t2"})
    assert answer.json() == {"items": [], "nextCursor": None}


async def test_corrections_are_listed_in_pages_the_newest_first(office: Office) -> None:
    await office.define("a_sum", "sum")
    wrong = await office.send(v=1)
    await office.amend(**ADJUST)
    await office.clock.advance(1)
    await office.void(wrong)
    await office.amend(**ADJUST | {"quantity": "2"})

    query: dict[str, Any] = {"tenantId": "t1", "limit": 2}
    first = (await office.client.get("/v1/usage/amendments", params=query)).json()
    rest = (await office.client.get("/v1/usage/amendments", params=query | {"cursor": first["nextCursor"]})).json()

    items = [*first["items"], *rest["items"]]
    assert [len(first["items"]), len(rest["items"]), rest["nextCursor"]] == [2, 1, None]
    assert {(item["source"], item["id"]) for item in items[:2]} == {("/app", wrong), (None, None)}
    assert items[2]["quantity"] == "1"
    assert len({item["amendmentId"] for item in items}) == 3
    assert [item["amendedAt"] for item in items] == sorted((item["amendedAt"] for item in items), reverse=True)


async def test_a_correction_that_fails_leaves_nothing(
    office: Office, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.define("a_sum", "sum")
    wrong = await office.send(v=1)

    async def fail(*_: object, **__: object) -> None:
        raise Problem(503, code="away", detail="The trail cannot be written.")

    monkeypatch.setattr(audit, "append", fail)

    answer = await office.amend(source="/app", id=wrong)

    assert answer.status_code == 503
    assert await office.quantities() == {"a_sum": "1"}
    assert await pool.fetchval("SELECT count(*) FROM usage_amendment") == 0


def test_quantities_are_exact() -> None:
    assert [
        written(Decimal(text)) for text in ("0.00", "1000", "12.50", "1E+3", "-0.1", "123456789012345.123456789")
    ] == [
        "0",
        "1000",
        "12.5",
        "1000",
        "-0.1",
        "123456789012345.123456789",
    ]


async def test_what_was_used_of_a_quota_is_worked_out_again(office: Office, pool: Pool) -> None:
    await office.define("a_sum", "sum")
    wrong = await office.send(v=7)
    await pool.execute("INSERT INTO quota VALUES ('t1', 'a_sum', 9, 'soft')")

    for ask in ({"source": "/app", "id": wrong}, ADJUST):
        await pool.execute(
            "INSERT INTO quota_use VALUES ('t1', 'a_sum', '2026-02-01', 7), ('t1', 'a_sum', '2026-03-01', 7)"
        )
        assert (await office.amend(**ask)).status_code == 201
        rows = await pool.fetch("DELETE FROM quota_use RETURNING month")
        assert [str(row["month"]) for row in rows] == ["2026-02-01"]
