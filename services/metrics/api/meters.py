"""The catalog of meters over HTTP."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from services.metrics import defining, queries
from services.metrics.api.enforcement import Enforcement
from services.metrics.deciding import Deciding
from services.metrics.meter import Aggregation
from services.metrics.paths import LONGEST, parse_path
from services.metrics.recording.event import LONGEST_TEXT
from shared.access import Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    FieldError,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Flag, Text

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_EDITORS = permit(Role.SYSTEM_ADMIN)

_MOST_DIMENSIONS = 5
_SIGNED = {Aggregation.SUM, Aggregation.MAX, Aggregation.LATEST}


def _path(text: str) -> str:
    parse_path(text)
    return text


MeterName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""The name of a meter."""

DimensionName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""The name of what a meter tells its usage apart by."""

_DataPath = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=LONGEST), AfterValidator(_path)]
_AGGREGATION = (
    "What an hour, a day or a month of events makes: how many there are (`count`), the sum of their values, the "
    "greatest, how many different ones (`unique`), or that of the latest."
)
_VALUE_PATH = "Where in an event's data the value is, as JSONPath (RFC 9535); null for `count`, which takes none."
_DIMENSIONS = "By what the usage is told apart as well: a name of each, and where in an event's data its value is."


class Meter(Resource):
    """Something that can be metered."""

    name: str
    unit: str = Field(description="What one of it is.")
    enforcement: Enforcement
    event_type: str | None = Field(description="Of the usage events that it takes; null if Tenure itself feeds it.")
    aggregation: Aggregation = Field(description=_AGGREGATION)
    value_path: str | None = Field(description=_VALUE_PATH)
    dimensions: dict[str, str] = Field(description=_DIMENSIONS)
    allows_negative: bool = Field(description="Whether it takes values below zero.")
    created_at: datetime | None = Field(description="Null of those that came with Tenure.")
    retired_at: datetime | None = Field(description="Takes no events from then on.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.meters.page`."""
        return cls(**row)


class NewMeter(RequestBody):
    """A meter that is to be. It never changes: another meaning is another meter."""

    name: MeterName
    unit: Annotated[Text, Field(max_length=64)] = Field(description="What one of it is.")
    enforcement: Enforcement = "soft"
    event_type: Annotated[Text, Field(max_length=LONGEST_TEXT)] = Field(
        description="Of the usage events that it takes. More than one meter can take the same."
    )
    aggregation: Aggregation = Field(description=_AGGREGATION)
    value_path: _DataPath | None = Field(default=None, description=_VALUE_PATH, examples=["$.tokens.input"])
    dimensions: dict[DimensionName, _DataPath] = Field(
        default_factory=dict, max_length=_MOST_DIMENSIONS, description=_DIMENSIONS, examples=[{"model": "$.model"}]
    )
    allows_negative: Flag = Field(default=False, description="Whether it takes values below zero.")

    @field_validator("allows_negative")
    @classmethod
    def _has_a_sign(cls, allows_negative: Flag, info: ValidationInfo) -> Flag:
        if allows_negative and info.data.get("aggregation", Aggregation.SUM) not in _SIGNED:
            raise ValueError("must be false: values of this meter have no sign")
        return allows_negative

    def details(self) -> Mapping[str, Any]:
        """Return all of it, by the names of the columns.

        Raises:
            Problem: 422, it has a value and counts, or neither.
        """
        if (self.value_path is None) != (self.aggregation is Aggregation.COUNT):
            if self.value_path is None:
                detail = f"`valuePath` is required: {self.aggregation} is of values."
            else:
                detail = "`valuePath` must be left out: a meter that counts takes no value."
            raise Problem(422, code="validation_failed", detail=detail, errors=[FieldError("/valuePath", detail)])
        return self.model_dump(mode="json", by_alias=False)


def routes(pool: Pool, deciding: Deciding) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["meters"])
    router.include_router(_reading_routes(pool))
    router.include_router(_editing_routes(deciding))
    return router


def _reading_routes(pool: Pool) -> APIRouter:
    router = APIRouter(dependencies=[_READERS])

    @router.get("/v1/meters")
    async def list_meters(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Meter]:
        """List what can be metered, by name, retired meters included."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.meters.page(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Meter.of, key=lambda row: (row["name"],))

    @router.get("/v1/meters/{name}")
    async def get_meter(name: MeterName) -> Meter:
        """Return one meter."""
        async with pool.acquire() as connection:
            return Meter.of(await defining.known(connection, name))

    return router


def _editing_routes(deciding: Deciding) -> APIRouter:
    router = APIRouter(dependencies=[_EDITORS])

    @router.post("/v1/meters", status_code=201, responses={200: {"model": Meter}, **problems(409)})
    async def define_meter(body: NewMeter, asker: Asker, response: Response) -> Meter:
        """Add a meter to the catalog. Asking again for the very same changes nothing (200)."""
        details = body.details()
        async with deciding.by(asker) as act:
            row, is_new = await defining.define(act, details)
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/meters/{body.name}"
        return Meter.of(row)

    @router.post("/v1/meters/{name}/retire")
    async def retire_meter(name: MeterName, asker: Asker) -> Meter:
        """Let a meter take no more events, for good. What it has metered stays, and can be read and corrected."""
        async with deciding.by(asker) as act:
            return Meter.of(await defining.retire(act, name))

    return router
