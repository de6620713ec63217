"""Price models in bodies: what a price is told, and what is wrong with that."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from services.billing.api.fields import Number, PositiveNumber
from services.billing.money import plain
from shared.http import FieldError, Problem, RequestBody
from shared.text import Flag

_MOST_TIERS = 100
_NEEDED: Mapping[str, str] = {
    "flat": "flat_amount",
    "per_unit": "unit_amount",
    "graduated": "tiers",
    "volume": "tiers",
    "package": "package",
}
"""What each price model is told, by field."""

Kind = Literal["flat", "per_unit", "graduated", "volume", "package"]


class PriceTier(RequestBody):
    """What is above the bound of the tier before it, up to and including its own."""

    up_to: PositiveNumber | None = Field(
        default=None, description="The bound; null in the last tier, and nowhere else."
    )
    unit_amount: Number = Field(description="For each unit.")
    flat_amount: Number = Field(default=Decimal(), description="Charged once, when something is in the tier.")

    def written(self) -> dict[str, Any]:
        """Return it as `services.billing.price_models` takes it."""
        return {
            "upTo": None if self.up_to is None else plain(self.up_to),
            "unitAmount": plain(self.unit_amount),
            "flatAmount": plain(self.flat_amount),
        }


class PricePackage(RequestBody):
    """What is sold in whole packages only."""

    size: PositiveNumber = Field(description="Units in a package.")
    amount: Number = Field(description="For each package, one that is begun included.")
    free: Number = Field(default=Decimal(), description="Units that cost nothing.")

    def written(self) -> dict[str, Any]:
        """Return it as `services.billing.price_models` takes it."""
        return {"size": plain(self.size), "amount": plain(self.amount), "free": plain(self.free)}


class PriceModel(RequestBody):
    """How a quantity is priced."""

    model: Kind = Field(
        description="`flat`: one amount, whatever the quantity is. `per_unit`: the same for each unit. `graduated`: "
        "each unit at the amount of the tier that it is in. `volume`: all units at the amount of the tier that the "
        "quantity is in. `package`: whole packages."
    )
    flat_amount: Number | None = Field(default=None, description="Of `flat`, and of no other model.")
    unit_amount: Number | None = Field(default=None, description="Of `per_unit`, and of no other model.")
    tiers: Annotated[list[PriceTier], Field(min_length=1, max_length=_MOST_TIERS)] | None = Field(
        default=None, description="Of `graduated` and `volume`, and of no other model. Bounds grow; the last is null."
    )
    package: PricePackage | None = Field(default=None, description="Of `package`, and of no other model.")
    flat_on_zero: Flag = Field(
        default=False, description="Whether a quantity of 0 costs the first tier's flat amount; only with tiers."
    )

    def misfits(self, at: str = "") -> Iterator[FieldError]:
        """Say of every field what does not fit the model.

        Args:
            at: the pointer of what has these fields.
        """
        for field in dict.fromkeys(_NEEDED.values()):
            is_given, pointer = getattr(self, field) is not None, f"{at}/{to_camel(field)}"
            if field == _NEEDED[self.model] and not is_given:
                yield FieldError(pointer, f"`{pointer[1:]}` is required by the model `{self.model}`.")
            if field != _NEEDED[self.model] and is_given:
                yield FieldError(pointer, f"`{pointer[1:]}` is not a field of the model `{self.model}`.")
        if self.flat_on_zero and _NEEDED[self.model] != "tiers":
            pointer = f"{at}/flatOnZero"
            yield FieldError(pointer, f"`{pointer[1:]}` is not a field of the model `{self.model}`.")
        yield from _badly_bounded(self.tiers or (), at)

    def written(self) -> dict[str, Any]:
        """Return what fits, one way to write it, as `services.billing.price_models` takes it."""
        if self.tiers is not None:
            tiers = [each.written() for each in self.tiers]
            return {"model": self.model, "tiers": tiers, "flatOnZero": self.flat_on_zero}
        if self.package is not None:
            return {"model": self.model, "package": self.package.written()}
        if self.unit_amount is not None:
            return {"model": self.model, "unitAmount": plain(self.unit_amount)}
        return {"model": self.model, "flatAmount": plain(self.flat_amount or Decimal())}


def refuse(errors: Iterable[FieldError]) -> None:
    """Refuse a body of which something is wrong.

    Raises:
        Problem: 422, unless there are none.
    """
    found = list(errors)
    if found:
        raise Problem(422, code="validation_failed", detail=found[0].detail, errors=found)


def _badly_bounded(tiers: Sequence[PriceTier], at: str) -> Iterator[FieldError]:
    """Say of every tier what is wrong with its bound: it is not above the one before, or it is missing or too much."""
    floor = Decimal()
    for place, tier in enumerate(tiers):
        pointer, is_last = f"{at}/tiers/{place}/upTo", place == len(tiers) - 1
        if is_last and tier.up_to is not None:
            yield FieldError(pointer, "`upTo` of the last tier must be null.")
        elif not is_last and tier.up_to is None:
            yield FieldError(pointer, "`upTo` must not be null but in the last tier.")
        elif tier.up_to is not None and tier.up_to <= floor:
            yield FieldError(pointer, f"`upTo` must be above {plain(floor)}, the bound of the tier before.")
        floor = tier.up_to or floor
