"""Environments: what our records say of them, and what their drivers find."""

import asyncio
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.provisioning.api.support import OPERATORS, READERS, TenantId, unavailable
from services.provisioning.drivers import DriverUnavailableError
from services.provisioning.drivers import Inspection as Found
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.job import Settings
from services.provisioning.queries import environments
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Problem, Resource, decode_cursor, page, problems
from shared.postgres import Pool

_INSPECTION_SECONDS = 20.0


class DeployedProduct(Resource):
    """A product at the version that runs in an environment."""

    name: str
    version: str


class Environment(Resource):
    """Where a tenant's application runs."""

    environment_id: UUID
    tenant_id: str
    product: str | None = Field(
        description="The product whose own environment it is; null for the tenant's own, where all others run."
    )
    driver: str = Field(description="What makes and keeps it.")
    isolation: Literal["pool", "bridge", "silo"] = Field(
        description="Pool: rows among those of other tenants, parted by the database. Bridge: a schema of its own. "
        "Silo: a database of its own. With other drivers than Postgres, what they make of these words."
    )
    region: str
    status: Literal["provisioning", "ready", "moving", "removing"] = Field(
        description="It can be used when it is ready, and while it is moving but for a moment."
    )
    connections: int | None = Field(description="How many each login may hold; null is the default, 10 with Postgres.")
    throttled: bool = Field(description="Nobody can work in it, and no login is issued; all data is kept.")
    throttled_at: datetime | None
    throttle_reason: str | None
    products: list[DeployedProduct]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.environments`."""
        return cls(
            environment_id=row["environment_id"],
            tenant_id=row["tenant_id"],
            product=row["product"],
            driver=row["driver"],
            isolation=row["isolation"],
            region=row["region"],
            status=row["status"],
            connections=row["connections"],
            throttled=row["throttled_at"] is not None,
            throttled_at=row["throttled_at"],
            throttle_reason=row["throttle_reason"],
            products=row["products"],
            created_at=row["created_at"],
        )


class Inspection(Resource):
    """What the driver of an environment finds, whatever our records say."""

    environment_id: UUID
    tenant_id: str
    product: str | None
    driver: str
    exists: bool
    throttled: bool
    isolation: str | None
    products: list[DeployedProduct]
    detail: dict[str, Any] = Field(description="More, in the driver's own words.")

    @classmethod
    def of(cls, environment: Settings, found: Found) -> Self:
        """Make it from our records and what was found."""
        return cls(
            environment_id=environment.environment_id,
            tenant_id=environment.owner,
            product=environment.product,
            driver=environment.driver,
            exists=found.exists,
            throttled=found.is_throttled,
            isolation=found.isolation,
            products=[DeployedProduct(name=name, version=version) for name, version in sorted(found.products.items())],
            detail=dict(found.detail),
        )


def routes(pool: Pool, drivers: Drivers) -> APIRouter:
    """Return the routes for environments."""
    router = APIRouter()

    @router.get("/v1/environments", dependencies=[READERS])
    async def list_environments(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Environment]:
        """List environments in the order of their creation, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await environments.page(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Environment.of, key=lambda row: (row["environment_id"],))

    @router.get(
        "/v1/environments/{environment_id}/inspection", dependencies=[OPERATORS], responses=problems(404, 409, 503)
    )
    async def inspect_environment(environment_id: UUID) -> Inspection:
        """Let the driver look at an environment, and return what it finds; nothing is changed."""
        async with pool.acquire() as connection:
            row = await environments.by_id(connection, environment_id)
        if row is None:
            raise Problem(404, code="unknown_environment", detail=f"There is no environment {environment_id}.")
        environment = Settings.of(row)
        return Inspection.of(environment, await _inspect(environment, drivers))

    return router


async def _inspect(environment: Settings, drivers: Drivers) -> Found:
    driver = drivers.find(environment.driver)
    if driver is None:
        raise Problem(409, code="unknown_driver", detail=f"There is no driver {environment.driver!r} any more.")
    try:
        async with asyncio.timeout(_INSPECTION_SECONDS):
            (found,) = await driver.inspect([environment.for_driver()])
    except TimeoutError:
        raise unavailable(environment.driver, f"It has not answered within {_INSPECTION_SECONDS:g} s.") from None
    except DriverUnavailableError as error:
        raise unavailable(environment.driver, str(error)) from None
    return found
