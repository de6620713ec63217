"""Why something is refused, in a sentence for people."""

from collections.abc import Mapping
from typing import Any


def why_not(code: str, wanted: Mapping[str, Any]) -> str:
    """Return the sentence for a code that judges a wish against the catalog and the other tenants.

    Args:
        code: one that `queries.register` or `queries.judge` gives.
        wanted: what was wished for, by the names of the columns.
    """
    products = ", ".join(f"{product['name']} {product['version']}" for product in wanted.get("products", ()))
    return {
        "name_taken": f"A tenant named {wanted.get('customer_name')!r} is already registered.",
        "unknown_tier": f"The catalog offers no tier {wanted.get('tier')!r}.",
        "same_tier": f"The tenant is on tier {wanted.get('tier')!r} already.",
        "unknown_product": f"The catalog does not offer all of: {products}.",
        "duplicate_product": f"A product can be taken at one version only, not: {products}.",
    }[code]


def why_not_now(state: str | None, what: str) -> tuple[str, str]:
    """Return the code and the sentence for a tenant whose state forbids it.

    Args:
        state: the state it is in, None if there is no such tenant.
        what: what cannot be done with it, as a participle.
    """
    if state is None:
        return "unknown_tenant", "There is no such tenant."
    return "wrong_state", f"A tenant that is {state} cannot be {what}."
