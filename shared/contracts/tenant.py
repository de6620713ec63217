"""All one can ask of the tenant service, and all it tells."""

from datetime import date

from pydantic import Field

from shared.contracts.base import Ask, Fact, Part, Refusal


class ProductVersion(Part):
    """One product at one version, as a customer takes it.

    Attributes:
        name: of a product in the catalog.
        version: one of its versions.
    """

    name: str
    version: str


class RegisterTenant(Ask):
    """Record a new tenant under its customer's name, in state ``registered``.

    Attributes:
        customer_name: as the customer writes it; no two tenants have names that only differ in case or width.
        tier: a tier of the catalog.
        products: each product at most once.
        email: of the tenant as a whole: its first administrator's.
        phone: as the customer writes it.
        address: as the customer writes it.
        region: where the tenant wants to be; provisioning judges it.
        expiration: the last day of the contract.
        tags: the operator's labels.
        attributes: the operator's data.
    """

    customer_name: str
    tier: str
    products: tuple[ProductVersion, ...] = ()
    email: str
    phone: str | None = None
    address: str | None = None
    region: str | None = None
    expiration: date | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    attributes: dict[str, str] = Field(default_factory=dict)


class DeregisterTenant(Ask):
    """Remove the record and free the customer's name."""

    undoes = RegisterTenant


class TenantRegistered(Fact):
    """The tenant is on record; with what its tier means to the other services, so that none of them stores a tier.

    Attributes:
        plan: the billing plan of the tier.
        quotas: meter name to limit per month, for metrics.
        isolation: ``pool``, ``bridge`` or ``silo``, for provisioning.
    """

    answers = RegisterTenant

    plan: str
    quotas: dict[str, int]
    isolation: str


class TenantRegistrationRefused(Refusal):
    """Nothing was recorded; codes ``name_taken``, ``unknown_tier``, ``unknown_product``, ``duplicate_product``."""

    answers = RegisterTenant


class TenantDeregistered(Fact):
    """No record of the tenant is left and its name is free."""

    answers = DeregisterTenant


class ActivateTenant(Ask):
    """Open the tenant for business: everything it needs is there."""


class DeactivateTenant(Ask):
    """Take the activation back: the tenant is ``registered`` again."""

    undoes = ActivateTenant


class TenantActivated(Fact):
    """The tenant is open for business; billing starts to charge."""

    answers = ActivateTenant


class TenantActivationRefused(Refusal):
    """The tenant cannot be activated; codes ``unknown_tenant``, ``wrong_state``."""

    answers = ActivateTenant


class TenantDeactivated(Fact):
    """The tenant is not open for business; billing stops to charge."""

    answers = DeactivateTenant


class CatalogProduct(Part):
    """A product and its versions that can be taken.

    Attributes:
        name: of the product.
        versions: the ones that are not retired.
    """

    name: str
    versions: tuple[str, ...]


class CatalogPublished(Fact):
    """The whole catalog of names, told at every start and change, so that a request can be checked at the edge.

    Attributes:
        tenant_id: always ``catalog``; the catalog belongs to no tenant.
        revision: grows with every change; a listener keeps the highest it has seen.
        tiers: the names of the tiers that can be taken.
        default_tier: the tier of a request that names none.
        products: the products that can be taken.
    """

    revision: int
    tiers: tuple[str, ...]
    default_tier: str
    products: tuple[CatalogProduct, ...]
