"""What the provisioning service does when it is asked. The last lines list all it hears and all it says.

A driver works on another database than the one of the transaction, so its effect is there before the commit, and stays
if that never comes. Therefore doing is idempotent, for it is then done again; and undoing never asks whether something
was done: it removes whatever there is, or makes the driver's side agree with what our own tables say afterwards.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from services.provisioning import queries
from services.provisioning.drivers import NoEnvironmentError, Partition, PoolDriver
from services.provisioning.environments import Environments
from services.provisioning.exports import LONGEST_SECONDS, Export, ExportTooLongError, make_export
from shared.access import replica
from shared.clock import Clock
from shared.contracts import provisioning as contracts
from shared.contracts.base import Fact
from shared.contracts.tenant import ProductVersion
from shared.ids import Ids
from shared.messaging.subscriptions import Changed, Restoration, Subscriptions, change, do, restore, undo
from shared.postgres import Connection

ISOLATIONS = ("pool",)
"""The kinds of environment that can be made."""


async def provision_environments(
    connection: Connection,
    asks: Sequence[contracts.ProvisionEnvironment],
    *,
    driver: PoolDriver,
    clock: Clock,
    ids: Ids,
    regions: Sequence[str],
) -> Sequence[Fact]:
    """Make a ready environment for each tenant, in the first of ``regions`` unless it names another of them."""
    accepted = [ask for ask in asks if _refusal(ask, regions) is None]
    wanted = [ask.model_dump() | {"environment_id": ids.new(), "region": ask.region or regions[0]} for ask in accepted]
    made = await queries.create_environments(connection, wanted, now=clock.now())
    await driver.provision([Partition(tenant_id, each["connections"]) for tenant_id, each in made.items()])
    return [_refusal(ask, regions) or _provisioned(made[ask.tenant_id]) for ask in asks]


def _refusal(ask: contracts.ProvisionEnvironment, regions: Sequence[str]) -> contracts.EnvironmentRefused | None:
    if ask.region is not None and ask.region not in regions:
        detail = f"There is no region {ask.region!r}, only {', '.join(regions)}."
        return contracts.EnvironmentRefused(tenant_id=ask.tenant_id, code="unknown_region", detail=detail)
    if ask.isolation not in ISOLATIONS:
        return contracts.EnvironmentRefused(
            tenant_id=ask.tenant_id, code="unsupported_isolation", detail=_unsupported(ask.isolation)
        )
    return None


def _unsupported(isolation: str) -> str:
    return f"Isolation {isolation!r} cannot be provided, only {', '.join(ISOLATIONS)}."


def _provisioned(environment: asyncpg.Record) -> Fact:
    return contracts.EnvironmentProvisioned(
        tenant_id=environment["tenant_id"],
        environment_id=str(environment["environment_id"]),
        isolation=environment["isolation"],
        region=environment["region"],
    )


async def deprovision_environments(
    connection: Connection, asks: Sequence[contracts.DeprovisionEnvironment], *, driver: PoolDriver
) -> Sequence[Fact]:
    """Remove each tenant's environment with all its data and logins, wherever there is something of it."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.delete_environments(connection, tenant_ids)
    await driver.deprovision(tenant_ids)
    return [contracts.EnvironmentDeprovisioned(tenant_id=tenant_id) for tenant_id in tenant_ids]


async def remove_environments(
    connection: Connection, asks: Sequence[contracts.RemoveEnvironment], *, driver: PoolDriver
) -> Sequence[Fact]:
    """Remove each tenant's environment for good, and tell how much there was of it."""
    tenant_ids = list(dict.fromkeys(ask.tenant_id for ask in asks))
    found = await queries.lock_environments(connection, tenant_ids)
    deployed = await queries.deployments(connection, tenant_ids)
    # Until we commit the environment is there, and by its id a removal that is repeated gets the same counts.
    rows = await driver.remove({each: found[each]["environment_id"] if each in found else None for each in tenant_ids})
    await queries.delete_environments(connection, tenant_ids)
    deleted = {
        each: {"environments": int(each in found), "deployments": len(deployed.get(each, ())), **rows[each]}
        for each in tenant_ids
    }
    return [_removed(ask.tenant_id, deleted) for ask in asks]


def _removed(tenant_id: str, deleted: dict[str, dict[str, int]]) -> Fact:
    """Tell of a removal; who asks for the same once more finds nothing."""
    counts = deleted[tenant_id]
    deleted[tenant_id] = dict.fromkeys(counts, 0)
    return contracts.EnvironmentRemoved(tenant_id=tenant_id, deleted=counts)


async def move_environments(
    connection: Connection, asks: Sequence[contracts.MoveEnvironment], *, driver: PoolDriver
) -> Sequence[Changed]:
    """Give each environment the isolation and the connections that are asked for."""
    environments = await Environments.lock(connection, asks)
    changes = [_move(environments, ask) for ask in asks]
    await environments.settle(driver)
    return changes


