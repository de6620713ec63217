"""Everything that a customer may order, each with what it makes of the tenant when it completes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.campaign.tenants import PRODUCTS, TIERS, Tenant

NOWHERE = "mars"
"""A region that provisioning refuses: a late step fails, so everything before it is undone."""

PATHS = frozenset(
    {
        "/v1/onboardings",
        "/v1/accounts",
        "/v1/tier-changes",
        "/v1/product-changes",
        "/v1/suspensions",
        "/v1/reactivations",
        "/v1/offboardings",
        "/v1/workflows/{workflow_id}/cancel",
    }
)
"""What the system must know, as its OpenAPI document has it, so that all of this can be ordered and taken back."""

_LONG_GRACE_DAYS = 30


@dataclass(frozen=True)
class Order:
    """One request.

    Attributes:
        changes: what of the tenant is different when it has completed.
        doomed: whether it must come to nothing although it is accepted.
        never_ends: whether it goes on until it is cancelled.
        refused_with: the code with which it must be refused; accepted where empty.
        may_be_refused_with: codes that are in order too, because of a race.
    """

    lifecycle: str
    path: str
    body: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    method: str = "POST"
    doomed: bool = False
    never_ends: bool = False
    refused_with: str = ""
    may_be_refused_with: frozenset[str] = frozenset()


def onboard(name: str, admin: str, random: Random) -> tuple[Order, Tenant]:
    """Order a new tenant; return it as it must be if that completes, still without an id."""
    tenant = Tenant("", name, random.choice(TIERS), random.choice(PRODUCTS), frozenset({admin}))
    body = {
        "customerName": name,
        "adminEmails": [admin],
        "tier": tenant.tier,
        "products": _products(tenant.products),
    }
    doomed = random.random() < 0.15
    place = {"region": NOWHERE} if doomed else {}
    return Order("onboard", "/v1/onboardings", body | place, {"state": "active"}, doomed=doomed), tenant


def join(tenant: Tenant, admin: str, _: Random) -> Order:
    """Order the onboarding of a customer that is there already."""
    body = {"customerName": f"  {tenant.name.upper()} ", "adminEmails": [admin]}
    return Order("join", "/v1/onboardings", body, {"admins": tenant.admins | {admin}})


def contradict(tenant: Tenant, admin: str, random: Random) -> Order:
    """Order the onboarding of a customer that is there already, on another tier than it has."""
    body = {"customerName": tenant.name, "adminEmails": [admin], "tier": _other(tenant.tier, random)}
    return Order("join", "/v1/onboardings", body, refused_with="tenant_differs")


def change_tier(tenant: Tenant, _: str, random: Random) -> Order:
    """Order another tier."""
    tier = _other(tenant.tier, random)
    refusal = "wrong_state" if tenant.state == "suspended" else ""
    body = {"tenantId": tenant.tenant_id, "tier": tier}
    changes = {"tier": tier, "may_lack_connections": False}
    return Order("change-tier", "/v1/tier-changes", body, changes, refused_with=refusal)


def same_tier(tenant: Tenant, _: str, __: Random) -> Order:
    """Order the tier that the tenant has."""
    refusal = "wrong_state" if tenant.state == "suspended" else "same_tier"
    body = {"tenantId": tenant.tenant_id, "tier": tenant.tier}
    return Order("change-tier", "/v1/tier-changes", body, refused_with=refusal)


def change_products(tenant: Tenant, _: str, random: Random) -> Order:
    """Order some products."""
    products = random.choice(PRODUCTS)
    refusal = "wrong_state" if tenant.state == "suspended" else ""
    body = {"tenantId": tenant.tenant_id, "products": _products(products)}
    return Order("change-products", "/v1/product-changes", body, {"products": products}, refused_with=refusal)


def impatient(tenant: Tenant, random: Random) -> Order:
    """Order some products while another workflow may be at work."""
    products = random.choice(PRODUCTS)
    body = {"tenantId": tenant.tenant_id, "products": _products(products)}
    codes = frozenset({"workflow_active", "wrong_state", "unknown_tenant"})
    return Order("change-products", "/v1/product-changes", body, {"products": products}, may_be_refused_with=codes)


def suspend(tenant: Tenant, _: str, __: Random) -> Order:
    """Order a suspension."""
    refusal = "wrong_state" if tenant.state == "suspended" else ""
    body = {"tenantId": tenant.tenant_id, "reason": "unpaid"}
    return Order("suspend", "/v1/suspensions", body, {"state": "suspended"}, refused_with=refusal)


def reactivate(tenant: Tenant, _: str, __: Random) -> Order:
    """Order the end of a suspension."""
    refusal = "" if tenant.state == "suspended" else "wrong_state"
    body = {"tenantId": tenant.tenant_id}
    return Order("reactivate", "/v1/reactivations", body, {"state": "active"}, refused_with=refusal)


def update_account(tenant: Tenant, admin: str, random: Random) -> Order:
    """Order another name, other products, another administrator and an end of the contract that is far away."""
    name = f"{tenant.name.partition(' alias ')[0]} alias {random.randrange(10**6)}"
    products, admins = random.choice(PRODUCTS), frozenset({admin, min(tenant.admins)})
    expiration = f"20{random.randint(80, 99)}-01-31"
    body = {
        "accountId": tenant.tenant_id,
        "customerName": name,
        "products": _products(products),
        "adminEmails": sorted(admins),
        "expiration": expiration,
    }
    changes = {"name": name, "products": products, "admins": admins, "expiration": expiration}
    return Order("update-account", "/v1/accounts", body, changes, method="PUT")


def off_board(tenant: Tenant, _: str, random: Random) -> Order:
    """Order the end of the tenant at once."""
    export = random.random() < 0.5
    body = {"tenantId": tenant.tenant_id, "graceDays": 0, "export": export, "reason": "moves away"}
    return Order("offboard", "/v1/offboardings", body, {"state": "archived", "exported": export})


def off_board_later(tenant: Tenant, _: str, __: Random) -> Order:
    """Order the end of the tenant, which will be taken back before its grace has passed."""
    body = {"tenantId": tenant.tenant_id, "graceDays": _LONG_GRACE_DAYS}
    return Order("offboard", "/v1/offboardings", body, doomed=True, never_ends=True)


def _other(tier: str, random: Random) -> str:
    return random.choice([each for each in TIERS if each != tier])


def _products(products: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "version": version} for name, version in products]
