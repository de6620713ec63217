"""What people ask of onboarding, cleaned once at the edge, and what is checked against the catalog."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import Field

from shared.http import FieldError, Problem, RequestBody
from shared.text import (
    CalendarDate,
    Currency,
    EmailAddress,
    Flag,
    Identifier,
    Name,
    Paragraph,
    PhoneNumber,
    Slug,
    Tags,
    TimeZone,
)

_Products = Annotated[list["ProductOrder"], Field(max_length=50)]
_AdminEmails = Annotated[list[EmailAddress], Field(min_length=1, max_length=50)]


class ProductOrder(RequestBody):
    """A product at a version."""

    name: Slug
    version: Slug


class OnboardingRequest(RequestBody):
    """A customer that is to become a tenant."""

    customer_name: Name
    admin_emails: _AdminEmails
    tier: Slug | None = None
    products: _Products = Field(default_factory=list)
    expiration: CalendarDate | None = None
    address: Paragraph | None = None
    phone: PhoneNumber | None = None
    billing_address: Paragraph | None = None
    currency: Currency | None = None
    region: Slug | None = None
    time_zone: TimeZone | None = Field(
        default=None, description="Whose days and months the tenant's usage is read in; UTC by default."
    )
    tags: Tags = Field(default_factory=dict)
    attributes: Tags = Field(default_factory=dict)

    def insists(self) -> dict[str, Any]:
        """Return the tier and the products that are named, so that a tenant which is there already must agree."""
        named = self.model_dump(mode="json", include={"tier", "products"}, exclude_none=True)
        return {name: value for name, value in named.items() if value}


class AccountRequest(RequestBody):
    """An account in the shape of the managed service providers' upsert; without ``accountId`` it is a new one."""

    account_id: Identifier | None = None
    customer_name: Name
    expiration: CalendarDate
    products: _Products
    admin_emails: _AdminEmails

    def onboarding(self) -> OnboardingRequest:
        """Return the onboarding that creates the account."""
        return OnboardingRequest.model_validate(self.model_dump(mode="json", by_alias=True, exclude={"account_id"}))


class TierChangeRequest(RequestBody):
    """A tenant that is to have another tier."""

    tenant_id: Identifier
    tier: Slug


class ProductChangeRequest(RequestBody):
    """A tenant that is to have exactly these products."""

    tenant_id: Identifier
    products: _Products


class StateChangeRequest(RequestBody):
    """A tenant that is to be suspended, or reactivated."""

    tenant_id: Identifier
    reason: Paragraph | None = None


class OffboardingRequest(RequestBody):
    """A tenant that is to go, named by its id or by its customer's name.

    Attributes:
        grace_days: days in which it can still be taken back; None for the installation's own.
        export: whether the tenant's data is exported before it is deleted.
    """

    tenant_id: Identifier | None = None
    customer_name: Name | None = None
    reason: Paragraph | None = None
    grace_days: Annotated[int, Field(strict=True, ge=0, le=3650)] | None = None
    export: Flag = True


class ActionRequest(RequestBody):
    """What an operator says when stepping in."""

    reason: Paragraph


class SkipRequest(ActionRequest):
    """What an operator says who vouches for a step."""

    step: Slug


def checked(request: OnboardingRequest, catalog: Mapping[str, Any], *, today: date) -> dict[str, Any]:
    """Return the request as JSON, with the default tier filled in.

    Args:
        catalog: the content of the last `CatalogPublished`.

    Raises:
        Problem: 422, naming every field that does not fit the catalog or the calendar.
    """
    tier = request.tier or catalog["default_tier"]
    _refuse(
        [
            *_tier_errors(tier, catalog),
            *_product_errors(request.products, catalog),
            *_date_errors(request.expiration, today),
        ]
    )
    return request.model_dump(mode="json", by_alias=True, exclude_none=True) | {"tier": tier}


def checked_tier(tier: str, catalog: Mapping[str, Any]) -> None:
    """Return if the catalog has the tier.

    Raises:
        Problem: 422, it has not.
    """
    _refuse(_tier_errors(tier, catalog))


def checked_products(orders: Sequence[ProductOrder], catalog: Mapping[str, Any]) -> None:
    """Return if the catalog has all these products, each ordered once.

    Raises:
        Problem: 422, naming every field that does not fit.
    """
    _refuse(_product_errors(orders, catalog))


def checked_account(account: AccountRequest, catalog: Mapping[str, Any], *, today: date) -> None:
    """Return if the account's products fit the catalog and its expiration the calendar.

    Raises:
        Problem: 422, naming every field that does not fit.
    """
    _refuse([*_product_errors(account.products, catalog), *_date_errors(account.expiration, today)])


def checked_offboarding(request: OffboardingRequest) -> None:
    """Return if the request names a tenant.

    Raises:
        Problem: 422, it names none.
    """
    if request.tenant_id is None and request.customer_name is None:
        detail = "Either tenantId or customerName is required."
        _refuse([FieldError("/tenantId", detail), FieldError("/customerName", detail)])


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Problem(422, code="invalid_request", detail=errors[0].detail, errors=errors)


def _tier_errors(tier: str, catalog: Mapping[str, Any]) -> Sequence[FieldError]:
    if tier in catalog["tiers"]:
        return []
    return [FieldError("/tier", f"There is no tier {tier}; there are {', '.join(catalog['tiers'])}.")]


def _product_errors(orders: Sequence[ProductOrder], catalog: Mapping[str, Any]) -> list[FieldError]:
    versions = {product["name"]: product["versions"] for product in catalog["products"]}
    errors: list[FieldError] = []
    for place, order in enumerate(orders):
        if order.name not in versions:
            errors.append(FieldError(f"/products/{place}/name", f"There is no product {order.name}."))
        elif order.version not in versions[order.name]:
            offered = ", ".join(versions[order.name])
            detail = f"There is no version {order.version} of {order.name}; there are {offered}."
            errors.append(FieldError(f"/products/{place}/version", detail))
        elif order.name in {earlier.name for earlier in orders[:place]}:
            errors.append(FieldError(f"/products/{place}/name", f"{order.name} is ordered twice."))
    return errors


def _date_errors(expiration: date | None, today: date) -> Sequence[FieldError]:
    if expiration is None or expiration > today:
        return []
    return [FieldError("/expiration", f"{expiration} is not in the future.")]
