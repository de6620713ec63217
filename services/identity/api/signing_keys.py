"""Signing keys over HTTP: seen, and replaced out of turn, by a system administrator."""

from datetime import datetime
from typing import Literal, Self

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.identity.queries import signing_keys as queries
from services.identity.signing import SigningKeys
from shared.access import Role
from shared.clock import Clock
from shared.http import Asker, Resource, permit
from shared.postgres import Pool


class SigningKey(Resource):
    """A key that access tokens are signed with."""

    key_id: str
    state: Literal["next", "active", "retired"]
    active_at: datetime
    retired_at: datetime
    expires_at: datetime = Field(description="When nothing that it has signed is good any more.")

    @classmethod
    def of(cls, row: asyncpg.Record, *, now: datetime) -> Self:
        """Make it from a row of `queries.all_keys`, as it is ``now``."""
        state: Literal["next", "active", "retired"] = (
            "next" if now < row["active_at"] else "active" if now < row["retired_at"] else "retired"
        )
        return cls(state=state, **row)


class SigningKeyList(Resource):
    """Every key there is; they are few."""

    items: list[SigningKey]


def routes(pool: Pool, *, signing: SigningKeys, clock: Clock) -> APIRouter:
    """Return the routes about signing keys."""
    router = APIRouter(tags=["sign-in"], dependencies=[permit(Role.SYSTEM_ADMIN)])

    async def listed() -> SigningKeyList:
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.all_keys(connection)
        return SigningKeyList(items=[SigningKey.of(row, now=clock.now()) for row in rows])

    @router.get("/v1/signing-keys")
    async def list_signing_keys() -> SigningKeyList:
        """List the keys that tokens are signed with, the newest first."""
        return await listed()

    @router.post("/v1/signing-keys/rotate")
    async def rotate_signing_keys(asker: Asker) -> SigningKeyList:
        """Replace the key that signs, half a minute from now, when every service knows its successor.

        Keys are replaced in time without this: it is for one that may have leaked. Tokens that the old one has signed
        stay good until they expire.
        """
        await signing.rotate(by=asker)
        return await listed()

    return router
