"""What every provider that is asked for money promises, of Stripe's adapter before a strict fake; and what is Stripe's.

`Promises` is the contract: another provider's tests derive a class from it and bring their own fixtures.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx2
import pytest
import stripe

from services.billing.payments import (
    Charge,
    ChargeRefusedError,
    Collector,
    Customer,
    Paid,
    Pending,
    ProviderUnavailableError,
    Taken,
    Unpaid,
    Void,
)
from services.billing.payments.stripe import StripeProvider, open_stripe
from services.billing.payments.stripe.amounts import from_smallest, to_smallest
from services.billing.payments.stripe.http import Connections
from services.billing.payments.stripe.provider import standing_of
from services.billing.tests.fake_stripe import KEY, FakeStripe, Fault, serving

INVOICE = UUID(int=7)
PAID_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAID = Paid("USD", Decimal("49.00"), PAID_AT)


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    async with serving(FakeStripe()) as fake:
        yield fake


@pytest.fixture
async def provider(fake: FakeStripe) -> AsyncIterator[StripeProvider]:
    async with open_stripe(KEY, url=fake.url) as provider:
        yield provider


async def charge(provider: Collector, *, amount: str = "49.00", currency: str = "USD") -> Charge:
    customer = await provider.ensure_customer(Customer("t1", "Acme"), key="customer")
    return Charge(customer=customer, invoice_id=INVOICE, number="00000001", currency=currency, amount=Decimal(amount))


async def made(provider: Collector, key: str = "k1") -> str:
    return await provider.bill(await charge(provider), key=key)


class Promises:
    """What `Collector` says, of any provider behind a fake that can fail."""

    async def test_a_customer_is_made_once_for_a_key(self, provider: Collector) -> None:
        first = await provider.ensure_customer(Customer("t1", "Acme"), key="k")
        assert await provider.ensure_customer(Customer("t1", "Acme"), key="k") == first
        assert await provider.ensure_customer(Customer("t2", "Acme"), key="l") != first

    async def test_making_a_bill_takes_nothing(self, provider: Collector, fake: FakeStripe) -> None:
        assert await provider.look_up(await made(provider)) == Unpaid()
        assert fake.charges == []

    async def test_a_bill_is_made_once_for_a_key(self, provider: Collector, fake: FakeStripe) -> None:
        assert await made(provider) == await made(provider)
        assert len(fake.invoices) == 1

    async def test_a_bill_is_collected_once_whatever_the_keys(self, provider: Collector, fake: FakeStripe) -> None:
        reference = await made(provider)
        assert await provider.collect(reference, key="k1") == PAID
        assert await provider.collect(reference, key="k1") == PAID
        assert await provider.collect(reference, key="k2") == PAID
        fake.forget_keys()
        assert await provider.collect(reference, key="k1") == PAID
        assert await provider.look_up(reference) == PAID
        assert fake.charges == [(reference, 4900)]

    async def test_a_declined_bill_stays_unpaid_and_can_be_asked_for_again(
        self, provider: Collector, fake: FakeStripe
    ) -> None:
        fake.declines = ["insufficient_funds"]
        reference = await made(provider)
        assert await provider.collect(reference, key="k1") == Unpaid("insufficient_funds")
        assert await provider.look_up(reference) == Unpaid()
        assert await provider.collect(reference, key="k2") == PAID

    async def test_what_takes_days_is_pending(self, provider: Collector, fake: FakeStripe) -> None:
        fake.processing = True
        reference = await made(provider)
        assert await provider.collect(reference, key="k1") == Pending()
        assert await provider.collect(reference, key="k2") == Pending()
        assert await provider.look_up(reference) == Pending()
        assert await provider.withdraw(reference, key="k3") == Pending()

    async def test_nothing_is_taken_for_a_bill_that_is_withdrawn(self, provider: Collector, fake: FakeStripe) -> None:
        reference = await made(provider)
        assert await provider.withdraw(reference, key="k1") == Void()
        assert await provider.withdraw(reference, key="k2") == Void()
        assert await provider.collect(reference, key="k3") == Void()
        assert await provider.look_up(reference) == Void()
        assert fake.charges == []

    async def test_what_was_taken_cannot_be_withdrawn(self, provider: Collector) -> None:
        reference = await made(provider)
        await provider.collect(reference, key="k1")
        assert await provider.withdraw(reference, key="k2") == PAID

    @pytest.mark.parametrize(
        ("fault", "has_failed"),
        [("drop", False), ("lose", False), ("fail", True), ("fail_after", True), ("limit", False)],
    )
    async def test_an_unknown_outcome_is_told_as_one_and_can_be_looked_up(
        self, provider: Collector, fake: FakeStripe, *, fault: Fault, has_failed: bool
    ) -> None:
        reference = await made(provider)
        fake.faults["pay"] = [fault]
        with pytest.raises(ProviderUnavailableError) as raised:
            await provider.collect(reference, key="k1")
        assert raised.value.has_failed is has_failed
        assert await provider.look_up(reference) == (PAID if fault in {"lose", "fail_after"} else Unpaid())
        assert await provider.collect(reference, key="k2") == PAID
        assert fake.charges == [(reference, 4900)]

    @pytest.mark.parametrize("operation", ["customers", "invoices", "invoiceitems", "finalize"])
    @pytest.mark.parametrize("fault", ["drop", "lose", "limit"])
    async def test_a_bill_whose_making_was_interrupted_is_made_by_the_same_key(
        self, provider: Collector, fake: FakeStripe, operation: str, fault: Fault
    ) -> None:
        fake.faults[operation] = [fault]
        with pytest.raises(ProviderUnavailableError):
            await made(provider)
        assert await provider.collect(await made(provider), key="k1") == PAID
        assert (len(fake.customers), len(fake.invoices), len(fake.charges)) == (1, 1, 1)

    async def test_what_was_taken_is_listed_over_all_pages(self, provider: Collector, fake: FakeStripe) -> None:
        references = [await made(provider, f"k{number}") for number in range(103)]
        fake.declines = ["insufficient_funds"]
        for reference in references:
            await provider.collect(reference, key=f"pay {reference}")
        since = datetime.fromtimestamp(fake.now, UTC)
        listed = [each async for each in provider.payments_since(since)]
        assert {each.reference for each in listed} == set(references[1:])
        assert listed[-1] == Taken(
            reference=references[1], currency="USD", amount=Decimal("49.00"), received_at=PAID_AT
        )
        assert [each async for each in provider.payments_since(datetime.fromtimestamp(fake.now + 1, UTC))] == []


class TestStripe(Promises):
    pass


async def test_no_more_is_billed_than_is_due_where_stripe_adds_a_tax(
    provider: StripeProvider, fake: FakeStripe
) -> None:
    fake.added_tax = 100
    with pytest.raises(ChargeRefusedError, match="total_differs"):
        await made(provider)
    assert [each["status"] for each in fake.invoices.values()] == ["void"]


async def test_a_customer_that_stripe_has_lost_is_a_refusal(provider: StripeProvider) -> None:
    lost = Charge(customer="cus_lost", invoice_id=INVOICE, number="1", currency="USD", amount=Decimal(1))
    with pytest.raises(ChargeRefusedError, match="resource_missing"):
        await provider.bill(lost, key="k")


async def test_a_bill_that_is_not_there_is_no_void_one(fake: FakeStripe, provider: StripeProvider) -> None:
    """With another account's key nothing is there; whoever took that for void would bill everything again."""
    with pytest.raises(ProviderUnavailableError):
        await provider.look_up("in_absent")
    async with open_stripe("sk_test_other", url=fake.url) as other:
        with pytest.raises(ProviderUnavailableError):
            await other.look_up(await made(provider))


