"""Exports that can be fetched."""

from base64 import b64encode
from datetime import datetime
from typing import Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from services.provisioning.api.support import ADMINISTRATORS, TenantId
from services.provisioning.exports import read_export
from services.provisioning.queries import exports
from shared.changes import Changes
from shared.clock import Clock
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Problem, Resource, decode_cursor, page
from shared.postgres import Pool

GZIP = "application/gzip"
"""The media type of an export (RFC 6713)."""


class Export(Resource):
    """Everything that a tenant kept in its environment at one moment: lines of JSON, gzipped."""

    export_id: UUID
    tenant_id: str
    created_at: datetime
    expires_at: datetime = Field(description="It is deleted then.")
    rows: dict[str, int] = Field(description="How many, by table.")
    bytes: int = Field(description="The length of the file.")
    sha256: str = Field(description="Of the file, hexadecimal.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.exports`."""
        return cls(**dict(row))


def routes(pool: Pool, changes: Changes, clock: Clock) -> APIRouter:
    """Return the routes for exports."""
    router = APIRouter()

    @router.get("/v1/exports", dependencies=[ADMINISTRATORS])
    async def list_exports(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Export]:
        """List the exports that can be fetched, in the order in which they were made, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await exports.find(
                connection, now=clock.now(), after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Export.of, key=lambda row: (row["export_id"],))

    @router.get(
        "/v1/exports/{export_id}",
        dependencies=[ADMINISTRATORS],
        response_class=StreamingResponse,
        responses={200: {"content": {GZIP: {}}, "description": "The file: gzipped lines of JSON."}},
    )
    async def fetch_export(export_id: UUID, asker: Asker) -> Response:
        """Fetch an export; each line of it is `{"table": …, "row": {…}}`.

        `ETag` and `Repr-Digest` (RFC 9530) are its SHA-256. It is the same however often it is fetched, until it
        expires.
        """
        async with changes.transaction() as change:
            export = await exports.get(change.connection, export_id, now=clock.now(), within=asker.tenant_id)
            if export is None:
                raise Problem(404, code="unknown_export", detail=f"There is no export {export_id}.")
            change.decided(asker, "export.fetched", f"export:{export_id}", tenant_id=export["tenant_id"])
        content = read_export(pool, export_id, length=export["bytes"])
        return StreamingResponse(content, media_type=GZIP, headers=_headers(export))

    return router


def _headers(export: asyncpg.Record) -> dict[str, str]:
    name = f"{export['tenant_id']}-{export['created_at']:%Y%m%dT%H%M%SZ}.ndjson.gz"
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(export["bytes"]),
        "ETag": f'"{export["sha256"]}"',
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(export['sha256'])).decode()}:",
        "Cache-Control": "no-store",
    }
