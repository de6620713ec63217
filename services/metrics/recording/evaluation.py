"""What a meter makes of an event."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from services.metrics.meter import MISSING, Aggregation, Meter, Place
from services.metrics.recording.event import Event
from services.metrics.recording.refusal import RefusedError

BOUND: Final = Decimal(10) ** 15
"""What every value is below, and above its negative."""

FRACTIONAL_DIGITS: Final = 9
"""The most digits of a value behind the point."""

LONGEST_DIMENSION: Final = 128
"""The most characters of what a meter tells events apart by."""

ONE: Final = Decimal(1)

_DECIMAL = re.compile(r"-?[0-9]{1,64}(?:\.[0-9]{1,64})?")
_WHOLE_BOUND = 10**40
_HASH_BYTES = 16


class Measure(NamedTuple):
    """What an event adds to a meter.

    Attributes:
        value: a quantity, or the hash of a value for a meter that counts different ones.
        dimensions: JSON, name to text; None for a meter that tells nothing apart.
    """

    meter: Meter
    value: Decimal | bytes
    dimensions: str | None


def measure(event: Event, catalog: Mapping[str, Sequence[Meter]]) -> list[Measure]:
    """Return what an event adds to each meter that takes it.

    Args:
        catalog: the meters by the type of the events that they take.

    Raises:
        RefusedError: no meter takes it, or one that does cannot.
    """
    meters = catalog.get(event.type)
    if not meters:
        raise RefusedError("unknown_meter", f"No meter takes events of the type {event.type}.", "/type")
    return [Measure(meter, _value(meter, event.data), _dimensions(meter, event.data)) for meter in meters]


def _value(meter: Meter, data: dict[str, Any]) -> Decimal | bytes:
    if meter.value is None:
        return ONE
    found = meter.value.find(data)
    if found is MISSING or found is None:
        raise _invalid(meter.value, f"is required by the meter {meter.name}")
    if meter.aggregation is Aggregation.UNIQUE:
        return _distinct(meter.value, found)
    quantity = _quantity(meter.value, found)
    if quantity < 0 and not meter.allows_negative:
        detail = f"{_name(meter.value)} must not be below zero: the meter {meter.name} takes no such values."
        raise RefusedError("negative_value", detail, meter.value.pointer)
    return quantity


def _quantity(place: Place, found: Any) -> Decimal:
    """Return a number exactly as it was written."""
    if isinstance(found, str):
        if not _DECIMAL.fullmatch(found):
            raise _invalid(place, "must be a number, or text like 12.5")
        quantity = Decimal(found)
    elif isinstance(found, bool) or not isinstance(found, int | float | Decimal):
        raise _invalid(place, "must be a number, or text like 12.5")
    else:
        quantity = Decimal(repr(found)) if isinstance(found, float) else Decimal(found)
    if not -BOUND < quantity < BOUND:
        raise _invalid(place, "must be between -10^15 and 10^15")
    if isinstance(found, int):
        return quantity
    exponent = quantity.as_tuple().exponent
    assert isinstance(exponent, int), "it is between the bounds"
    if exponent < -FRACTIONAL_DIGITS:
        raise _invalid(place, f"must have at most {FRACTIONAL_DIGITS} digits behind the point")
    return quantity


def _distinct(place: Place, found: Any) -> bytes:
    """Return the hash of a value; 1 and 1.0 are one value, 1 and "1" are two."""
    if isinstance(found, str | bool):
        return blake2b(orjson.dumps(found), digest_size=_HASH_BYTES).digest()
    if not isinstance(found, int | float | Decimal) or found % 1 != 0 or not -_WHOLE_BOUND < found < _WHOLE_BOUND:
        raise _invalid(place, "must be text, a whole number, true or false")
    return blake2b(b"%d" % int(found), digest_size=_HASH_BYTES).digest()


def _dimensions(meter: Meter, data: dict[str, Any]) -> str | None:
    if not meter.dimensions:
        return None
    texts = {name: _dimension(place, place.find(data)) for name, place in meter.dimensions.items()}
    return orjson.dumps(texts).decode()


def _dimension(place: Place, found: Any) -> str:
    if found is MISSING or found is None:
        return ""
    if isinstance(found, bool):
        return "true" if found else "false"
    if not isinstance(found, str | int | float | Decimal):
        raise RefusedError("invalid_dimension", f"{_name(place)} must be text, a number, true or false.", place.pointer)
    # Postgres writes the numbers of the data like this, too: corrections find an event's dimensions by them.
    text = found if isinstance(found, str) else f"{Decimal(str(found)):f}"
    if len(text) > LONGEST_DIMENSION:
        detail = f"{_name(place)} must have at most {LONGEST_DIMENSION} characters."
        raise RefusedError("invalid_dimension", detail, place.pointer)
    return text


def _invalid(place: Place, complaint: str) -> RefusedError:
    return RefusedError("invalid_value", f"{_name(place)} {complaint}.", place.pointer)


def _name(place: Place) -> str:
    return f"`{place.pointer[1:]}`"
