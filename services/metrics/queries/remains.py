"""SQL about what is left of an hour when one of its events is void."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from shared.postgres import Connection

_PREFETCHED = 500


class Void(NamedTuple):
    """An event that is void.

    Attributes:
        hour: in which it happened, of the tenant's time zone.
        time_zone: the tenant's.
        data: JSON.
    """

    tenant_id: str
    type: str
    hour: datetime
    time_zone: str
    data: str


class Part(NamedTuple):
    """What a meter has of an hour: all of it, or what has the same dimensions as the void event.

    Attributes:
        dimensions: JSON, name to text; ``{}`` for all of it.
        path: Postgres' ``jsonpath`` of what the meter takes; None where it counts.
        dimension_paths: those of the dimensions.
        since: when the meter was defined; None if it has always been there.
        until: and when it was retired, if it was.
    """

    meter: str
    dimensions: str
    path: str | None
    dimension_paths: tuple[str, ...]
    since: datetime | None
    until: datetime | None


class Total(NamedTuple):
    """What a part comes to.

    Attributes:
        quantity: None if nothing is left of it.
        latest_at: of the latest value: when it happened,
        latest_key: and what decides between two of one moment.
    """

    quantity: Decimal | None
    latest_at: datetime | None = None
    latest_key: bytes | None = None


class Value(NamedTuple):
    """What a meter takes of an event.

    Attributes:
        part: its number among those that were asked about.
    """

    part: int
    source: str
    event_id: str
    happened_at: datetime
    quantity: Decimal


_PARTS = """
    jsonb_to_recordset($6) AS part (
        number int, path jsonpath, dimension_paths jsonb, since timestamptz, until timestamptz)
