"""What the provisioning service does when it is asked. The last lines list all it hears and all it says.

Nothing is made here. What is asked for becomes a job, recorded with the environment in the transaction that takes the
ask; workers do it (`services.provisioning.jobs`) and answer when it is done. What can be refused at once, or is so
already, is answered at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs import beginning
from services.provisioning.jobs.answers import provisioned, refusal, removed, undone
from services.provisioning.jobs.job import Failure, Operation, Settings
from services.provisioning.queries import environments, jobs
from shared.access import replica
from shared.clock import Clock
from shared.contracts import provisioning as contracts
from shared.contracts.base import Ask, Fact
from shared.contracts.tenant import ProductVersion
from shared.ids import Ids
from shared.messaging.barrier import key_of
from shared.messaging.event import Event
from shared.messaging.subscriptions import Reversal, Subscriptions, begin, turn_back
from shared.postgres import Connection

Plan: TypeAlias = Callable[[Any, Settings], Mapping[str, Any] | Failure]
"""What an ask wants of the environment that there is, or why it cannot be had."""


async def provision_environments(
    connection: Connection,
    events: Sequence[Event],
    *,
    drivers: Drivers,
    clock: Clock,
    ids: Ids,
    regions: Sequence[str],
) -> Sequence[Fact | None]:
    """Begin to make an environment for each tenant, in the first of ``regions`` unless it is to be in another."""
    wanted = {
        event.id: _wanted(event.message, regions[0], ids)
        for event in events
        if _unprovidable(event.message, drivers, regions) is None
    }
    found = await environments.create(connection, [_columns(each) for each in wanted.values()], now=clock.now())
    begun = [event for event in events if event.id in wanted and _is_made_for(wanted[event.id], found)]
    await jobs.create(
        connection, [beginning.provisioning(event, wanted[event.id], ids) for event in begun], now=clock.now()
    )
    return [None if event in begun else _unbegun(event.message, drivers, regions, found) for event in events]


def _wanted(ask: Any, default_region: str, ids: Ids) -> Settings:
    return Settings(
        environment_id=ids.new(),
        tenant_id=ask.tenant_id,
        driver=ask.driver,
        isolation=ask.isolation,
        region=ask.region or default_region,
        status="provisioning",
        connections=ask.connections,
        parameters=ask.parameters,
        products=_versions(ask.products),
    )


def _columns(wanted: Settings) -> dict[str, Any]:
    names = ("environment_id", "tenant_id", "driver", "isolation", "region", "connections", "parameters", "products")
    return {name: getattr(wanted, name) for name in names}


def _is_made_for(wanted: Settings, found: Mapping[str, asyncpg.Record]) -> bool:
    return bool(found[wanted.tenant_id]["environment_id"] == wanted.environment_id)


def _unbegun(ask: Any, drivers: Drivers, regions: Sequence[str], found: Mapping[str, asyncpg.Record]) -> Fact:
    """Answer where nothing is to be made: it cannot be, or is there already, or another job is at it."""
    if failure := _unprovidable(ask, drivers, regions):
        return refusal(Operation.PROVISION, ask.tenant_id, failure)
    environment = found[ask.tenant_id]
    if environment["status"] in {"ready", "moving"}:
        return provisioned(ask.tenant_id, environment)
    busy = Failure("environment_busy", f"The environment of tenant {ask.tenant_id} is {environment['status']}.")
    return refusal(Operation.PROVISION, ask.tenant_id, busy, retryable=True)


def _unprovidable(ask: Any, drivers: Drivers, regions: Sequence[str]) -> Failure | None:
    if ask.region is not None and ask.region not in regions:
        return Failure("unknown_region", f"There is no region {ask.region!r}, only {', '.join(regions)}.")
    if (driver := drivers.find(ask.driver)) is None:
        return Failure("unknown_driver", f"There is no driver {ask.driver!r}, only {', '.join(drivers.names())}.")
    return _unsupported(ask.isolation, driver.isolations)


def _unsupported(isolation: str, isolations: Sequence[str]) -> Failure | None:
    if isolation in isolations:
        return None
    detail = f"Isolation {isolation!r} cannot be provided, only {', '.join(isolations)}."
    return Failure("unsupported_isolation", detail)


async def move_environments(
    connection: Connection, events: Sequence[Event], *, drivers: Drivers, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to give each environment the isolation and the connections that are asked for."""

    def plan(ask: contracts.MoveEnvironment, environment: Settings) -> Mapping[str, Any] | Failure:
        if ask.driver != environment.driver:
            detail = f"An environment of the driver {environment.driver!r} cannot be moved to {ask.driver!r}."
            return Failure("unsupported_move", detail)
        driver = drivers.find(environment.driver)
        if failure := _unsupported(ask.isolation, driver.isolations if driver else ()):
            return failure
        wanted: dict[str, Any] = {"connections": ask.connections, "parameters": ask.parameters}
        return wanted if ask.isolation == environment.isolation else wanted | {"isolation": ask.isolation}

    return await _begin(connection, events, Operation.MOVE, plan, clock=clock, ids=ids)