def _move(environments: Environments, ask: contracts.MoveEnvironment) -> Changed:
    if ask.isolation not in ISOLATIONS:
        return Changed(
            contracts.EnvironmentMoveRefused(
                tenant_id=ask.tenant_id, code="unsupported_isolation", detail=_unsupported(ask.isolation)
            )
        )
    if ask.tenant_id not in environments:
        return Changed(contracts.EnvironmentMoveRefused(tenant_id=ask.tenant_id, **_unknown(ask.tenant_id)))
    before = environments.change(ask.tenant_id, {"isolation": ask.isolation, "connections": ask.connections})
    return Changed(contracts.EnvironmentMoved(tenant_id=ask.tenant_id, isolation=ask.isolation), before)


def _unknown(tenant_id: str) -> dict[str, str]:
    return {"code": "unknown_environment", "detail": f"There is no environment of tenant {tenant_id}."}


async def move_environments_back(
    connection: Connection, restorations: Sequence[Restoration], *, driver: PoolDriver
) -> Sequence[Fact]:
    """Give each environment the isolation and the connections that it was found with."""
    await _bring_back(connection, restorations, driver)
    return [contracts.EnvironmentMovedBack(tenant_id=each.tenant_id) for each in restorations]


async def _bring_back(connection: Connection, restorations: Sequence[Restoration], driver: PoolDriver) -> None:
    environments = await Environments.lock(connection, restorations)
    for each in restorations:
        if each.before is not None and each.tenant_id in environments:
            environments.change(each.tenant_id, each.before)
    await environments.settle(driver)


async def throttle_environments(
    connection: Connection, asks: Sequence[contracts.ThrottleEnvironment], *, driver: PoolDriver, clock: Clock
) -> Sequence[Changed]:
    """Let nobody work in these environments; one that is throttled already keeps its reason."""
    environments = await Environments.lock(connection, asks)
    changes = [_throttle(environments, ask, now=clock.now().isoformat()) for ask in asks]
    await environments.settle(driver)
    return changes


def _throttle(environments: Environments, ask: contracts.ThrottleEnvironment, *, now: str) -> Changed:
    if ask.tenant_id not in environments:
        return Changed(contracts.EnvironmentThrottlingRefused(tenant_id=ask.tenant_id, **_unknown(ask.tenant_id)))
    before = None
    if not environments.is_throttled(ask.tenant_id):
        before = environments.change(ask.tenant_id, {"throttled_at": now, "throttle_reason": ask.reason})
    return Changed(contracts.EnvironmentThrottled(tenant_id=ask.tenant_id), before)


async def unthrottle_environments(
    connection: Connection, restorations: Sequence[Restoration], *, driver: PoolDriver
) -> Sequence[Fact]:
    """Leave each environment as open as it was found."""
    await _bring_back(connection, restorations, driver)
    return [contracts.EnvironmentUnthrottled(tenant_id=each.tenant_id) for each in restorations]


async def release_environments(
    connection: Connection, asks: Sequence[contracts.ReleaseEnvironment], *, driver: PoolDriver
) -> Sequence[Changed]:
    """Let tenants work in these environments again."""
    environments = await Environments.lock(connection, asks)
    changes = [_release(environments, ask) for ask in asks]
    await environments.settle(driver)
    return changes


def _release(environments: Environments, ask: contracts.ReleaseEnvironment) -> Changed:
    if ask.tenant_id not in environments:
        return Changed(contracts.EnvironmentReleaseRefused(tenant_id=ask.tenant_id, **_unknown(ask.tenant_id)))
    before = environments.change(ask.tenant_id, {"throttled_at": None, "throttle_reason": None})
    return Changed(contracts.EnvironmentReleased(tenant_id=ask.tenant_id), before)


async def rethrottle_environments(
    connection: Connection, restorations: Sequence[Restoration], *, driver: PoolDriver
) -> Sequence[Fact]:
    """Leave each environment as throttled as it was found, since then and for that reason."""
    await _bring_back(connection, restorations, driver)
    return [contracts.EnvironmentRethrottled(tenant_id=each.tenant_id) for each in restorations]


async def deploy_products(connection: Connection, asks: Sequence[contracts.DeployProducts]) -> Sequence[Changed]:
    """Let exactly these products run in each environment."""
    tenant_ids = [ask.tenant_id for ask in asks]
    known = await queries.lock_environments(connection, tenant_ids)
    deployed = await queries.deployments(connection, tenant_ids)
    found = {tenant_id: deployed.get(tenant_id, {}) for tenant_id in known}
    running = dict(found)
    changes = [_deploy(running, ask) for ask in asks]
    await queries.set_deployments(connection, {each: running[each] for each in running if running[each] != found[each]})
    return changes


