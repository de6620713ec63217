"""Tiers over HTTP: everybody who administers something reads them, system administrators change them."""

from datetime import datetime
from typing import Annotated, Any, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.tenant.api.parameters import Parameters
from services.tenant.api.placement import Driver, Isolation, Told, told
from services.tenant.catalog import tiers
from services.tenant.catalog.editing import Editing
from services.tenant.queries import catalog as queries
from shared.access import Principal, Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    IfMatch,
    Limit,
    Page,
    RequestBody,
    Resource,
    decode_cursor,
    etag,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Flag, Slug

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_EDITORS = permit(Role.SYSTEM_ADMIN)

_Positive = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
_Plenty = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]
_Quotas = Annotated[
    dict[Slug, Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]],
    Field(max_length=100, description="Meter name to limit per calendar month; of another meter as much as one likes."),
]
_Rank = Annotated[_Positive, Field(description="From the smallest tier to the largest; no two have the same.")]
_Plan = Annotated[Slug, Field(description="Of billing's plans; an onboarding fails where it has no such plan.")]
_Region = Annotated[
    Slug | None, Field(description="Of a tenant that wants no other one; null is the installation's default.")
]
_Connections = Annotated[
    _Positive | None, Field(description="How many each login of an environment may hold; null is the default.")
]
_PerSecond = Annotated[
    _Positive | None,
    Field(description="How many requests `/v1/authorize` lets pass; null is as many as there are."),
]
_PerDay = Annotated[_Plenty | None, Field(description="The same for a day in UTC.")]


class Tier(Resource):
    """A tier of the catalog, with what it means to the other services, for tenants that are put on it from now on."""

    name: str
    rank: int = Field(description="From the smallest tier to the largest.")
    plan: str
    quotas: dict[str, int] = Field(description="Meter name to limit per calendar month.")
    isolation: str
    driver: str = Field(description="What makes environments.")
    region: str | None = Field(description="Of a tenant that wants no other one; null is the installation's default.")
    parameters: Told
    connections: int | None = Field(
        description="How many database connections each login of an environment may hold; null is the default."
    )
    requests_per_second: int | None = Field(
        description="How many requests to an application `/v1/authorize` lets pass; null is as many as there are."
    )
    requests_per_day: int | None = Field(description="The same for a day in UTC.")
    is_default: bool
    created_at: datetime
    retired_at: datetime | None = Field(description="Cannot be taken from then on.")

    @classmethod
    def of(cls, row: asyncpg.Record, asker: Principal) -> Self:
        """Make it from a row of `queries.tier`, as whoever asks may see it."""
        return cls(**dict(row) | {"parameters": told(row["parameters"], asker)})


class NewTier(RequestBody):
    """A tier that is to be, with what it means to the other services."""

    name: Slug
    rank: _Rank
    plan: _Plan
    quotas: _Quotas
    isolation: Isolation
    driver: Driver = "postgres"
    region: _Region = None
    parameters: Parameters = Field(default_factory=dict)
    connections: _Connections = None
    requests_per_second: _PerSecond = None
    requests_per_day: _PerDay = None
    is_default: Flag = Field(default=False, description="Of a request that names no tier, instead of the present one.")

    def details(self) -> dict[str, Any]:
        """Return all of it, by the names of the columns."""
        return self.model_dump()


class TierDetails(RequestBody):
    """What a tier is to mean from now on, to tenants that are put on it from now on; what is left out stays."""

    # A factory keeps a field from being required without making null, or a made-up default, part of the schema.
    rank: _Rank = Field(default_factory=int)
    plan: _Plan = Field(default_factory=str)
    quotas: _Quotas = Field(default_factory=dict)
    isolation: Isolation = Field(default_factory=lambda: "pool")
    driver: Driver = Field(default_factory=str)
    region: _Region = None
    parameters: Parameters = Field(default_factory=dict)
    connections: _Connections = None
    requests_per_second: _PerSecond = None
    requests_per_day: _PerDay = None
    is_default: Flag = Field(default_factory=bool, description="Making another tier the default ends the present one.")

    def details(self) -> dict[str, Any]:
        """Return what was given, by the names of the columns."""
        return self.model_dump(exclude_unset=True)


def routes(pool: Pool, editing: Editing) -> APIRouter:
    """Return the routes about tiers."""
    router = APIRouter(tags=["catalog"])
    router.include_router(_reading_routes(pool))
    router.include_router(_editing_routes(editing))
    return router


def _reading_routes(pool: Pool) -> APIRouter:
    router = APIRouter(dependencies=[_READERS])

    @router.get("/v1/tiers")
    async def list_tiers(asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Tier]:
        """List tiers from the smallest to the largest, retired ones included."""
        (after,) = decode_cursor(cursor, int) or (0,)
        async with pool.acquire() as connection:
            rows = await queries.tiers(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=lambda row: Tier.of(row, asker), key=lambda row: (row["rank"],))

    @router.get("/v1/tiers/{name}")
    async def get_tier(name: Slug, asker: Asker, response: Response) -> Tier:
        """Return one tier; its ETag is what a PATCH has to name."""
        async with pool.acquire() as connection:
            row = await queries.tier(connection, name)
        if row is None:
            raise tiers.unknown_tier(name)
        return _shown(row, asker, response)

    return router


def _editing_routes(editing: Editing) -> APIRouter:
    router = APIRouter(dependencies=[_EDITORS])

    @router.post("/v1/tiers", status_code=201, responses={200: {"model": Tier}, **problems(409)})
    async def create_tier(body: NewTier, asker: Asker, response: Response) -> Tier:
        """Add a tier to the catalog. Asking again for the very same changes nothing (200)."""
        async with editing.by(asker) as edit:
            row, is_new = await tiers.create(edit, body.details())
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/tiers/{body.name}"
        return _shown(row, asker, response)

    @router.patch("/v1/tiers/{name}", responses=problems(409))
    async def change_tier(name: Slug, body: TierDetails, asker: Asker, if_match: IfMatch, response: Response) -> Tier:
        """Change what a tier means. Tenants that are on it keep what it meant when they were put on it."""
        async with editing.by(asker) as edit:
            row = await tiers.change(edit, name, body.details(), if_match=if_match)
        return _shown(row, asker, response)

    @router.post("/v1/tiers/{name}/retire", responses=problems(409))
    async def retire_tier(name: Slug, asker: Asker, response: Response) -> Tier:
        """Let a tier not be taken any more. Tenants that are on it stay on it; the default tier cannot be retired."""
        async with editing.by(asker) as edit:
            row = await tiers.retire(edit, name)
        return _shown(row, asker, response)

    @router.post("/v1/tiers/{name}/reinstate")
    async def reinstate_tier(name: Slug, asker: Asker, response: Response) -> Tier:
        """Let a retired tier be taken again."""
        async with editing.by(asker) as edit:
            row = await tiers.reinstate(edit, name)
        return _shown(row, asker, response)

    return router


def _shown(row: asyncpg.Record, asker: Principal, response: Response) -> Tier:
    response.headers["ETag"] = etag(row["edition"])
    return Tier.of(row, asker)
