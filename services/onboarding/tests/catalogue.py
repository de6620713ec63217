"""What the tests of this service order, and what the other services answer when all goes well."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.onboarding.lifecycles import DEFINITIONS
from shared.contracts import CATALOGUE, billing, identity, metrics, provisioning, tenant
from shared.contracts.base import Ask, Fact, Refusal

TENANT_ID = "tenant-1"

MINIMAL: Mapping[str, Any] = {"customerName": "Acme", "adminEmails": ["ada@example.com"]}
"""The least that can be ordered."""

FULL: Mapping[str, Any] = {
    "customerName": "Café 東京",
    "adminEmails": ["ada@example.com", "bea@example.com"],
    "tier": "premium",
    "products": [{"name": "notes", "version": "2.0"}],
    "expiration": "2027-01-31",
    "address": "Ring 1\nBerlin",
    "phone": "+49 30 1234",
    "billingAddress": "Postfach 7\nBerlin",
    "currency": "EUR",
    "region": "eu-central",
    "tags": {"segment": "smb"},
    "attributes": {"crm": "42"},
}
"""Everything that can be ordered."""

REQUEST: Mapping[str, Any] = {**MINIMAL, "tier": "standard"}
"""A request as it is stored: checked, with the default tier filled in."""

CATALOG = tenant.CatalogPublished(
    tenant_id="catalog",
    revision=1,
    tiers=("free", "standard", "premium"),
    default_tier="standard",
    products=(
        tenant.CatalogProduct(name="notes", versions=("1.0", "2.0")),
        tenant.CatalogProduct(name="chess", versions=("1.0",)),
    ),
)


def answers(tenant_id: str = TENANT_ID) -> dict[str, Fact]:
    """Return the fact that answers each step, of whatever lifecycle."""
    facts: list[tuple[str, type[Fact], dict[str, Any]]] = [
        *_ONBOARDING,
        *_CHANGES,
        *_SUSPENSION,
        *_OFFBOARDING,
    ]
    return {step: fact(tenant_id=tenant_id, **told) for step, fact, told in facts}


_ONBOARDING: tuple[tuple[str, type[Fact], dict[str, Any]], ...] = (
    ("register-tenant", tenant.TenantRegistered, {"plan": "standard", "quotas": {"seats": 25}, "isolation": "pool"}),
    ("create-administrators", identity.AdministratorsCreated, {"user_ids": ("u1",)}),
    ("open-account", billing.AccountOpened, {"account_id": "a1"}),
    ("track-tenant", metrics.TenantTracked, {}),
    (
        "provision-environment",
        provisioning.EnvironmentProvisioned,
        {"environment_id": "e1", "isolation": "pool", "region": "local"},
    ),
    ("activate-tenant", tenant.TenantActivated, {}),
    ("add-administrators", identity.AdministratorsAdded, {"user_ids": ("u2",)}),
)

_CHANGES: tuple[tuple[str, type[Fact], dict[str, Any]], ...] = (
    (
        "change-tier",
        tenant.TierChanged,
        {"tier": "premium", "plan": "gold", "quotas": {"seats": 99}, "isolation": "silo", "connections": 20},
    ),
    ("change-plan", billing.PlanChanged, {}),
    ("change-quotas", metrics.QuotasChanged, {}),
    ("move-environment", provisioning.EnvironmentMoved, {"isolation": "silo"}),
    ("change-products", tenant.ProductsChanged, {}),
    ("change-licences", billing.LicencesChanged, {}),
    ("deploy-products", provisioning.ProductsDeployed, {}),
    ("remove-products", provisioning.ProductsRemoved, {"deleted": {"environments": 1}}),
    ("update-tenant", tenant.TenantUpdated, {}),
    ("set-administrators", identity.AdministratorsSet, {"user_ids": ("u1", "u3")}),
    ("update-account", billing.AccountUpdated, {}),
)

_SUSPENSION: tuple[tuple[str, type[Fact], dict[str, Any]], ...] = (
    ("suspend-tenant", tenant.TenantSuspended, {}),
    ("block-sign-in", identity.SignInBlocked, {}),
    ("throttle-environment", provisioning.EnvironmentThrottled, {}),
    ("pause-billing", billing.BillingPaused, {}),
    ("reactivate-tenant", tenant.TenantReactivated, {}),
    ("allow-sign-in", identity.SignInAllowed, {}),
    ("release-environment", provisioning.EnvironmentReleased, {}),
    ("resume-billing", billing.BillingResumed, {}),
)

_OFFBOARDING: tuple[tuple[str, type[Fact], dict[str, Any]], ...] = (
    ("begin-offboarding", tenant.OffboardingBegun, {}),
    ("export-data", provisioning.DataExported, {"export_id": "x1", "rows": {"notes": 3}, "sha256": "ab" * 32}),
    ("close-account", billing.AccountClosed, {"invoice_id": "i1", "currency": "EUR", "total": "12.50"}),
    ("remove-environment", provisioning.EnvironmentRemoved, {"deleted": {"environments": 1, "notes": 3}}),
    ("purge-users", identity.UsersPurged, {"deleted": {"memberships": 2, "users": 1}}),
    ("purge-account", billing.AccountPurged, {"invoice_id": "i1", "deleted": {"accounts": 1}}),
    ("purge-metrics", metrics.MetricsPurged, {"deleted": {"quotas": 1}}),
    ("archive-tenant", tenant.TenantArchived, {"certificate_sha256": "cd" * 32}),
)


def refusals(tenant_id: str = TENANT_ID, *, code: str = "no", retryable: bool = False) -> dict[str, Fact]:
    """Return the fact that refuses each step that can be refused."""
    return {
        step: fact(tenant_id=tenant_id, code=code, detail="No.", retryable=retryable)
        for step, does, _ in _asked()
        for fact in _answering(does)
        if issubclass(fact, Refusal)
    }


def undone(tenant_id: str = TENANT_ID) -> dict[str, Fact]:
    """Return the fact that answers the undo of each step that can be taken back."""
    return {step: fact(tenant_id=tenant_id) for step, _, undo in _asked() if undo for fact in _answering(undo)}


def _asked() -> Iterator[tuple[str, type[Ask], type[Ask] | None]]:
    for definition in DEFINITIONS.values():
        for step in definition.steps.values():
            if step.does is not None:
                yield step.name, step.does, step.undo


def _answering(ask: type[Ask]) -> list[type[Fact]]:
    return [fact for fact in CATALOGUE.values() if issubclass(fact, Fact) and fact.answers is ask]
