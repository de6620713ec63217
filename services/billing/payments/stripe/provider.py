"""Stripe as a provider: a bill is one of its invoices, which it advances only when it is asked to.

Stripe takes the money of an invoice once: one that is paid is not paid again, whatever keys it is asked with. That is
what nothing is taken twice by; idempotency keys, which Stripe forgets after a day or so, only spare it work. Its
webhooks and its dashboard know our invoices by their metadata.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import stripe

from services.billing.payments.port import (
    Charge,
    ChargeRefusedError,
    Customer,
    Paid,
    Pending,
    ProviderUnavailableError,
    Standing,
    Taken,
    Unpaid,
    Void,
)
from services.billing.payments.stripe.amounts import from_smallest, to_smallest
from services.billing.payments.stripe.http import Connections

NAME: Final = "stripe"

TENANT: Final = "tenure_tenant"
"""Under which a customer's metadata has whose it is."""

INVOICE: Final = "tenure_invoice"
"""Under which an invoice's metadata has of which of ours it is."""

_SECONDS = 20.0
_PAGE = 100
_INTENTS = ["payments.data.payment.payment_intent"]
_SERVER_ERROR = 500


class StripeProvider:
    """Asks Stripe.

    Args:
        client: has the key; it does not ask again by itself, for whoever asks does.
    """

    name = NAME
    collects = True

    def __init__(self, client: stripe.StripeClient) -> None:
        self._customers = client.v1.customers
        self._invoices = client.v1.invoices
        self._items = client.v1.invoice_items

    async def ensure_customer(self, customer: Customer, *, key: str) -> str:
        """Have a customer; see `Collector.ensure_customer`."""
        with _asking():
            made = await self._customers.create_async(
                {"name": customer.name, "metadata": {TENANT: customer.tenant_id}}, {"idempotency_key": key}
            )
        return made.id

    async def bill(self, charge: Charge, *, key: str) -> str:
        """Have an invoice that is final and not advanced; see `Collector.bill`."""
        currency = charge.currency.lower()
        amount = to_smallest(charge.amount, charge.currency)
        with _asking():
            draft = await self._invoices.create_async(
                {
                    "customer": charge.customer,
                    "currency": currency,
                    "collection_method": "charge_automatically",
                    "auto_advance": False,
                    "pending_invoice_items_behavior": "exclude",
                    "description": f"Invoice {charge.number}",
                    "metadata": {INVOICE: str(charge.invoice_id)},
                },
                {"idempotency_key": f"{key}-create"},
            )
            await self._items.create_async(
                {
                    "customer": charge.customer,
                    "invoice": draft.id,
                    "currency": currency,
                    "amount": amount,
                    "description": f"Invoice {charge.number}",
                },
                {"idempotency_key": f"{key}-item"},
            )
            made = await self._invoices.finalize_invoice_async(
                draft.id, {"auto_advance": False}, {"idempotency_key": f"{key}-finalize"}
            )
        if (made.total, made.currency) != (amount, currency):
            # Taxes or discounts that the account at Stripe adds by itself: nobody is to pay what no invoice says.
            await self.withdraw(made.id, key=key)
            raise ChargeRefusedError("total_differs")
        return made.id

    async def collect(self, reference: str, *, key: str) -> Standing:
        """Pay an invoice with what its customer has left for that; see `Collector.collect`."""
        try:
            with _asking(refused=False):
                paid = await self._invoices.pay_async(
                    reference, {"off_session": True, "expand": _INTENTS}, {"idempotency_key": f"{key}-pay"}
                )
        except stripe.CardError as error:
            return Unpaid(_code(error))
        except stripe.InvalidRequestError as error:
            standing = await self.look_up(reference)
            return Unpaid(_code(error)) if isinstance(standing, Unpaid) else standing
        return standing_of(paid)

    async def look_up(self, reference: str) -> Standing:
        """Read an invoice; see `Collector.look_up`."""
        try:
            with _asking(refused=False):
                found = await self._invoices.retrieve_async(reference, {"expand": _INTENTS})
        except stripe.InvalidRequestError as error:
            # Perhaps this is the key of another account. That a bill is not there proves nothing about money.
            raise ProviderUnavailableError(f"{reference} cannot be read: {_code(error)}") from error
        return standing_of(found)

    async def withdraw(self, reference: str, *, key: str) -> Standing:
        """Void an invoice; see `Collector.withdraw`."""
        try:
            with _asking(refused=False):
                voided = await self._invoices.void_invoice_async(
                    reference, {"expand": _INTENTS}, {"idempotency_key": f"{key}-void"}
                )
        except stripe.InvalidRequestError as error:
            standing = await self.look_up(reference)
            if isinstance(standing, Unpaid):
                raise ProviderUnavailableError(f"{reference} cannot be voided: {_code(error)}") from error
            return standing
        return standing_of(voided)

    async def payments_since(self, since: datetime) -> AsyncIterator[Taken]:
        """List our invoices that are paid; see `Collector.payments_since`."""
        try:
            with _asking(refused=False):
                listed = await self._invoices.list_async(
                    {"status": "paid", "created": {"gte": int(since.timestamp())}, "limit": _PAGE}
                )
                async for invoice in listed.auto_paging_iter():
                    standing = standing_of(invoice)
                    if isinstance(standing, Paid) and INVOICE in (invoice.metadata or {}):
                        yield Taken(
                            reference=invoice.id,
                            currency=standing.currency,
                            amount=standing.amount,
                            received_at=standing.received_at,
                        )
        except stripe.InvalidRequestError as error:
            raise ProviderUnavailableError(f"payments cannot be listed: {_code(error)}") from error


