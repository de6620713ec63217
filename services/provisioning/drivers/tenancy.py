"""What sets one environment apart from all others, as drivers know it.

A tenant's own environment goes by the tenant's id, that of a product by this id, a colon and the product's name. No
tenant id holds a colon, so no two environments ever go by the same, and whatever a driver names or guards after it
keeps two environments of one tenant as strictly apart as those of two tenants.
"""

_SEPARATOR = ":"


def tenancy_of(tenant_id: str, product: str | None = None) -> str:
    """Return what an environment goes by.

    Args:
        tenant_id: whose it is; letters, digits, ``_`` and ``-``.
        product: whose own environment it is; None for the tenant's own.

    Raises:
        ValueError: the tenant's id holds a colon, or the product has no name.
    """
    if _SEPARATOR in tenant_id:
        raise ValueError(f"the id of a tenant holds no colon: {tenant_id!r}")
    if product is None:
        return tenant_id
    if not product:
        raise ValueError("a product has a name")
    return f"{tenant_id}{_SEPARATOR}{product}"


def parts_of(tenancy: str) -> tuple[str, str | None]:
    """Return the tenant's id and the product, or None, of what an environment goes by: `tenancy_of` reversed."""
    tenant_id, separator, product = tenancy.partition(_SEPARATOR)
    return tenant_id, product if separator else None
