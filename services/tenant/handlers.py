"""What the tenant service does when it is asked. The last lines list all it hears and all it says."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from services.tenant import lifecycle
from services.tenant.certificates import Certificate, certify
from services.tenant.changes import Move, Wish, bring_back, grant, take
from services.tenant.lifecycle import State
from services.tenant.queries import tenants as queries
from services.tenant.refusals import why_not, why_not_now
from services.tenant.turns import in_turn
from shared.access import replica
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts import tenant as contracts
from shared.messaging.subscriptions import Changed, Restoration, Subscriptions, change, do, restore, undo
from shared.postgres import Connection
from shared.text import name_key


async def register_tenants(
    connection: Connection, asks: Sequence[contracts.RegisterTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Put each tenant on record; the first to ask for a name gets it, also within one batch."""
    outcomes = await queries.register(connection, asks, now=clock.now())
    return [_registration(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)]


def _registration(ask: contracts.RegisterTenant, outcome: asyncpg.Record) -> Fact:
    if code := outcome["refusal"]:
        detail = why_not(code, ask.model_dump())
        return contracts.TenantRegistrationRefused(tenant_id=ask.tenant_id, code=code, detail=detail)
    products = _licensed(_sorted(ask.products), outcome["product_meanings"])
    return contracts.TenantRegistered(tenant_id=ask.tenant_id, products=products, **_meaning(outcome))


def _meaning(row: asyncpg.Record) -> dict[str, Any]:
    """Return what a tenant's tier means to the other services."""
    names = ("plan", "quotas", "isolation", "connections", "driver", "region", "parameters")
    return {name: row["tier_meaning"][name] for name in names} | {"usage_plan": _usage_plan(row)}


def _usage_plan(row: asyncpg.Record) -> contracts.UsagePlan:
    names = ("tier", "requests_per_second", "requests_per_day")
    return contracts.UsagePlan(version=row["version"], **{name: row["tier_meaning"][name] for name in names})


def _licensed(
    products: Sequence[Mapping[str, str]], meanings: Mapping[str, Mapping[str, Any]]
) -> tuple[contracts.LicensedProduct, ...]:
    """Return products with what they mean to the other services."""
    return tuple(contracts.LicensedProduct(**product, **meanings[product["name"]]) for product in products)


def _granted(verdict: asyncpg.Record) -> tuple[contracts.LicensedProduct, ...]:
    return _licensed(verdict["wanted"]["products"], verdict["wanted"]["product_meanings"])


async def deregister_tenants(connection: Connection, asks: Sequence[contracts.DeregisterTenant]) -> Sequence[Fact]:
    """Remove each tenant's record, if there is one, and free its name; an archive record is final and stays."""
    await queries.deregister(connection, [ask.tenant_id for ask in asks])
    return [contracts.TenantDeregistered(tenant_id=ask.tenant_id) for ask in asks]


