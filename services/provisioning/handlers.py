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
from services.provisioning.jobs import beginning, planning
from services.provisioning.jobs.answers import provisioned, refusal, removed, undone
from services.provisioning.jobs.job import Failure, Leg, Operation, Settings
from services.provisioning.jobs.planning import Estate, closed
from services.provisioning.queries import environments, jobs
from shared.access import replica
from shared.clock import Clock
from shared.contracts import provisioning as contracts
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging.barrier import key_of
from shared.messaging.event import Event
from shared.messaging.subscriptions import Reversal, Subscriptions, begin, turn_back
from shared.postgres import Connection

Plan: TypeAlias = Callable[[Any, Estate], Sequence[Leg] | Failure]
"""What an ask means for the environments that there are, or why it cannot be had."""


async def provision_environments(
    connection: Connection,
    events: Sequence[Event],
    *,
    drivers: Drivers,
    clock: Clock,
    ids: Ids,
    regions: Sequence[str],
) -> Sequence[Fact | None]:
    """Begin to make each tenant's environments, in the first of ``regions`` unless they are to be in another."""
    asks: dict[UUID, Any] = {event.id: event.message for event in events}
    failures = {event_id: planning.unprovidable(ask, drivers, regions) for event_id, ask in asks.items()}
    wanted = {
        event_id: planning.provisioning(ask, regions[0], ids)
        for event_id, ask in asks.items()
        if failures[event_id] is None
    }
    own = [_columns(estate.own) for estate in wanted.values()]
    found = await environments.create(connection, own, now=clock.now())
    begun = {each: estate for each, estate in wanted.items() if _is_made_for(estate.own, found)}
    apart = [_columns(each) for estate in begun.values() for each in estate.products.values()]
    if apart:
        await environments.create(connection, apart, now=clock.now())
    rows = [
        beginning.going(event, Operation.PROVISION, planning.made(begun[event.id]), ids)
        for event in events
        if event.id in begun
    ]
    await jobs.create(connection, rows, now=clock.now())
    return [None if event.id in begun else _unbegun(event.message, failures[event.id], found) for event in events]


def _columns(wanted: Settings) -> dict[str, Any]:
    names = ("environment_id", "tenant_id", "driver", "isolation", "region", "connections", "parameters", "products")
    return {name: getattr(wanted, name) for name in names}


def _is_made_for(wanted: Settings, found: Mapping[str, asyncpg.Record]) -> bool:
    return bool(found[wanted.tenant_id]["environment_id"] == wanted.environment_id)


def _unbegun(ask: Any, failure: Failure | None, found: Mapping[str, asyncpg.Record]) -> Fact:
    """Answer where nothing is to be made: it cannot be, or is there already, or another job is at it."""
    if failure is not None:
        return refusal(Operation.PROVISION, ask.tenant_id, failure)
    environment = found[ask.tenant_id]
    if environment["status"] in {"ready", "moving"}:
        return provisioned(ask.tenant_id, environment)
    busy = Failure("environment_busy", f"The environment of tenant {ask.tenant_id} is {environment['status']}.")
    return refusal(Operation.PROVISION, ask.tenant_id, busy, retryable=True)


