"""What Stripe tells by webhooks: only by itself, each thing once, in whatever order.

A webhook says no more than that there is news, so that nobody who repeats or reorders them moves money.

The payloads in ``recorded`` are put together of the fields that Stripe's own SDK lists for this version of its
interface; no account has sent them.
"""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import stripe

from services.billing.api import routes
from services.billing.payments.stripe import StripeNews, open_stripe
from services.billing.tests.desk import Desk
from services.billing.tests.fake_stripe import KEY, FakeStripe, serving
from services.billing.tests.till import Till
from shared.contracts.billing import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.decisions import changes_on

PATH = "/v1/payment-webhooks/stripe"
SECRET = "whsec_test"
RECORDED = Path(__file__).parent / "recorded"
KINDS = ("invoice.paid", "invoice.payment_failed", "invoice.voided")


def recorded(kind: str, reference: str = "in_foreign", event_id: str | None = None) -> bytes:
    text = (RECORDED / f"{kind}.json").read_text().replace("REFERENCE", reference)
    event = json.loads(text)
    return json.dumps(event if event_id is None else event | {"id": event_id}, indent=2).encode()


def signed(body: bytes, *, secret: str = SECRET, ago: int = 0) -> dict[str, str]:
    moment = int(time.time()) - ago
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, moment)
    return {"Stripe-Signature": header, "Content-Type": "application/json; charset=utf-8"}


