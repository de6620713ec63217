"""A small system for tests of the kernel: three services, of which ``billing`` is the one that is looked at.

``onboarding`` asks ``billing`` to open an account or to void it, ``billing`` answers, and ``tenant`` tells ``billing``
whether a tenant is open for business.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.contracts.base import Ask, Fact, Message
from shared.contracts.billing import (
    AccountOpened,
    AccountRefused,
    AccountVoided,
    OpenAccount,
    SubscriptionStarted,
    VoidAccount,
)
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import TimeOrderedIds
from shared.messaging.bus import Parcel
from shared.messaging.event import BATCH, Event, join_batch
from shared.messaging.topology import Manifest, exchange_of

MANIFEST = Manifest.of(
    publishes={
        "onboarding": (OpenAccount, VoidAccount),
        "billing": (AccountOpened, AccountRefused, AccountVoided, SubscriptionStarted),
        "tenant": (TenantActivated, TenantDeactivated),
    },
    subscribes={
        "onboarding": (AccountOpened, AccountRefused, AccountVoided),
        "billing": (OpenAccount, VoidAccount, TenantActivated, TenantDeactivated),
        "tenant": (),
    },
)

ASK = OpenAccount.routing_key()
ANSWER = AccountOpened.routing_key()
NEWS = TenantActivated.routing_key()

_MADE_AT = datetime(2026, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
_ids = TimeOrderedIds()


def asked(ask: Ask, *, workflow_id: UUID | None = None, step: str = "billing") -> Event:
    """Wrap an ask as ``onboarding`` does: for a step of a workflow, under an identity of its own."""
    return _event("onboarding", ask, workflow_id=workflow_id or _ids.new(), step=step)


def told(fact: Fact) -> Event:
    """Wrap a fact as ``tenant`` does, which answers nobody."""
    return _event("tenant", fact)


def answered(fact: Fact, ask: Event) -> Event:
    """Wrap an answer of ``billing`` to an ask."""
    return _event("billing", fact, workflow_id=ask.workflow_id, step=ask.step, causation_id=ask.id)


def parcel_of(*events: Event, headers: Mapping[str, str | int] | None = None) -> Parcel:
    """Pack events of one type as their publisher's relay does."""
    first = events[0]
    return Parcel(
        exchange=exchange_of(first.publisher),
        routing_key=first.type,
        body=join_batch(event.encode() for event in events),
        content_type=BATCH,
        message_id=str(_ids.new()),
        headers=headers or {},
    )


def _event(publisher: str, message: Message, **envelope: Any) -> Event:
    return Event(id=_ids.new(), publisher=publisher, time=_MADE_AT, message=message, **envelope)
