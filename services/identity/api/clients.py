"""Applications over HTTP: registered by a system administrator, so that people can be sent back to them."""

from datetime import datetime
from typing import Annotated, Any, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.identity.changes import Changes
from services.identity.clients import RedirectUri
from services.identity.queries import clients as queries
from shared.access import Role
from shared.audit import changed
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    permit,
)
from shared.postgres import Pool
from shared.text import Name, Slug


class ClientDetails(RequestBody):
    """What an application is called and where people may be sent back to."""

    name: Name
    redirect_uris: Annotated[list[RedirectUri], Field(min_length=1, max_length=20)]


class Client(Resource):
    """An application that may send people here to sign in."""

    client_id: str
    name: str
    redirect_uris: list[str]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.one`."""
        return cls(
            client_id=row["client_id"],
            name=row["name"],
            redirect_uris=row["redirect_uris"],
            created_at=row["created_at"],
        )


def routes(pool: Pool, *, changes: Changes, clock: Clock) -> APIRouter:
    """Return the routes about applications."""
    router = APIRouter(tags=["applications"], dependencies=[permit(Role.SYSTEM_ADMIN)])

    @router.get("/v1/clients")
    async def list_clients(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Client]:
        """List applications by id."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.page(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Client.of, key=lambda row: (row["client_id"],))

    @router.put("/v1/clients/{client_id}", responses={201: {"model": Client}})
    async def put_client(client_id: Slug, body: ClientDetails, asker: Asker, response: Response) -> Client:
        """Register an application, or change what is registered of it."""
        async with changes.transaction() as change:
            found = await queries.lock(change.connection, client_id)
            row = await queries.put(
                change.connection, client_id, name=body.name, redirect_uris=body.redirect_uris, now=clock.now()
            )
            before, after = changed(_told(found), _told(row))
            if before or after:
                change.decided(
                    asker,
                    "client.changed" if found else "client.registered",
                    f"client:{client_id}",
                    tenant_id=INSTALLATION,
                    before=before if found else None,
                    after=after,
                )
        response.status_code = 201 if row["is_new"] else 200
        return Client.of(row)

    @router.delete("/v1/clients/{client_id}", status_code=204)
    async def delete_client(client_id: Slug, asker: Asker) -> Response:
        """Let an application send nobody here any more; sessions that it has begun last until they expire."""
        async with changes.transaction() as change:
            found = await queries.lock(change.connection, client_id)
            if found is None:
                raise Problem(404, code="unknown_client", detail=f"There is no application {client_id}.")
            await queries.delete(change.connection, client_id)
            subject = f"client:{client_id}"
            change.decided(asker, "client.deleted", subject, tenant_id=INSTALLATION, before=_told(found))
        return Response(status_code=204)

    return router


def _told(row: asyncpg.Record | None) -> dict[str, Any]:
    """Return what the audit trail is told of an application; nothing where there is none."""
    return {} if row is None else {"name": row["name"], "redirectUris": row["redirect_uris"]}
