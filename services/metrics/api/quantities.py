"""Quantities as clients read them."""

from decimal import Decimal


def written(quantity: Decimal) -> str:
    """Write a quantity as a decimal number, without zeros that say nothing: ``12.5``, ``0``, ``1000``."""
    text = f"{quantity:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