async def throttle_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to let nobody work in these environments; one that is throttled already keeps its reason."""
    now = clock.now().isoformat()

    def plan(ask: contracts.ThrottleEnvironment, _: Settings) -> Mapping[str, Any]:
        return {"throttled_at": now, "throttle_reason": ask.reason}

    return await _begin(connection, events, Operation.THROTTLE, plan, clock=clock, ids=ids)


async def release_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to let tenants work in these environments again."""

    def plan(_: contracts.ReleaseEnvironment, __: Settings) -> Mapping[str, Any]:
        return {"throttled_at": None, "throttle_reason": None}

    return await _begin(connection, events, Operation.RELEASE, plan, clock=clock, ids=ids)


async def deploy_products(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to let exactly these products run in each environment."""

    def plan(ask: contracts.DeployProducts, _: Settings) -> Mapping[str, Any]:
        return {"products": _versions(ask.products)}

    return await _begin(connection, events, Operation.DEPLOY, plan, clock=clock, ids=ids)


def _versions(products: Sequence[ProductVersion]) -> dict[str, str]:
    return {product.name: product.version for product in products}


async def export_data(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to make an export for each ask."""
    return await _begin(connection, events, Operation.EXPORT, _nothing, clock=clock, ids=ids)


async def remove_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to remove each tenant's environment for good; how much there was of it is told in the end."""
    await environments.set_status(connection, [event.message.tenant_id for event in events], "removing")
    return await _begin(connection, events, Operation.REMOVE, _nothing, clock=clock, ids=ids)


def _nothing(_: Ask, __: Settings) -> Mapping[str, Any]:
    return {}


async def _begin(
    connection: Connection, events: Sequence[Event], operation: Operation, plan: Plan, *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    tenant_ids = [event.message.tenant_id for event in events]
    await jobs.forget_done(connection, tenant_ids, [key_of(event)[0] for event in events])
    known = {each: Settings.of(row) for each, row in (await environments.find(connection, tenant_ids)).items()}
    planned = [_planned(event, known, plan) for event in events]
    begun = [
        beginning.changing(event, operation, known[event.message.tenant_id], wanted, ids)
        for event, wanted in zip(events, planned, strict=True)
        if not isinstance(wanted, Failure)
    ]
    await jobs.create(connection, begun, now=clock.now())
    moving = [each["tenant_id"] for each in begun if "isolation" in each["wanted"]]
    if moving:
        await environments.set_status(connection, moving, "moving")
    return [
        _refused(event, operation, wanted) if isinstance(wanted, Failure) else None
        for event, wanted in zip(events, planned, strict=True)
    ]


def _planned(event: Event, known: Mapping[str, Settings], plan: Plan) -> Mapping[str, Any] | Failure:
    tenant_id = event.message.tenant_id
    if tenant_id not in known:
        return Failure("unknown_environment", f"There is no environment of tenant {tenant_id}.")
    return plan(event.message, known[tenant_id])


def _refused(event: Event, operation: Operation, failure: Failure) -> Fact:
    tenant_id = event.message.tenant_id
    return removed(tenant_id) if operation is Operation.REMOVE else refusal(operation, tenant_id, failure)


_TAKEN_BACK: Mapping[type, Operation] = {
    contracts.DeprovisionEnvironment: Operation.PROVISION,
    contracts.MoveEnvironmentBack: Operation.MOVE,
    contracts.RestoreDeployments: Operation.DEPLOY,
    contracts.UnthrottleEnvironment: Operation.THROTTLE,
    contracts.RethrottleEnvironment: Operation.RELEASE,
    contracts.DiscardExport: Operation.EXPORT,
}


async def take_back(
    connection: Connection, reversals: Sequence[Reversal], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Turn around what is under way, begin to take back what was done, and say so where there is nothing of either."""
    operation = _TAKEN_BACK[type(reversals[0].undo.message)]
    undos = {key_of(each.undo): each for each in reversals}  # of a repeated one, the newest is answered
    known = await jobs.lock(connection, list(undos))
    turned = {known[key]["job_id"]: undos[key].undo.id for key in undos if key in known}
    await jobs.turn_back(connection, list(turned), list(turned.values()), [ids.new() for _ in turned], now=clock.now())
    begun = await _begin_to_take_back(
        connection, operation, [each for key, each in undos.items() if key not in known], ids
    )
    await jobs.create(connection, list(begun.values()), now=clock.now())
    if operation is Operation.PROVISION:
        leaving = [undos[key].undo.message.tenant_id for key in {*known, *begun}]
        await environments.set_status(connection, leaving, "removing")
    return [
        None if key_of(each.undo) in known or key_of(each.undo) in begun else undone(operation, _tenant_of(each))
        for each in reversals
    ]


async def _begin_to_take_back(
    connection: Connection, operation: Operation, reversals: Sequence[Reversal], ids: Ids
) -> dict[tuple[UUID, str], dict[str, Any]]:
    """Return jobs for what no job is known of: environments that are there, and what the release before changed."""
    if not reversals:
        return {}
    found = await environments.find(connection, [_tenant_of(each) for each in reversals])
    return {
        key_of(each.undo): beginning.taking_back(
            each.undo, operation, Settings.of(found[_tenant_of(each)]), each.before, ids
        )
        for each in reversals
        if _tenant_of(each) in found and (operation is Operation.PROVISION or each.before is not None)
    }


def _tenant_of(reversal: Reversal) -> str:
    return reversal.undo.message.tenant_id


SUBSCRIPTIONS: Subscriptions = {
    contracts.ProvisionEnvironment: begin(provision_environments),
    contracts.DeprovisionEnvironment: turn_back(take_back),
    contracts.MoveEnvironment: begin(move_environments),
    contracts.MoveEnvironmentBack: turn_back(take_back),
    contracts.DeployProducts: begin(deploy_products),
    contracts.RestoreDeployments: turn_back(take_back),
    contracts.ThrottleEnvironment: begin(throttle_environments),
    contracts.UnthrottleEnvironment: turn_back(take_back),
    contracts.ReleaseEnvironment: begin(release_environments),
    contracts.RethrottleEnvironment: turn_back(take_back),
    contracts.ExportData: begin(export_data),
    contracts.DiscardExport: turn_back(take_back),
    contracts.RemoveEnvironment: begin(remove_environments),
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
    contracts.StepProgressed,
    contracts.MailReported,
    contracts.MailSendingPaused,
    contracts.MailSendingResumed,
    contracts.ApiKeysUsed,
    contracts.DecisionRecorded,
)