async def test_what_others_made_at_the_same_account_is_not_listed(provider: StripeProvider, fake: FakeStripe) -> None:
    reference = await made(provider)
    await provider.collect(reference, key="k")
    fake.invoices[reference]["metadata"] = {}
    assert [each async for each in provider.payments_since(datetime.fromtimestamp(0, UTC))] == []


async def test_a_key_is_never_in_what_is_raised(fake: FakeStripe) -> None:
    async with open_stripe("sk_test_secret", url=fake.url) as other:
        with pytest.raises(ProviderUnavailableError) as raised:
            await other.ensure_customer(Customer("t1", "Acme"), key="k")
    assert "sk_test_secret" not in repr(raised.value)


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("49.00", "USD", 4900),
        ("0.01", "EUR", 1),
        ("7000", "JPY", 7000),
        ("15.250", "KWD", 15250),
        ("500", "ISK", 50000),
    ],
)
def test_amounts_are_in_the_smallest_unit(amount: str, currency: str, units: int) -> None:
    assert to_smallest(Decimal(amount), currency) == units
    assert str(from_smallest(units, currency)) == amount


@pytest.mark.parametrize(("amount", "currency"), [("15.251", "KWD"), ("0.50", "MGA")])
def test_what_stripe_cannot_take_exactly_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(ChargeRefusedError, match="amount_not_chargeable"):
        to_smallest(Decimal(amount), currency)


@pytest.fixture
async def localstripe() -> AsyncIterator[str]:
    """Another implementation of some of Stripe; it knows neither idempotency nor all parameters of an invoice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-m", "localstripe.server", "--port", str(port), "--from-scratch",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient() as client:
            for _ in range(200):
                with suppress(httpx2.TransportError):
                    await client.delete(f"{url}/_config/data")
                    break
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.kill()
        await process.wait()


async def test_customers_and_paid_invoices_are_read_as_localstripe_has_them(localstripe: str) -> None:
    http_client = Connections(10)
    client = stripe.StripeClient("sk_test_1", http_client=http_client, base_addresses={"api": localstripe})
    async with open_stripe("sk_test_1", url=localstripe) as provider:
        customer = await provider.ensure_customer(Customer("t1", "Acme"), key="k")
        read = await client.v1.customers.retrieve_async(customer)
        assert read.metadata is not None
        assert (read.name, read.metadata["tenure_tenant"]) == ("Acme", "t1")

        # What localstripe knows is older than what the SDK has types for.
        source: Any = {
            "object": "card",
            "number": "4242424242424242",
            "exp_month": "12",
            "exp_year": "2040",
            "cvc": "123",
        }
        await client.v1.customers.payment_sources.create_async(customer, {"source": source})
        plan: Any = {"amount": 4900, "currency": "usd", "interval": "month", "product": {"name": "standard"}}
        taken = await client.v1.plans.create_async(plan)
        subscription: Any = {"customer": customer, "items": [{"plan": taken.id}]}
        made = await client.v1.subscriptions.create_async(subscription)
        invoice = await client.v1.invoices.retrieve_async(str(made.latest_invoice))
    await http_client.close_async()

    standing = standing_of(invoice)  # it cannot expand payments, so that the adapter cannot read it
    assert isinstance(standing, Paid)
    assert (standing.currency, standing.amount) == ("USD", Decimal("49.00"))
