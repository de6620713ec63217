"""What can be bought."""

from decimal import Decimal
from typing import Literal, Self

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.billing import queries
from services.billing.api.support import READERS
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, decode_cursor, page
from shared.postgres import Pool

Interval = Literal["month"]


class Price(Resource):
    """What a plan costs in one currency."""

    currency: str
    amount: Decimal


class Plan(Resource):
    """A plan of the catalog; currency and amount are those of who names no currency."""

    name: str
    rank: int = Field(description="From the cheapest plan to the dearest.")
    interval: Interval = Field(description="What an amount pays for.")
    currency: str
    amount: Decimal
    prices: list[Price] = Field(description="Every currency that the plan is sold in.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.catalog.plans`."""
        amounts: dict[str, Decimal] = dict(zip(row["currencies"], row["amounts"], strict=True))
        return cls(
            name=row["name"],
            rank=row["rank"],
            interval=row["interval"],
            currency=row["currency"],
            amount=amounts[row["currency"]],
            prices=[Price(currency=currency, amount=amount) for currency, amount in amounts.items()],
        )


def routes(pool: Pool) -> APIRouter:
    """Return the route that lists plans."""
    router = APIRouter()

    @router.get("/v1/plans", dependencies=[READERS])
    async def list_plans(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Plan]:
        """List plans from the cheapest to the dearest."""
        (after,) = decode_cursor(cursor, int) or (0,)
        async with pool.acquire() as connection:
            rows = await queries.catalog.plans(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Plan.of, key=lambda row: (row["rank"],))

    return router