def _deploy(running: dict[str, dict[str, str]], ask: contracts.DeployProducts) -> Changed:
    if ask.tenant_id not in running:
        return Changed(contracts.DeploymentRefused(tenant_id=ask.tenant_id, **_unknown(ask.tenant_id)))
    found, wanted = running[ask.tenant_id], _versions(ask.products)
    running[ask.tenant_id] = wanted
    before = None if found == wanted else {"products": found}
    return Changed(contracts.ProductsDeployed(tenant_id=ask.tenant_id), before)


def _versions(products: Sequence[ProductVersion]) -> dict[str, str]:
    return {product.name: product.version for product in products}


async def restore_deployments(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Let exactly the products run that were found."""
    found = {each.tenant_id: each.before["products"] for each in restorations if each.before is not None}
    known = await queries.lock_environments(connection, list(found))
    await queries.set_deployments(connection, {each: found[each] for each in known})
    return [contracts.DeploymentsRestored(tenant_id=each.tenant_id) for each in restorations]


async def export_data(
    connection: Connection,
    asks: Sequence[contracts.ExportData],
    *,
    driver: PoolDriver,
    clock: Clock,
    ids: Ids,
    export_lifetime: timedelta,
) -> Sequence[Changed]:
    """Make an export for each ask, one after the other.

    Raises:
        ExportTooLongError: they took longer than this transaction should. The kernel then tries one at a time.
    """
    known = await queries.lock_environments(connection, [ask.tenant_id for ask in asks])
    make = functools.partial(make_export, connection, driver=driver, clock=clock, ids=ids, lifetime=export_lifetime)
    try:
        async with asyncio.timeout(LONGEST_SECONDS) as bound:
            return [await _export(ask.tenant_id, make, is_known=ask.tenant_id in known) for ask in asks]
    except TimeoutError:
        if bound.expired():
            raise ExportTooLongError(f"{len(asks)} exports took longer than {LONGEST_SECONDS:g} s") from None
        raise


async def _export(tenant_id: str, make: Callable[[str], Awaitable[Export]], *, is_known: bool) -> Changed:
    refused = Changed(contracts.DataExportRefused(tenant_id=tenant_id, **_unknown(tenant_id)))
    if not is_known:
        return refused
    try:
        return _exported(await make(tenant_id))
    except NoEnvironmentError:  # the driver has not heard of it
        return refused


def _exported(export: Export) -> Changed:
    fact = contracts.DataExported(
        tenant_id=export.tenant_id, export_id=str(export.export_id), rows=export.rows, sha256=export.sha256
    )
    return Changed(fact, {"export_id": fact.export_id})


async def discard_exports(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Delete each export that was made; what was rolled back with its transaction left nothing here or elsewhere."""
    export_ids = [UUID(each.before["export_id"]) for each in restorations if each.before is not None]
    await queries.delete_exports(connection, export_ids)
    return [contracts.ExportDiscarded(tenant_id=each.tenant_id) for each in restorations]


SUBSCRIPTIONS: Subscriptions = {
    contracts.ProvisionEnvironment: do(provision_environments),
    contracts.DeprovisionEnvironment: undo(deprovision_environments),
    contracts.MoveEnvironment: change(move_environments),
    contracts.MoveEnvironmentBack: restore(move_environments_back),
    contracts.DeployProducts: change(deploy_products),
    contracts.RestoreDeployments: restore(restore_deployments),
    contracts.ThrottleEnvironment: change(throttle_environments),
    contracts.UnthrottleEnvironment: restore(unthrottle_environments),
    contracts.ReleaseEnvironment: change(release_environments),
    contracts.RethrottleEnvironment: restore(rethrottle_environments),
    contracts.ExportData: change(export_data),
    contracts.DiscardExport: restore(discard_exports),
    contracts.RemoveEnvironment: do(remove_environments),
    **replica.SUBSCRIPTIONS,
}
PUBLISHES = (
    contracts.EnvironmentProvisioned,
    contracts.EnvironmentRefused,
    contracts.EnvironmentDeprovisioned,
    contracts.EnvironmentMoved,
    contracts.EnvironmentMoveRefused,
    contracts.EnvironmentMovedBack,
    contracts.ProductsDeployed,
    contracts.DeploymentRefused,
    contracts.DeploymentsRestored,
    contracts.EnvironmentThrottled,
    contracts.EnvironmentThrottlingRefused,
    contracts.EnvironmentUnthrottled,
    contracts.EnvironmentReleased,
    contracts.EnvironmentReleaseRefused,
    contracts.EnvironmentRethrottled,
    contracts.DataExported,
    contracts.DataExportRefused,
    contracts.ExportDiscarded,
    contracts.EnvironmentRemoved,
    contracts.ApiKeysUsed,
    contracts.DecisionRecorded,
)
