"""All one can ask of the tenant service, and all it tells."""

from datetime import date
from typing import Any

from pydantic import Field

from shared.contracts.base import Ask, Decision, Fact, KeysUsed, Part, Refusal


class ProductVersion(Part):
    """One product at one version, as a customer takes it.

    Attributes:
        name: of a product in the catalog.
        version: one of its versions.
    """

    name: str
    version: str


class PlacedProduct(ProductVersion):
    """A product at one version, and where it runs: beside others in the tenant's environment, or in one of its own.

    Attributes:
        isolation: ``pool``, ``bridge`` or ``silo``, of an environment of its own; None beside others, and what follows
            says nothing then.
        driver: what makes that environment.
        region: where; None for the default region.
        parameters: what the product says for the driver, in the driver's own words.
    """

    isolation: str | None = None
    driver: str = "postgres"
    region: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class LicensedProduct(PlacedProduct):
    """A product that a tenant has, with what it means to the other services.

    Attributes:
        plan: the billing plan of its licence; None where the plan of the tier covers it.
    """

    plan: str | None = None


class UsagePlan(Part):
    """How much a tenant may ask of an application, by its tier.

    Attributes:
        tier: the tier's name, for those who ask.
        version: of the tenant's record, which grows with every change; of two plans the one of the higher is in force.
        requests_per_second: None for as many as it likes.
        requests_per_day: likewise, of the day in UTC.
    """

    tier: str
    version: int
    requests_per_second: int | None = None
    requests_per_day: int | None = None


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
        expiration: the day on which the contract ends: the tenant is suspended when it begins, in UTC.
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
        connections: how many connections each login of the environment may hold, for provisioning; None for its own
            default.
        usage_plan: for identity; None from those who told of none yet.
        driver: what makes the environment, for provisioning.
        region: where the tier's environments are unless the tenant wants another; None for the default region.
        parameters: what the tier says for the driver, in the driver's own words.
        products: those that were asked for, with what they mean; None from those who told of none yet.
    """

    answers = RegisterTenant

    plan: str
    quotas: dict[str, int]
    isolation: str
    connections: int | None = None
    usage_plan: UsagePlan | None = None
    driver: str = "postgres"
    region: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    products: tuple[LicensedProduct, ...] | None = None


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


class SuspendTenant(Ask):
    """Suspend an active tenant.

    Attributes:
        reason: as the operator gave it, or ``expired``, or ``unpaid``.
    """

    reason: str | None = None


class LiftSuspension(Ask):
    """Take the suspension back: the tenant is in the state in which it was found."""

    undoes = SuspendTenant


class TenantSuspended(Fact):
    """The tenant is suspended."""

    answers = SuspendTenant


class TenantSuspensionRefused(Refusal):
    """The tenant cannot be suspended; codes ``unknown_tenant``, ``wrong_state``."""

    answers = SuspendTenant


class SuspensionLifted(Fact):
    """The tenant is not suspended by that ask any more."""

    answers = LiftSuspension


class ReactivateTenant(Ask):
    """Open a suspended tenant for business again."""


class WithdrawReactivation(Ask):
    """Take the reactivation back: the tenant is in the state in which it was found."""

    undoes = ReactivateTenant


class TenantReactivated(Fact):
    """The tenant is active again."""

    answers = ReactivateTenant


class TenantReactivationRefused(Refusal):
    """The tenant cannot be reactivated; codes ``unknown_tenant``, ``wrong_state``."""

    answers = ReactivateTenant


class ReactivationWithdrawn(Fact):
    """The tenant is not active by that ask any more."""

    answers = WithdrawReactivation


class ChangeTier(Ask):
    """Put an active tenant on another tier, or give it what its own has come to mean since it was put on it.

    Attributes:
        tier: a tier of the catalog.
    """

    tier: str


class RestoreTier(Ask):
    """Put the tenant back on the tier on which it was found."""

    undoes = ChangeTier


class TierChanged(Fact):
    """The tenant is on the tier; with what that means to the other services.

    Attributes:
        plan: the billing plan of the tier.
        quotas: meter name to limit per month, for metrics.
        isolation: ``pool``, ``bridge`` or ``silo``, for provisioning.
        connections: how many connections each login of the environment may hold; None for provisioning's default.
        usage_plan: for identity; None from those who told of none yet.
        driver: what makes the environment, for provisioning.
        region: where the tier's environments are; None for the default region. A tenant stays where it is.
        parameters: what the tier says for the driver, in the driver's own words.
    """

    answers = ChangeTier

    tier: str
    plan: str
    quotas: dict[str, int]
    isolation: str
    connections: int | None = None
    usage_plan: UsagePlan | None = None
    driver: str = "postgres"
    region: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class TierChangeRefused(Refusal):
    """The tier stays; codes ``unknown_tenant``, ``wrong_state``, ``unknown_tier``, ``same_tier``.

    The last one means that the tenant is on the tier already, with all that it means.
    """

    answers = ChangeTier


class TierRestored(Fact):
    """The tenant is not on another tier by that ask any more.

    Attributes:
        usage_plan: of the tier as the tenant has it, for identity; None where there is no such tenant.
    """

    answers = RestoreTier

    usage_plan: UsagePlan | None = None


class ChangeProducts(Ask):
    """Let an active tenant have exactly these products.

    Attributes:
        products: each product at most once; none at all is fine.
    """

    products: tuple[ProductVersion, ...]


class RestoreProducts(Ask):
    """Let the tenant have the products again that it was found with."""

    undoes = ChangeProducts


class ProductsChanged(Fact):
    """The tenant has exactly the products that were asked for.

    Attributes:
        products: they, with what they mean; None from those who told of none yet.
    """

    answers = ChangeProducts

    products: tuple[LicensedProduct, ...] | None = None


class ProductChangeRefused(Refusal):
    """The products stay; codes ``unknown_tenant``, ``wrong_state``, ``unknown_product``, ``duplicate_product``."""

    answers = ChangeProducts


class ProductsRestored(Fact):
    """The tenant has no other products by that ask any more."""

    answers = RestoreProducts


class UpdateTenant(Ask):
    """Change what a tenant is called, what it has and until when; it may be active or suspended.

    Attributes:
        customer_name: as the customer writes it.
        expiration: the day on which the contract ends.
        products: exactly those it has from now on, each at most once.
    """

    customer_name: str
    expiration: date
    products: tuple[ProductVersion, ...]


class RestoreTenant(Ask):
    """Give the tenant back the name, the expiration and the products that it was found with."""

    undoes = UpdateTenant


class TenantUpdated(Fact):
    """The tenant is on record as it was asked for.

    Attributes:
        products: those it has, with what they mean; None from those who told of none yet.
    """

    answers = UpdateTenant

    products: tuple[LicensedProduct, ...] | None = None


class TenantUpdateRefused(Refusal):
    """Nothing was changed.

    Codes ``unknown_tenant``, ``wrong_state``, ``name_taken``, ``unknown_product``, ``duplicate_product``.
    """

    answers = UpdateTenant


class TenantRestored(Fact):
    """The tenant is not changed by that ask any more."""

    answers = RestoreTenant


class BeginOffboarding(Ask):
    """Put a tenant on its way out; it may be active or suspended, or stuck on its way out from an earlier attempt.

    Attributes:
        reason: as the operator gave it, or ``expired``, or ``unpaid``.
    """

    reason: str | None = None


class CancelOffboarding(Ask):
    """Put the tenant back into the state in which it was found."""

    undoes = BeginOffboarding


class OffboardingBegun(Fact):
    """The tenant is on its way out."""

    answers = BeginOffboarding


class OffboardingRefused(Refusal):
    """The tenant stays; codes ``unknown_tenant``, ``wrong_state``."""

    answers = BeginOffboarding


class OffboardingCancelled(Fact):
    """The tenant is not on its way out by that ask any more."""

    answers = CancelOffboarding


class Deletion(Part):
    """What a service deleted of a tenant, as it is certified.

    Attributes:
        service: which one.
        deleted: how many of what, by name.
        is_confirmed: False where an operator went on without the service's word.
    """

    service: str
    deleted: dict[str, int] = Field(default_factory=dict)
    is_confirmed: bool = True


class ArchiveTenant(Ask):
    """Keep of an off-boarded tenant only its archive record and the certificate of what was deleted. Final.

    Attributes:
        workflow_id: of the off-boarding.
        reason: as the operator gave it, or ``expired``, or ``unpaid``.
        deletions: what every other service deleted.
        export_id: provisioning's name for the export of the data, if one was made.
        export_sha256: of the export, hexadecimal.
        invoice_id: billing's name for the final invoice, if there was one.
    """

    workflow_id: str
    reason: str | None = None
    deletions: tuple[Deletion, ...]
    export_id: str | None = None
    export_sha256: str | None = None
    invoice_id: str | None = None


class TenantArchived(Fact):
    """The archive record and the certificate are all that is left; the customer's name is free.

    Attributes:
        certificate_sha256: of the certificate in its canonical form, hexadecimal.
    """

    answers = ArchiveTenant

    certificate_sha256: str


class TenantArchivingRefused(Refusal):
    """Nothing was changed; codes ``unknown_tenant``, ``wrong_state``."""

    answers = ArchiveTenant


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


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the tenant service."""


class DecisionRecorded(Decision):
    """Somebody has decided something at the tenant service."""
