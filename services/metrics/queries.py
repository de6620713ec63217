"""All SQL of the metrics service."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from shared.postgres import Connection


class Limit(NamedTuple):
    """How much of a meter a tenant may use, in the meter's unit, and what happens to usage beyond it."""

    value: int
    enforcement: str


Limits = Mapping[str, Limit]
"""What a tenant is held to, by meter."""


async def enforcements(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return how each of the meters ``names`` is enforced; those that the catalog does not have are left out."""
    rows = await connection.fetch("SELECT name, enforcement FROM meter WHERE name = ANY ($1::text[])", list(names))
    return {row["name"]: row["enforcement"] for row in rows}


async def track_tenants(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> None:
    """Accept usage of these distinct tenants from ``now`` on, and keep their rows locked until the commit."""
    await connection.execute(
        """
        INSERT INTO tracked_tenant (tenant_id, tracked_at)
        SELECT tenant_id, $2 FROM unnest($1::text[]) AS asked (tenant_id)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY tenant_id
        -- Changes nothing, but waits for whoever is deleting the row, and then inserts it anew.
        ON CONFLICT (tenant_id) DO UPDATE SET tracked_at = tracked_tenant.tracked_at
        """,
        tenant_ids,
        now,
    )


async def set_quotas(connection: Connection, limits: Mapping[tuple[str, str], int]) -> None:
    """Set the limit of each (tenant, meter), enforced as the meter says; the tenants are tracked and locked."""
    await connection.execute(
        """
        INSERT INTO quota (tenant_id, meter, limit_value, enforcement)
        SELECT tenant_id, meter.name, limit_value, enforcement
        FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked (tenant_id, name, limit_value)
        JOIN meter USING (name)
        ON CONFLICT (tenant_id, meter) DO UPDATE SET limit_value = excluded.limit_value
        """,
        [tenant_id for tenant_id, _ in limits],
        [meter for _, meter in limits],
        list(limits.values()),
    )


async def lock_tenants(connection: Connection, tenant_ids: Iterable[str]) -> list[str]:
    """Wait until nobody else changes these tenants, in the order in which everybody locks them; return the tracked."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE",
        list(tenant_ids),
    )
    return [row["tenant_id"] for row in rows]


