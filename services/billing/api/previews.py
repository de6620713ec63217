"""What something would cost: the calculator that invoices are made with, for everybody to check them by hand.

Nothing is read and nothing is kept. What is asked for is calculated by `pricing` and `proration`.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Body
from pydantic import Field

from services.billing import pricing, proration
from services.billing.api.fields import DayOrMoment, Number
from services.billing.api.price_models import PriceModel, refuse
from services.billing.money import currency_of, plain
from services.billing.price_models import model_of
from shared.access import Role
from shared.http import FieldError, RequestBody, Resource, permit
from shared.text import Currency, TimeZone

_EVERYBODY = permit(*Role)


class PriceRequest(PriceModel):
    """A quantity, and the model that it is priced by."""

    currency: Currency
    quantity: Number
    minimum: Number | None = Field(default=None, description="What is owed at least, without tax.")
    already_billed: Number | None = Field(
        default=None, description="What was billed for the same period, without tax; the rest is the difference."
    )
    tax_rate: Number | None = Field(default=None, description="In per cent: 15 is 15 %.")

    def priced_by(self) -> pricing.Model:
        """Return the price model.

        Raises:
            Problem: 422, naming every field that does not fit the model.
        """
        refuse(self.misfits())
        return model_of(self.written())


class PriceLine(Resource):
    """One item of a price."""

    description: str = Field(description="What is charged, and how the amount comes about.")
    quantity: str = Field(description="Of what the description says, as a decimal number.")
    amount: Decimal = Field(description="Rounded half up to the digits of the currency.")
    tax: Decimal | None = Field(default=None, description="Likewise; left out where there is no rate.")

    @classmethod
    def of(cls, line: pricing.Line) -> Self:
        """Make it from what the calculator returns."""
        return cls(description=line.description, quantity=plain(line.quantity), amount=line.amount, tax=line.tax)


class PricePreview(Resource):
    """What a quantity costs, and how that comes about."""

    lines: list[PriceLine]
    subtotal: Decimal = Field(description="The sum of the lines.")
    tax: Decimal = Field(description="The sum of the lines' taxes.")
    total: Decimal = Field(description="The sum of both; below zero where more was billed than is owed.")

    @classmethod
    def of(cls, price: pricing.Price) -> Self:
        """Make it from what the calculator returns."""
        lines = [PriceLine.of(line) for line in price.lines]
        return cls(lines=lines, subtotal=price.subtotal, tax=price.tax, total=price.total)


class ProrationRequest(RequestBody):
    """A period, and a moment within it from which on another amount counts."""

    currency: Currency
    period_start: DayOrMoment = Field(description="The first day of the period, or its first moment.")
    period_end: DayOrMoment = Field(description="The first day, or moment, that is not part of the period.")
    change_at: DayOrMoment = Field(description="Within the period. A day counts for what is in force at its end.")
    from_amount: Number = Field(description="What the whole period costs before the change; 0 where nothing was.")
    to_amount: Number = Field(description="What it costs after the change; 0 where nothing follows.")
    mode: Literal["day", "second"] = Field(
        default="day",
        description="`day`: by days of the calendar. `second`: by the time that really passes, to the microsecond.",
    )
    time_zone: TimeZone = Field(
        default="UTC", description="Whose days they are; a day stands for the midnight that it begins with."
    )

    def rest(self) -> proration.Rest:
        """Return what of the period is left at the change.

        Raises:
            Problem: 422, naming every field that does not fit the period.
        """
        zone = ZoneInfo(self.time_zone)
        start, at, end = (_instant(each, zone) for each in (self.period_start, self.change_at, self.period_end))
        change = proration.Change(start, at, end)
        rest = proration.days_left(change, zone) if self.mode == "day" else proration.time_left(change)
        refuse(_out_of_period(change, rest))
        return rest


class ProrationPreview(Resource):
    """What a change within a period comes to."""

    credit: Decimal = Field(description="What is given back: the rest of the period at the old amount.")
    charge: Decimal = Field(description="What is charged: the rest of the period at the new amount.")
    net: Decimal = Field(description="The charge without the credit; below zero where more is given back.")

    @classmethod
    def of(cls, change: proration.Proration) -> Self:
        """Make it from what the calculator returns."""
        return cls(credit=change.credit, charge=change.charge, net=change.net)


PRICE_EXAMPLES: Mapping[str, Any] = {
    "graduated": {
        "summary": "Ten units at 10 and one at 5, with an amount for each tier: 110.00",
        "value": {
            "currency": "USD",
            "model": "graduated",
            "tiers": [
                {"upTo": "10", "unitAmount": "10", "flatAmount": "2"},
                {"upTo": None, "unitAmount": "5", "flatAmount": "3"},
            ],
            "quantity": "11",
        },
    },
    "volume": {
        "summary": "Sixteen units at 5 where fifteen at 10 were billed: -70.00",
        "value": {
            "currency": "USD",
            "model": "volume",
            "tiers": [{"upTo": "15", "unitAmount": "10"}, {"upTo": None, "unitAmount": "5"}],
            "quantity": "16",
            "alreadyBilled": "150",
        },
    },
    "package": {
        "summary": "Twelve packages for 121 units, of which ten are free: 1200.00",
        "value": {
            "currency": "USD",
            "model": "package",
            "package": {"size": "10", "amount": "100", "free": "10"},
            "quantity": "121",
        },
    },
    "per unit": {
        "summary": "Thirty calls at a twentieth of a cent, at least 5, with 19 % of tax: 5.95",
        "value": {
            "currency": "EUR",
            "model": "per_unit",
            "unitAmount": "0.0005",
            "quantity": "30",
            "minimum": "5",
            "taxRate": "19",
        },
    },
    "flat": {
        "summary": "One amount: 49.00",
        "value": {"currency": "USD", "model": "flat", "flatAmount": "49", "quantity": "1"},
    },
}
"""Prices in the OpenAPI document; each summary ends with the total."""

PRORATION_EXAMPLES: Mapping[str, Any] = {
    "by day": {
        "summary": "From 20 to 40 a month on 11 May: 21 of 31 days, 27.10 less 13.55, which is 13.55",
        "value": {
            "currency": "USD",
            "periodStart": "2026-05-01",
            "periodEnd": "2026-06-01",
            "changeAt": "2026-05-11",
            "fromAmount": "20.00",
            "toAmount": "40.00",
        },
    },
    "by second": {
        "summary": "The last six days of a month with an hour more than others: 5.99, by day 6.00",
        "value": {
            "currency": "EUR",
            "periodStart": "2026-10-01",
            "periodEnd": "2026-11-01",
            "changeAt": "2026-10-26",
            "fromAmount": "0",
            "toAmount": "31.00",
            "mode": "second",
            "timeZone": "Europe/Berlin",
        },
    },
}
"""Changes in the OpenAPI document; each summary says the net."""


def routes() -> APIRouter:
    """Return the routes that calculate."""
    router = APIRouter(dependencies=[_EVERYBODY])

    @router.post("/v1/price-preview", response_model_exclude_none=True)
    async def preview_price(
        body: Annotated[PriceRequest, Body(openapi_examples=dict(PRICE_EXAMPLES))],
    ) -> PricePreview:
        """Calculate what a quantity costs.

        Every line is rounded half up to the digits of the currency, and its tax likewise; then they are summed. Lines
        of a `minimum` and of what was `alreadyBilled` follow, in this order, and are taxed like the others.
        """
        return PricePreview.of(
            pricing.price(
                body.priced_by(),
                body.quantity,
                currency_of(body.currency),
                minimum=body.minimum,
                already_billed=body.already_billed,
                tax_rate=body.tax_rate,
            )
        )

    @router.post("/v1/proration-preview")
    async def preview_proration(
        body: Annotated[ProrationRequest, Body(openapi_examples=dict(PRORATION_EXAMPLES))],
    ) -> ProrationPreview:
        """Calculate what a change within a period gives back and charges.

        Each is the amount of the whole period times the part that is left, divided by the length of the period, rounded
        half up to the digits of the currency. The day of a change belongs to what comes after it.
        """
        rest = body.rest()
        return ProrationPreview.of(
            proration.proration(body.from_amount, body.to_amount, rest, currency_of(body.currency))
        )

    return router


def _instant(day_or_moment: date, zone: ZoneInfo) -> datetime:
    if isinstance(day_or_moment, datetime):
        return day_or_moment
    return proration.midnight(day_or_moment, zone)


def _out_of_period(change: proration.Change, rest: proration.Rest) -> Iterator[FieldError]:
    if change.start >= change.end:
        yield FieldError("/periodEnd", "`periodEnd` must be after `periodStart`.")
    elif not rest.whole:
        yield FieldError("/periodEnd", "`periodEnd` must be on a later day than `periodStart`.")
    elif not change.start <= change.at < change.end:
        yield FieldError("/changeAt", "`changeAt` must be within the period, which ends before `periodEnd`.")
