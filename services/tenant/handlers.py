"""What the tenant service does when it is asked. The last lines list all it hears and all it says."""

from collections.abc import Sequence

import asyncpg

from services.tenant import lifecycle, queries
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts import tenant as contracts
from shared.messaging.subscriptions import Subscriptions, do, undo
from shared.postgres import Connection

CATALOG = "catalog"
"""What stands for a tenant where the catalog is announced, which belongs to none."""


async def register_tenants(
    connection: Connection, asks: Sequence[contracts.RegisterTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Put each tenant on record; the first to ask for a name gets it, also within one batch."""
    outcomes = await queries.register(connection, asks, now=clock.now())
    return [_registration(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)]


def _registration(ask: contracts.RegisterTenant, outcome: asyncpg.Record) -> Fact:
    if outcome["refusal"] is not None:
        return contracts.TenantRegistrationRefused(
            tenant_id=ask.tenant_id, code=outcome["refusal"], detail=_why_not(ask, outcome["refusal"])
        )
    return contracts.TenantRegistered(
        tenant_id=ask.tenant_id, plan=outcome["plan"], quotas=outcome["quotas"], isolation=outcome["isolation"]
    )


def _why_not(ask: contracts.RegisterTenant, code: str) -> str:
    products = ", ".join(f"{product.name} {product.version}" for product in ask.products)
    return {
        "name_taken": f"A tenant named {ask.customer_name!r} is already registered.",
        "unknown_tier": f"The catalog offers no tier {ask.tier!r}.",
        "unknown_product": f"The catalog does not offer all of: {products}.",
        "duplicate_product": f"A product can be taken at one version only, not: {products}.",
    }[code]


async def deregister_tenants(connection: Connection, asks: Sequence[contracts.DeregisterTenant]) -> Sequence[Fact]:
    """Remove each tenant's record, if there is one, and free its name."""
    await queries.deregister(connection, [ask.tenant_id for ask in asks])
    return [contracts.TenantDeregistered(tenant_id=ask.tenant_id) for ask in asks]


async def activate_tenants(
    connection: Connection, asks: Sequence[contracts.ActivateTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Open each registered tenant for business; the second of two asks for one tenant finds it open."""
    tenant_ids = [ask.tenant_id for ask in asks]
    outcomes = await queries.move(connection, tenant_ids, lifecycle.ACTIVATE, now=clock.now())
    return [_activation(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)]


def _activation(ask: contracts.ActivateTenant, outcome: asyncpg.Record) -> Fact:
    if outcome["moved"]:
        return contracts.TenantActivated(tenant_id=ask.tenant_id)
    if outcome["state"] is None:
        return contracts.TenantActivationRefused(
            tenant_id=ask.tenant_id, code="unknown_tenant", detail="There is no such tenant."
        )
    return contracts.TenantActivationRefused(
        tenant_id=ask.tenant_id, code="wrong_state", detail=f"A tenant that is {outcome['state']} cannot be activated."
    )


async def deactivate_tenants(
    connection: Connection, asks: Sequence[contracts.DeactivateTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Take back the activation of each tenant that is open; any other stays as it is."""
    await queries.move(connection, [ask.tenant_id for ask in asks], lifecycle.DEACTIVATE, now=clock.now())
    return [contracts.TenantDeactivated(tenant_id=ask.tenant_id) for ask in asks]


async def published_catalog(connection: Connection) -> contracts.CatalogPublished:
    """Return the announcement of the catalog as it stands; sent at every start, and by whatever changes the catalog."""
    catalog = await queries.catalog(connection)
    return contracts.CatalogPublished(
        tenant_id=CATALOG,
        revision=catalog["revision"],
        tiers=catalog["tiers"],
        default_tier=catalog["default_tier"],
        products=catalog["products"],
    )


SUBSCRIPTIONS: Subscriptions = {
    contracts.RegisterTenant: do(register_tenants),
    contracts.DeregisterTenant: undo(deregister_tenants),
    contracts.ActivateTenant: do(activate_tenants),
    contracts.DeactivateTenant: undo(deactivate_tenants),
}

PUBLISHES = (
    contracts.TenantRegistered,
    contracts.TenantRegistrationRefused,
    contracts.TenantDeregistered,
    contracts.TenantActivated,
    contracts.TenantActivationRefused,
    contracts.TenantDeactivated,
    contracts.CatalogPublished,
)
