"""In which form somebody gets an invoice over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx2
import pytest
from fastapi import FastAPI

from services.billing.documents import Printer, Seller, printer
from services.billing.documents.formats import Format, preferred
from services.billing.documents.pdf import pdf
from services.billing.settings import BillingSettings
from services.billing.tests.paper import SELLER, content, invoice, line
from services.billing.tests.support import all_routes, do_it, on, open_active, purge
from shared.contracts.billing import CloseAccount
from shared.http import Problem, create_api
from shared.postgres import Pool
from shared.testing.principals import Cast, as_

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
TYPES = {"json": "application/json", "html": "text/html; charset=utf-8", "pdf": "application/pdf"}


@pytest.fixture
def api(pool: Pool) -> FastAPI:
    return create_api(
        "billing", routers=[all_routes(pool)], admin_key="key", credentials=Cast("t1"), checks={}, version="1"
    )


@pytest.fixture
async def client(api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers=as_("administrator")
    ) as client:
        yield client


@pytest.fixture
async def path(pool: Pool) -> str:
    """Where the draft of an invoice is."""
    await open_active(pool, "t1", customer_name="Zoë & <Söhne>", billing_address="Ring 1\nBerlin")
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(13))
    return f"/v1/invoices/{done.answer.model_dump()['invoice_id']}"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        (" , ", "json"),
        ("*/*", "json"),
        ("text/*", "html"),
        ("application/*", "json"),
        (CHROMIUM, "html"),
        ("application/pdf", "pdf"),
        ("APPLICATION/PDF ; charset=x", "pdf"),
        ("application/json;q=0.1, application/pdf;q=0.2, text/html; q=0.15", "pdf"),
        ("*/*;q=0.5, application/json;q=0", "html"),
        ("*/*;q=0.5, application/json;q=0.4, text/html;q=0", "pdf"),
        ("application/*;q=0.3, */*;q=0.9", "html"),
        ("image/png, */*;q=0.001", "json"),
        ("text/html;q=7, application/pdf", "pdf"),
        ("nonsense, text/html", "html"),
        ("image/png", None),
        ("*/*;q=0", None),
        ("application/pdf;q=0.0", None),
        ("nonsense", None),
        ("*/html", None),
        ("text/html;q=", None),
    ],
)
def test_the_form_is_the_one_of_the_highest_quality(accept: str, form: Format | None) -> None:
    assert preferred(accept) == form


@pytest.mark.parametrize(("form", "media_type"), TYPES.items())
async def test_an_invoice_comes_in_the_form_that_is_acceptable_or_named_in_the_link(
    client: httpx2.AsyncClient, path: str, form: str, media_type: str
) -> None:
    accepted = await client.get(path, headers={"Accept": media_type})
    linked = await client.get(path, params={"format": form}, headers={"Accept": "image/png"})

    for answer in (accepted, linked):
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)
        assert answer.headers["Vary"] == "Accept"
    assert accepted.content == linked.content
    assert accepted.content.startswith({"json": b"{", "html": b"<!doctype html>", "pdf": b"%PDF-"}[form])


async def test_who_says_nothing_gets_json(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).json()["customerName"] == "Zoë & <Söhne>"
    del client.headers["Accept"]
    assert (await client.get(path)).json()["customerName"] == "Zoë & <Söhne>"


async def test_a_page_is_only_shown_and_a_file_has_a_name(client: httpx2.AsyncClient, path: str, pool: Pool) -> None:
    page = await client.get(path, params={"format": "html"})
    draft = await client.get(path, params={"format": "pdf"})
    await purge(pool, "t1", at=on(20))
    final = await client.get(path, params={"format": "pdf"})

    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "Zoë &amp; &lt;Söhne&gt;" in page.text
    assert {page.headers["Cache-Control"], draft.headers["Cache-Control"]} == {"no-store"}
    assert draft.headers["Content-Disposition"] == 'inline; filename="invoice-draft.pdf"'
    assert final.headers["Content-Disposition"] == 'inline; filename="invoice-00000001.pdf"'
    assert b"(Invoice 00000001)" in final.content


async def test_an_issued_invoice_is_the_same_whenever_it_is_asked_for(
    client: httpx2.AsyncClient, path: str, pool: Pool
) -> None:
    await purge(pool, "t1", at=on(20))

    for form in TYPES:
        first = await client.get(path, params={"format": form})
        second = await client.get(path, params={"format": form})
        assert first.content == second.content


async def test_what_no_invoice_is_there_as_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Accept": "image/png"})
    problem = answer.json()

    assert (answer.status_code, answer.headers["Content-Type"]) == (406, "application/problem+json")
    assert problem["code"] == "not_acceptable"
    assert problem["errors"][0]["pointer"] == "header/Accept"
    assert all(each in problem["detail"] for each in ("application/json", "text/html", "application/pdf"))


async def test_an_unknown_format_is_refused_by_name(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"format": "xml"})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["query/format"]


@pytest.mark.parametrize("form", TYPES)
async def test_every_form_is_for_those_who_may_see_the_invoice(
    client: httpx2.AsyncClient, pool: Pool, form: str
) -> None:
    await open_active(pool, "t2")
    done = await do_it(pool, CloseAccount(tenant_id="t2"), at=on(13))
    path = f"/v1/invoices/{done.answer.model_dump()['invoice_id']}"
    statuses = {
        who: (await client.get(path, params={"format": form}, headers=as_(who))).status_code
        for who in ("operator", "administrator", "user", "stranger")
    }

    assert statuses == {"operator": 200, "administrator": 404, "user": 403, "stranger": 403}
    anonymous = await client.get(path, params={"format": form}, headers={"Authorization": ""})
    assert anonymous.status_code == 401


async def test_the_document_of_the_api_names_all_forms(api: FastAPI) -> None:
    operation = api.openapi()["paths"]["/v1/invoices/{invoice_id}"]["get"]

    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/html", "application/pdf"}
    assert set(operation["responses"]["406"]["content"]) == {"application/problem+json"}
    (form,) = [each for each in operation["parameters"] if each["name"] == "format"]
    assert form["required"] is False


async def test_an_invoice_of_too_many_lines_is_for_machines() -> None:
    press = Printer(Seller())
    long = invoice(*[line()] * (printer.MOST_LINES + 1))

    for printed in (press.page(long), press.pdf(long)):
        with pytest.raises(Problem) as refused:
            await printed
        assert (refused.value.status, refused.value.code) == (406, "too_many_lines")


async def test_documents_are_made_beside_the_event_loop_and_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = Event()
    monkeypatch.setattr(printer, "pdf", lambda _: may_go_on.wait(10) and b"made")
    press = Printer(Seller())
    waiting = [asyncio.create_task(press.pdf(invoice())) for _ in range(16)]
    await asyncio.sleep(0)

    with pytest.raises(Problem) as refused:
        await press.pdf(invoice())
    may_go_on.set()

    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    assert await asyncio.gather(*waiting) == [b"made"] * 16
    press.close()


def test_two_documents_that_are_made_at_once_are_as_if_they_were_made_alone() -> None:
    contents = [content(line("한국어"), customer_name="Київ"), content(customer_name="Ωμέγα")] * 4
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(pdf, contents)) == [pdf(each) for each in contents]


async def test_the_seller_is_a_setting() -> None:
    told = BillingSettings.from_environment(
        {
            "TENURE_BILLING_DATABASE_URL": "postgresql://",
            "TENURE_AMQP_URL": "amqp://",
            "TENURE_ADMIN_KEY": "key",
            "TENURE_BILLING_SELLER_NAME": SELLER.name,
            "TENURE_BILLING_SELLER_ADDRESS": SELLER.address,
            "TENURE_BILLING_SELLER_TAX_ID": SELLER.tax_id,
        }
    )

    assert Seller(told.seller_name, told.seller_address, told.seller_tax_id) == SELLER
