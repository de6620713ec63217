"""Price models as they are written in JSON, in bodies as in the database; numbers are text."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from services.billing import pricing


def model_of(written: Mapping[str, Any]) -> pricing.Model:
    """Make a price model of what is written, which fits its ``model``: ``flatAmount``, ``unitAmount`` and so on."""
    match written["model"]:
        case "flat":
            return pricing.Flat(Decimal(written["flatAmount"]))
        case "per_unit":
            return pricing.PerUnit(Decimal(written["unitAmount"]))
        case "package":
            return _packages(written["package"])
        case "graduated":
            return pricing.Graduated(_tiers(written), flat_on_zero=written.get("flatOnZero", False))
        case "volume":
            return pricing.Volume(_tiers(written), flat_on_zero=written.get("flatOnZero", False))
        case other:
            raise ValueError(f"there is no price model {other!r}")


def _packages(written: Mapping[str, Any]) -> pricing.Packages:
    return pricing.Packages(Decimal(written["size"]), Decimal(written["amount"]), Decimal(written.get("free", 0)))


def _tiers(written: Mapping[str, Any]) -> list[pricing.Tier]:
    return [_tier(each) for each in written["tiers"]]


def _tier(written: Mapping[str, Any]) -> pricing.Tier:
    up_to = written.get("upTo")
    return pricing.Tier(
        None if up_to is None else Decimal(up_to),
        Decimal(written["unitAmount"]),
        Decimal(written.get("flatAmount", 0)),
    )
