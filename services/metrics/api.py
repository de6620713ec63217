"""All HTTP of the metrics service: what can be metered, how much of it a tenant may use, and the audit trail."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.metrics import audit, queries
from services.metrics.queries import EntryFilter, UsageFilter
from shared.access import Role
from shared.contracts.base import INSTALLATION
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Identifier, Instant, Text

PATHS = ("/v1/meters", "/v1/usage", "/v1/quotas", "/v1/audit")

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

_CONNECTION_SECONDS = 5.0

Enforcement = Annotated[
    Literal["soft", "hard"], Field(description="Of usage beyond a limit: `soft` accepts and reports it, `hard` denies.")
]


class Meter(Resource):
    """Something that can be metered."""

    name: str
    unit: str = Field(description="What one of it is.")
    enforcement: Enforcement

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.meters`."""
        return cls(**row)


class Quota(Resource):
    """How much of a meter a tenant may use in a calendar month."""

    meter: str
    limit: int = Field(description="In the unit of the meter.")
    unit: str
    enforcement: Enforcement

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.quotas_of_tenant`."""
        return cls(meter=row["meter"], limit=row["limit_value"], unit=row["unit"], enforcement=row["enforcement"])


class Usage(Resource):
    """What a tenant has used of a meter in a while."""

    meter: str
    unit: str
    since: datetime = Field(alias="from", description="The beginning of the hour, the day or the month, in UTC.")
    quantity: str = Field(description="In the unit of the meter; a decimal number.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.usage`."""
        return cls(meter=row["meter"], unit=row["unit"], since=row["since"], quantity=f"{row['quantity']:f}")


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
        """Make it from a row of `queries.entries`."""
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


def _shown_tenant(tenant_id: str) -> str | None:
    return None if tenant_id == INSTALLATION else tenant_id


TenantOfTrail = Annotated[
    Identifier | None, Query(alias="tenantId", description="Whose; `_` is what concerns the installation.")
]


def routes(pool: Pool) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter()
    router.include_router(_meter_routes(pool))
    router.include_router(_usage_routes(pool))
    router.include_router(_quota_routes(pool))
    router.include_router(_audit_routes(pool))
    return router


def _meter_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["meters"])

    @router.get("/v1/meters", dependencies=[_READERS])
    async def list_meters(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Meter]:
        """List what can be metered, by name."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.meters(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Meter.of, key=lambda row: (row["name"],))

    return router


def _usage_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["usage"])

    @router.get("/v1/usage", dependencies=[_ADMINISTRATORS])
    async def list_usage(
        *,
        asker: Asker,
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        meter: Annotated[Text | None, Query(description="Only of this one.")] = None,
        since: Annotated[
            Instant | None, Query(alias="from", description="Only hours that begin then or later.")
        ] = None,
        until: Annotated[Instant | None, Query(alias="to", description="Only hours that begin before.")] = None,
        window: Annotated[Literal["hour", "day", "month"], Query(description="What is added up, in UTC.")] = "hour",
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Usage]:
        """List what a tenant has used, by time and meter; where nothing was used there is no item."""
        wanted = UsageFilter(asker.narrowed(tenant_id), meter, since, until)
        after = decode_cursor(cursor, datetime, str)
        async with pool.acquire() as connection:
            rows = await queries.usage(
                connection, wanted, window=window, after=(after[0], after[1]) if after else None, limit=limit + 1
            )
        return page(rows, limit=limit, item=Usage.of, key=lambda row: (row["since"], row["meter"]))

    return router


def _quota_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["quotas"])

    @router.get("/v1/quotas", dependencies=[_ADMINISTRATORS])
    async def list_quotas(
        asker: Asker,
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Quota]:
        """List a tenant's quotas by meter; of a meter without one it may use as much as it likes."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.quotas_of_tenant(connection, asker.narrowed(tenant_id), after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Quota.of, key=lambda row: (row["meter"],))

    return router


def _audit_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["audit"], dependencies=[_ADMINISTRATORS])

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
            rows = await queries.entries(
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
