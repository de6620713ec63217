"""What charges a tenant, and every way in which that changes. No I/O: the rows are read before and written after.

What is found is locked, so a batch is worked off in memory, ask after ask, as if each had come alone; then the few rows
that are different are written at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import asyncpg
from pydantic import BaseModel, ConfigDict

from services.billing.money import Currency
from services.billing.stretch import Stretch

OWN = ""
"""Stands in place of a product in the subscription of the account's own plan."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a plan costs whoever takes it now, in one currency.

    Attributes:
        plan: its name.
        version: the one in force.
        amount: what a month of it costs.
    """

    plan: str
    version: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a tenant is charged for.

    Attributes:
        subscription_id: its identity.
        tenant_id: who is charged.
        product: what is licensed; none in the account's own subscription, of its plan.
        plan: by which it is charged.
        plan_version: which was in force when the plan was taken.
        currency: of all amounts.
        amount: what a month of the plan costs, as agreed.
        state: ``pending``, ``active``, ``paused`` or ``ended``.
        started_at: the time of the tenant's activation; None without one.
        charged_since: when the running stretch began, where that was not at the activation.
        version: grows with every change of plan or state.
    """

    subscription_id: UUID
    tenant_id: str
    product: str
    plan: str
    plan_version: int
    currency: Currency
    amount: Decimal
    state: str
    started_at: datetime | None
    charged_since: datetime | None
    version: int

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.subscriptions.standing`."""
        return cls(
            subscription_id=row["subscription_id"],
            tenant_id=row["tenant_id"],
            product=row["product"],
            plan=row["plan"],
            plan_version=row["plan_version"],
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


class Found(BaseModel):
    """A subscription as it was found, in JSON without a float.

    Attributes:
        plan_version: what the release before kept, which knew no versions, is of the first.
        running_since: every stretch that began then or later was made by what is undone.
    """

    model_config = ConfigDict(frozen=True)

    subscription_id: UUID
    plan: str
    plan_version: int = 1
    amount: Decimal
    state: str
    charged_since: datetime | None
    running_since: datetime | None
    version: int

    @classmethod
    def of(cls, found: Subscription) -> Self:
        """Make it from the subscription."""
        return cls(**_kept(found))


class Before(Found):
    """What an undo brings back: the account's own subscription, and whatever of its licences was changed with it.

    Attributes:
        licences: as they were found.
        invoice_id: of the draft that goes.
    """

    licences: tuple[Found, ...] = ()
    invoice_id: UUID | None = None

    @classmethod
    def image(
        cls, own: Subscription, licences: Iterable[Subscription] = (), *, invoice_id: UUID | None = None
    ) -> Mapping[str, Any]:
        """Return the before-image of subscriptions."""
        changed = tuple(map(Found.of, licences))
        return cls(**_kept(own), licences=changed, invoice_id=invoice_id).model_dump(mode="json")


class LicencesBefore(BaseModel):
    """What the undo of other licences brings back.

    Attributes:
        changed: licences as they were found.
        added: those that go.
    """

    model_config = ConfigDict(frozen=True)

    changed: tuple[Found, ...]
    added: tuple[UUID, ...]

    @classmethod
    def image(cls, changed: Iterable[Subscription], added: Iterable[Subscription]) -> Mapping[str, Any]:
        """Return the before-image of licences."""
        before = cls(changed=tuple(map(Found.of, changed)), added=tuple(each.subscription_id for each in added))
        return before.model_dump(mode="json")


def _kept(found: Subscription) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Found.model_fields}


class Ledger:
    """The subscriptions of a batch as they stand, and all that will have to be written.

    Args:
        found: the subscriptions of the batch's tenants, locked.
    """

    def __init__(self, found: Iterable[Subscription]) -> None:
        self._standing: dict[str, dict[str, Subscription]] = {}
        self._changed: set[UUID] = set()
        self._added: set[UUID] = set()
        self._removed: list[UUID] = []
        self._closed: dict[UUID, list[Stretch]] = {}
        self._forgotten: dict[UUID, datetime] = {}
        self._withdrawn_drafts: list[UUID] = []
        for each in found:
            self._standing.setdefault(each.tenant_id, {})[each.product] = each

    @property
    def subscription_ids(self) -> Sequence[UUID]:
        """The identities of all there are."""
        return [each.subscription_id for each in self._all()]

    @property
    def changed(self) -> Sequence[Subscription]:
        """The subscriptions that are different from what was found."""
        return [each for each in self._all() if each.subscription_id in self._changed - self._added]

    @property
    def added(self) -> Sequence[Subscription]:
        """The licences that were not there."""
        return [each for each in self._all() if each.subscription_id in self._added]

    @property
    def removed(self) -> Sequence[UUID]:
        """The licences that are there no more."""
        return self._removed

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
        """Return the own subscription of a tenant's account as it stands; None without an account."""
        return self._standing.get(tenant_id, {}).get(OWN)

    def licences_of(self, tenant_id: str) -> Mapping[str, Subscription]:
        """Return all that a tenant has or had a licence of, by product."""
        return {product: each for product, each in self._standing.get(tenant_id, {}).items() if product != OWN}

    def licences_with(self, own: Subscription) -> Sequence[Subscription]:
        """Return the licences to which happens what happens to the account's own subscription."""
        return [each for each in self.licences_of(own.tenant_id).values() if each.state != "ended"]

    def closed_of(self, subscription: Subscription) -> Sequence[Stretch]:
        """Return the stretches of a subscription that this batch has closed."""
        return self._closed.get(subscription.subscription_id, [])

    def change_plan(self, found: Subscription, offer: Offer, *, now: datetime) -> None:
        """Charge by another plan from now on, or whenever the subscription is charged again."""
        since = self._close_stretch(found, now) or found.charged_since
        self._stand(found, **_agreed(offer), charged_since=since)

    def pause(self, found: Subscription, *, now: datetime) -> None:
        """Charge nothing from now on."""
        self._close_stretch(found, now)
        self._stand(found, state="paused", charged_since=None)

    def resume(self, found: Subscription, *, now: datetime, last_end: datetime | None) -> None:
        """Charge a paused subscription again from now on, or from its ``last_end`` where another clock is ahead."""
        self._stand(found, state="active", charged_since=max(now, last_end or now))

    def end(self, found: Subscription, *, now: datetime) -> None:
        """Charge nothing any more."""
        self._close_stretch(found, now)
        self._stand(found, state="ended", charged_since=None)

    def license(
        self, own: Subscription, product: str, offer: Offer, *, subscription_id: UUID, now: datetime
    ) -> Subscription:
        """Charge an account for a product that it never had, from now on or with its own subscription; return that."""
        added = replace(
            own,
            subscription_id=subscription_id,
            product=product,
            **_agreed(offer),
            charged_since=_beginning(own, now),
            version=0,
        )
        self._standing[own.tenant_id][product] = added
        self._added.add(subscription_id)
        return added

    def license_again(
        self,
        found: Subscription,
        own: Subscription,
        offer: Offer,
        *,
        now: datetime,
        last_end: datetime | None,
    ) -> None:
        """Charge an account for a product that it had before, likewise."""
        since = _beginning(own, max(now, last_end or now))
        self._stand(found, **_agreed(offer), state=own.state, charged_since=since)

    def restore(self, tenant_id: str, before: Before) -> None:
        """Bring subscriptions back as they were found, unless one was changed again since: that is not ours to undo.

        An activation, or its withdrawal, may have arrived meanwhile. It counts, as if nothing else had happened.
        """
        if self._bring_back(tenant_id, (before, *before.licences)) and before.invoice_id is not None:
            self._withdrawn_drafts.append(before.invoice_id)

    def restore_licences(self, tenant_id: str, before: LicencesBefore) -> None:
        """Bring licences back as they were found, likewise; those that were added go without a trace."""
        standing = {each.subscription_id: each for each in self.licences_of(tenant_id).values()}
        as_added = [standing[each] for each in before.added if each in standing and standing[each].version == 0]
        if len(as_added) < len(before.added) or not self._bring_back(tenant_id, before.changed):
            return
        for each in as_added:
            del self._standing[tenant_id][each.product]
            self._removed.append(each.subscription_id)

    def _bring_back(self, tenant_id: str, found: Sequence[Found]) -> bool:
        """Bring all of them back or none, and return which."""
        standing = {each.subscription_id: each for each in self._standing.get(tenant_id, {}).values()}
        if any(_is_changed_since(standing.get(each.subscription_id), each) for each in found):
            return False
        for each in found:
            self._bring_one_back(standing[each.subscription_id], each)
        return True

    def _bring_one_back(self, standing: Subscription, found: Found) -> None:
        again = replace(
            standing,
            plan=found.plan,
            plan_version=found.plan_version,
            amount=found.amount,
            state=_state_again(found, standing.started_at),
            charged_since=found.charged_since,
            version=found.version,
        )
        self._standing[again.tenant_id][again.product] = again
        self._changed.add(again.subscription_id)
        if found.running_since is not None:
            self._forgotten[again.subscription_id] = found.running_since

    def _close_stretch(self, found: Subscription, now: datetime) -> datetime | None:
        """Close what runs, if anything does, and return when: never before it began, whatever the clocks say."""
        since = found.running_since
        if since is None:
            return None
        until = max(now, since)
        if since < until:
            stretch = Stretch(found.plan, found.amount, since, until, found.product, found.plan_version)
            self._closed.setdefault(found.subscription_id, []).append(stretch)
        return until

    def _stand(self, found: Subscription, **changes: Any) -> None:
        self._standing[found.tenant_id][found.product] = replace(found, version=found.version + 1, **changes)
        self._changed.add(found.subscription_id)

    def _all(self) -> Iterator[Subscription]:
        return (each for _, standing in sorted(self._standing.items()) for _, each in sorted(standing.items()))


def _agreed(offer: Offer) -> dict[str, Any]:
    """Return what a subscription keeps of the offer that it was taken at."""
    return {"plan": offer.plan, "plan_version": offer.version, "amount": offer.amount}


def _beginning(own: Subscription, now: datetime) -> datetime | None:
    """Return since when a licence is charged that is taken now: not before the account is, whatever the clocks say."""
    return None if own.running_since is None else max(now, own.running_since)


def _is_changed_since(standing: Subscription | None, found: Found) -> bool:
    return standing is None or standing.version != found.version + 1


def _state_again(found: Found, started_at: datetime | None) -> str:
    if started_at is None:
        return "pending" if found.state != "ended" else "ended"
    return "active" if found.state == "pending" else found.state
