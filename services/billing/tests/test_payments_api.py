"""Payments, credit, credit notes and balances over HTTP: what is said, what is refused, and who sees what."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.billing import queries
from services.billing.tests.support import all_routes, ask, on, open_accounts
from services.billing.tests.till import Till, incoming
from shared.contracts.billing import DecisionRecorded, PaymentReceived
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_

OWN = "own"
ABSENT = "018f0000-0000-7000-8000-000000000000"
LISTS = ("/v1/payments", "/v1/credits", "/v1/credit-notes", "/v1/balances")


@pytest.fixture
def till(pool: Pool) -> Till:
    return Till(pool)


@pytest.fixture
async def client(till: Till) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api(
        "billing",
        routers=[all_routes(till.pool, clock=till.clock)],
        admin_key="key",
        credentials=Cast(OWN),
        checks={},
        version="1",
    )
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers=as_("operator")
    ) as client:
        yield client


def payment(invoice_id: UUID | str, **details: Any) -> dict[str, Any]:
    return {"invoiceId": str(invoice_id), "amount": "49.00", "currency": "USD", "reference": "bank 1"} | details


def credit(**details: Any) -> dict[str, Any]:
    return {"tenantId": OWN, "amount": "5.00", "currency": "USD", "reason": "a bad day"} | details


def refusal(answer: httpx2.Response) -> tuple[int, str, list[str]]:
    """Return status, code and the fields that a problem names."""
    problem = answer.json()
    return answer.status_code, problem["code"], [each["pointer"] for each in problem["errors"]]


async def test_a_payment_is_recorded_shown_and_told(client: httpx2.AsyncClient, till: Till) -> None:
    invoice_id = await till.invoice(OWN, "49.00")
    await till.house.move_to(on(4))

    answer = await client.post("/v1/payments", json=payment(invoice_id, receivedAt="2026-03-03T08:00:00+02:00"))

    recorded = answer.json()
    assert answer.status_code == 201
    assert recorded == {
        "paymentId": recorded["paymentId"],
        "tenantId": OWN,
        "invoiceId": str(invoice_id),
        "provider": "manual",
        "reference": "bank 1",
        "currency": "USD",
        "amount": "49.00",
        "receivedAt": "2026-03-03T06:00:00Z",
        "recordedAt": "2026-03-04T12:00:00Z",
    }
    assert (await client.get("/v1/payments", params={"tenantId": OWN})).json()["items"] == [recorded]
    invoice = (await client.get(f"/v1/invoices/{invoice_id}")).json()
    assert (invoice["amountDue"], invoice["settledAt"]) == ("0.00", "2026-03-04T12:00:00Z")
    assert [each.payment_id for each in await till.told(PaymentReceived)] == [recorded["paymentId"]]
    (decision,) = await till.told(DecisionRecorded)
    assert (decision.action, decision.tenant_id, decision.subject, decision.after) == (
        "payment.recorded",
        OWN,
        f"payment:{recorded['paymentId']}",
        {"amount": "49.00", "currency": "USD", "reference": "bank 1", "invoiceId": str(invoice_id)},
    )


async def test_the_same_payment_is_recorded_once(client: httpx2.AsyncClient, till: Till) -> None:
    invoice_id, other = await till.invoice(OWN, "49.00"), await till.invoice("t2", "49.00")
    first = await client.post("/v1/payments", json=payment(invoice_id))
    before = await till.content()

    again = await client.post("/v1/payments", json=payment(invoice_id, amount="49", receivedAt="2026-01-01T00:00:00Z"))

    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    for another in (payment(invoice_id, amount="48.00"), payment(other)):
        assert refusal(await client.post("/v1/payments", json=another)) == (409, "reference_taken", ["/reference"])
    assert await till.content() == before
    assert len(await till.told(DecisionRecorded)) == 1


async def test_only_what_was_issued_and_is_booked_can_be_paid_or_credited(
    client: httpx2.AsyncClient, till: Till
) -> None:
    nothing = await till.invoice(OWN, "0.00")
    draft = await till.pool.fetchval(
        """
        INSERT INTO invoice (invoice_id, tenant_id, customer_name, currency, total, drafted_at)
        VALUES (gen_random_uuid(), $1, 'Acme', 'USD', 9, now()) RETURNING invoice_id
        """,
        OWN,
    )
    waiting = await till.issue(OWN, "49.00")

    for invoice_id, problem in (
        (ABSENT, (404, "unknown_invoice", ["/invoiceId"])),
        (nothing, (409, "nothing_to_pay", ["/invoiceId"])),
        (draft, (409, "nothing_to_pay", ["/invoiceId"])),
        (waiting, (409, "not_booked_yet", [])),
    ):
        answers = [
            await client.post("/v1/payments", json=payment(invoice_id)),
            await client.post("/v1/credits", json=credit(invoiceId=str(invoice_id))),
        ]
        assert [refusal(each) for each in answers] == [problem] * 2
    assert [(each.json()["retryable"], each.headers["Retry-After"]) for each in answers] == [(True, "1")] * 2
    await till.book()
    assert (await client.post("/v1/payments", json=payment(waiting))).status_code == 201


NO_AMOUNTS = ("0", "0.00", "-1", "1.001", "NaN", "1e3", "1" * 16, "Infinity", 5, 5.5, None, True, "", "\u0661")
NO_CURRENCIES = ("EUR", "usd", "XAU", "XXX", None, 5)
NO_TEXTS = ("", " ", "x" * 2001, "a\x07b", None, 5)
REFUSED: dict[str, dict[str, tuple[Any, ...]]] = {
    "/v1/payments": {
        "amount": NO_AMOUNTS,
        "currency": NO_CURRENCIES,
        "invoiceId": ("x", "", None, 5, f"urn:uuid:{ABSENT}", ABSENT.replace("-", "")),
        "reference": (*NO_TEXTS, "a\nb", "x" * 201),
        "receivedAt": ("2026-03-01T12:06:00Z", "2026-03-01", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 5),
        "more": (1,),
    },
    "/v1/credits": {
        "amount": NO_AMOUNTS,
        "currency": NO_CURRENCIES,
        "tenantId": ("", "a b", None, 5),
        "reason": NO_TEXTS,
        "invoiceId": ("x", "", 5, f"{{{ABSENT}}}"),
        "more": (1,),
    },
}


@pytest.mark.parametrize("path", REFUSED)
async def test_what_is_no_money_is_refused_by_the_name_of_the_field(
    client: httpx2.AsyncClient, till: Till, path: str
) -> None:
    invoice_id = await till.invoice(OWN, "49.00")
    before = await till.content()
    body = payment(invoice_id) if path == "/v1/payments" else credit(invoiceId=str(invoice_id))

    for field, values in REFUSED[path].items():
        for value in values:
            answer = await client.post(path, json=body | {field: value})
            assert (value, *refusal(answer)) == (value, 422, "validation_failed", [f"/{field}"])
    assert await till.content() == before


async def test_the_largest_amounts_are_kept(client: httpx2.AsyncClient, till: Till) -> None:
    invoice_id = await till.invoice(OWN, "49.00")
    largest = "9" * 15

    for number in range(30):
        answer = await client.post(
            "/v1/payments", json=payment(invoice_id, amount=f"{largest}.99", reference=f"bank {number}")
        )
        assert answer.status_code == 201
    (found,) = (await client.get("/v1/balances")).json()["items"]
    assert found["credit"] == "29999999999999950.70"


async def test_credit_is_given_used_shown_and_told(client: httpx2.AsyncClient, till: Till) -> None:
    await open_accounts(till.pool, ask(OWN))
    answer = await client.post("/v1/credits", json=credit())
    given = answer.json()
    assert answer.status_code == 201
    assert given == {
        "creditId": given["creditId"],
        "tenantId": OWN,
        "invoiceId": None,
        "number": None,
        "currency": "USD",
        "amount": "5.00",
        "reason": "a bad day",
        "issuedAt": "2026-03-01T12:00:00Z",
    }
    invoice_id = await till.invoice(OWN, "49.00")

    items = (await client.get("/v1/credits", params={"tenantId": OWN})).json()["items"]
    applied, granted = sorted(items, key=lambda each: each["kind"])

    assert granted == {
        "entryId": given["creditId"],
        "tenantId": OWN,
        "kind": "granted",
        "currency": "USD",
        "amount": "5.00",
        "invoiceId": None,
        "paymentId": None,
        "reason": "a bad day",
        "recordedAt": "2026-03-01T12:00:00Z",
    }
    assert (applied["kind"], applied["amount"], applied["invoiceId"]) == ("applied", "-5.00", str(invoice_id))
    assert (await client.get("/v1/balances", params={"tenantId": OWN})).json()["items"] == [
        {"tenantId": OWN, "currency": "USD", "due": "44.00", "credit": "0.00", "overdue": "clear"}
    ]
    (decision,) = await till.told(DecisionRecorded)
    assert (decision.action, decision.subject, decision.reason, decision.after) == (
        "credit.granted",
        f"credit:{given['creditId']}",
        "a bad day",
        {"amount": "5.00", "currency": "USD"},
    )


async def test_a_credit_note_corrects_an_invoice(client: httpx2.AsyncClient, till: Till) -> None:
    """Golden G-R10: 100 paid, adjusted by 10, is 10 of credit."""
    invoice_id = await till.invoice(OWN, "100.00")
    await till.pay(invoice_id, "100.00")

    given = (await client.post("/v1/credits", json=credit(invoiceId=str(invoice_id), amount="10.00"))).json()

    assert (given["number"], given["invoiceId"]) == ("00000001", str(invoice_id))
    (note,) = (await client.get("/v1/credit-notes", params={"tenantId": OWN})).json()["items"]
    assert note == {
        "creditNoteId": given["creditId"],
        "number": "00000001",
        "invoiceId": str(invoice_id),
        "tenantId": OWN,
        "currency": "USD",
        "amount": "10.00",
        "reason": "a bad day",
        "issuedAt": "2026-03-01T12:00:00Z",
    }
    (found,) = (await client.get("/v1/balances")).json()["items"]
    assert (found["due"], found["credit"]) == ("0.00", "10.00")
    (decision,) = await till.told(DecisionRecorded)
    assert (decision.action, decision.after) == (
        "credit_note.issued",
        {"amount": "10.00", "currency": "USD", "invoiceId": str(invoice_id)},
    )
    exceeding = await client.post("/v1/credits", json=credit(invoiceId=str(invoice_id), amount="90.01"))
    assert refusal(exceeding) == (409, "exceeds_invoice", ["/amount"])
    assert "at most 90.00 USD" in exceeding.json()["detail"]


async def test_a_request_with_a_key_gives_once(client: httpx2.AsyncClient, till: Till) -> None:
    invoice_id = await till.invoice(OWN, "49.00")

    for body in (credit(), credit(invoiceId=str(invoice_id))):
        key = {"Idempotency-Key": f"key-{'invoiceId' in body}"}
        first = await client.post("/v1/credits", json=body, headers=key)
        again = await client.post("/v1/credits", json=body, headers=key)
        other = await client.post("/v1/credits", json=body | {"amount": "6.00"}, headers=key)
        unkeyed = await client.post("/v1/credits", json=body)

        assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
        assert refusal(other) == (422, "idempotency_key_reused", ["header/Idempotency-Key"])
        assert unkeyed.status_code == 201
    assert await till.receivables(OWN) == [("49.00", "10.00", "10.00", "0.00", "29.00")]
    assert len(await till.told(DecisionRecorded)) == 4


async def test_a_key_that_was_refused_can_be_used_again(client: httpx2.AsyncClient, till: Till) -> None:
    key = {"Idempotency-Key": "key"}
    refused = await client.post("/v1/credits", json=credit(), headers=key)
    await open_accounts(till.pool, ask(OWN))

    given = await client.post("/v1/credits", json=credit(), headers=key)

    assert refusal(refused) == (404, "unknown_tenant", ["/tenantId"])
    assert given.status_code == 201


async def test_credit_is_only_for_who_is_charged_and_in_its_currency(client: httpx2.AsyncClient, till: Till) -> None:
    await open_accounts(till.pool, ask(OWN, currency="EUR"))
    invoice_id = await till.invoice("t2", "49.00")

    answers = [
        await client.post("/v1/credits", json=credit(tenantId="nobody")),
        await client.post("/v1/credits", json=credit()),
        await client.post("/v1/credits", json=credit(invoiceId=str(invoice_id))),
        await client.post("/v1/credits", json=credit(currency="EUR")),
    ]

    assert [refusal(each) for each in answers[:3]] == [
        (404, "unknown_tenant", ["/tenantId"]),
        (422, "validation_failed", ["/currency"]),
        (404, "unknown_invoice", ["/invoiceId"]),
    ]
    assert answers[3].status_code == 201


async def test_all_lists_come_in_pages(client: httpx2.AsyncClient, till: Till) -> None:
    for tenant_id in ("t3", "t1", "t2"):
        invoice_id = await till.invoice(tenant_id, "10.00")
        await till.give(tenant_id, "1.00", invoice_id=invoice_id)
        await till.receive(incoming(invoice_id, "10.00"))
    await till.invoice("t1", "5.00", currency="EUR")

    for path in LISTS:
        whole = (await client.get(path)).json()["items"]
        parts: list[Any] = []
        cursor = None
        while cursor is not None or not parts:
            answer = (await client.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            parts += answer["items"]
            cursor = answer["nextCursor"]
        assert parts == whole
        assert len(parts) == {"/v1/balances": 4}.get(path, 3)
    balances = (await client.get("/v1/balances")).json()["items"]
    assert [(each["tenantId"], each["currency"], each["due"], each["credit"]) for each in balances] == [
        ("t1", "EUR", "5.00", "0.00"),
        ("t1", "USD", "0.00", "1.00"),
        ("t2", "USD", "0.00", "1.00"),
        ("t3", "USD", "0.00", "1.00"),
    ]


@pytest.mark.parametrize("path", LISTS)
async def test_members_are_shown_what_is_their_tenants_alone(client: httpx2.AsyncClient, till: Till, path: str) -> None:
    for tenant_id in ("a", OWN, "z"):
        invoice_id = await till.invoice(tenant_id, "10.00")
        await till.give(tenant_id, "1.00", invoice_id=invoice_id)
        await till.receive(incoming(invoice_id, "10.00"))
    first = (await client.get(path, params={"limit": 1})).json()

    for query in ({}, {"tenantId": OWN}, {"limit": 1}, {"cursor": first["nextCursor"]}):
        listed = (await client.get(path, params=query, headers=as_("administrator"))).json()
        assert [each["tenantId"] for each in listed["items"]] == [OWN]
    other = (await client.get(path, params={"tenantId": "a"}, headers=as_("administrator"))).json()
    assert other == {"items": [], "nextCursor": None}


async def test_a_tenants_rows_are_found_by_an_index_of_tenants(pool: Pool) -> None:
    """Also once the server has made a plan that is for every tenant alike."""
    first: Any = {"after": None, "limit": 50, "tenant_id": OWN}
    found = {}
    async with pool.acquire() as connection:
        statements: dict[str, Any] = {
            "payment_of_tenant": queries.ledger.payments,
            "credit_note_of_tenant": queries.ledger.notes,
            "credit_entry_of_tenant": queries.ledger.entries,
            "balance_pkey": queries.receivables.page,
        }
        for name, statement in statements.items():
            found[name] = await general_plan(connection, statement(connection, **first))

    assert {name for name, plan in found.items() if name not in plan} == set()
