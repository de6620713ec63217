"""What is in the files of each stream, read by DuckDB as an outsider would."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest
from pydantic import ValidationError

from services.metrics import audit
from services.metrics.handlers import SUBSCRIPTIONS
from services.metrics.lake.facts import STATES
from services.metrics.lake.streams import STREAMS, Stream
from services.metrics.settings import MetricsSettings
from services.metrics.tests.lake_kit import NOW, Shore
from services.metrics.tests.metering import Office
from shared.contracts import tenant
from shared.contracts.base import Fact
from shared.ids import TimeOrderedIds
from shared.messaging.event import Event
from shared.messaging.subscriptions import Kind
from shared.postgres import Pool, transaction

IDS = TimeOrderedIds()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = ("decided_at", "recorded_at")
ODD = {
    "text": 'naïve, 日本語 😀\t"quoted" \\ \u2028 \u007f {} []',
    "long": "x" * 60_000,
    "exact": 123456789012345678901234567890,
    "fraction": 0.1,
    "nested": [{"a": [None, True, {"b": {}}]}, []],
    "": "an empty name",
}


async def test_usage_is_read_by_day_and_hour_as_it_was_taken(shore: Shore) -> None:
    await shore.use([0, 13.5], data=ODD)
    await shore.fill()

    rows = shore.read(
        "tenant_id, source, id, type, strftime(happened_at AT TIME ZONE 'UTC', '%xT%X.%f'), "
        "epoch_us(stored_at), dt::text, hour::int, data"
    )
    stored = await shore.pool.fetchval("SELECT data::text FROM usage_event LIMIT 1")

    assert [row[:-1] for row in rows] == [
        ("t1", "/app", "1", "api_call", "2026-03-15T12:30:00.000000", _micros(NOW), "2026-03-15", 12),
        ("t1", "/app", "2", "api_call", "2026-03-14T23:00:00.000000", _micros(NOW), "2026-03-14", 23),
    ]
    assert [row[-1] for row in rows] == [stored] * 2
    assert json.loads(stored) == ODD


def _micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def asked(question: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(question).fetchall()


async def test_memory_is_bounded_by_small_groups_of_large_rows(shore: Shore) -> None:
    await shore.use([0] * 100, data=ODD)
    await shore.use([1] * 100)
    await shore.fill()

    groups = asked(f"SELECT num_row_groups FROM parquet_file_metadata('{shore.root}/**/*.parquet')")
    assert sorted(groups) == [(1,), (2,)]
    assert shore.ids().total() == 200


async def test_corrections_and_decisions_are_there_and_the_chain_can_be_verified_from_the_files(
    office: Office, pool: Pool, shore: Shore
) -> None:
    await office.define("calls", "count")
    event_id = await office.send()
    await office.void(event_id)
    quantity = "-123456789012345.000000001"
    await office.define("gb", "sum", allowsNegative=True)
    answer = await office.amend(meter="gb", time=(NOW - timedelta(hours=2)).isoformat(), quantity=quantity)
    assert answer.status_code == 201, answer.text
    await shore.fill()

    assert shore.read("meter, quantity, source, event_id, reason, hour::int", "amendments") == [
        ("gb", quantity, None, None, "a mistake", 10),
        (None, None, "/app", event_id, "a mistake", 12),
    ]
    times = ", ".join(f"epoch_us({name}) AS {name}" for name in TIMES)
    entries = shore.read(f"* REPLACE ({times})", "audit")
    names = [row[0] for row in asked(f"DESCRIBE FROM '{shore.root}/audit/**/*.parquet'")]
    sealed = [_entry(dict(zip(names, row, strict=True))) for row in entries]
    assert len(sealed) == 4
    for chain in {entry["tenant_id"] for entry in sealed}:
        entries_of = sorted((each for each in sealed if each["tenant_id"] == chain), key=lambda each: int(each["seq"]))
        assert [each["seq"] for each in entries_of] == [*range(1, len(entries_of) + 1)]
        for before, entry in zip([None, *entries_of], entries_of, strict=False):
            assert entry["previous_hash"] == (audit.BEGINNING if before is None else before["hash"])
            assert entry["hash"] == audit.hash_of(entry)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: EPOCH + timedelta(microseconds=row[name]) for name in TIMES}
    return (
        row
        | times
        | {
            "decision_id": UUID(row["decision_id"]),
            "before": row["before"] and json.loads(row["before"]),
            "after": row["after"] and json.loads(row["after"]),
            "previous_hash": bytes.fromhex(row["previous_hash"]),
            "hash": bytes.fromhex(row["hash"]),
        }
    )


async def test_what_is_told_of_tenants_is_there_once_with_state_and_tier(shore: Shore) -> None:
    workflow_id = IDS.new()
    plan = tenant.UsagePlan(tier="basic", version=1)
    registered = tenant.TenantRegistered(tenant_id="t1", plan="p", quotas={}, isolation="pool", usage_plan=plan)
    changed = tenant.TierChanged(tenant_id="t1", tier="pro", plan="p", quotas={"seats": 5}, isolation="silo")
    told = [
        _told(registered, workflow_id, "tenant", minutes=0),
        _told(tenant.TenantActivated(tenant_id="t1"), workflow_id, "activate", minutes=1),
        _told(changed, IDS.new(), "tier", minutes=2),
        _told(tenant.SuspensionLifted(tenant_id="t1"), IDS.new(), "suspend", minutes=3),
        _told(tenant.TenantArchived(tenant_id="t1", certificate_sha256="ab"), IDS.new(), "archive", minutes=90),
    ]
    again = _told(tenant.TenantActivated(tenant_id="t1"), workflow_id, "activate", minutes=5)
    await hear(shore.pool, *told[:2])
    await shore.fill()
    await hear(shore.pool, *told, again)
    await shore.fill()

    rows = shore.read("fact_id, type, state, tier, step, dt::text, hour::int, fact", "tenants")
    assert [row[:-1] for row in rows] == sorted(
        (str(event.id), event.type, state, tier, event.step, "2026-03-15", 12 if event is not told[-1] else 14)
        for event, state, tier in zip(
            told,
            ("registered", "active", None, None, "archived"),
            ("basic", None, "pro", None, None),
            strict=True,
        )
    )
    facts = {row[0]: json.loads(row[-1]) for row in rows}
    assert facts[str(told[2].id)] == changed.model_dump(mode="json", by_alias=True)


def _told(fact: Fact, workflow_id: UUID, step: str, *, minutes: int) -> Event:
    time = NOW + timedelta(minutes=minutes)
    return Event(IDS.new(), publisher="tenant", time=time, message=fact, workflow_id=workflow_id, step=step)


async def hear(pool: Pool, *events: Event) -> None:
    """Let the service hear facts in one batch, as the kernel does."""
    async with transaction(pool) as connection:
        await SUBSCRIPTIONS[tenant.TenantActivated].handler(connection, events)


def test_every_fact_about_a_tenants_life_is_kept() -> None:
    facts = {
        each
        for each in vars(tenant).values()
        if isinstance(each, type)
        and issubclass(each, Fact)
        and each.answers is not None
        and "refused" not in each.routing_key()
    }
    assert {*STATES} == facts
    handlers = {SUBSCRIPTIONS[fact].handler for fact in facts}
    assert len(handlers) == 1
    assert {SUBSCRIPTIONS[fact].kind for fact in facts} == {Kind.FOLLOW}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
def test_the_documentation_has_every_column(stream: Stream) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "data-lake.md").read_text(encoding="utf-8")
    part = text.partition(f"### `{stream.name}`")[2].partition("\n### ")[0].partition("\n## ")[0]
    columns = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert columns == stream.schema.names


def _settings(**given: Any) -> MetricsSettings:
    return MetricsSettings(database_url="postgresql://x", amqp_url="amqp://x", admin_key="k" * 20, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"lake": "a/relative/folder"}, "absolute folder"),
        ({"lake": "s3:///prefix"}, "names no bucket"),
        ({"lake": "s3://bucket", "lake_days": 30}, "lifecycle rules"),
        ({"lake": "s3://bucket", "lake_audit_days": 30}, "lifecycle rules"),
        ({"lake_seconds": 0}, "greater than or equal to 1"),
        ({"lake_days": -1}, "greater than or equal to 0"),
    ],
)
def test_a_lake_that_cannot_be_kept_is_refused_at_the_start(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        _settings(**given)


def test_usage_is_kept_for_other_days_than_the_trail() -> None:
    assert _settings().lake_terms() is None
    terms = _settings(lake="/lake", lake_days=400).lake_terms()
    assert terms is not None
    assert terms.days == {"usage": 400, "amendments": 400, "tenants": 400}
