"""What can be bought: everybody who administers something reads it, system administrators publish it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.billing import publishing, queries
from services.billing.api.support import READERS
from services.billing.api.terms import NewPlan, NewPlanVersion
from services.billing.publishing import Publishing
from shared.access import Role
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    Resource,
    decode_cursor,
    page,
    permit,
    problems,
)
from shared.postgres import Connection, Pool
from shared.text import Slug

_EDITORS = permit(Role.SYSTEM_ADMIN)

Interval = Literal["month"]
Payment = Literal["arrears", "advance"]
Granularity = Literal["day", "second"]


class Price(Resource):
    """What a plan costs in one currency."""

    currency: str
    amount: Decimal


class ChargeTier(Resource):
    """What is above the bound of the tier before it, up to and including its own."""

    up_to: str | None = Field(description="The bound; null in the last tier.")
    unit_amount: str = Field(description="For each unit.")
    flat_amount: str = Field(default="0", description="Charged once, when something is in the tier.")


class ChargePackage(Resource):
    """What is sold in whole packages only."""

    size: str = Field(description="Units in a package.")
    amount: str = Field(description="For each package, one that is begun included.")
    free: str = Field(default="0", description="Units that cost nothing.")


class ChargePrice(Resource):
    """A price model as `/v1/price-preview` takes it; numbers are decimal strings."""

    model: str
    flat_amount: str | None = None
    unit_amount: str | None = None
    tiers: list[ChargeTier] | None = None
    package: ChargePackage | None = None
    flat_on_zero: bool = False


class PlanCharge(Resource):
    """What the usage of a meter in a month costs in one currency, after the month."""

    meter: str
    currency: str
    price: ChargePrice = Field(description="Of what exceeds `included`.")
    included: str = Field(description="Units that cost nothing, as a decimal number.")
    minimum: str | None = Field(description="What a whole month costs at least, as a decimal number.")

    @classmethod
    def of(cls, charge: Mapping[str, Any]) -> Self:
        """Make it from a charge of a row of `queries.catalog.versions`."""
        return cls(
            meter=charge["meter"],
            currency=charge["currency"],
            price=ChargePrice.model_validate(charge["price"]),
            included=charge["included"],
            minimum=charge["minimum"],
        )


class PlanTerms(Resource):
    """What a version of a plan says."""

    version: int = Field(description="From 1.")
    starts_at: datetime | None = Field(
        description="Whoever takes the plan from then on is charged by it; null where that was always so."
    )
    pays_in: Payment = Field(description="When the base fee is charged: after the month, or as soon as it begins.")
    trial_days: int = Field(description="So many days since the first one cost no base fee.")
    proration: Granularity = Field(description="How a part of a month is measured.")
    prices: list[Price] = Field(description="The base fee of a month, in every currency that the plan is sold in.")
    charges: list[PlanCharge] = Field(description="What usage costs, after the month.")


class PlanVersion(PlanTerms):
    """A version of a plan. It never changes."""

    reaches_existing_at: datetime | None = Field(
        description="Whoever has an earlier version is charged by this one from then on; null for never."
    )

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.catalog.versions`."""
        return cls(**_terms(dict(row)), reaches_existing_at=row["reaches_at"])


class Plan(PlanTerms):
    """A plan as it can be taken now, by its version in force; one that has not started shows its first version.

    Currency and amount are those of who names no currency.
    """

    name: str
    rank: int = Field(description="From the cheapest plan to the dearest.")
    interval: Interval = Field(description="What an amount pays for.")
    currency: str
    amount: Decimal

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.catalog.plans`."""
        return cls(**_sold(dict(row)))


class PlanDetails(Plan):
    """A plan with all its versions."""

    versions: list[PlanVersion] = Field(description="From the first to the last, those that are yet to start included.")


def routes(pool: Pool, publishing_: Publishing, clock: Clock) -> APIRouter:
    """Return the routes about plans."""
    router = APIRouter()
    router.include_router(_reading_routes(pool, clock))
    router.include_router(_publishing_routes(publishing_))
    return router


def _reading_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[READERS])

    @router.get("/v1/plans")
    async def list_plans(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Plan]:
        """List plans from the cheapest to the dearest."""
        (after,) = decode_cursor(cursor, int) or (0,)
        async with pool.acquire() as connection:
            rows = await queries.catalog.plans(connection, after=after, limit=limit + 1, now=clock.now())
        return page(rows, limit=limit, item=Plan.of, key=lambda row: (row["rank"],))

    @router.get("/v1/plans/{name}")
    async def get_plan(name: Slug) -> PlanDetails:
        """Return one plan with all its versions."""
        async with pool.acquire() as connection:
            return await _details(connection, name, now=clock.now())

    return router


def _publishing_routes(publishing_: Publishing) -> APIRouter:
    router = APIRouter(dependencies=[_EDITORS])

    @router.post("/v1/plans", status_code=201, responses={200: {"model": PlanDetails}, **problems(409)})
    async def create_plan(body: NewPlan, asker: Asker, response: Response) -> PlanDetails:
        """Add a plan with its first version to the catalog. Asking again for the very same changes nothing (200)."""
        body.check()
        async with publishing_.by(asker) as edit:
            is_new = await publishing.create(edit, body.plan(), body.content())
            details = await _details(edit.connection, body.name, now=edit.now)
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/plans/{body.name}"
        return details

    @router.post("/v1/plans/{name}/versions", status_code=201, responses={200: {"model": PlanVersion}, **problems(409)})
    async def publish_version(name: Slug, body: NewPlanVersion, asker: Asker, response: Response) -> PlanVersion:
        """Add a version of a plan. Asking again for what the last one says changes nothing (200).

        Whoever takes the plan since it `startsAt` is charged by it. Whoever has the plan already keeps its version and
        its amount, unless there is a day on which this one `reachesExistingAt`.
        """
        body.check()
        async with publishing_.by(asker) as edit:
            row, is_new = await publishing.publish(edit, name, body.content())
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/plans/{name}"
        return PlanVersion.of(row)

    return router


async def _details(connection: Connection, name: str, *, now: datetime) -> PlanDetails:
    plan = await queries.catalog.plan(connection, name)
    if plan is None:
        raise publishing.unknown_plan(name)
    versions = await queries.catalog.versions(connection, [name])
    started = [each for each in versions if each["starts_at"] is None or each["starts_at"] <= now]
    shown = (started or versions[:1])[-1]
    return PlanDetails(**_sold({**plan, **shown}), versions=[PlanVersion.of(each) for each in versions])


def _sold(row: Mapping[str, Any]) -> dict[str, Any]:
    terms = _terms(row)
    amounts = {each.currency: each.amount for each in terms["prices"]}
    plan = {field: row[field] for field in ("name", "rank", "interval", "currency")}
    return {**plan, "amount": amounts[row["currency"]], **terms}


def _terms(row: Mapping[str, Any]) -> dict[str, Any]:
    prices = zip(row["currencies"], row["amounts"], strict=True)
    return {
        "version": row["version"],
        "starts_at": row["starts_at"],
        "pays_in": row["pays"],
        "trial_days": row["trial_days"],
        "proration": row["proration"],
        "prices": [Price(currency=currency, amount=amount) for currency, amount in prices],
        "charges": [PlanCharge.of(each) for each in row["charges"]],
    }
