"""Tenants with quotas whose events are recorded, as the tests of quotas need them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import orjson

from services.metrics import handlers
from services.metrics.partitions import keep_partitions
from services.metrics.recording.event import Event, Reception, parse
from services.metrics.recording.recorder import Outcome, Recorder
from services.metrics.recording.refusal import RefusedError
from services.metrics.tests.support import define_meter, quotas_of
from shared.clock import ManualClock
from shared.contracts.metrics import ChangeQuotas, QuotaCrossed, TrackTenant
from shared.messaging.event import decode
from shared.postgres import Pool, transaction

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)


class Shop:
    """Sells ``calls`` (counted), ``tokens`` (summed), ``peak`` (the greatest) and ``users`` (unique).

    And with a sign, ``balance`` (summed), ``depth`` (the greatest) and ``level`` (the latest).
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.clock = ManualClock(NOON)
        self.recorder = Recorder(pool, quotas_of(self.clock), clock=self.clock)
        self._numbers = count(1)

    async def make_room(self) -> None:
        """Make the partitions of now."""
        async with transaction(self.pool) as connection:
            await keep_partitions(connection, now=self.clock.now())

    async def open(self) -> None:
        """Define the meters and make partitions."""
        await self.make_room()
        for name, aggregation in {"tokens": "sum", "peak": "max", "users": "unique"}.items():
            await define_meter(self.pool, name, aggregation=aggregation, value_path="$.v")
        for name, aggregation in {"balance": "sum", "depth": "max", "level": "latest"}.items():
            await define_meter(self.pool, name, aggregation=aggregation, value_path="$.v", allows_negative=True)
        await define_meter(self.pool, "calls", aggregation="count", event_type="tokens")

    async def track(self, tenant_id: str = "t1", *, time_zone: str = "UTC", hard: bool = True, **limits: int) -> None:
        """Hold a tenant to limits."""
        async with transaction(self.pool) as connection:
            ask = TrackTenant(tenant_id=tenant_id, quotas=limits, time_zone=time_zone)
            await handlers.track_tenants(connection, [ask], clock=self.clock)
            await connection.execute(
                "UPDATE quota SET enforcement = $2 WHERE tenant_id = $1", tenant_id, "hard" if hard else "soft"
            )

    async def change(self, tenant_id: str = "t1", **limits: int) -> None:
        """Hold a tenant to other limits."""
        async with transaction(self.pool) as connection:
            await handlers.change_quotas(connection, [ChangeQuotas(tenant_id=tenant_id, quotas=limits)])

    def event(
        self, type_: str, value: Any, *, tenant_id: str = "t1", at: datetime | None = None, id_: str | None = None
    ) -> Event:
        """Make an event."""
        document = {"specversion": "1.0", "source": "/app", "id": id_ or f"n{next(self._numbers)}", "type": type_}
        more = {"subject": tenant_id, "time": (at or self.clock.now()).isoformat(), "data": {"v": value}}
        return parse({**document, **more}, Reception.at(self.clock.now(), tenant_id=None))

    async def use(self, type_: str, *values: Any, **more: Any) -> str:
        """Record an event of each value in one request; return what became of each, a letter each."""
        return outcomes(await self.recorder.record([self.event(type_, value, **more) for value in values]))

    async def used(self, tenant_id: str = "t1") -> dict[tuple[str, str], Decimal | None]:
        """Return what is kept of what was used, by meter and month; it is what the hours come to."""
        rows = await self.pool.fetch(
            """
            SELECT meter, to_char(month, 'YYYY-MM'), kept.used, anew.used, kept.latest_at, anew.latest_at,
                   kept.latest_key, anew.latest_key,
                   (SELECT count(*) FROM quota_value AS counted
                    WHERE (counted.tenant_id, counted.meter, counted.month) = (kept.tenant_id, kept.meter, kept.month))
            FROM quota_use AS kept JOIN tracked_tenant USING (tenant_id),
                LATERAL usage_of_month(tenant_id, meter, month, time_zone) AS anew
            WHERE tenant_id = $1
            """,
            tenant_id,
        )
        for row in rows:
            assert (row[2], row[4], row[6]) == (row[3], row[5], row[7]), row
            assert row[0] != "users" or row[8] == (row[2] or 0), row
        return {(row[0], row[1]): row[2] for row in rows}

    async def said(self) -> list[QuotaCrossed]:
        """Return what the outbox has, in the order in which it was said."""
        rows = await self.pool.fetch("SELECT event FROM outbox ORDER BY id")
        facts = [decode(orjson.loads(row["event"])).message for row in rows]
        return [fact for fact in facts if isinstance(fact, QuotaCrossed)]

    async def told(self) -> list[tuple[str, int, str, int]]:
        """Return the same as meter, percent, what is used and the limit."""
        return [(each.meter, each.percent, each.used, each.limit_value) for each in await self.said()]

    async def has_waiting(self) -> bool:
        """Tell whether somebody waits for a lock."""
        waiting: int = await self.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return waiting > 0

    async def count(self, table: str) -> int:
        """Return how many rows a table has."""
        number: int = await self.pool.fetchval(f"SELECT count(*) FROM {table}")
        return number


def outcomes(found: Sequence[Outcome]) -> str:
    """Write what became of events: accepted, duplicate, conflict, or x where a quota kept one out."""
    for each in found:
        assert not isinstance(each, RefusedError) or each.code == "quota_exceeded", each.detail
    return "".join("x" if isinstance(each, RefusedError) else each[0] for each in found)
