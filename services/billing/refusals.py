"""Why a plan cannot be had: the code, and a sentence for people."""

from collections.abc import Container, Mapping

NO_ACCOUNT = "unknown_account", "The tenant has no account that can be charged."
PAST_DUE = "past_due", "The tenant is behind with its payments; what it is charged for stays until it has paid."


def why_no_price(
    prices: Mapping[str, Container[str]], plan: str, currency: str, product: str = ""
) -> tuple[str, str] | None:
    """Return the code and the sentence if a plan is not sold in a currency; None if it is.

    Args:
        prices: the plans there are, each with its currencies.
        product: which the plan is to license; none where it is to be the account's own.
    """
    if plan not in prices:
        return "unknown_plan", why_not("unknown_plan", plan, currency, product)
    if currency not in prices[plan]:
        return "unsupported_currency", why_not("unsupported_currency", plan, currency, product)
    return None


def why_not(code: str, plan: str, currency: str | None, product: str = "") -> str:
    """Return the sentence for a code, ``unknown_plan`` or ``unsupported_currency``; see `why_no_price`."""
    named = f"plan {plan!r} for {product}" if product else f"plan {plan!r}"
    return {
        "unknown_plan": f"There is no {named}.",
        "unsupported_currency": f"The {named} is not sold in {currency}.",
    }[code]
