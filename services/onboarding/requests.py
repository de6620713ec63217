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
    Identifier,
    Name,
    Paragraph,
    PhoneNumber,
    Slug,
    Tags,
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
    tags: Tags = Field(default_factory=dict)
    attributes: Tags = Field(default_factory=dict)


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


def checked(request: OnboardingRequest, catalog: Mapping[str, Any], *, today: date) -> dict[str, Any]:
    """Return the request as JSON, with the default tier filled in.

    Args:
        catalog: the content of the last `CatalogPublished`.

    Raises:
        Problem: 422, naming every field that does not fit the catalog or the calendar.
    """
    tier = request.tier or catalog["default_tier"]
    errors = [*_tier_errors(tier, catalog), *_product_errors(request.products, catalog), *_date_errors(request, today)]
    if errors:
        raise Problem(422, code="invalid_request", detail=errors[0].detail, errors=errors)
    return request.model_dump(mode="json", by_alias=True, exclude_none=True) | {"tier": tier}


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


def _date_errors(request: OnboardingRequest, today: date) -> Sequence[FieldError]:
    if request.expiration is None or request.expiration > today:
        return []
    return [FieldError("/expiration", f"{request.expiration} is not in the future.")]