"""

# The events that a part still has. Strict paths find what `services.metrics.meter.Place` finds.
_REMAINING = """
    FROM usage_event AS event
    WHERE event.tenant_id = $1 AND event.type = $2
      AND event.happened_at >= $3 AND event.happened_at < $3::timestamptz + interval '1 hour'
      AND date_trunc('hour', event.happened_at, $4) = $3
      AND event.stored_at >= coalesce(part.since, '-infinity') AND event.stored_at < coalesce(part.until, 'infinity')
      AND NOT EXISTS (
        SELECT FROM usage_amendment AS void
        WHERE void.tenant_id = event.tenant_id AND void.source = event.source AND void.event_id = event.id
      )
      AND NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(part.dimension_paths) AS place
        WHERE coalesce(jsonb_path_query_first(event.data, place.value::jsonpath, silent => true) #>> '{}', '')
           <> coalesce(jsonb_path_query_first($5::text::jsonb, place.value::jsonpath, silent => true) #>> '{}', '')
      )
"""

# A number, or text that is one, as it was written.
_VALUE = "jsonb_path_query_first(event.data, part.path, silent => true)"
_QUANTITY = rf"substring({_VALUE} #>> '{{}}' FROM '^-?\d+(?:\.\d+)?$')::numeric"


def _asked(void: Void, parts: Collection[Part]) -> tuple[Any, ...]:
    numbered = [part._asdict() | {"number": number} for number, part in enumerate(parts)]
    return (void.tenant_id, void.type, void.hour, void.time_zone, void.data, numbered)


async def greatest(connection: Connection, void: Void, parts: Sequence[Part]) -> list[Decimal | None]:
    """Return the greatest value that each part still has; None if it has none."""
    rows = await connection.fetch(
        f"SELECT (SELECT max({_QUANTITY}) {_REMAINING}) FROM {_PARTS} ORDER BY number",  # noqa: S608 - SQL of our own
        *_asked(void, parts),
    )
    return [row[0] for row in rows]


async def latest(connection: Connection, void: Void, parts: Sequence[Part]) -> AsyncIterator[Value]:
    """Return the latest values that each part still has: all of the latest moment, in no order."""
    asked = f"""
        SELECT number, latest.* FROM {_PARTS}, LATERAL (
            SELECT event.source, event.id, event.happened_at, {_QUANTITY} {_REMAINING}
            ORDER BY event.happened_at DESC FETCH FIRST ROW WITH TIES
        ) AS latest
    """  # noqa: S608 - SQL of our own
    async for row in connection.cursor(asked, *_asked(void, parts), prefetch=_PREFETCHED):
        yield Value(*row)


async def still_has(connection: Connection, void: Void, parts: Sequence[Part]) -> list[bool]:
    """Tell of each part whether another event of it has the same value as the void one."""
    rows = await connection.fetch(
        f"""
        SELECT EXISTS (
            SELECT {_REMAINING}
            AND {_VALUE} = jsonb_path_query_first($5::text::jsonb, part.path, silent => true)
        ) FROM {_PARTS} ORDER BY number
        """,  # noqa: S608 - SQL of our own
        *_asked(void, parts),
    )
    return [row[0] for row in rows]


async def totals(connection: Connection, void: Void, parts: Sequence[Part]) -> list[Total]:
    """Return what each part comes to, as it is written down."""
    rows: list[asyncpg.Record] = await connection.fetch(
        """
        SELECT coalesce(whole.quantity, apart.quantity), coalesce(whole.latest_at, apart.latest_at),
               coalesce(whole.latest_key, apart.latest_key)
        FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS part (meter, dimensions, number)
        LEFT JOIN usage_hour AS whole
            ON part.dimensions = '{}'
            AND whole.tenant_id = $1 AND whole.hour = $2 AND whole.meter = part.meter
        LEFT JOIN usage_dimension_hour AS apart
            ON part.dimensions <> '{}' AND apart.dimensions = part.dimensions::jsonb
            AND apart.tenant_id = $1 AND apart.hour = $2 AND apart.meter = part.meter
        ORDER BY number
        """,
        void.tenant_id,
        void.hour,
        [part.meter for part in parts],
        [part.dimensions for part in parts],
    )
    return [Total(*row) for row in rows]


async def write(connection: Connection, void: Void, parts: Sequence[Part], totals: Sequence[Total]) -> None:
    """Write down what parts come to now; one of which nothing is left goes."""
    await connection.execute(
        """
        WITH part AS (
            SELECT meter, dimensions::jsonb, quantity, latest_at, latest_key
            FROM unnest($3::text[], $4::text[], $5::numeric[], $6::timestamptz[], $7::bytea[])
                 AS part (meter, dimensions, quantity, latest_at, latest_key)
        ), gone AS (
            DELETE FROM usage_hour AS whole USING part
            WHERE part.dimensions = '{}' AND part.quantity IS NULL
              AND whole.tenant_id = $1 AND whole.hour = $2 AND whole.meter = part.meter
        ), apart_gone AS (
            DELETE FROM usage_dimension_hour AS apart USING part
            WHERE part.quantity IS NULL AND apart.dimensions = part.dimensions
              AND apart.tenant_id = $1 AND apart.hour = $2 AND apart.meter = part.meter
        ), written AS (
            UPDATE usage_hour AS whole
            SET quantity = part.quantity, latest_at = part.latest_at, latest_key = part.latest_key FROM part
            WHERE part.dimensions = '{}' AND part.quantity IS NOT NULL
              AND whole.tenant_id = $1 AND whole.hour = $2 AND whole.meter = part.meter
        )
        UPDATE usage_dimension_hour AS apart
        SET quantity = part.quantity, latest_at = part.latest_at, latest_key = part.latest_key FROM part
        WHERE part.quantity IS NOT NULL AND apart.dimensions = part.dimensions
          AND apart.tenant_id = $1 AND apart.hour = $2 AND apart.meter = part.meter
        """,
        void.tenant_id,
        void.hour,
        [part.meter for part in parts],
        [part.dimensions for part in parts],
        [total.quantity for total in totals],
        [total.latest_at for total in totals],
        [total.latest_key for total in totals],
    )


async def forget_values(connection: Connection, void: Void, parts: Sequence[Part], values: Sequence[bytes]) -> None:
    """Take a value that it no longer has from each of these parts."""
    await connection.execute(
        """
        DELETE FROM usage_value AS counted
        USING unnest($3::text[], $4::text[], $5::bytea[]) AS part (meter, dimensions, value)
        WHERE counted.tenant_id = $1 AND counted.hour = $2 AND counted.meter = part.meter
          AND counted.dimensions = part.dimensions::jsonb AND counted.value = part.value
        """,
        void.tenant_id,
        void.hour,
        [part.meter for part in parts],
        [part.dimensions for part in parts],
        values,
    )
