"""What the provisioning service does when it is asked. The last lines list all it hears and all it says.

A driver works on another database than the one of the transaction, so its effect is there before the commit, and stays
if that never comes. Therefore doing is idempotent, for it is then done again; and undoing never asks our own tables
whether there is something to undo.
"""

from collections.abc import Sequence

import asyncpg

from services.provisioning import queries
from services.provisioning.drivers import PoolDriver
from shared.clock import Clock
from shared.contracts import provisioning as contracts
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging.subscriptions import Subscriptions, do, undo
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
    await driver.provision([ask.tenant_id for ask in accepted])
    return [_refusal(ask, regions) or _provisioned(made[ask.tenant_id]) for ask in asks]


def _refusal(ask: contracts.ProvisionEnvironment, regions: Sequence[str]) -> contracts.EnvironmentRefused | None:
    if ask.region is not None and ask.region not in regions:
        detail = f"There is no region {ask.region!r}, only {', '.join(regions)}."
        return contracts.EnvironmentRefused(tenant_id=ask.tenant_id, code="unknown_region", detail=detail)
    if ask.isolation not in ISOLATIONS:
        detail = f"Isolation {ask.isolation!r} cannot be provided, only {', '.join(ISOLATIONS)}."
        return contracts.EnvironmentRefused(tenant_id=ask.tenant_id, code="unsupported_isolation", detail=detail)
    return None


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


SUBSCRIPTIONS: Subscriptions = {
    contracts.ProvisionEnvironment: do(provision_environments),
    contracts.DeprovisionEnvironment: undo(deprovision_environments),
}
PUBLISHES = (
    contracts.EnvironmentProvisioned,
    contracts.EnvironmentRefused,
    contracts.EnvironmentDeprovisioned,
)