class Post:
    """Whoever sends webhooks to a service."""

    def __init__(self, client: httpx2.AsyncClient, desk: Desk) -> None:
        self.client, self.desk = client, desk

    async def send(self, body: bytes, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.client.post(PATH, content=body, headers=headers or signed(body))

    async def events(self) -> list[tuple[str, str]]:
        rows = await self.desk.till.pool.fetch("SELECT event_id, type FROM provider_event ORDER BY 1")
        return [tuple(row) for row in rows]


@pytest.fixture
async def post(pool: Pool) -> AsyncIterator[Post]:
    till = Till(pool)
    changes = changes_on(pool, DecisionRecorded, clock=till.clock)
    router = routes(pool, changes=changes, clock=till.clock, announcer=StripeNews(SECRET))
    api = create_api("billing", routers=[router], admin_key="key", checks={}, version="1")
    async with (
        serving(FakeStripe()) as fake,
        open_stripe(KEY, url=fake.url) as provider,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client,
    ):
        yield Post(client, Desk(till, fake, provider))


async def unpaid(post: Post) -> str:
    """Have a bill that was declined for good, and return its reference."""
    post.desk.fake.declines = ["insufficient_funds"]
    await post.desk.invoice()
    await post.desk.settle()
    return await post.desk.bill()


async def test_whoever_pays_at_the_providers_page_has_paid_at_once(post: Post) -> None:
    reference = await unpaid(post)
    post.desk.fake.pay_by_hand(reference)

    answer = await post.send(recorded("invoice.paid", reference))
    await post.desk.settle()

    assert (answer.status_code, answer.content) == (204, b"")
    assert await post.desk.till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    await post.desk.check()


async def test_a_webhook_is_not_believed_in_what_it_says_of_money(post: Post) -> None:
    reference = await unpaid(post)

    await post.send(recorded("invoice.paid", reference))
    await post.desk.settle()

    assert await post.desk.till.receivables() == [("49.00", "0.00", "0.00", "0.00", "49.00")]
    assert post.desk.fake.asked.count("pay") == 1
    assert await post.desk.failures() == [(1, "insufficient_funds", 1)]


async def test_in_whatever_order_and_however_often_they_come_money_is_booked_once(post: Post) -> None:
    reference = await unpaid(post)
    post.desk.fake.pay_by_hand(reference)

    for kind in ("invoice.paid", "invoice.voided", "invoice.payment_failed", "invoice.paid", "invoice.payment_failed"):
        assert (await post.send(recorded(kind, reference))).status_code == 204
        await post.desk.settle()
    await post.send(recorded("invoice.payment_failed", reference, "evt_late"))
    await post.desk.settle()

    assert [len(await post.events()), await post.desk.states()] == [4, [(1, "49.00", "paid")]]
    assert len(await post.desk.failures()) == 1
    await post.desk.check()


async def test_what_was_told_already_is_not_looked_up_again(post: Post) -> None:
    reference = await unpaid(post)
    body = recorded("invoice.payment_failed", reference)
    await post.send(body)
    await post.desk.settle()
    looked = post.desk.fake.asked.count("read")

    assert (await post.send(body)).status_code == 204
    await post.desk.settle()

    assert post.desk.fake.asked.count("read") == looked == 1


async def test_news_of_what_is_being_asked_for_is_not_lost(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment at the provider's page, told while our own asking for the money is declined."""
    reference = await unpaid(post)
    collect = post.desk.provider.collect

    async def crossed(of: str, *, key: str) -> Any:
        post.desk.fake.declines = ["insufficient_funds"]
        answer = await collect(of, key=key)
        post.desk.fake.pay_by_hand(reference)
        await post.send(recorded("invoice.paid", reference))
        return answer

    monkeypatch.setattr(post.desk.provider, "collect", crossed)
    await post.desk.till.clock.advance(86_400)
    await post.desk.settle()

    assert await post.desk.till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    await post.desk.check()


@pytest.mark.parametrize("kind", KINDS)
async def test_invoices_of_others_are_none_of_our_business(post: Post, kind: str) -> None:
    await unpaid(post)
    before = list(post.desk.fake.asked)

    assert (await post.send(recorded(kind))).status_code == 204
    await post.desk.settle()

    assert post.desk.fake.asked == before
    assert len(await post.events()) == 1


async def test_what_is_about_no_invoice_changes_nothing(post: Post) -> None:
    reference = await unpaid(post)
    unknown = json.dumps({"id": "evt_1", "type": "moon.risen", "data": {"object": {"object": "moon", "id": reference}}})

    assert (await post.send(recorded("customer.updated"))).status_code == 204
    assert (await post.send(unknown.encode())).status_code == 204

    assert post.desk.fake.asked.count("read") == 0
    assert [kind for _, kind in await post.events()] == ["moon.risen", "customer.updated"]
    assert await post.desk.collecting.round() == 0


async def test_nobody_else_is_heard(post: Post) -> None:
    reference = await unpaid(post)
    body = recorded("invoice.paid", reference)
    other = body.replace(b"4900", b"9900")
    plain = {"Content-Type": "application/json"}
    for headers in (
        plain,
        plain | {"Stripe-Signature": ""},
        plain | {"Stripe-Signature": "t=1,v1=00"},
        plain | {"Stripe-Signature": "nonsense"},
        signed(body, secret="whsec_other"),
        signed(body, ago=301),
        signed(other),
    ):
        answer = await post.send(body, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "wrong_signature"), headers
    assert (await post.send(body, signed(body, ago=290))).status_code == 204
    assert len(await post.events()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"id": "evt_1", "type": "invoice.paid"},
        {"id": "evt_1", "type": "invoice.paid", "data": {"object": None}},
        {"id": 7, "type": "invoice.paid", "data": {"object": {"object": "invoice", "id": "in_1"}}},
        {"id": "e" * 256, "type": "invoice.paid", "data": {"object": {"object": "invoice", "id": "in_1"}}},
        {"id": "evt_1", "type": "invoice.paid", "data": {"object": {"object": "invoice", "id": ["in_1"]}}},
    ],
)
async def test_what_is_signed_and_no_event_is_refused(post: Post, body: Any) -> None:
    answer = await post.send(json.dumps(body).encode())
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_webhook")


async def test_without_a_secret_nobody_is_heard(pool: Pool) -> None:
    till = Till(pool)
    router = routes(pool, changes=changes_on(pool, DecisionRecorded, clock=till.clock), clock=till.clock)
    api = create_api("billing", routers=[router], admin_key="key", checks={}, version="1")
    body = recorded("invoice.paid")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        answer = await client.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_signature")