async def move_environments(
    connection: Connection, events: Sequence[Event], *, drivers: Drivers, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to give each tenant's own environment the isolation and the connections that are asked for."""

    def plan(ask: contracts.MoveEnvironment, estate: Estate) -> Sequence[Leg] | Failure:
        return planning.moving(ask, estate.own, drivers)

    return await _begin(connection, events, Operation.MOVE, plan, clock=clock, ids=ids)


async def throttle_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to let nobody work in these environments; one that is throttled already keeps its reason."""

    def plan(ask: contracts.ThrottleEnvironment, estate: Estate) -> Sequence[Leg]:
        return planning.everywhere(Operation.THROTTLE, estate, closed(clock.now(), ask.reason))

    return await _begin(connection, events, Operation.THROTTLE, plan, clock=clock, ids=ids)


async def release_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to let tenants work in these environments again."""

    def plan(_: contracts.ReleaseEnvironment, estate: Estate) -> Sequence[Leg]:
        return planning.everywhere(Operation.RELEASE, estate, planning.OPEN)

    return await _begin(connection, events, Operation.RELEASE, plan, clock=clock, ids=ids)


async def deploy_products(
    connection: Connection,
    events: Sequence[Event],
    *,
    drivers: Drivers,
    clock: Clock,
    ids: Ids,
    regions: Sequence[str],
) -> Sequence[Fact | None]:
    """Begin to let exactly these products run, and to make environments for those that want one and have none."""

    def plan(ask: contracts.DeployProducts, estate: Estate) -> Sequence[Leg] | Failure:
        failure = planning.undeployable(ask.products, estate, drivers, regions)
        return failure or planning.deploying(ask.products, estate, regions[0], now=clock.now(), ids=ids)

    return await _begin(connection, events, Operation.DEPLOY, plan, clock=clock, ids=ids)


async def export_data(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to make an export for each ask."""

    def plan(_: contracts.ExportData, estate: Estate) -> Sequence[Leg]:
        return [beginning.changing(Operation.EXPORT, estate.own, {})]

    return await _begin(connection, events, Operation.EXPORT, plan, clock=clock, ids=ids)


async def remove_environments(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to remove each tenant's environments for good; how much there was of them is told in the end."""

    def plan(_: contracts.RemoveEnvironment, estate: Estate) -> Sequence[Leg]:
        return planning.everywhere(Operation.REMOVE, estate, {})

    return await _begin(connection, events, Operation.REMOVE, plan, clock=clock, ids=ids)


async def remove_products(
    connection: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    """Begin to remove the environments of products that their tenants have no more, for good."""

    def plan(ask: contracts.RemoveProducts, estate: Estate) -> Sequence[Leg]:
        dropped = [each for product, each in estate.products.items() if product not in ask.products]
        return [beginning.changing(Operation.REMOVE, each, {}) for each in dropped]

    return await _begin(connection, events, Operation.REMOVE_PRODUCTS, plan, clock=clock, ids=ids)


async def _begin(
    connection: Connection, events: Sequence[Event], operation: Operation, plan: Plan, *, clock: Clock, ids: Ids
) -> Sequence[Fact | None]:
    tenant_ids = [event.message.tenant_id for event in events]
    await jobs.forget_done(connection, tenant_ids, [key_of(event)[0] for event in events])
    found = await environments.of_tenants(connection, tenant_ids)
    estates = planning.estates_of(Settings.of(row) for row in found)
    planned = [(event, _planned(event, estates, plan)) for event in events]
    begun = [(event, legs) for event, legs in planned if legs and not isinstance(legs, Failure)]
    await _announce(connection, [leg for _, legs in begun for leg in legs], clock=clock)
    await jobs.create(
        connection, [beginning.going(event, operation, legs, ids) for event, legs in begun], now=clock.now()
    )
    return [_answered_at_once(event, operation, legs) for event, legs in planned]


async def _announce(connection: Connection, legs: Sequence[Leg], *, clock: Clock) -> None:
    """Record what is about to be made, and say of what is to be moved or removed that it is."""
    if made := [Settings.of(leg.wanted) for leg in legs if leg.operation is Operation.PROVISION]:
        await environments.create(connection, [_columns(each) for each in made], now=clock.now())
    if moving := [leg.tenancy for leg in legs if "isolation" in leg.wanted and leg.operation is Operation.MOVE]:
        await environments.set_status(connection, moving, "moving")
    if leaving := [leg.tenancy for leg in legs if leg.operation is Operation.REMOVE]:
        await environments.set_status(connection, leaving, "removing")


def _planned(event: Event, estates: Mapping[str, Estate], plan: Plan) -> Sequence[Leg] | Failure:
    tenant_id = event.message.tenant_id
    if tenant_id not in estates:
        return Failure("unknown_environment", f"There is no environment of tenant {tenant_id}.")
    return plan(event.message, estates[tenant_id])


def _answered_at_once(event: Event, operation: Operation, legs: Sequence[Leg] | Failure) -> Fact | None:
    tenant_id = event.message.tenant_id
    if operation in {Operation.REMOVE, Operation.REMOVE_PRODUCTS}:
        return None if legs and not isinstance(legs, Failure) else removed(operation, tenant_id)
    return refusal(operation, tenant_id, legs) if isinstance(legs, Failure) else None


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
    turned = {known[key]["job_id"]: undos[key].undo for key in undos if key in known}
    await jobs.turn_back(
        connection,
        list(turned),
        [undo.id for undo in turned.values()],
        [ids.new() for _ in turned],
        traceparents=[undo.traceparent for undo in turned.values()],
        now=clock.now(),
    )
    begun = await _begin_to_take_back(
        connection, operation, [each for key, each in undos.items() if key not in known], ids
    )
    await jobs.create(connection, list(begun.values()), now=clock.now())
    if operation is Operation.PROVISION:
        leaving = [undos[key].undo.message.tenant_id for key in {*known, *begun}]
        await environments.set_status_of_tenants(connection, leaving, "removing")
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
    found = await environments.of_tenants(connection, [_tenant_of(each) for each in reversals])
    estates = planning.estates_of(Settings.of(row) for row in found)
    return {
        key_of(each.undo): beginning.going_back(
            each.undo, operation, planning.taking_back(operation, estates[_tenant_of(each)], each.before), ids
        )
        for each in reversals
        if _tenant_of(each) in estates and (operation is Operation.PROVISION or each.before is not None)
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
    contracts.RemoveProducts: begin(remove_products),
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
    contracts.ProductsRemoved,
    contracts.StepProgressed,
    contracts.MailReported,
    contracts.MailSendingPaused,
    contracts.MailSendingResumed,
    contracts.ApiKeysUsed,
    contracts.DecisionRecorded,
)
