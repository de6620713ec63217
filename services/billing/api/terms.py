"""What is to be published: plans and their versions, checked field by field."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from services.billing.api.fields import Moment, Number
from services.billing.api.price_models import PriceModel, refuse
from services.billing.money import currency_of, plain, rounded
from shared.http import FieldError, RequestBody
from shared.text import Currency, Slug

_MOST_CHARGES = 200
_LONGEST_TRIAL = 365

_Rank = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
_Days = Annotated[int, Field(strict=True, ge=0, le=_LONGEST_TRIAL)]


class NewCharge(RequestBody):
    """What the usage of a meter in a month is to cost in one currency, after the month."""

    meter: Slug = Field(description="Of metrics' catalog; what it does not meter costs nothing.")
    currency: Currency
    price: PriceModel = Field(description="Of what exceeds `included`.")
    included: Number = Field(default=Decimal(), description="Units that cost nothing.")
    minimum: Number | None = Field(
        default=None, description="What a whole month costs at least; of a part of it the part."
    )

    def written(self) -> dict[str, Any]:
        """Return it as it is kept."""
        return {
            "meter": self.meter,
            "currency": self.currency,
            "price": self.price.written(),
            "included": plain(self.included),
            "minimum": None if self.minimum is None else plain(self.minimum),
        }


class NewTerms(RequestBody):
    """What a version of a plan is to say."""

    prices: Annotated[dict[Currency, Number], Field(min_length=1)] = Field(
        description="The base fee of a month, in every currency that the plan is to be sold in."
    )
    pays_in: Literal["arrears", "advance"] = Field(
        default="arrears", description="When the base fee is charged: after the month, or as soon as it begins."
    )
    trial_days: _Days = Field(default=0, description="So many days since the first one cost no base fee.")
    proration: Literal["day", "second"] = Field(
        default="day",
        description="How a part of a month is measured: in days of the calendar, or in the time that really passes.",
    )
    charges: Annotated[list[NewCharge], Field(max_length=_MOST_CHARGES)] = Field(
        default_factory=list,
        description="What usage costs. In a currency without a charge of a meter its usage costs nothing.",
    )
    starts_at: Moment | None = Field(
        default=None, description="Whoever takes the plan from then on is charged by it; null for now."
    )

    def check(self) -> None:
        """Check what no single field can tell.

        Raises:
            Problem: 422, naming every field that does not fit the others.
        """
        refuse(self.misfits())

    def misfits(self) -> Iterator[FieldError]:
        """Say of every field what does not fit the others."""
        for code, amount in self.prices.items():
            digits = currency_of(code).digits
            if amount != rounded(amount, digits):
                yield FieldError(
                    f"/prices/{code}", f"`prices/{code}` must have at most {digits} digits behind the point."
                )
        charged = set()
        for place, charge in enumerate(self.charges):
            at = f"/charges/{place}"
            if charge.currency not in self.prices:
                yield FieldError(f"{at}/currency", f"`{at[1:]}/currency` must be a currency of `prices`.")
            if (charge.meter, charge.currency) in charged:
                yield FieldError(f"{at}/meter", f"`{at[1:]}/meter` is charged in {charge.currency} already.")
            charged.add((charge.meter, charge.currency))
            yield from charge.price.misfits(f"{at}/price")

    def content(self) -> dict[str, Any]:
        """Return it as `services.billing.publishing` takes it."""
        charges = [charge.written() for charge in self.charges]
        return {
            "pays": self.pays_in,
            "trial_days": self.trial_days,
            "proration": self.proration,
            "starts_at": self.starts_at,
            "reaches_at": None,
            "prices": dict(sorted(self.prices.items())),
            "charges": sorted(charges, key=lambda charge: (charge["meter"], charge["currency"])),
        }


class NewPlan(NewTerms):
    """A plan that is to be, with its first version."""

    name: Slug
    rank: _Rank = Field(description="From the cheapest plan to the dearest; no two have the same.")
    interval: Literal["month"] = Field(default="month", description="What an amount pays for.")
    currency: Currency = Field(description="One of `prices`, for whoever names none.")

    def misfits(self) -> Iterator[FieldError]:
        """Say of every field what does not fit the others."""
        if self.currency not in self.prices:
            yield FieldError("/currency", "`currency` must be a currency of `prices`.")
        yield from super().misfits()

    def plan(self) -> dict[str, Any]:
        """Return what is the plan's, and not the version's."""
        return {"name": self.name, "rank": self.rank, "interval": self.interval, "currency": self.currency}


class NewPlanVersion(NewTerms):
    """A version of a plan that is to be."""

    reaches_existing_at: Moment | None = Field(
        default=None,
        description="Whoever has an earlier version is charged by this one from then on, not before it starts; null "
        "for never: they keep what they have.",
    )

    def content(self) -> dict[str, Any]:
        """Return it as `services.billing.publishing` takes it."""
        return super().content() | {"reaches_at": self.reaches_existing_at}
