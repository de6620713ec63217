"""What onboarding does with what the other services tell."""

from collections.abc import Sequence
from uuid import UUID

from services.onboarding import queries
from services.onboarding.engine import Answer, Engine
from services.onboarding.saga import Input, Refused, Succeeded, Undone
from shared.contracts import billing, identity, metrics, onboarding, provisioning, tenant
from shared.contracts.base import Fact, Refusal
from shared.messaging.barrier import key_of
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Subscriptions, follow, hear
from shared.postgres import Connection


async def continue_workflows(connection: Connection, events: Sequence[Event], *, engine: Engine) -> Sequence[Outgoing]:
    """Let each answer move its workflow on."""
    return await engine.take(connection, [_answer(event) for event in events])


def _answer(event: Event) -> Answer:
    workflow_id, step = key_of(event)
    fact = event.message
    assert isinstance(fact, Fact)
    to = fact.answers.routing_key() if fact.answers is not None else None
    return Answer(workflow_id, step, to, _input(fact, step, event.causation_id))


def _input(fact: Fact, step: str, ask_id: UUID | None) -> Input:
    if fact.answers is not None and fact.answers.undoes is not None:
        return Undone(step, ask_id)
    if isinstance(fact, Refusal):
        return Refused(step, ask_id, fact.code, fact.detail, fact.retryable)
    return Succeeded(step, ask_id, fact.model_dump(mode="json"))


async def keep_catalog(connection: Connection, facts: Sequence[tenant.CatalogPublished]) -> Sequence[Fact]:
    """Keep the newest catalog, against which requests are checked."""
    newest = max(facts, key=lambda fact: fact.revision)
    await queries.keep_catalog(connection, revision=newest.revision, content=newest.model_dump(mode="json"))
    return []


SUBSCRIPTIONS: Subscriptions = {
    tenant.CatalogPublished: hear(keep_catalog),
    tenant.TenantRegistered: follow(continue_workflows),
    tenant.TenantRegistrationRefused: follow(continue_workflows),
    tenant.TenantDeregistered: follow(continue_workflows),
    tenant.TenantActivated: follow(continue_workflows),
    tenant.TenantActivationRefused: follow(continue_workflows),
    tenant.TenantDeactivated: follow(continue_workflows),
    identity.AdministratorsCreated: follow(continue_workflows),
    identity.AdministratorsRefused: follow(continue_workflows),
    identity.AdministratorsRemoved: follow(continue_workflows),
    billing.AccountOpened: follow(continue_workflows),
    billing.AccountRefused: follow(continue_workflows),
    billing.AccountVoided: follow(continue_workflows),
    metrics.TenantTracked: follow(continue_workflows),
    metrics.TenantTrackingRefused: follow(continue_workflows),
    metrics.TenantUntracked: follow(continue_workflows),
    provisioning.EnvironmentProvisioned: follow(continue_workflows),
    provisioning.EnvironmentRefused: follow(continue_workflows),
    provisioning.EnvironmentDeprovisioned: follow(continue_workflows),
}
PUBLISHES = (
    tenant.RegisterTenant,
    tenant.DeregisterTenant,
    tenant.ActivateTenant,
    tenant.DeactivateTenant,
    identity.CreateAdministrators,
    identity.RemoveAdministrators,
    billing.OpenAccount,
    billing.VoidAccount,
    metrics.TrackTenant,
    metrics.UntrackTenant,
    provisioning.ProvisionEnvironment,
    provisioning.DeprovisionEnvironment,
    onboarding.WorkflowStatusChanged,
    onboarding.StepFailed,
    onboarding.StepRetried,
)
