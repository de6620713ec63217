"""What several routes share: who may, how a list is narrowed, and how exact an amount may be."""

from decimal import Decimal
from typing import Annotated

from fastapi import Query

from services.billing.money import currency_of, rounded
from services.billing.payable import wrong
from shared.access import Role
from shared.http import permit
from shared.text import Identifier

READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
OPERATORS = permit(Role.SYSTEM_ADMIN)
ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

TenantId = Annotated[Identifier | None, Query(alias="tenantId")]
"""The query parameter that narrows a list to one tenant; give it the default None."""


def check_digits(amount: Decimal, currency: str) -> None:
    """Check that an amount can be paid in its currency.

    Raises:
        Problem: 422, it is more exact.
    """
    digits = currency_of(currency).digits
    if amount != rounded(amount, digits):
        raise wrong("/amount", f"`amount` must have at most {digits} digits behind the point.")
