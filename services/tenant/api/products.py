"""Products and their versions over HTTP: as tiers are read and changed."""

from datetime import datetime
from typing import Annotated, Any, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.tenant.api.parameters import Parameters
from services.tenant.api.placement import Driver, Isolation, Told, told
from services.tenant.catalog import products
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
from shared.text import Paragraph, Slug

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_EDITORS = permit(Role.SYSTEM_ADMIN)

_Plan = Annotated[
    Slug | None,
    Field(
        description="Of billing's plans, for a licence of its own; an onboarding fails where it has no such plan. Null "
        "where the plan of the tier covers it."
    ),
]
_Isolation = Annotated[
    Isolation | None,
    Field(
        description="Of an environment of its own, to which `driver`, `region` and `parameters` apply. Null where it "
        "runs in the tenant's, beside others."
    ),
]
_Region = Annotated[Slug | None, Field(description="Null is the installation's default.")]


class Product(Resource):
    """A product of the catalog, with what it means to the other services, for tenants that take it from now on."""

    name: str
    description: str
    plan: str | None = Field(description="Of its licence. Null where the plan of the tier covers it.")
    isolation: str | None = Field(
        description="Of an environment of its own. Null where it runs in the tenant's, beside others."
    )
    driver: str = Field(description="What makes environments.")
    region: str | None = Field(description="Null is the installation's default.")
    parameters: Told
    versions: list[str] = Field(description="Those that can be taken, in the order of their publication.")
    created_at: datetime
    retired_at: datetime | None = Field(description="Cannot be taken from then on.")

    @classmethod
    def of(cls, row: asyncpg.Record, asker: Principal) -> Self:
        """Make it from a row of `queries.product`, as whoever asks may see it."""
        return cls(**dict(row) | {"parameters": told(row["parameters"], asker)})


class ProductVersion(Resource):
    """A version of a product."""

    version: str
    created_at: datetime
    retired_at: datetime | None = Field(description="Cannot be taken from then on.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.product_versions`."""
        return cls(version=row["version"], created_at=row["created_at"], retired_at=row["retired_at"])


class NewProduct(RequestBody):
    """A product that is to be; it can be taken as soon as it has a version."""

    name: Slug
    description: Paragraph
    plan: _Plan = None
    isolation: _Isolation = None
    driver: Driver = "postgres"
    region: _Region = None
    parameters: Parameters = Field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return all of it, by the names of the columns."""
        return self.model_dump()


class ProductDetails(RequestBody):
    """What a product is to mean from now on, to tenants that take it from now on; what is left out stays."""

    # A factory keeps a field from being required without making null, or a made-up default, part of the schema.
    description: Paragraph = Field(default_factory=str)
    plan: _Plan = None
    isolation: _Isolation = None
    driver: Driver = Field(default_factory=str)
    region: _Region = None
    parameters: Parameters = Field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return what was given, by the names of the columns."""
        return self.model_dump(exclude_unset=True)


class NewVersion(RequestBody):
    """A version of a product that can be taken from now on."""

    version: Slug


def routes(pool: Pool, editing: Editing) -> APIRouter:
    """Return the routes about products."""
    router = APIRouter(tags=["catalog"])
    router.include_router(_reading_routes(pool))
    router.include_router(_editing_routes(editing))
    router.include_router(_version_routes(editing))
    return router


def _reading_routes(pool: Pool) -> APIRouter:
    router = APIRouter(dependencies=[_READERS])

    @router.get("/v1/products")
    async def list_products(asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Product]:
        """List products by name, retired ones included."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.products(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=lambda row: Product.of(row, asker), key=lambda row: (row["name"],))

    @router.get("/v1/products/{name}")
    async def get_product(name: Slug, asker: Asker, response: Response) -> Product:
        """Return one product; its ETag is what a PATCH has to name."""
        async with pool.acquire() as connection:
            row = await products.known(connection, name)
        return _shown(row, asker, response)

    @router.get("/v1/products/{name}/versions")
    async def list_versions(name: Slug, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[ProductVersion]:
        """List the versions of a product in the order of their publication, retired ones included."""
        (after,) = decode_cursor(cursor, int) or (0,)
        async with pool.acquire() as connection:
            await products.known(connection, name)
            rows = await queries.product_versions(connection, name, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=ProductVersion.of, key=lambda row: (row["number"],))

    return router


def _editing_routes(editing: Editing) -> APIRouter:
    router = APIRouter(dependencies=[_EDITORS])

    @router.post("/v1/products", status_code=201, responses={200: {"model": Product}, **problems(409)})
    async def create_product(body: NewProduct, asker: Asker, response: Response) -> Product:
        """Add a product to the catalog. Asking again for the very same changes nothing (200)."""
        async with editing.by(asker) as edit:
            row, is_new = await products.create(edit, body.details())
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/products/{body.name}"
        return _shown(row, asker, response)

    @router.patch("/v1/products/{name}", responses=problems(409))
    async def change_product(
        name: Slug, body: ProductDetails, asker: Asker, if_match: IfMatch, response: Response
    ) -> Product:
        """Change what a product is and means. Tenants that have it keep what it meant when they took it."""
        async with editing.by(asker) as edit:
            row = await products.change(edit, name, body.details(), if_match=if_match)
        return _shown(row, asker, response)

    @router.post("/v1/products/{name}/retire")
    async def retire_product(name: Slug, asker: Asker, response: Response) -> Product:
        """Let no version of a product be taken any more. Tenants that have one keep it."""
        async with editing.by(asker) as edit:
            row = await products.retire(edit, name)
        return _shown(row, asker, response)

    @router.post("/v1/products/{name}/reinstate")
    async def reinstate_product(name: Slug, asker: Asker, response: Response) -> Product:
        """Let those versions of a retired product be taken again that are not retired themselves."""
        async with editing.by(asker) as edit:
            row = await products.reinstate(edit, name)
        return _shown(row, asker, response)

    return router


def _version_routes(editing: Editing) -> APIRouter:
    router = APIRouter(dependencies=[_EDITORS])

    @router.post(
        "/v1/products/{name}/versions", status_code=201, responses={200: {"model": ProductVersion}, **problems(409)}
    )
    async def publish_version(name: Slug, body: NewVersion, asker: Asker, response: Response) -> ProductVersion:
        """Publish a version of a product. Asking again changes nothing (200)."""
        async with editing.by(asker) as edit:
            row, is_new = await products.publish(edit, name, body.version)
        if not is_new:
            response.status_code = 200
        return ProductVersion.of(row)

    @router.post("/v1/products/{name}/versions/{version}/retire")
    async def retire_version(name: Slug, version: Slug, asker: Asker) -> ProductVersion:
        """Let a version of a product not be taken any more. Tenants that have it keep it."""
        async with editing.by(asker) as edit:
            row = await products.retire_version(edit, name, version)
        return ProductVersion.of(row)

    @router.post("/v1/products/{name}/versions/{version}/reinstate")
    async def reinstate_version(name: Slug, version: Slug, asker: Asker) -> ProductVersion:
        """Let a retired version of a product be taken again."""
        async with editing.by(asker) as edit:
            row = await products.reinstate_version(edit, name, version)
        return ProductVersion.of(row)

    return router


def _shown(row: asyncpg.Record, asker: Principal, response: Response) -> Product:
    response.headers["ETag"] = etag(row["edition"])
    return Product.of(row, asker)
