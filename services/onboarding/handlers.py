"""What onboarding does with what the other services tell.

It asks whatever a step of a lifecycle asks, and hears whatever answers that; `services.onboarding.lifecycles` says
what that is. Of a step that takes long it hears how far it is; of billing, who is behind with payments. What becomes of
tenants' mails and quotas it says on to everybody outside.
"""

from collections.abc import Sequence
from uuid import UUID

from services.onboarding import queries
from services.onboarding.engine import Answer, Engine
from services.onboarding.lifecycles import DEFINITIONS
from services.onboarding.saga import Input, Progressed, Refused, Succeeded, Undone
from shared.access import replica
from shared.clock import Clock
from shared.contracts import CATALOGUE, billing, metrics, onboarding, provisioning, tenant
from shared.contracts.base import Ask, Fact, Message, Refusal
from shared.ids import Ids
from shared.messaging.barrier import key_of
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Subscriptions, follow, hear
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import Connection


async def continue_workflows(connection: Connection, events: Sequence[Event], *, engine: Engine) -> Sequence[Outgoing]:
    """Let each answer move its workflow on, and word of progress be waited on for."""
    return await engine.take(connection, [_answer(event) for event in events])


def _answer(event: Event) -> Answer:
    workflow_id, step = key_of(event)
    fact = event.message
    assert isinstance(fact, Fact)
    to = fact.answers.routing_key() if fact.answers is not None else None
    return Answer(workflow_id, step, event.publisher, to, _input(fact, step, event.causation_id), event.traceparent)


def _input(fact: Fact, step: str, ask_id: UUID | None) -> Input:
    if isinstance(fact, provisioning.StepProgressed):
        return Progressed(step, ask_id, fact.stage, fact.detail)
    if fact.answers is not None and fact.answers.undoes is not None:
        return Undone(step, ask_id)
    if isinstance(fact, Refusal):
        return Refused(step, ask_id, fact.code, fact.detail, fact.retryable)
    return Succeeded(step, ask_id, fact.model_dump(mode="json"))


async def keep_overdue(connection: Connection, facts: Sequence[billing.OverdueChanged]) -> Sequence[Fact]:
    """Note how far customers are behind with their payments; what follows from that their next review orders."""
    await queries.keep_overdue(
        connection, [fact.model_dump(include={"tenant_id", "overdue", "edition"}) for fact in facts]
    )
    return []


async def keep_catalog(connection: Connection, facts: Sequence[tenant.CatalogPublished]) -> Sequence[Fact]:
    """Keep the newest catalog, against which requests are checked."""
    newest = max(facts, key=lambda fact: fact.revision)
    await queries.keep_catalog(connection, revision=newest.revision, content=newest.model_dump(mode="json"))
    return []


async def relay(_: Connection, events: Sequence[Event], *, clock: Clock, ids: Ids) -> Sequence[Outgoing]:
    """Tell everybody outside what became of tenants' mails and quotas."""

    def tell(key: str, fact: Fact, cause: Event) -> Outgoing:
        event = Event(ids.new(), fact.owner, clock.now(), fact, causation_id=cause.id)
        return Outgoing(event.id, STATUS_EXCHANGE, f"{key}.{fact.tenant_id}", event.encode())

    return [tell(key, fact, event) for event in events for key, fact in _outside(event)]


def _outside(event: Event) -> list[tuple[str, Fact]]:
    """Return what is said outside, each with the beginning of its key."""
    match event.message:
        case provisioning.MailReported() as reported:
            whose = {"tenant_id": reported.tenant_id, "product": reported.product, "hour": reported.hour}
            return [
                (f"mail.{name}", onboarding.MailCounted(event=name, count=count, occurred_at=event.time, **whose))
                for name, count in reported.counts.items()
            ]
        case provisioning.MailSendingPaused() as paused:
            return [("warning.mail", onboarding.TenantMailPaused(**paused.model_dump()))]
        case provisioning.MailSendingResumed() as resumed:
            return [("mail.resumed", onboarding.TenantMailResumed(**resumed.model_dump()))]
        case metrics.QuotaCrossed() as crossed:
            return [("warning.quota", onboarding.TenantQuotaCrossed(**crossed.model_dump()))]
    raise LookupError(event.type)


_RELAYED = (
    provisioning.MailReported,
    provisioning.MailSendingPaused,
    provisioning.MailSendingResumed,
    metrics.QuotaCrossed,
)


def _asks() -> list[type[Ask]]:
    """Name whatever the steps of all lifecycles ask, each with what takes it back."""
    steps = [each for definition in DEFINITIONS.values() for each in definition.steps.values()]
    return list(dict.fromkeys(ask for each in steps for ask in (each.does, each.undo) if ask is not None))


def _answers() -> list[type[Fact]]:
    asks = set(_asks())
    return [each for each in CATALOGUE.values() if issubclass(each, Fact) and each.answers in asks]


SUBSCRIPTIONS: Subscriptions = {
    tenant.CatalogPublished: hear(keep_catalog),
    billing.OverdueChanged: hear(keep_overdue),
    **{fact: follow(continue_workflows) for fact in _answers()},
    provisioning.StepProgressed: follow(continue_workflows),
    **{fact: follow(relay) for fact in _RELAYED},
    **replica.SUBSCRIPTIONS,
}
PUBLISHES: tuple[type[Message], ...] = (
    *_asks(),
    onboarding.WorkflowStatusChanged,
    onboarding.StepFailed,
    onboarding.StepRetried,
    onboarding.TenantExpiring,
    onboarding.MailCounted,
    onboarding.TenantMailPaused,
    onboarding.TenantMailResumed,
    onboarding.TenantQuotaCrossed,
    onboarding.ApiKeysUsed,
    onboarding.DecisionRecorded,
)
