"""What a quantity costs by a price model: pure functions, the same for whoever previews and whoever charges.

The rule, complete:

1. A price model makes lines. Each is calculated exactly and rounded by itself, half up, to the digits of the currency.
2. A tier holds what is above the bound of the tier before it, up to and including its own bound. Its flat amount is
   charged once, when something is in it. Nothing is in any tier at a quantity of 0, unless ``flat_on_zero`` puts it
   into the first. (Lago charges the first flat amount at 0, Stripe and OpenMeter do not.)
3. A minimum adds what the lines lack of it. What was billed for the same period already is taken off after that, so
   that the rest is the difference, which is below zero where less is owed than was billed.
4. Every line is taxed by itself, those of the minimum and of what was billed too. The tax is rounded like an amount.
5. The subtotal is the sum of the rounded lines, the tax that of their rounded taxes, the total that of both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Protocol

from services.billing.money import EXACT, Currency, plain, rounded, written

_ONE = Decimal(1)
_PER_CENT = Decimal(100)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a price.

    Attributes:
        description: what is charged, and how the amount comes about.
        quantity: of what the description says.
        amount: in the digits of the currency.
        tax: likewise; None where no rate was given.
    """

    description: str
    quantity: Decimal
    amount: Decimal
    tax: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a quantity costs.

    Attributes:
        subtotal: without tax.
        total: with tax.
    """

    lines: Sequence[Line]
    subtotal: Decimal
    tax: Decimal
    total: Decimal


class Model(Protocol):
    """A way to make lines of a quantity."""

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:
        """Yield what a quantity, not below 0, costs; in the context `EXACT`."""


@dataclass(frozen=True, slots=True)
class Flat:
    """One amount, whatever the quantity is."""

    amount: Decimal

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:  # noqa: ARG002 - it does not matter
        """Yield one line."""
        yield Line(f"flat, {written(self.amount, currency)}", _ONE, rounded(self.amount, currency.digits))


@dataclass(frozen=True, slots=True)
class PerUnit:
    """The same amount for each unit."""

    unit_amount: Decimal

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:
        """Yield one line, none at a quantity of 0."""
        if quantity:
            yield Line(
                f"{plain(quantity)} at {written(self.unit_amount, currency)} each",
                quantity,
                rounded(quantity * self.unit_amount, currency.digits),
            )


@dataclass(frozen=True, slots=True)
class Tier:
    """What is above the bound of the tier before, or above 0, up to this one's.

    Attributes:
        up_to: the bound, which is part of the tier; None in the last one, which has none.
        unit_amount: for each unit.
        flat_amount: charged once, when something is in the tier.
    """

    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal = Decimal()

    def holds(self, quantity: Decimal) -> bool:
        """Tell whether a quantity does not go beyond the tier."""
        return self.up_to is None or quantity <= self.up_to

    def line(self, floor: Decimal, units: Decimal, currency: Currency) -> Line:
        """Return the line of so many units in the tier that begins above ``floor``."""
        each = f"{plain(units)} at {written(self.unit_amount, currency)} each"
        flat = f" and {written(self.flat_amount, currency)} for the tier" if self.flat_amount else ""
        amount = rounded(units * self.unit_amount + self.flat_amount, currency.digits)
        return Line(f"{self._range(floor)}: {each}{flat}", units, amount)

    def _range(self, floor: Decimal) -> str:
        if self.up_to is None:
            return f"above {plain(floor)}"
        return f"above {plain(floor)} up to {plain(self.up_to)}" if floor else f"up to {plain(self.up_to)}"


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each unit at the amount of the tier that it is in.

    Attributes:
        tiers: bounds grow; the last has none.
        flat_on_zero: whether a quantity of 0 costs the first tier's flat amount.
    """

    tiers: Sequence[Tier]
    flat_on_zero: bool = False

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:
        """Yield one line for each tier that something is in."""
        for floor, tier in _from_floors(self.tiers):
            if quantity > floor or (self.flat_on_zero and not floor):
                top = quantity if tier.up_to is None else min(quantity, tier.up_to)
                yield tier.line(floor, top - floor, currency)


@dataclass(frozen=True, slots=True)
class Volume:
    """All units at the amount of the tier that the quantity is in; so more can cost less.

    Attributes:
        tiers: as in `Graduated`.
        flat_on_zero: likewise.
    """

    tiers: Sequence[Tier]
    flat_on_zero: bool = False

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:
        """Yield one line, none at a quantity of 0 unless that is charged."""
        if quantity or self.flat_on_zero:
            floor, tier = next(each for each in _from_floors(self.tiers) if each[1].holds(quantity))
            yield tier.line(floor, quantity, currency)


@dataclass(frozen=True, slots=True)
class Packages:
    """Whole packages, of which one that is begun is paid.

    Attributes:
        size: units in a package, more than 0.
        amount: for each package.
        free: units that cost nothing.
    """

    size: Decimal
    amount: Decimal
    free: Decimal = Decimal()

    def lines(self, quantity: Decimal, currency: Currency) -> Iterator[Line]:
        """Yield one line, whose quantity is in packages; none at a quantity of 0."""
        if quantity:
            full, begun = divmod(max(quantity - self.free, Decimal()), self.size)
            packages = full + (1 if begun else 0)
            free = f", the first {plain(self.free)} free" if self.free else ""
            price = written(self.amount, currency)
            yield Line(
                f"{plain(quantity)} in packages of {plain(self.size)} at {price} each{free}",
                packages,
                rounded(packages * self.amount, currency.digits),
            )


def price(
    model: Model,
    quantity: Decimal,
    currency: Currency,
    *,
    minimum: Decimal | None = None,
    already_billed: Decimal | None = None,
    tax_rate: Decimal | None = None,
) -> Price:
    """Return what a quantity costs; see the rule above.

    Args:
        quantity: not below 0.
        minimum: what is owed at least, without tax.
        already_billed: what was billed for the same period, without tax.
        tax_rate: in per cent.
    """
    with localcontext(EXACT):
        lines = list(model.lines(quantity, currency))
        if minimum is not None:
            lines += _top_up(lines, minimum, currency)
        if already_billed is not None:
            lines += _taken_off(already_billed, currency)
        if tax_rate is not None:
            lines = [replace(line, tax=rounded(line.amount * tax_rate / _PER_CENT, currency.digits)) for line in lines]
        nothing = rounded(Decimal(), currency.digits)
        subtotal = sum((line.amount for line in lines), nothing)
        tax = sum((line.tax for line in lines if line.tax is not None), nothing)
        return Price(lines, subtotal, tax, subtotal + tax)


def _from_floors(tiers: Sequence[Tier]) -> Iterator[tuple[Decimal, Tier]]:
    """Yield each tier with the bound of the one before it."""
    floor = Decimal()
    for tier in tiers:
        yield floor, tier
        if tier.up_to is not None:
            floor = tier.up_to


def _top_up(lines: Sequence[Line], minimum: Decimal, currency: Currency) -> Iterator[Line]:
    missing = rounded(minimum, currency.digits) - sum(line.amount for line in lines)
    if missing > 0:
        yield Line(f"up to the minimum of {written(minimum, currency)}", _ONE, missing)


def _taken_off(already_billed: Decimal, currency: Currency) -> Iterator[Line]:
    billed = rounded(already_billed, currency.digits)
    if billed:
        yield Line("already billed for the period", _ONE, -billed)
