"""What bodies are made of, cleaned once at the edge: numbers, days and moments."""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from shared.text import CalendarDate, Instant

_NUMBER = r"^[0-9]{1,15}(\.[0-9]{1,12})?$"
_PLAIN = re.compile(_NUMBER)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_EARLIEST, _LATEST = 1900, 2999


def _plain_number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise PydanticCustomError(
            "plain_number",
            'must be a number of at most 15 digits before the point and 12 behind it, as text without a sign: "10.50"',
        )
    return Decimal(value)


def _written_uuid(value: Any) -> Any:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid", "must be a UUID like 018f0000-0000-7000-8000-000000000000")
    return UUID(value)


def _within_centuries(value: date) -> date:
    """Refuse years in which a day may begin outside of the calendar, in one time zone or another."""
    if not _EARLIEST <= value.year <= _LATEST:
        raise PydanticCustomError(
            "year", "must be in the years {earliest} to {latest}", {"earliest": _EARLIEST, "latest": _LATEST}
        )
    return value


def _is_written_as(value: Any) -> str:
    return "moment" if isinstance(value, str) and "t" in value.lower() else "day"


Number = Annotated[Decimal, BeforeValidator(_plain_number), WithJsonSchema({"type": "string", "pattern": _NUMBER})]
"""An exact number, not below 0, written plainly: no sign, no exponent, no digits but ASCII's."""

PositiveNumber = Annotated[Number, Field(gt=0)]
"""The same, above 0."""

Identity = Annotated[UUID, BeforeValidator(_written_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
"""The identity of something, in the one form of RFC 9562."""

Moment = Annotated[Instant, AfterValidator(_within_centuries)]
"""A moment with an offset, given back in UTC, in a year in which every time zone has a calendar."""

DayOrMoment = Annotated[
    Annotated[CalendarDate, AfterValidator(_within_centuries), Tag("day")]
    | Annotated[Instant, AfterValidator(_within_centuries), Tag("moment")],
    Discriminator(_is_written_as),
]
"""A day, or a moment in UTC: RFC 3339 ``full-date`` or ``date-time``."""
