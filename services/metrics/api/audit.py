"""The audit trail over HTTP."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from services.metrics import audit, audit_file, queries
from services.metrics.queries.audit import EntryFilter
from services.metrics.recording.body import NDJSON
from shared.access import Role
from shared.contracts.base import INSTALLATION
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Identifier, Instant, Text

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

_CONNECTION_SECONDS = 5.0

TenantOfTrail = Annotated[
    Identifier | None, Query(alias="tenantId", description="Whose; `_` is what concerns the installation.")
]


class AuditEntry(Resource):
    """A decision of somebody, sealed together with all before it in the tenant's chain."""

    tenant_id: str | None = Field(description="Whom it concerns; null for the installation.")
    seq: int = Field(description="Its place in the tenant's chain, from 1 on.")
    decision_id: UUID
    decided_at: datetime
    recorded_at: datetime
    service: str = Field(description="Where it was decided.")
    actor: str = Field(description="`user:<id>`, `key:<id>`, `system-administrator`, or what decides by itself.")
    role: str | None = Field(description="What the actor was then; null for what has no role.")
    reason: str | None
    action: str = Field(description="What was done, as in `api_key.rotated`.")
    subject: str = Field(description="With what, as in `api-key:<id>`.")
    before: dict[str, Any] | None = Field(description="What of it was changed, as it was.")
    after: dict[str, Any] | None = Field(description="The same, as it has become.")
    previous_hash: str = Field(description="Of the entry before it, hexadecimal; zeros on the first.")
    hash: str = Field(
        description="SHA-256 of the entry in its canonical form (RFC 8785), without this field; `tenantId` is `_` "
        "there where it is null here."
    )

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.audit.entries`."""
        shown = {**row, "previous_hash": row["previous_hash"].hex(), "hash": row["hash"].hex()}
        return cls(**shown | {"tenant_id": _shown_tenant(row["tenant_id"])})


class ChainEnd(Resource):
    """The last entry of a chain."""

    seq: int = Field(description="0 where there is none.")
    hash: str = Field(description="Keep it elsewhere: an entry of this `seq` must have this `hash` for ever.")


class AuditVerification(Resource):
    """What working out the hashes of a chain again has found."""

    tenant_id: str | None = Field(description="Whose chain; null for the installation's.")
    is_whole: bool = Field(description="Whether all that was looked at is as it was written.")
    checked: int = Field(description="How many entries are.")
    broken_at: int | None = Field(description="`seq` of the first that was changed, left out, moved or added.")
    next_seq: int | None = Field(description="Go on there with `fromSeq`; null at the end of the chain.")
    end: ChainEnd

    @classmethod
    def of(cls, tenant_id: str, found: audit.Verification) -> Self:
        """Make it from what was found."""
        return cls(
            tenant_id=_shown_tenant(tenant_id),
            is_whole=found.broken_at is None,
            checked=found.checked,
            broken_at=found.broken_at,
            next_seq=found.next_seq,
            end=ChainEnd(seq=found.end.seq, hash=found.end.hash.hex()),
        )


def routes(pool: Pool) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["audit"], dependencies=[_ADMINISTRATORS])
    router.include_router(_reading_routes(pool))
    router.include_router(_export_routes(pool))
    return router


def _reading_routes(pool: Pool) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/audit")
    async def list_decisions(
        *,
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: TenantOfTrail = None,
        actor: Annotated[Text | None, Query(description="Only what this one has decided.")] = None,
        action: Annotated[Text | None, Query(description="Only decisions of this kind.")] = None,
        since: Annotated[Instant | None, Query(alias="from", description="Only from then on.")] = None,
        until: Annotated[Instant | None, Query(alias="to", description="Only before then.")] = None,
    ) -> Page[AuditEntry]:
        """List who decided what, the newest first."""
        wanted = EntryFilter(asker.narrowed(tenant_id), actor, action, since, until)
        after = decode_cursor(cursor, datetime, UUID)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.audit.entries(
                connection, wanted, after=(after[0], after[1]) if after else None, limit=limit + 1
            )
        return page(rows, limit=limit, item=AuditEntry.of, key=lambda row: (row["decided_at"], row["decision_id"]))

    @router.get("/v1/audit/verification")
    async def verify_trail(
        asker: Asker,
        tenant_id: TenantOfTrail = None,
        from_seq: Annotated[int, Query(alias="fromSeq", ge=1, le=2**62, description="The first entry to look at.")] = 1,
    ) -> AuditVerification:
        """Work out the hashes of a tenant's chain again and tell whether it is whole; one's own when left out.

        One call looks at 50,000 entries; `nextSeq` tells where the next one goes on. What is before `fromSeq` is taken
        as it is.
        """
        wanted = asker.narrowed(tenant_id)
        found = await audit.verify(pool, INSTALLATION if wanted is None else wanted, from_seq=from_seq)
        return AuditVerification.of(tenant_id or asker.tenant_id or INSTALLATION, found)

    return router


def _export_routes(pool: Pool) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/audit/export",
        response_class=StreamingResponse,
        responses={200: {"content": {NDJSON: {}}, "description": "A line of JSON for each entry."}},
    )
    async def export_trail(
        *,
        asker: Asker,
        tenant_id: TenantOfTrail = None,
        since: Annotated[Instant | None, Query(alias="from", description="Only what was recorded since.")] = None,
        until: Annotated[Instant | None, Query(alias="to", description="Only what was recorded before then.")] = None,
    ) -> Response:
        """Export a tenant's chain, or all that there are, in the order of the chains.

        A line is an entry as it is sealed (`tenantId` is `_` for the installation) with its `hash`, so whoever has the
        file can verify it without asking. What one export ends with (`to`) is what another begins with (`from`).
        """
        content = audit_file.lines(pool, asker.narrowed(tenant_id), since=since, until=until)
        first = await anext(content, b"")  # so that what goes wrong at once is told as such
        headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"', "Cache-Control": "no-store"}
        return StreamingResponse(_beginning_with(first, content), media_type=NDJSON, headers=headers)

    return router


async def _beginning_with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for portion in rest:
        yield portion


def _shown_tenant(tenant_id: str) -> str | None:
    return None if tenant_id == INSTALLATION else tenant_id
