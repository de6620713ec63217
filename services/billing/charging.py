"""What charges a tenant, and every way in which that changes. No I/O: the rows are read before and written after.

What is found is locked, so a batch is worked off in memory, ask after ask, as if each had come alone; then the few rows
that are different are written at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import asyncpg
from pydantic import BaseModel, ConfigDict

from services.billing.final_invoice import Currency, Stretch


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a tenant is charged for.

    Attributes:
        subscription_id: its identity.
        tenant_id: who is charged.
        plan: what for.
        currency: of all amounts.
        amount: what a month of the plan costs, as agreed.
        state: ``pending``, ``active``, ``paused`` or ``ended``.
        started_at: the time of the tenant's activation; None without one.
        charged_since: when the running stretch began, where it is not the first.
        version: grows with every change of plan or state.
    """

    subscription_id: UUID
    tenant_id: str
    plan: str
    currency: Currency
    amount: Decimal
    state: str
    started_at: datetime | None
    charged_since: datetime | None
    version: int

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.lock_subscriptions`."""
        return cls(
            subscription_id=row["subscription_id"],
            tenant_id=row["tenant_id"],
            plan=row["plan"],
            currency=Currency(row["currency"], row["digits"]),
            amount=row["amount"],
            state=row["state"],
            started_at=row["started_at"],
            charged_since=row["charged_since"],
            version=row["version"],
        )

    @property
    def running_since(self) -> datetime | None:
        """The beginning of the stretch that is being charged; None when nothing is.

        The previous release can leave an older ``charged_since`` behind when it starts a subscription anew.
        """
        if self.state != "active":
            return None
        return max(moment for moment in (self.started_at, self.charged_since) if moment is not None)


class Before(BaseModel):
    """What an undo brings back: a subscription as it was found, in JSON without a float.

    Attributes:
        running_since: every stretch that began then or later was made by what is undone.
        invoice_id: of the draft that goes.
    """

    model_config = ConfigDict(frozen=True)

    subscription_id: UUID
    plan: str
    amount: Decimal
    state: str
    charged_since: datetime | None
    running_since: datetime | None
    version: int
    invoice_id: UUID | None = None

    @classmethod
    def image(cls, found: Subscription, *, invoice_id: UUID | None = None) -> Mapping[str, Any]:
        """Return the before-image of a subscription."""
        before = cls(
            subscription_id=found.subscription_id,
            plan=found.plan,
            amount=found.amount,
            state=found.state,
            charged_since=found.charged_since,
            running_since=found.running_since,
            version=found.version,
            invoice_id=invoice_id,
        )
        return before.model_dump(mode="json")


class Ledger:
    """The subscriptions of a batch as they stand, and all that will have to be written.

    Args:
        found: the subscriptions of the batch's tenants, locked.
    """

    def __init__(self, found: Iterable[Subscription]) -> None:
        self._standing = {each.tenant_id: each for each in found}
        self._changed: set[str] = set()
        self._closed: dict[UUID, list[Stretch]] = {}
        self._forgotten: dict[UUID, datetime] = {}
        self._withdrawn_drafts: list[UUID] = []

    @property
    def subscription_ids(self) -> Sequence[UUID]:
        """The identities of all that was found."""
        return [each.subscription_id for each in self._standing.values()]

    @property
    def changed(self) -> Sequence[Subscription]:
        """The subscriptions that are different from what was found."""
        return [self._standing[tenant_id] for tenant_id in sorted(self._changed)]

    @property
    def closed(self) -> Sequence[tuple[UUID, Stretch]]:
        """The stretches that are over by now, each with its subscription."""
        return [(subscription_id, each) for subscription_id, made in self._closed.items() for each in made]

    @property
    def forgotten(self) -> Mapping[UUID, datetime]:
        """The subscriptions of which no stretch stands that began at the time given, or later."""
        return self._forgotten

    @property
    def withdrawn_drafts(self) -> Sequence[UUID]:
        """The invoices that go with the closing they were drafted for."""
        return self._withdrawn_drafts

    def of(self, tenant_id: str) -> Subscription | None:
        """Return the subscription of a tenant as it stands; None without an account."""
        return self._standing.get(tenant_id)

    def closed_of(self, subscription: Subscription) -> Sequence[Stretch]:
        """Return the stretches of a subscription that this batch has closed."""
        return self._closed.get(subscription.subscription_id, [])

    def change_plan(self, found: Subscription, plan: str, amount: Decimal, *, now: datetime) -> None:
        """Charge by another plan from now on, or whenever the subscription is charged again."""
        since = self._close_stretch(found, now) or found.charged_since
        self._stand(found, plan=plan, amount=amount, charged_since=since)

    def pause(self, found: Subscription, *, now: datetime) -> None:
        """Charge nothing from now on."""
        self._close_stretch(found, now)
        self._stand(found, state="paused", charged_since=None)

    def resume(self, found: Subscription, *, now: datetime, last_end: datetime | None) -> None:
        """Charge a paused subscription again from now on, or from its ``last_end`` where another clock is ahead."""
        self._stand(found, state="active", charged_since=max(now, last_end or now))

    def end(self, found: Subscription, *, now: datetime) -> None:
        """Charge nothing ever again."""
        self._close_stretch(found, now)
        self._stand(found, state="ended", charged_since=None)

    def restore(self, tenant_id: str, before: Before) -> None:
        """Bring a subscription back as it was found, unless it was changed again since: that is not ours to undo.

        An activation, or its withdrawal, may have arrived meanwhile. It counts, as if nothing else had happened.
        """
        standing = self.of(tenant_id)
        if standing is None or (standing.subscription_id, standing.version) != (
            before.subscription_id,
            before.version + 1,
        ):
            return
        self._standing[tenant_id] = replace(
            standing,
            plan=before.plan,
            amount=before.amount,
            state=_state_again(before, standing.started_at),
            charged_since=before.charged_since,
            version=before.version,
        )
        self._changed.add(tenant_id)
        if before.running_since is not None:
            self._forgotten[standing.subscription_id] = before.running_since
        if before.invoice_id is not None:
            self._withdrawn_drafts.append(before.invoice_id)

    def _close_stretch(self, found: Subscription, now: datetime) -> datetime | None:
        """Close what runs, if anything does, and return when: never before it began, whatever the clocks say."""
        since = found.running_since
        if since is None:
            return None
        until = max(now, since)
        if since < until:
            stretch = Stretch(found.plan, found.amount, since, until)
            self._closed.setdefault(found.subscription_id, []).append(stretch)
        return until

    def _stand(self, found: Subscription, **changes: Any) -> None:
        self._standing[found.tenant_id] = replace(found, version=found.version + 1, **changes)
        self._changed.add(found.tenant_id)


def _state_again(before: Before, started_at: datetime | None) -> str:
    if started_at is None:
        return "pending" if before.state != "ended" else "ended"
    return "active" if before.state == "pending" else before.state
