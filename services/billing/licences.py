"""The ask for other licences, and its undo: which products an account is charged for beside its plan."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.billing import books, queries
from services.billing.books import Prices
from services.billing.charging import Ledger, LicencesBefore, Subscription
from services.billing.refusals import NO_ACCOUNT, PAST_DUE, why_no_price
from services.billing.stretch import Stretch
from shared.clock import Clock
from shared.contracts import billing as contracts
from shared.contracts.base import Fact
from shared.contracts.billing import Licence
from shared.ids import Ids
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection


async def change_licences(
    connection: Connection, asks: Sequence[contracts.ChangeLicences], *, clock: Clock, ids: Ids
) -> Sequence[Changed]:
    """Charge each account for exactly these products from now on; what is licensed so already keeps its agreed amount.

    A licence is charged when the account is: from the activation on, and not during a pause. Of whom something is past
    due the licences stay.
    """
    ledger = await books.read(connection, asks)
    now = clock.now()
    change = _Change(
        ledger=ledger,
        prices=await books.prices(connection, (licence.plan for ask in asks for licence in ask.licences), now=now),
        stretches=await books.stretches(connection, ledger),
        behind=await queries.dunning.behind_of(connection, (ask.tenant_id for ask in asks)),
        now=now,
        ids=ids,
    )
    changes = [change.of(ask) for ask in asks]
    await books.write(connection, ledger)
    return changes


async def restore_licences(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Charge for the licences that were found, also for the time in between."""
    await books.bring_back(connection, restorations, LicencesBefore, Ledger.restore_licences)
    return [contracts.LicencesRestored(tenant_id=each.tenant_id) for each in restorations]


@dataclass
class _Images:
    """What an ask has found and changed.

    Attributes:
        changed: licences as they were found.
        added: those that there were none of.
    """

    changed: list[Subscription] = field(default_factory=list)
    added: list[Subscription] = field(default_factory=list)


@dataclass(frozen=True)
class _Change:
    """What a batch works with.

    Attributes:
        ledger: of its tenants.
        prices: of the plans it names.
        stretches: of the subscriptions, which were charged and are over.
        behind: those of its tenants that are behind with their payments.
        now: from when on something else is charged.
        ids: for new licences.
    """

    ledger: Ledger
    prices: Prices
    stretches: Mapping[UUID, Sequence[Stretch]]
    behind: Collection[str]
    now: datetime
    ids: Ids

    def of(self, ask: contracts.ChangeLicences) -> Changed:
        """Do one ask, all of it or nothing."""
        own = self.ledger.of(ask.tenant_id)
        if own is None or own.state == "ended":
            return _refusal(ask, *NO_ACCOUNT)
        for each in ask.licences:
            if why_not := why_no_price(self.prices, each.plan, own.currency.code, each.product):
                return _refusal(ask, *why_not)
        if ask.tenant_id in self.behind and not self._has_already(own, ask):
            return _refusal(ask, *PAST_DUE)
        images = _Images()
        self._end_others(own, ask, images)
        for each in ask.licences:
            self._license(own, each, images)
        answer = contracts.LicencesChanged(tenant_id=ask.tenant_id)
        if not images.changed and not images.added:
            return Changed(answer)
        return Changed(answer, LicencesBefore.image(images.changed, images.added))

    def _has_already(self, own: Subscription, ask: contracts.ChangeLicences) -> bool:
        held = {each.product: each.plan for each in self.ledger.licences_with(own)}
        return held == {each.product: each.plan for each in ask.licences}

    def _end_others(self, own: Subscription, ask: contracts.ChangeLicences, images: _Images) -> None:
        wanted = {each.product for each in ask.licences}
        for each in self.ledger.licences_with(own):
            if each.product not in wanted:
                self.ledger.end(each, now=self.now)
                images.changed.append(each)

    def _license(self, own: Subscription, licence: Licence, images: _Images) -> None:
        found = self.ledger.licences_of(own.tenant_id).get(licence.product)
        offer = self.prices[licence.plan][own.currency.code]
        if found is None:
            fresh = self.ids.new()
            added = self.ledger.license(own, licence.product, offer, subscription_id=fresh, now=self.now)
            images.added.append(added)
        elif found.state == "ended":
            last_end = books.last_end(self.stretches.get(found.subscription_id, ()))
            self.ledger.license_again(found, own, offer, now=self.now, last_end=last_end)
            images.changed.append(found)
        elif found.plan != licence.plan:
            self.ledger.change_plan(found, offer, now=self.now)
            images.changed.append(found)


def _refusal(ask: contracts.ChangeLicences, code: str, detail: str) -> Changed:
    return Changed(contracts.LicencesChangeRefused(tenant_id=ask.tenant_id, code=code, detail=detail))