async def limits_of(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, Limits]:
    """Return what each of these distinct tenants is held to; a tenant without quotas to nothing."""
    rows = await connection.fetch(
        "SELECT tenant_id, meter, limit_value, enforcement FROM quota WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )
    limits: dict[str, dict[str, Limit]] = {tenant_id: {} for tenant_id in tenant_ids}
    for row in rows:
        limits[row["tenant_id"]][row["meter"]] = Limit(row["limit_value"], row["enforcement"])
    return {**limits}


async def replace_quotas(connection: Connection, limits: Mapping[str, Limits]) -> None:
    """Hold each of these tenants, which are tracked and locked, to exactly these limits."""
    quotas = [(tenant_id, meter, *limit) for tenant_id, each in limits.items() for meter, limit in each.items()]
    tenant_ids, meters, values, enforcements = zip(*quotas, strict=True) if quotas else ([], [], [], [])
    await connection.execute(
        """
        DELETE FROM quota WHERE tenant_id = ANY ($1::text[])
        AND (tenant_id, meter) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
        """,
        list(limits),
        tenant_ids,
        meters,
    )
    await connection.execute(
        """
        INSERT INTO quota (tenant_id, meter, limit_value, enforcement)
        SELECT tenant_id, name, limit_value, kept.enforcement
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
             AS kept (tenant_id, name, limit_value, enforcement)
        JOIN meter USING (name)  -- a quota that is brought back may be of a meter that the catalog has no more
        ON CONFLICT (tenant_id, meter)
        DO UPDATE SET limit_value = excluded.limit_value, enforcement = excluded.enforcement
        WHERE (quota.limit_value, quota.enforcement) <> (excluded.limit_value, excluded.enforcement)
        """,
        tenant_ids,
        meters,
        values,
        enforcements,
    )


async def delete_quotas(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget every limit of these tenants and return how many each of them had."""
    rows = await connection.fetch(
        "DELETE FROM quota WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


async def delete_tracked_tenants(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Accept no more usage of these tenants, whose quotas are gone already; return which of them were tracked."""
    rows = await connection.fetch(
        "DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


class Hour(NamedTuple):
    """An hour of a tenant's usage of a meter."""

    tenant_id: str
    meter: str
    hour: datetime


async def add_usage(connection: Connection, used: Mapping[Hour, int]) -> None:
    """Add to what tenants have used, which are tracked and locked; what the catalog has no meter for is left out."""
    await connection.execute(
        """
        INSERT INTO usage_hour (tenant_id, meter, hour, quantity)
        SELECT tenant_id, meter.name, hour, quantity
        FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[]) AS used (tenant_id, name, hour, quantity)
        JOIN meter USING (name)
        ON CONFLICT (tenant_id, meter, hour) DO UPDATE SET quantity = usage_hour.quantity + excluded.quantity
        """,
        [each.tenant_id for each in used],
        [each.meter for each in used],
        [each.hour for each in used],
        list(used.values()),
    )


async def delete_usage(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget what these tenants have used, and return how many hours of it each of them had."""
    rows = await connection.fetch(
        "DELETE FROM usage_hour WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


class UsageFilter(NamedTuple):
    """What is wanted of a tenant's usage.

    Attributes:
        meter: None for all.
        since: hours that begin then or later; None for all.
        until: hours that begin before; None for all.
    """

    tenant_id: str
    meter: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def usage(
    connection: Connection, wanted: UsageFilter, *, window: str, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` windows of a tenant's usage with their units, by their beginning and their meter.

    Args:
        window: ``hour``, ``day`` or ``month``, in UTC.
        after: beginning and meter of the last one of the page before.
    """
    return await connection.fetch(
        """
        SELECT date_trunc($2, hour, 'UTC') AS since, usage_hour.meter, meter.unit, sum(quantity) AS quantity
        FROM usage_hour JOIN meter ON meter.name = usage_hour.meter
        WHERE tenant_id = $1 AND usage_hour.meter = coalesce($3::text, usage_hour.meter)
          AND hour >= coalesce($4::timestamptz, '-infinity') AND hour < coalesce($5::timestamptz, 'infinity')
          AND (date_trunc($2, hour, 'UTC'), usage_hour.meter)
              > (coalesce($6::timestamptz, '-infinity'), coalesce($7::text, ''))
        GROUP BY since, usage_hour.meter, meter.unit
        ORDER BY since, usage_hour.meter LIMIT $8
        """,
        wanted.tenant_id,
        window,
        wanted.meter,
        wanted.since,
        wanted.until,
        *(after or (None, None)),
        limit,
    )


async def quotas_of_tenant(connection: Connection, tenant_id: str, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return a tenant's next ``limit`` quotas with their units, by meter, those after the meter ``after``."""
    return await connection.fetch(
        """
        SELECT quota.meter, quota.limit_value, quota.enforcement, meter.unit
        FROM quota JOIN meter ON meter.name = quota.meter
        WHERE quota.tenant_id = $1 AND quota.meter > $2
        ORDER BY quota.meter LIMIT $3
        """,
        tenant_id,
        after,
        limit,
    )


async def meters(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` meters of the catalog by name, those after the meter ``after``."""
    return await connection.fetch(
        "SELECT name, unit, enforcement FROM meter WHERE name > $1 ORDER BY name LIMIT $2", after, limit
    )


async def lock_chains(connection: Connection, tenant_ids: Sequence[str], *, beginning: bytes) -> list[asyncpg.Record]:
    """Return the ends of these distinct tenants' chains, begun where there was none; others wait until the commit.

    Args:
        beginning: what stands for the hash of the entry before the first.
    """
    return await connection.fetch(
        """
        INSERT INTO audit_chain (tenant_id, seq, hash)
        SELECT tenant_id, 0, $2 FROM unnest($1::text[]) AS asked (tenant_id)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY tenant_id
        -- Changes nothing, but waits for whoever appends.
        ON CONFLICT (tenant_id) DO UPDATE SET seq = audit_chain.seq
        RETURNING tenant_id, seq, hash
        """,
        tenant_ids,
        beginning,
    )


async def known_decisions(connection: Connection, decision_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these decisions the trail has already."""
    rows = await connection.fetch(
        "SELECT decision_id FROM audit_entry WHERE decision_id = ANY ($1::uuid[])", decision_ids
    )
    return {row["decision_id"] for row in rows}


async def append_entries(connection: Connection, entries: Sequence[Mapping[str, Any]]) -> None:
    """Append entries to chains that are locked, each chain's in its order."""
    ends = {entry["tenant_id"]: entry for entry in entries}
    hashes = ("previous_hash", "hash")
    await connection.execute(
        """
        WITH appended AS (
            INSERT INTO audit_entry (tenant_id, seq, decision_id, decided_at, recorded_at, service, actor, role, reason,
                                     action, subject, before, after, previous_hash, hash)
            SELECT tenant_id, seq, decision_id, decided_at, recorded_at, service, actor, role, reason,
                   action, subject, before, after, decode(previous_hash, 'hex'), decode(hash, 'hex')
            FROM jsonb_to_recordset($1) AS entry (
                tenant_id text, seq bigint, decision_id uuid, decided_at timestamptz, recorded_at timestamptz,
                service text, actor text, role text, reason text, action text, subject text, before jsonb, after jsonb,
                previous_hash text, hash text)
        )
        UPDATE audit_chain SET seq = ended.seq, hash = ended.hash
        FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS ended (tenant_id, seq, hash)
        WHERE audit_chain.tenant_id = ended.tenant_id
        """,
        [{**entry, **{name: entry[name].hex() for name in hashes}} for entry in entries],
        list(ends),
        [entry["seq"] for entry in ends.values()],
        [entry["hash"] for entry in ends.values()],
    )


async def end_of_chain(connection: Connection, tenant_id: str) -> asyncpg.Record:
    """Return number and hash of a chain's last entry, 0 and None for no chain, and whether there is one beyond it."""
    row = await connection.fetchrow(
        """
        SELECT coalesce(chain.seq, 0) AS seq, chain.hash,
               EXISTS (SELECT FROM audit_entry AS entry
                       WHERE entry.tenant_id = asked.tenant_id AND entry.seq > coalesce(chain.seq, 0)) AS has_more
        FROM (SELECT $1::text AS tenant_id) AS asked LEFT JOIN audit_chain AS chain USING (tenant_id)
        """,
        tenant_id,
    )
    assert row is not None
    return row


async def entries_from(connection: Connection, tenant_id: str, seq: int, *, limit: int) -> list[asyncpg.Record]:
    """Return a chain's next ``limit`` entries in their order, from the one with this number on."""
    return await connection.fetch(
        "SELECT * FROM audit_entry WHERE tenant_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3", tenant_id, seq, limit
    )


class EntryFilter(NamedTuple):
    """Which entries of the audit trail are wanted; None for whatever it is."""

    tenant_id: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_CONDITIONS = {
    "tenant_id": "tenant_id =",
    "actor": "actor =",
    "action": "action =",
    "since": "decided_at >=",
    "until": "decided_at <",
}


async def entries(
    connection: Connection, wanted: EntryFilter, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` entries, the newest first, those that were decided before ``after``.

    Args:
        wanted: ``since`` counts, ``until`` does not any more.
        after: time and identity of the last entry of the page before.
    """
    # Conditions only for what is given: a plan that also fits nothing would not use an index.
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    conditions = [f"{_CONDITIONS[name]} ${number}" for number, name in enumerate(given, start=2)]
    if after is not None:
        conditions.append(f"(decided_at, decision_id) < (${len(given) + 2}, ${len(given) + 3})")
    return await connection.fetch(
        f"""
        SELECT * FROM audit_entry WHERE {" AND ".join(conditions) or "true"}
        ORDER BY decided_at DESC, decision_id DESC LIMIT $1
        """,  # noqa: S608 - conditions of our own
        limit,
        *given.values(),
        *(after or ()),
    )
