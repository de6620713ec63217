"""Facts of the business as the other services tell them, and the figures that come of them, as tests do it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2

from services.metrics.business import follow_business
from shared.contracts import billing, onboarding
from shared.contracts.base import Message
from shared.ids import TimeOrderedIds
from shared.messaging.event import Event
from shared.postgres import Pool, transaction

IDS = TimeOrderedIds()


def moment(text: str) -> datetime:
    """Read a time of UTC, as in ``2026-03-01`` or ``2026-03-01T12:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def event_of(message: Message, at: str, *, workflow_id: UUID | None = None, step: str | None = None) -> Event:
    """Wrap what is told at a time, as an answer to a step where one is named."""
    return Event(IDS.new(), message.owner, moment(at), message, workflow_id=workflow_id, step=step)


def charged(tenant_id: str, amount: str, at: str, edition: int, currency: str = "USD") -> Event:
    """Return the fact that a tenant is charged so much a month from a time on."""
    fact = billing.RecurringRevenueChanged(
        tenant_id=tenant_id, currency=currency, amount=amount, changed_at=moment(at), edition=edition
    )
    return event_of(fact, at)


def became(workflow_id: UUID, status: onboarding.WorkflowState, at: str, kind: str = "onboard") -> Event:
    """Return the fact that a workflow has another status."""
    fact = onboarding.WorkflowStatusChanged(
        tenant_id="t1", workflow_id=str(workflow_id), kind=kind, status=status, occurred_at=moment(at)
    )
    return event_of(fact, at)


async def tell(pool: Pool, *events: Event) -> None:
    """Let the service hear of this as one batch."""
    async with transaction(pool) as connection:
        assert await follow_business(connection, events) == []


async def listed(client: httpx2.AsyncClient, what: str, **query: Any) -> Sequence[Mapping[str, Any]]:
    """Return all items of a list of figures, fetched in pages."""
    items: list[Mapping[str, Any]] = []
    while True:
        answer = await client.get(f"/v1/business/{what}", params=query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if (cursor := answer.json()["nextCursor"]) is None:
            return items
        query["cursor"] = cursor
