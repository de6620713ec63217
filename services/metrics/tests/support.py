"""What the tests of this service say again and again."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from fastapi import FastAPI

from services.metrics import queries
from services.metrics.api import MEDIA_TYPES, routes
from services.metrics.deciding import Deciding
from services.metrics.partitions import keep_partitions
from services.metrics.quotas import Quotas
from services.metrics.recording.recorder import Recorder
from shared.access.authenticator import Credentials
from shared.clock import Clock, ManualClock
from shared.http import create_api
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.postgres import Pool, transaction

KEY = "a-key-of-the-administrator"


def api_of(pool: Pool, *, credentials: Credentials | None = None, clock: Clock | None = None) -> FastAPI:
    """Put the service's HTTP together on a database, without anything else of it."""
    clock = clock or ManualClock()
    deciding = Deciding(pool, clock=clock, ids=TimeOrderedIds())
    recorder = Recorder(pool, quotas_of(clock), clock=clock)
    return create_api(
        "metrics",
        routers=[routes(pool, deciding=deciding, recorder=recorder, clock=clock)],
        admin_key=KEY,
        credentials=credentials,
        checks={},
        version="1",
        media_types=MEDIA_TYPES,
    )


def usage_event(id_: object, type_: str = "api_call", tenant_id: str | None = "t1", **members: Any) -> dict[str, Any]:
    """Make a CloudEvent of a tenant's use, as it is sent."""
    document = {"specversion": "1.0", "id": str(id_), "source": "/app", "type": type_, **members}
    return document if tenant_id is None else {"subject": tenant_id, **document}


async def take_usage_of(pool: Pool, *tenant_ids: str, now: datetime, time_zone: str = "UTC") -> None:
    """Track tenants, and make all partitions that events of today and before need."""
    async with transaction(pool) as connection:
        await keep_partitions(connection, now=now)
        await queries.tenants.track(connection, dict.fromkeys(tenant_ids, time_zone), now=now)


async def define_meter(pool: Pool, name: str, **columns: Any) -> None:
    """Have a meter that takes events of the type of its own name."""
    row = {"name": name, "unit": "unit", "enforcement": "soft", "event_type": name, **columns}
    async with pool.acquire() as connection:
        names, marks = ", ".join(row), ", ".join(f"${number + 1}" for number in range(len(row)))
        await connection.execute(f"INSERT INTO meter ({names}) VALUES ({marks})", *row.values())


async def hours_of(pool: Pool, tenant_id: str = "t1") -> dict[tuple[str, str], Decimal]:
    """Return a tenant's usage by meter and hour, the hour in UTC as in ``2026-03-01T12:00``."""
    async with pool.acquire() as connection:
        rows = await connection.fetch("SELECT meter, hour, quantity FROM usage_hour WHERE tenant_id = $1", tenant_id)
    return {(row["meter"], f"{row['hour']:%Y-%m-%dT%H:%M}"): row["quantity"] for row in rows}


def quotas_of(clock: Clock) -> Quotas:
    """Return what holds tenants to quotas, and tells of them as the service does."""
    return Quotas(Dispatch(service="metrics", subscriptions={}, clock=clock, ids=TimeOrderedIds()).tell)
