"""What several routes share: who may, and what is wrong."""

from typing import Annotated

from fastapi import Query

from shared.access import Role
from shared.http import Problem, permit
from shared.text import Identifier

OPERATORS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT)
READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

TenantId = Annotated[Identifier | None, Query(alias="tenantId")]
"""The query parameter that narrows a list to one tenant; give it the default None."""


def name_of(tenant_id: str, product: str | None) -> str:
    """Return what people call an environment: a tenant's own, or one of a product's own."""
    return f"environment of tenant {tenant_id}" + (f" for {product}" if product else "")


def no_environment(tenant_id: str, product: str | None = None) -> Problem:
    """Say that a tenant has no environment of its own, or its product has none."""
    detail = f"There is no {name_of(tenant_id, product)}."
    return Problem(404, code="unknown_environment", detail=detail)


def unavailable(driver: str, why: str) -> Problem:
    """Say that a driver cannot do its work at the moment."""
    return Problem(503, code="driver_unavailable", detail=f"The driver {driver!r} cannot be asked now. {why}")
