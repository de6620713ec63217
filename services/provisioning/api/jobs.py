"""Jobs, for those who want to know why an environment is not there yet."""

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.provisioning.api.support import OPERATORS, TenantId
from services.provisioning.queries import jobs
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, decode_cursor, page
from shared.postgres import Pool


class Job(Resource):
    """Something that was asked for and is not done yet, or was done and can still be taken back."""

    job_id: UUID
    tenant_id: str
    workflow_id: UUID = Field(description="Whose step it is.")
    step: str
    asked: Literal["provision", "move", "throttle", "release", "deploy", "export", "remove", "remove-products"] = Field(
        description="What it does as a whole."
    )
    product: str | None = Field(
        description="The product in whose own environment it is at work; null in the tenant's. Of several "
        "environments, it is in one after the other."
    )
    operation: Literal["provision", "move", "throttle", "release", "deploy", "export", "remove"] = Field(
        description="What it does there."
    )
    lane: str = Field(
        description="The queue in which it waits for its turn: of a driver and an isolation, or of moves."
    )
    state: Literal["running", "done", "failing", "undoing"] = Field(
        description="Running: on the way to what was asked for. Failing, undoing: on the way back, as it cannot be "
        "done or was taken back."
    )
    stage: str = Field(description="The driver's next step; empty for its first.")
    attempts: int = Field(description="How often this step has been begun.")
    said: str | None = Field(description="What has been reached, or why the last attempt failed.")
    due_at: datetime | None = Field(
        description="When it is begun, or of one that is at work, when another worker may take over; null when done."
    )

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.jobs.page`."""
        return cls(**{name: row[name] for name in cls.model_fields})


def routes(pool: Pool) -> APIRouter:
    """Return the route that lists jobs."""
    router = APIRouter()

    @router.get("/v1/jobs", dependencies=[OPERATORS])
    async def list_jobs(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None) -> Page[Job]:
        """List jobs in the order in which they were asked for, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await jobs.page(connection, after=after, limit=limit + 1, tenant_id=tenant_id)
        return page(rows, limit=limit, item=Job.of, key=lambda row: (row["job_id"],))

    return router
