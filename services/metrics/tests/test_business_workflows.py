"""How workflows end, how long they take and where they fail, right in whatever order it is told."""

from typing import Any
from uuid import UUID

from services.metrics.tests.metering import Office
from services.metrics.tests.trade import IDS, became, event_of, listed, moment, tell
from shared.contracts import onboarding
from shared.http import encode_cursor
from shared.messaging.event import Event
from shared.postgres import Pool


def failed(workflow_id: UUID, step: str, attempt: int, at: str) -> Event:
    return event_of(
        onboarding.StepFailed(status="compensating", error="no", **_step(workflow_id, step, attempt, at)), at
    )


def retried(workflow_id: UUID, step: str, attempt: int, at: str) -> Event:
    fact = onboarding.StepRetried(status="running", error="no", **_step(workflow_id, step, attempt, at))
    return event_of(fact, at)


def _step(workflow_id: UUID, step: str, attempt: int, at: str) -> dict[str, Any]:
    about = {"tenant_id": "t1", "workflow_id": str(workflow_id), "kind": "onboard"}
    return about | {"step": step, "attempt": attempt, "occurred_at": moment(at)}


def completed(*seconds: float, day: str = "2026-03-01", kind: str = "onboard") -> list[Event]:
    """Return the facts of workflows that took so long, from noon on."""
    events: list[Event] = []
    for taken in seconds:
        id_ = IDS.new()
        minutes, rest = divmod(taken, 60)
        end = f"{day}T12:{int(minutes):02}:{rest:09.6f}"
        events += [became(id_, "completed", end, kind), became(id_, "started", f"{day}T12:00", kind)]
    return events


async def test_workflows_are_counted_where_they_were_accepted(office: Office, pool: Pool) -> None:
    undone, abandoned, running = (IDS.new() for _ in range(3))
    await tell(
        pool,
        *completed(*range(1, 21)),
        became(undone, "started", "2026-03-01T23:59:59"),
        became(undone, "compensating", "2026-03-02"),
        became(undone, "compensated", "2026-03-02"),
        became(abandoned, "started", "2026-03-01"),
        became(abandoned, "needs_attention", "2026-03-02"),
        became(abandoned, "abandoned", "2026-03-02"),
        became(running, "started", "2026-03-02"),
        failed(undone, "provision", 3, "2026-03-02"),
        retried(undone, "provision", 2, "2026-03-02T00:00:01"),
        retried(undone, "provision", 3, "2026-03-02T00:00:02"),
        retried(abandoned, "open-account", 2, "2026-03-02"),
    )

    assert await listed(office.client, "onboardings") == [
        {
            "from": "2026-03-01T00:00:00Z",
            "kind": "onboard",
            "accepted": 22,
            "completed": 20,
            "undone": 1,
            "abandoned": 1,
            "underWay": 0,
            "duration": {"p50": 10.0, "p95": 19.0, "max": 20.0},
            "steps": [
                {"step": "open-account", "failures": 0, "retries": 1},
                {"step": "provision", "failures": 1, "retries": 2},
            ],
        },
        {
            "from": "2026-03-02T00:00:00Z",
            "kind": "onboard",
            "accepted": 1,
            "completed": 0,
            "undone": 0,
            "abandoned": 0,
            "underWay": 1,
            "duration": None,
            "steps": [],
        },
    ]


async def test_a_duration_has_the_digits_of_a_clock(office: Office, pool: Pool) -> None:
    await tell(pool, *completed(0.125, 61.000001))

    (found,) = await listed(office.client, "onboardings")

    assert found["duration"] == {"p50": 0.125, "p95": 61.000001, "max": 61.000001}


async def test_kinds_and_windows_are_told_apart_page_by_page(office: Office, pool: Pool) -> None:
    days = [("2026-02-28", "suspend"), ("2026-03-01", "onboard"), ("2026-03-01", "suspend"), ("2026-03-31", "onboard")]
    await tell(pool, *(event for day, kind in days for event in completed(1, day=day, kind=kind)))

    async def windows(**query: Any) -> list[tuple[str, str]]:
        return [(each["from"][:10], each["kind"]) for each in await listed(office.client, "onboardings", **query)]

    months = [("2026-02-01", "suspend"), ("2026-03-01", "onboard"), ("2026-03-01", "suspend")]
    assert await windows() == await windows(limit=1) == days
    assert await windows(window="month") == await windows(window="month", limit=1) == months
    assert await windows(**{"from": "2026-03-01T00:00:00Z", "to": "2026-03-31T00:00:00Z"}) == days[1:3]
    assert await windows(**{"from": "2026-03-01T00:00:01Z"}) == days[3:]
    assert await windows(**{"from": "2026-03-31T00:00:00Z", "to": "2026-03-01T00:00:00Z"}) == []
    assert await windows(window="month", to="2026-03-01T00:00:01Z") == months
    assert await windows(window="month", **{"from": "2026-02-01T00:00:01Z"}) == months[1:]


async def test_what_is_told_twice_or_backwards_counts_once(office: Office, pool: Pool) -> None:
    id_ = IDS.new()
    told = [
        became(id_, "started", "2026-03-01T12:00"),
        retried(id_, "provision", 2, "2026-03-01T12:01"),
        failed(id_, "provision", 2, "2026-03-01T12:02"),
        became(id_, "compensated", "2026-03-01T12:03"),
    ]
    expected = [{"step": "provision", "failures": 1, "retries": 1}]

    await tell(pool, *told[:0:-1])
    assert await listed(office.client, "onboardings") == []
    await tell(pool, *told[::-1], *told)

    (found,) = await listed(office.client, "onboardings")
    assert (found["accepted"], found["undone"], found["steps"]) == (1, 1, expected)


async def test_a_clock_that_lags_makes_no_duration_below_zero(office: Office, pool: Pool) -> None:
    id_ = IDS.new()
    await tell(pool, became(id_, "started", "2026-03-01T12:00:01"), became(id_, "completed", "2026-03-01T12:00"))

    (found,) = await listed(office.client, "onboardings")
    assert found["duration"] == {"p50": 0.0, "p95": 0.0, "max": 0.0}


async def test_a_malformed_query_is_refused_by_name(office: Office) -> None:
    for what, name, value in (
        ("onboardings", "window", "week"),
        ("onboardings", "from", "yesterday"),
        ("onboardings", "to", "2026-02-30T00:00:00Z"),
        ("revenue", "from", "NaN"),
        ("revenue", "cursor", "made-up"),
        ("churn", "limit", "0"),
        ("tenants", "cursor", encode_cursor("active", 1)),
    ):
        answer = await office.client.get(f"/v1/business/{what}", params={name: value})
        assert answer.status_code == 422, value
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


async def test_no_time_is_too_early_or_too_late(office: Office) -> None:
    for what in ("churn", "onboardings", "revenue"):
        for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
            for query in ({"from": time}, {"to": time}, {"from": time, "to": time}):
                assert await listed(office.client, what, **query) == []
