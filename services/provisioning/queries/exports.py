"""Exports and their chunks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.provisioning.queries.environments import narrowed
from shared.postgres import Connection


async def create_chunk(connection: Connection, export_id: UUID, number: int, content: bytes) -> None:
    """Keep one chunk of an export that is being made."""
    await connection.execute(
        "INSERT INTO export_chunk (export_id, number, content) VALUES ($1, $2, $3)", export_id, number, content
    )


async def create(connection: Connection, export: Mapping[str, Any]) -> None:
    """Record an export whose chunks are there; the mapping has a value for each column."""
    await connection.execute(
        """
        INSERT INTO export (export_id, tenant_id, created_at, expires_at, rows, bytes, sha256)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        *(
            export[column]
            for column in ("export_id", "tenant_id", "created_at", "expires_at", "rows", "bytes", "sha256")
        ),
    )


async def delete(connection: Connection, export_ids: Sequence[UUID]) -> None:
    """Delete exports with their chunks, wherever they are still there."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT export_id FROM export WHERE export_id = ANY ($1::uuid[]) ORDER BY export_id FOR UPDATE
        )
        DELETE FROM export USING doomed WHERE export.export_id = doomed.export_id
        """,
        export_ids,
    )


async def delete_expired(connection: Connection, *, now: datetime, limit: int) -> int:
    """Delete some of the exports that have expired, those that expired first, and return how many."""
    deleted = await connection.fetch(
        """
        WITH doomed AS (
            SELECT export_id FROM export WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM export USING doomed WHERE export.export_id = doomed.export_id RETURNING export.export_id
        """,
        now,
        limit,
    )
    return len(deleted)


async def find(
    connection: Connection, *, now: datetime, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List exports that have not expired, all or one tenant's, made after the one ``after``."""
    narrowing, tenant_ids = narrowed("tenant_id = $4", tenant_id)
    return await connection.fetch(
        f"""
        SELECT * FROM export
        WHERE expires_at > $1 AND ($2::uuid IS NULL OR export_id > $2) AND {narrowing}
        ORDER BY export_id LIMIT $3
        """,  # noqa: S608 - a condition of our own
        now,
        after,
        limit,
        *tenant_ids,
    )


async def get(connection: Connection, export_id: UUID, *, now: datetime, within: str | None) -> asyncpg.Record | None:
    """Return an export that has not expired, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        "SELECT * FROM export WHERE export_id = $1 AND expires_at > $2 AND ($3::text IS NULL OR tenant_id = $3)",
        export_id,
        now,
        within,
    )


async def chunk(connection: Connection, export_id: UUID, number: int) -> bytes | None:
    """Return one chunk of an export, if it is there."""
    content: bytes | None = await connection.fetchval(
        "SELECT content FROM export_chunk WHERE export_id = $1 AND number = $2", export_id, number
    )
    return content