@asynccontextmanager
async def open_stripe(key: str, *, url: str | None = None) -> AsyncIterator[StripeProvider]:
    """Open connections to Stripe, and close them at the end.

    Args:
        key: a secret or restricted key of the account.
        url: whom to ask instead of Stripe; for tests.
    """
    http_client = Connections(_SECONDS)
    client = stripe.StripeClient(
        key,
        http_client=http_client,
        base_addresses={} if url is None else {"api": url},
        max_network_retries=0,
    )
    try:
        yield StripeProvider(client)
    finally:
        await http_client.close_async()


@contextmanager
def _asking(*, refused: bool = True) -> Iterator[None]:
    """Say in the words of the port what went wrong.

    Args:
        refused: whether a refusal is one of the charge; it is left as it is otherwise.
    """
    try:
        yield
    except stripe.IdempotencyError as error:
        raise ProviderUnavailableError(repr(error), has_failed=True) from error
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        if refused:
            raise ChargeRefusedError(_code(error)) from error
        raise
    except stripe.StripeError as error:
        has_failed = (error.http_status or 0) >= _SERVER_ERROR
        raise ProviderUnavailableError(repr(error), has_failed=has_failed) from error


def _code(error: stripe.StripeError) -> str:
    """Return Stripe's word for a refusal; that of the bank, where there is one, says more."""
    declined = getattr(error.error, "decline_code", None)
    return str(declined or error.code or "refused")


def standing_of(invoice: stripe.Invoice) -> Standing:
    """Return what became of an invoice of Stripe, as it was read with `_INTENTS`."""
    match invoice.status:
        case "paid":
            return _paid(invoice)
        case "void" | "uncollectible":
            return Void()
        case _:
            return Pending() if _is_under_way(invoice) else Unpaid()


def _paid(invoice: stripe.Invoice) -> Standing:
    """Return what Stripe has settled: also by what the customer had in credit there, or what it carries on there."""
    currency = invoice.currency.upper()
    moment = invoice.status_transitions.paid_at or invoice.created
    return Paid(currency, from_smallest(invoice.total, currency), datetime.fromtimestamp(moment, UTC))


def _is_under_way(invoice: stripe.Invoice) -> bool:
    """Tell whether a payment may still succeed by itself, as a direct debit does after days."""
    payments: Any = getattr(invoice, "payments", None)
    intents = [getattr(each.payment, "payment_intent", None) for each in payments.data] if payments else []
    return any(getattr(each, "status", None) == "processing" for each in intents)
