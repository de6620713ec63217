"""What the tests of this service order, and what the other services answer when all goes well."""

from collections.abc import Mapping
from typing import Any

from shared.contracts import billing, identity, metrics, provisioning, tenant
from shared.contracts.base import Fact

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
    """Return the fact that answers each step of an onboarding."""
    return {
        "register-tenant": tenant.TenantRegistered(
            tenant_id=tenant_id, plan="standard", quotas={"seats": 25}, isolation="pool"
        ),
        "create-administrators": identity.AdministratorsCreated(tenant_id=tenant_id, user_ids=("u1",)),
        "open-account": billing.AccountOpened(tenant_id=tenant_id, account_id="a1"),
        "track-tenant": metrics.TenantTracked(tenant_id=tenant_id),
        "provision-environment": provisioning.EnvironmentProvisioned(
            tenant_id=tenant_id, environment_id="e1", isolation="pool", region="local"
        ),
        "activate-tenant": tenant.TenantActivated(tenant_id=tenant_id),
    }


def refusals(tenant_id: str = TENANT_ID, *, code: str = "no", retryable: bool = False) -> dict[str, Fact]:
    """Return the fact that refuses each step."""
    reason: dict[str, Any] = {"tenant_id": tenant_id, "code": code, "detail": "No.", "retryable": retryable}
    return {
        "register-tenant": tenant.TenantRegistrationRefused(**reason),
        "create-administrators": identity.AdministratorsRefused(**reason),
        "open-account": billing.AccountRefused(**reason),
        "track-tenant": metrics.TenantTrackingRefused(**reason),
        "provision-environment": provisioning.EnvironmentRefused(**reason),
        "activate-tenant": tenant.TenantActivationRefused(**reason),
    }


def undone(tenant_id: str = TENANT_ID) -> dict[str, Fact]:
    """Return the fact that answers the undo of each step."""
    return {
        "register-tenant": tenant.TenantDeregistered(tenant_id=tenant_id),
        "create-administrators": identity.AdministratorsRemoved(tenant_id=tenant_id),
        "open-account": billing.AccountVoided(tenant_id=tenant_id),
        "track-tenant": metrics.TenantUntracked(tenant_id=tenant_id),
        "provision-environment": provisioning.EnvironmentDeprovisioned(tenant_id=tenant_id),
        "activate-tenant": tenant.TenantDeactivated(tenant_id=tenant_id),
    }
