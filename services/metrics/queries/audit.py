"""The audit trail and the ends of its chains."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from shared.postgres import Connection


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


class Part(NamedTuple):
    """A part of a chain, without a gap.

    Attributes:
        first: the number of its first entry.
        stop: that of the first entry that is not part of it any more.
    """

    tenant_id: str
    first: int
    stop: int


async def parts_of_chains(
    connection: Connection,
    tenant_id: str | None,
    *,
    since: datetime | None,
    until: datetime | None,
    after: str,
    limit: int,
) -> list[Part]:
    """Return for the next ``limit`` chains the part that was recorded in a while, if there is any.

    What one while ends with, the one that follows begins with.

    Args:
        tenant_id: of the only chain that is wanted; None for all.
        after: the tenant of the last chain of the page before, empty for the first.
    """
    rows = await connection.fetch(
        """
        SELECT tenant_id, first, stop
        FROM audit_chain CROSS JOIN LATERAL (
            SELECT CASE WHEN $2::timestamptz IS NULL THEN 1 ELSE (
                       SELECT seq FROM audit_entry AS entry
                       WHERE entry.tenant_id = audit_chain.tenant_id AND recorded_at >= $2
                       ORDER BY recorded_at, seq LIMIT 1) END,
                   -- Without an end, too, it ends: what is appended meanwhile is for the next.
                   coalesce((
                       SELECT seq FROM audit_entry AS entry
                       WHERE entry.tenant_id = audit_chain.tenant_id AND recorded_at >= $3::timestamptz
                       ORDER BY recorded_at, seq LIMIT 1), audit_chain.seq + 1)
            OFFSET 0  -- worked out once for a chain
        ) AS bounds (first, stop)
        WHERE tenant_id > $4 AND ($1::text IS NULL OR tenant_id = $1) AND first < stop
        ORDER BY tenant_id LIMIT $5
        """,
        tenant_id,
        since,
        until,
        after,
        limit,
    )
    return [Part(*row) for row in rows]


async def entries_of(connection: Connection, parts: Sequence[Part]) -> list[asyncpg.Record]:
    """Return all entries of these parts, each chain's in its order."""
    return await connection.fetch(
        """
        SELECT entry.* FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS part (tenant_id, first, stop)
        JOIN audit_entry AS entry
            ON entry.tenant_id = part.tenant_id AND entry.seq >= part.first AND entry.seq < part.stop
        ORDER BY entry.tenant_id, entry.seq
        """,
        *(list(column) for column in zip(*parts, strict=True)),
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
