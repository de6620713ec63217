"""How the business goes, over HTTP."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.metrics import queries
from shared.access import Role
from shared.clock import Clock
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Instant

_OPERATORS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT)
_SYSTEM_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN)

_CONNECTION_SECONDS = 5.0

Since = Annotated[Instant | None, Query(alias="from", description="Only what begins then or later.")]
Until = Annotated[Instant | None, Query(alias="to", description="Only what begins before then.")]
Money = Annotated[str, Field(description="A decimal in the digits of the currency.")]
Percent = Annotated[str | None, Field(description="A decimal with two digits; null where there was nothing.")]


class TenantCount(Resource):
    """How many tenants are in a state and on a tier."""

    state: Literal["registered", "active", "suspended", "offboarding", "archived"]
    tier: str | None = Field(description="Null where it has not been told.")
    count: int

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.business.tenants`."""
        return cls(state=row["state"], tier=row["tier"] or None, count=row["tenants"])


class MonthOfTenants(Resource):
    """How many tenants came and left in a month."""

    month: str = Field(description="As in `2026-03`, of UTC.")
    at_start: int = Field(description="Tenants that were active once and not archived yet.")
    joined: int = Field(description="First activated in the month.")
    left: int = Field(description="Archived in the month.")
    at_end: int
    churn_percent: Percent = Field(description="`left` of `atStart`.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.business.churn`."""
        return cls(
            month=f"{row['month']:%Y-%m}",
            at_start=row["at_start"],
            joined=row["came"],
            left=row["gone"],
            at_end=row["at_end"],
            churn_percent=percent(Decimal(row["gone"]), Decimal(row["at_start"])),
        )


class StepTroubles(Resource):
    """How often a step of these workflows failed for good and was tried again, its undo included."""

    step: str
    failures: int
    retries: int


class Duration(Resource):
    """How long the completed ones took, from their acceptance on, in seconds: three that did (nearest rank)."""

    p50: float
    p95: float
    max: float


class Workflows(Resource):
    """What became of the workflows of one kind that were accepted in a while."""

    since: datetime = Field(alias="from", description="When the day or the month begins, in UTC.")
    kind: str
    accepted: int
    completed: int
    undone: int
    abandoned: int
    under_way: int
    duration: Duration | None = Field(description="Null where none is completed.")
    steps: list[StepTroubles] = Field(description="Those that had trouble.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.business.runs`."""
        completed, undone, abandoned = row["completed"], row["undone"], row["abandoned"]
        return cls(
            since=row["since"],
            kind=row["kind"],
            accepted=row["accepted"],
            completed=completed,
            undone=undone,
            abandoned=abandoned,
            under_way=row["accepted"] - completed - undone - abandoned,
            duration=_duration(row) if completed else None,
            steps=[StepTroubles(**each) for each in row["steps"]],
        )


def _duration(row: asyncpg.Record) -> Duration:
    p50, p95 = (each.total_seconds() for each in row["percentiles"])
    return Duration(p50=p50, p95=p95, max=row["longest"].total_seconds())


class Revenue(Resource):
    """What became of recurring revenue a month, in a month and a currency.

    `start` + `new` + `expansion` + `reactivation` - `contraction` - `churn` is `end`. What counts of a tenant is what
    it is charged at the end of the month against what it was at the beginning.
    """

    month: str = Field(description="As in `2026-03`, of UTC.")
    currency: str = Field(description="ISO 4217.")
    start: Money
    new: Annotated[Money, Field(description="Of tenants that were never charged before.")]
    expansion: Annotated[Money, Field(description="Of tenants that are charged more than at the start.")]
    reactivation: Annotated[Money, Field(description="Of tenants that were charged before, but not at the start.")]
    contraction: Annotated[Money, Field(description="Of tenants that are charged less, but something.")]
    churn: Annotated[Money, Field(description="Of tenants that are not charged any more.")]
    end: Money
    net_retention_percent: Percent = Field(
        description="NRR: what the tenants of the start are charged at the end, of `start`."
    )
    gross_retention_percent: Percent = Field(description="GRR: the same without `expansion`.")
    tenants_at_start: int = Field(description="That are charged something.")
    tenants_left: int = Field(description="Of them those that are not any more.")
    logo_churn_percent: Percent = Field(description="`tenantsLeft` of `tenantsAtStart`.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.business.revenue`."""
        kept = row["starts"] - row["contraction"] - row["churn"]
        names = ("new", "expansion", "reactivation", "contraction", "churn")
        return cls(
            month=f"{row['month']:%Y-%m}",
            currency=row["currency"],
            start=_money(row["starts"], row["digits"]),
            end=_money(row["ends"], row["digits"]),
            net_retention_percent=percent(kept + row["expansion"], row["starts"]),
            gross_retention_percent=percent(kept, row["starts"]),
            tenants_at_start=row["at_start"],
            tenants_left=row["gone"],
            logo_churn_percent=percent(Decimal(row["gone"]), Decimal(row["at_start"])),
            **{name: _money(row[name], row["digits"]) for name in names},
        )


def _money(amount: Decimal, digits: int) -> str:
    return f"{amount:.{digits}f}"


def percent(part: Decimal, whole: Decimal) -> str | None:
    """Return how much a part is of a whole, in percent with two digits, rounded half up; None of nothing."""
    if not whole:
        return None
    hundredths = floor(Fraction(part) / Fraction(whole) * 10_000 + Fraction(1, 2))
    return f"{Decimal(hundredths).scaleb(-2):.2f}"


def routes(pool: Pool, *, clock: Clock) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["business"])
    router.include_router(_tenant_routes(pool, clock))
    router.include_router(_workflow_routes(pool))
    router.include_router(_revenue_routes(pool, clock))
    return router


def _tenant_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/business/tenants", dependencies=[_OPERATORS])
    async def count_tenants(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[TenantCount]:
        """List how many tenants there are now, by state and tier; where there are none there is no item."""
        after = decode_cursor(cursor, str, str)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.business.tenants(
                connection, after=(after[0], after[1]) if after else None, limit=limit + 1
            )
        return page(rows, limit=limit, item=TenantCount.of, key=lambda row: (row["state"], row["tier"]))

    @router.get("/v1/business/churn", dependencies=[_OPERATORS])
    async def list_churn(
        since: Since = None, until: Until = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
    ) -> Page[MonthOfTenants]:
        """List by month how many tenants came and left, up to now."""
        after = decode_cursor(cursor, datetime)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.business.churn(
                connection,
                since=since,
                until=_up_to_now(until, clock),
                after=after[0].date() if after else None,
                limit=limit + 1,
            )
        return page(rows, limit=limit, item=MonthOfTenants.of, key=lambda row: (_beginning(row["month"]),))

    return router


def _workflow_routes(pool: Pool) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/business/onboardings", dependencies=[_OPERATORS])
    async def list_workflows(
        since: Since = None,
        until: Until = None,
        window: Annotated[Literal["day", "month"], Query(description="What is counted together, of UTC.")] = "day",
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Workflows]:
        """List what became of the workflows that were accepted in each while, by kind, `onboard` and the others.

        Where none was accepted there is no item.
        """
        after = decode_cursor(cursor, datetime, str)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.business.runs(
                connection,
                window=window,
                since=since,
                until=until,
                after=(after[0], after[1]) if after else None,
                limit=limit + 1,
            )
        return page(rows, limit=limit, item=Workflows.of, key=lambda row: (row["since"], row["kind"]))

    return router


def _revenue_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/business/revenue", dependencies=[_SYSTEM_ADMINISTRATORS])
    async def list_revenue(
        since: Since = None, until: Until = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
    ) -> Page[Revenue]:
        """List what became of recurring revenue by month and currency, from the first that was charged up to now."""
        after = decode_cursor(cursor, datetime, str)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.business.revenue(
                connection,
                since=since,
                until=_up_to_now(until, clock),
                after=(after[0].date(), after[1]) if after else None,
                limit=limit + 1,
            )
        return page(rows, limit=limit, item=Revenue.of, key=lambda row: (_beginning(row["month"]), row["currency"]))

    return router


def _up_to_now(until: datetime | None, clock: Clock) -> datetime:
    """Return the end of a list of months, of which the one that has begun is the last."""
    now = clock.now() + timedelta.resolution
    return now if until is None else min(until, now)


def _beginning(month: date) -> datetime:
    return datetime.combine(month, time(), UTC)