async def activate_tenants(
    connection: Connection, asks: Sequence[contracts.ActivateTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Open each registered tenant for business; the second of two asks for one tenant finds it open."""
    move = Move(lifecycle.ACTIVATE, contracts.TenantActivated, contracts.TenantActivationRefused, "activated")
    changes = await take(connection, asks, move, clock=clock)
    return [changed.answer for changed in changes]


async def deactivate_tenants(
    connection: Connection, asks: Sequence[contracts.DeactivateTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Take back the activation of each tenant that is open; any other stays as it is."""
    await queries.move(connection, [ask.tenant_id for ask in asks], lifecycle.DEACTIVATE, now=clock.now())
    return [contracts.TenantDeactivated(tenant_id=ask.tenant_id) for ask in asks]


async def suspend_tenants(
    connection: Connection, asks: Sequence[contracts.SuspendTenant], *, clock: Clock
) -> Sequence[Changed]:
    """Suspend each active tenant."""
    move = Move(lifecycle.SUSPEND, contracts.TenantSuspended, contracts.TenantSuspensionRefused, "suspended")
    return await take(connection, asks, move, clock=clock)


async def lift_suspensions(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Fact]:
    """Put each tenant that is suspended by the ask back into the state in which it was found."""
    return await bring_back(connection, restorations, contracts.SuspensionLifted, clock=clock)


async def reactivate_tenants(
    connection: Connection, asks: Sequence[contracts.ReactivateTenant], *, clock: Clock
) -> Sequence[Changed]:
    """Open each suspended tenant for business again."""
    move = Move(lifecycle.REACTIVATE, contracts.TenantReactivated, contracts.TenantReactivationRefused, "reactivated")
    return await take(connection, asks, move, clock=clock)


async def withdraw_reactivations(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Fact]:
    """Put each tenant that is active by the ask back into the state in which it was found."""
    return await bring_back(connection, restorations, contracts.ReactivationWithdrawn, clock=clock)


async def begin_offboardings(
    connection: Connection, asks: Sequence[contracts.BeginOffboarding], *, clock: Clock
) -> Sequence[Changed]:
    """Put each tenant on its way out; one that is on it already changes nothing, so cancelling leaves it there."""
    move = Move(lifecycle.OFFBOARD, contracts.OffboardingBegun, contracts.OffboardingRefused, "off-boarded")
    return await take(connection, asks, move, clock=clock)


async def cancel_offboardings(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Fact]:
    """Put each tenant that is on its way out by the ask back into the state in which it was found."""
    return await bring_back(connection, restorations, contracts.OffboardingCancelled, clock=clock)


async def change_tiers(
    connection: Connection, asks: Sequence[contracts.ChangeTier], *, clock: Clock
) -> Sequence[Changed]:
    """Put each active tenant on another tier that can be taken, or on its own anew where that has changed since."""

    def done(ask: contracts.ChangeTier, verdict: asyncpg.Record) -> Fact:
        return contracts.TierChanged(tenant_id=ask.tenant_id, tier=ask.tier, **_meaning(verdict))

    wish: Wish[contracts.ChangeTier] = Wish(
        wanted=lambda ask: {"tier": ask.tier},
        states=(State.ACTIVE,),
        done=done,
        refused=contracts.TierChangeRefused,
        participle="put on another tier",
    )
    return await grant(connection, asks, wish, clock=clock)


async def restore_tiers(connection: Connection, restorations: Sequence[Restoration], *, clock: Clock) -> Sequence[Fact]:
    """Put each tenant that is on another tier by the ask back on the one on which it was found, retired or not.

    It means what it had meant to the tenant.
    """
    await bring_back(connection, restorations, contracts.TierRestored, clock=clock)
    rows = await queries.tier_meanings(connection, [each.tenant_id for each in restorations])
    plans = {row["tenant_id"]: _usage_plan(row) for row in rows}
    return [
        contracts.TierRestored(tenant_id=each.tenant_id, usage_plan=plans.get(each.tenant_id)) for each in restorations
    ]


async def change_products(
    connection: Connection, asks: Sequence[contracts.ChangeProducts], *, clock: Clock
) -> Sequence[Changed]:
    """Let each active tenant have exactly the products asked for; what it has already it may keep, retired or not.

    That goes on to mean what it meant to the tenant, also in another version.
    """
    wish: Wish[contracts.ChangeProducts] = Wish(
        wanted=lambda ask: {"products": _sorted(ask.products)},
        states=(State.ACTIVE,),
        done=lambda ask, verdict: contracts.ProductsChanged(tenant_id=ask.tenant_id, products=_granted(verdict)),
        refused=contracts.ProductChangeRefused,
        participle="given other products",
    )
    return await grant(connection, asks, wish, clock=clock)


async def restore_products(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Fact]:
    """Let each tenant that has other products by the ask have those again that it was found with.

    They mean what they had meant to the tenant.
    """
    return await bring_back(connection, restorations, contracts.ProductsRestored, clock=clock)


async def update_tenants(
    connection: Connection, asks: Sequence[contracts.UpdateTenant], *, clock: Clock
) -> Sequence[Changed]:
    """Change the name, the expiration and the products of each tenant; the first to ask for a name gets it."""
    wish: Wish[contracts.UpdateTenant] = Wish(
        wanted=_terms,
        states=(State.ACTIVE, State.SUSPENDED),
        done=lambda ask, verdict: contracts.TenantUpdated(tenant_id=ask.tenant_id, products=_granted(verdict)),
        refused=contracts.TenantUpdateRefused,
        participle="updated",
    )
    return await grant(connection, asks, wish, clock=clock)


def _terms(ask: contracts.UpdateTenant) -> dict[str, Any]:
    return {
        "customer_name": ask.customer_name,
        "name_key": name_key(ask.customer_name),
        "expiration": ask.expiration.isoformat(),
        "products": _sorted(ask.products),
    }


def _sorted(products: Sequence[contracts.ProductVersion]) -> list[dict[str, str]]:
    return sorted((product.model_dump() for product in products), key=lambda product: product["name"])


async def restore_tenants(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Fact]:
    """Give each tenant that the ask has changed the name, the expiration and the products back.

    Raises:
        asyncpg.UniqueViolationError: another tenant has taken the former name meanwhile, which nobody may take away
            from it. The undo fails until the name is free or an operator decides.
    """
    return await bring_back(connection, restorations, contracts.TenantRestored, clock=clock)


async def archive_tenants(
    connection: Connection, asks: Sequence[contracts.ArchiveTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Leave of each tenant on its way out the archive record and a certificate. Nothing undoes it."""
    return await in_turn(asks, functools.partial(_archive, connection, clock=clock))


async def _archive(connection: Connection, asks: Sequence[contracts.ArchiveTenant], *, clock: Clock) -> Sequence[Fact]:
    now, tenant_ids = clock.now(), [ask.tenant_id for ask in asks]
    await queries.lock_tenants(connection, tenant_ids)
    records = await queries.records(connection, tenant_ids)
    ready = {tenant_id for tenant_id, record in records.items() if record["state"] in lifecycle.ARCHIVE.sources}
    certificates = {
        ask.tenant_id: certify(ask, records[ask.tenant_id], archived_at=now) for ask in asks if ask.tenant_id in ready
    }
    await queries.archive(connection, list(certificates.values()), now=now)
    return [_archived(ask.tenant_id, certificates.get(ask.tenant_id), records.get(ask.tenant_id)) for ask in asks]


def _archived(tenant_id: str, certificate: Certificate | None, record: asyncpg.Record | None) -> Fact:
    if certificate is not None:
        return contracts.TenantArchived(tenant_id=tenant_id, certificate_sha256=certificate.sha256)
    code, detail = why_not_now(record["state"] if record else None, "archived")
    # An operator may mend it: past the point of no return a refusal is never the last word.
    return contracts.TenantArchivingRefused(tenant_id=tenant_id, code=code, detail=detail, retryable=True)


SUBSCRIPTIONS: Subscriptions = {
    contracts.RegisterTenant: do(register_tenants),
    contracts.DeregisterTenant: undo(deregister_tenants),
    contracts.ActivateTenant: do(activate_tenants),
    contracts.DeactivateTenant: undo(deactivate_tenants),
    contracts.SuspendTenant: change(suspend_tenants),
    contracts.LiftSuspension: restore(lift_suspensions),
    contracts.ReactivateTenant: change(reactivate_tenants),
    contracts.WithdrawReactivation: restore(withdraw_reactivations),
    contracts.ChangeTier: change(change_tiers),
    contracts.RestoreTier: restore(restore_tiers),
    contracts.ChangeProducts: change(change_products),
    contracts.RestoreProducts: restore(restore_products),
    contracts.UpdateTenant: change(update_tenants),
    contracts.RestoreTenant: restore(restore_tenants),
    contracts.BeginOffboarding: change(begin_offboardings),
    contracts.CancelOffboarding: restore(cancel_offboardings),
    contracts.ArchiveTenant: do(archive_tenants),
    **replica.SUBSCRIPTIONS,
}

PUBLISHES = (
    contracts.TenantRegistered,
    contracts.TenantRegistrationRefused,
    contracts.TenantDeregistered,
    contracts.TenantActivated,
    contracts.TenantActivationRefused,
    contracts.TenantDeactivated,
    contracts.TenantSuspended,
    contracts.TenantSuspensionRefused,
    contracts.SuspensionLifted,
    contracts.TenantReactivated,
    contracts.TenantReactivationRefused,
    contracts.ReactivationWithdrawn,
    contracts.TierChanged,
    contracts.TierChangeRefused,
    contracts.TierRestored,
    contracts.ProductsChanged,
    contracts.ProductChangeRefused,
    contracts.ProductsRestored,
    contracts.TenantUpdated,
    contracts.TenantUpdateRefused,
    contracts.TenantRestored,
    contracts.OffboardingBegun,
    contracts.OffboardingRefused,
    contracts.OffboardingCancelled,
    contracts.TenantArchived,
    contracts.TenantArchivingRefused,
    contracts.CatalogPublished,
    contracts.ApiKeysUsed,
    contracts.DecisionRecorded,
)
