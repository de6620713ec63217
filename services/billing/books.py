"""How the subscriptions of a batch are read before they change, and what is different is written afterwards."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel

from services.billing import queries
from services.billing.charging import Ledger, Offer, Subscription
from services.billing.stretch import Stretch
from shared.contracts.base import Ask
from shared.messaging.subscriptions import Restoration
from shared.postgres import Connection

Prices = Mapping[str, Mapping[str, Offer]]
"""What plans cost whoever takes them now, by plan and currency."""

Image = TypeVar("Image", bound=BaseModel)


async def read(connection: Connection, messages: Sequence[Ask | Restoration]) -> Ledger:
    """Lock what the batch's tenants are charged for, and return it."""
    tenant_ids = [message.tenant_id for message in messages]
    await queries.subscriptions.lock(connection, tenant_ids)
    rows = await queries.subscriptions.standing(connection, tenant_ids)
    return Ledger(map(Subscription.of, rows))


async def stretches(connection: Connection, ledger: Ledger) -> Mapping[UUID, Sequence[Stretch]]:
    """Return, by subscription, what was charged and is over."""
    found: dict[UUID, list[Stretch]] = {}
    for row in await queries.subscriptions.charged_periods(connection, ledger.subscription_ids):
        found.setdefault(row["subscription_id"], []).append(
            Stretch(
                plan=row["plan"],
                amount=row["amount"],
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                product=row["product"],
                plan_version=row["plan_version"],
            )
        )
    return found


def last_end(stretches: Iterable[Stretch]) -> datetime | None:
    """Return when the last of them was over; None without any."""
    return max((each.ended_at for each in stretches if each.ended_at is not None), default=None)


async def prices(connection: Connection, plans: Iterable[str], *, now: datetime) -> Prices:
    """Return what these plans cost whoever takes them now, those that can be taken."""
    offers: dict[str, dict[str, Offer]] = {}
    for row in await queries.catalog.prices(connection, sorted(set(plans)), now=now):
        offer = Offer(row["plan"], row["version"], row["amount"])
        offers.setdefault(offer.plan, {})[row["currency"]] = offer
    return offers


async def bring_back(
    connection: Connection,
    restorations: Sequence[Restoration],
    image: type[Image],
    restore: Callable[[Ledger, str, Image], None],
) -> None:
    """Bring back what each ask of a batch had found, if there is something to bring back.

    Args:
        image: what the before-images are.
    """
    befores = [(each.tenant_id, image.model_validate(each.before)) for each in restorations if each.before is not None]
    if not befores:
        return
    ledger = await read(connection, restorations)
    for tenant_id, before in befores:
        restore(ledger, tenant_id, before)
    await write(connection, ledger)


async def write(connection: Connection, ledger: Ledger) -> None:
    """Write what is different."""
    if ledger.changed:
        await queries.subscriptions.save(connection, ledger.changed)
    if ledger.added:
        await queries.subscriptions.add_licences(connection, ledger.added)
    if ledger.removed:
        await queries.subscriptions.remove_licences(connection, ledger.removed)
    if ledger.forgotten:
        await queries.subscriptions.forget_charged_periods(connection, ledger.forgotten)
    if ledger.withdrawn_drafts:
        await queries.invoices.delete_drafts(connection, ledger.withdrawn_drafts)
    if ledger.closed:
        await queries.subscriptions.add_charged_periods(connection, ledger.closed)
