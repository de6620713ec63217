"""Whatever is wrong with a request is answered by a problem that names the field, before any workflow starts."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from deploy.local.throwaway import FreshDatabases, Templates
from services.onboarding.app import build
from services.onboarding.tests.catalogue import FULL, MINIMAL
from services.onboarding.tests.support import client_of, ports, publish_catalog, settings
from shared.clock import SystemClock
from shared.http import encode_cursor
from shared.http.body import MAXIMUM_DEPTH, MAXIMUM_DIGITS
from shared.messaging.topology import Manifest
from shared.postgres import Pool, open_pool
from shared.testing.memory_bus import MemoryBroker

ACCOUNT: dict[str, Any] = {
    "customerName": "Acme",
    "expiration": "2099-12-31",
    "products": [{"name": "notes", "version": "1.0"}],
    "adminEmails": ["ada@example.com"],
}
TABLES = ("workflow", "step", "customer", "idempotency", "outbox", "history")
NAME = "/customerName"
EMAIL = "/adminEmails/0"
HUGE = 10**400
ROWS = f"SELECT {', '.join(f'(SELECT count(*) FROM {table}) AS {table}' for table in TABLES)}"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(templates: Templates) -> AsyncIterator[str]:
    """One database for all: whatever is refused leaves it as it was."""
    databases = FreshDatabases(templates)
    yield await databases("onboarding")
    await databases.drop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def onlooker(url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(url)
    await publish_catalog(pool)
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_client(url: str, onlooker: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    """The service as it answers; what it accepts against all expectation is accepted in earnest."""
    broker = MemoryBroker(Manifest.load(), SystemClock())
    async with build(settings(url), ports(broker)) as service, client_of(service.api) as client:
        running = asyncio.create_task(service.background[0]())
        yield client
        running.cancel()


@pytest_asyncio.fixture(loop_scope="module")
async def client(running_client: httpx2.AsyncClient, onlooker: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    """A client after whose requests nothing is there that was not there before."""
    before = await onlooker.fetchrow(ROWS)
    yield running_client
    assert await onlooker.fetchrow(ROWS) == before


def refused(answer: httpx2.Response, status: int, pointer: str | None) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}
    if pointer is not None:
        assert [error["pointer"] for error in problem["errors"]] == [pointer], problem
        assert all(error["detail"] for error in problem["errors"])
    return problem


UNSEEN = "\0\x07\n\x7f\x85\u200b\u202e\ufeff\u00ad\ue000\U000e0001\uffff"
NO_ADDRESSES: list[Any] = [
    *(None, 7, [], "", "ada", "@example.com", "ada@", "ada@localhost", "a@b@c.de", "ada@example..com", "ada@-x.com"),
    *(
        "a b@example.com",
        "ada@exam ple.com",
        "ä@b.de",
        "Ada <ada@example.com>",
        "ada@example.com\nbcc: bea@example.com",
    ),
    *(f"{'a' * 65}@example.com", f"ada@{'a' * 64}.com", "a@b.c" * 60),
]
NO_LABELS: list[Any] = [7, 1.5, True, None, [], {"deep": "er"}, "x" * 257, "a\nb", "a\0b"]
NO_VERSIONS: list[Any] = ["9.9", 1.0, "", None]
NOTES: dict[str, Any] = {"name": "notes", "version": "1.0"}

TABLE: list[tuple[str, str, list[Any]]] = [
    ("customerName", NAME, [None, 7, True, [], {}, ["Acme"]]),
    ("customerName", NAME, ["", "   ", "\u3000", "---", "x" * 201, "\ufdfa" * 20]),
    ("customerName", NAME, [f"Ac{character}me" for character in UNSEEN]),
    ("adminEmails", "/adminEmails", [None, "ada@example.com", {}, [], ["ada@example.com"] * 51]),
    ("adminEmails", EMAIL, [[value] for value in NO_ADDRESSES]),
    ("adminEmails", "/adminEmails/1", [["ada@example.com", "bea"]]),
    ("tier", "/tier", ["gold", "", "Standard", "standard ", 7, True, {}, "x" * 64]),
    ("products", "/products", [None, "notes", {}, [NOTES] * 51]),
    ("products", "/products/0", [[None], ["notes"], [7], [[]]]),
    ("products", "/products/0/name", [[{"version": "1.0"}], [{**NOTES, "name": "chat"}], [{**NOTES, "name": 7}]]),
    ("products", "/products/0/version", [[{"name": "notes"}], *([{**NOTES, "version": no}] for no in NO_VERSIONS)]),
    ("products", "/products/0/seats", [[{**NOTES, "seats": 3}]]),
    ("products", "/products/1/name", [[NOTES, NOTES], [NOTES, {**NOTES, "version": "2.0"}]]),
    ("expiration", "/expiration", ["2020-01-31", "0001-01-01", "2027-02-30", "2027-13-01", "2027-00-01"]),
    ("expiration", "/expiration", ["31.12.2099", "2099-12-31T00:00:00Z", "", "soon", "99999-01-01", "-2099-01-01"]),
    ("expiration", "/expiration", [4102358400, True, [], "\uff12\uff10\uff19\uff19-12-31"]),
    ("address", "/address", ["", "x" * 2001, "Ring\x1b[31m", "Ring\0", 7, ["Ring 1"]]),
    ("billingAddress", "/billingAddress", ["", "x" * 2001, "Ring\x07", {}]),
    ("phone", "/phone", ["call me", "1", "+" * 5, "1" * 40, 4930123, "+49 30\n1234"]),
    ("currency", "/currency", ["usd", "US", "XXX", "Dollar", 840, ""]),
    ("region", "/region", ["The Moon", "", 7, "-x", "eu central"]),
    ("timeZone", "/timeZone", ["Berlin", "", 7, "+02:00", "UTC\0"]),
    ("tags", "/tags", ["smb", ["smb"], 7, {f"key{number}": "x" for number in range(51)}]),
    ("tags", "/tags/key", [{"key": no} for no in NO_LABELS]),
    ("attributes", "/attributes", ["crm", [], 7, None]),
    ("attributes", "/attributes/key", [{"key": no} for no in NO_LABELS]),
    ("tenantId", "/tenantId", ["t1"]),
    ("customername", "/customername", ["Acme"]),
    ("customer_name", "/customer_name", ["Acme"]),
    ("__proto__", "/__proto__", [{}]),
]
"""Field, what the problem points at, and values that each are wrong."""

WRONG_VALUES = [(field, value, pointer) for field, pointer, values in TABLE for value in values]


@pytest.mark.parametrize(("field", "value", "pointer"), WRONG_VALUES)
async def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    client: httpx2.AsyncClient, field: str, value: Any, pointer: str
) -> None:
    answer = await client.post("/v1/onboardings", json={**MINIMAL, field: value})

    problem = refused(answer, 400 if "\\u0000" in json.dumps(value) else 422, pointer)
    assert not problem["retryable"]


@pytest.mark.parametrize("field", ["customerName", "adminEmails"])
async def test_a_missing_field_is_named(client: httpx2.AsyncClient, field: str) -> None:
    body = {name: value for name, value in FULL.items() if name != field}

    refused(await client.post("/v1/onboardings", json=body), 422, f"/{field}")


async def test_everything_that_is_wrong_is_told_at_once(client: httpx2.AsyncClient) -> None:
    malformed = await client.post("/v1/onboardings", json={"adminEmails": ["x"], "phone": "?"})
    unknown = await client.post(
        "/v1/onboardings",
        json={
            **MINIMAL,
            "tier": "gold",
            "products": [{"name": "notes", "version": "3.0"}, {"name": "x", "version": "1"}],
            "expiration": "2020-01-01",
        },
    )

    for answer, pointers in (
        (malformed, {NAME, EMAIL, "/phone"}),
        (unknown, {"/tier", "/products/0/version", "/products/1/name", "/expiration"}),
    ):
        problem = refused(answer, 422, None)
        assert {error["pointer"] for error in problem["errors"]} == pointers


async def test_what_the_catalog_has_retired_cannot_be_ordered(client: httpx2.AsyncClient) -> None:
    """The catalog names what can be ordered and nothing else: it had version 2.0 of chess once, and a tier gold."""
    refused(await client.post("/v1/onboardings", json={**MINIMAL, "tier": "gold"}), 422, "/tier")
    for name, version, pointer in (("chess", "2.0", "/products/0/version"), ("chat", "1.0", "/products/0/name")):
        body = {**MINIMAL, "products": [{"name": name, "version": version}]}
        refused(await client.post("/v1/onboardings", json=body), 422, pointer)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"customerName": None}, NAME),
        ({"customerName": "\u202e"}, NAME),
        ({"expiration": None}, "/expiration"),
        ({"expiration": "2020-01-01"}, "/expiration"),
        ({"expiration": "2027-02-29"}, "/expiration"),
        ({"products": [{"name": "notes", "version": "9"}]}, "/products/0/version"),
        ({"adminEmails": []}, "/adminEmails"),
        ({"adminEmails": ["ada"]}, EMAIL),
        ({"accountId": ""}, "/accountId"),
        ({"accountId": "a b"}, "/accountId"),
        ({"accountId": 7}, "/accountId"),
        ({"tier": "premium"}, "/tier"),
    ],
)
async def test_a_wrong_account_is_refused_by_the_name_of_its_field(
    client: httpx2.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    refused(await client.put("/v1/accounts", json={**ACCOUNT, **change}), 422, pointer)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"customerName": ""}, NAME),
        ({"expiration": "2020-01-01"}, "/expiration"),
        ({"products": [{"name": "notes", "version": "9"}]}, "/products/0/version"),
        ({"products": [{"name": "chat", "version": "1.0"}]}, "/products/0/name"),
        ({"adminEmails": []}, "/adminEmails"),
        ({"tenantId": "t1"}, "/tenantId"),
    ],
)
async def test_a_wrong_update_is_refused_whosever_account_it_is(
    client: httpx2.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    refused(await client.put("/v1/accounts", json={**ACCOUNT, "accountId": "t1", **change}), 422, pointer)


@pytest.mark.parametrize("field", ["customerName", "expiration", "products", "adminEmails"])
async def test_an_account_needs_what_the_document_says(client: httpx2.AsyncClient, field: str) -> None:
    body = {name: value for name, value in ACCOUNT.items() if name != field}

    refused(await client.put("/v1/accounts", json=body), 422, f"/{field}")


TENANT: dict[str, Any] = {"tenantId": "t1"}
ORDERS: dict[str, dict[str, Any]] = {
    "/v1/tier-changes": {**TENANT, "tier": "premium"},
    "/v1/product-changes": {**TENANT, "products": [NOTES]},
    "/v1/suspensions": TENANT,
    "/v1/reactivations": TENANT,
    "/v1/offboardings": TENANT,
}
"""What would be right, if there were such a tenant."""

NO_IDENTITIES: list[Any] = ["", "a b", "x" * 65, "tenant.1", "a'; --", 7, ["t1"], "\u00e9"]
NO_REASONS: list[Any] = ["", "x" * 2001, "\x1b[31m", 7, []]
WRONG_ORDERS: list[tuple[str, str, str, list[Any]]] = [
    *((path, "tenantId", "/tenantId", NO_IDENTITIES) for path in ORDERS),
    *((path, "customer_name", "/customer_name", ["Acme"]) for path in ORDERS),
    *((path, "reason", "/reason", NO_REASONS) for path in ("/v1/suspensions", "/v1/reactivations", "/v1/offboardings")),
    ("/v1/tier-changes", "tier", "/tier", ["gold", "", "Premium", None, 7]),
    ("/v1/tier-changes", "reason", "/reason", ["Because."]),
    ("/v1/product-changes", "products", "/products", [None, "notes", {}, [NOTES] * 51]),
    ("/v1/product-changes", "products", "/products/0/name", [[{**NOTES, "name": "chat"}]]),
    ("/v1/product-changes", "products", "/products/0/version", [[{**NOTES, "version": "9.9"}]]),
    ("/v1/product-changes", "products", "/products/1/name", [[NOTES, NOTES]]),
    ("/v1/suspensions", "suspendedFor", "/suspendedFor", ["operator", "expiration"]),
    ("/v1/offboardings", "customerName", NAME, ["", "\u202e", 7, "x" * 201]),
    ("/v1/offboardings", "graceDays", "/graceDays", [-1, 3651, 1.5, 7.0, "7", True, 10**18]),
    ("/v1/offboardings", "export", "/export", ["yes", 1, None, "true"]),
]


@pytest.mark.parametrize(
    ("path", "field", "value", "pointer"),
    [(path, field, value, pointer) for path, field, pointer, values in WRONG_ORDERS for value in values],
)
async def test_a_wrong_order_is_refused_by_the_name_of_its_field(
    client: httpx2.AsyncClient, path: str, field: str, value: Any, pointer: str
) -> None:
    refused(await client.post(path, json={**ORDERS[path], field: value}), 422, pointer)


@pytest.mark.parametrize(("path", "field"), [(path, field) for path in ORDERS for field in ORDERS[path]])
async def test_an_order_needs_everything_that_says_what_is_ordered(
    client: httpx2.AsyncClient, path: str, field: str
) -> None:
    body = {name: value for name, value in ORDERS[path].items() if name != field}

    if path != "/v1/offboardings":
        refused(await client.post(path, json=body), 422, f"/{field}")
        return
    problem = refused(await client.post(path, json=body), 422, None)
    assert [error["pointer"] for error in problem["errors"]] == ["/tenantId", NAME]


@pytest.mark.parametrize("path", ORDERS)
async def test_an_order_for_nobody_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    refused(await client.post(path, json=ORDERS[path]), 404, "/tenantId")


ACTIONS = {"cancel": {}, "retry": {}, "skip": {"step": "register-tenant"}, "abandon": {}}
"""What operators can do, with what it takes besides a reason."""


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("reason", [*NO_REASONS, None])
async def test_an_action_needs_a_reason(client: httpx2.AsyncClient, action: str, reason: Any) -> None:
    path = f"/v1/workflows/{UUID(int=7)}/{action}"

    refused(await client.post(path, json=ACTIONS[action]), 422, "/reason")
    refused(await client.post(path, json={**ACTIONS[action], "reason": reason}), 422, "/reason")


@pytest.mark.parametrize("step", [None, "", "Register", "a b", 7, "x" * 64])
async def test_a_step_to_be_skipped_must_be_the_name_of_one(client: httpx2.AsyncClient, step: Any) -> None:
    path = f"/v1/workflows/{UUID(int=7)}/skip"

    refused(await client.post(path, json={"reason": "So."}), 422, "/step")
    refused(await client.post(path, json={"reason": "So.", "step": step}), 422, "/step")


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_action_on_nothing_is_refused(client: httpx2.AsyncClient, action: str) -> None:
    body = {**ACTIONS[action], "reason": "So."}

    refused(await client.post(f"/v1/workflows/{UUID(int=7)}/{action}", json=body), 404, None)
    refused(await client.post(f"/v1/workflows/seven/{action}", json=body), 422, "path/workflow_id")
    if action != "skip":
        extra = {**body, "step": "register-tenant"}
        refused(await client.post(f"/v1/workflows/{UUID(int=7)}/{action}", json=extra), 422, "/step")


def body_with(text: str, field: str = "customerName") -> bytes:
    """Write a request by hand, with something as the value of a field that no encoder would write."""
    rest = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in MINIMAL.items() if name != field)
    return f'{{"{field}":{text},{rest}}}'.encode()


MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "spaces": (b"  ", ""),
    "words": (b"hello", ""),
    "half a document": (b'{"customerName":"Acme"', ""),
    "two documents": (b"{}{}", ""),
    "single quotes": (b"{'customerName':'Acme'}", ""),
    "a comma too many": (b'{"customerName":"Acme",}', ""),
    "a comment": (b'{/* me */"customerName":"Acme"}', ""),
    "a number": (b"7", ""),
    "a list": (b"[]", ""),
    "null": (b"null", ""),
    "NUL as an escape": (body_with(r'"Ac\u0000me"'), NAME),
    "NUL as a byte": (body_with('"Ac\0me"'), ""),
    "half a pair as an escape": (body_with(r'"\ud800"'), NAME),
    "the other half": (body_with(r'"\udc00"'), NAME),
    "a pair the wrong way round": (body_with(r'"\udc00\ud800"'), NAME),
    "half a pair in depth": (body_with(r'{"key":"\ud83d"}', "tags"), "/tags/key"),
    "half a pair in a key": (body_with(r'{"\ud83d":"value"}', "tags"), "/tags"),
    "half a pair in a list": (body_with(r'["ada@example.com","\udfff"]', "adminEmails"), "/adminEmails/1"),
    "half a pair as bytes": (body_with('"@"').replace(b"@", b"\xed\xa0\x80"), ""),
    "bytes that are no UTF-8": (body_with('"@"').replace(b"@", b"\xff\xfe"), ""),
    "Latin-1": (body_with('"Caf@"').replace(b"Caf@", b"Caf\xe9"), ""),
    "UTF-16": (json.dumps(MINIMAL).encode("utf-16"), ""),
    "NaN": (body_with("NaN"), NAME),
    "Infinity": (body_with("[-Infinity]", "adminEmails"), EMAIL),
    "a number beyond all numbers": (body_with("1e400"), NAME),
    "a huge integer": (body_with(str(HUGE), "tags"), "/tags"),
    "a huge integer in depth": (body_with(f'{{"key":{HUGE}}}', "tags"), "/tags/key"),
    "a key twice": (body_with('"Acme","customerName":"Bolt"'), NAME),
    "a key twice in depth": (body_with('{"key":"a","key":"b"}', "tags"), "/tags/key"),
    "too deep": (body_with("[" * MAXIMUM_DEPTH + "]" * MAXIMUM_DEPTH), ""),
    "far too deep": (body_with("[" * 100_000 + "]" * 100_000), ""),
}
NO_OBJECTS = {"nothing", "a number", "a list", "null"}


@pytest.mark.parametrize("path", ["/v1/onboardings", "/v1/accounts"])
@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_body_is_refused(client: httpx2.AsyncClient, path: str, case: str) -> None:
    content, pointer = MALFORMED[case]
    method = "POST" if path == "/v1/onboardings" else "PUT"

    answer = await client.request(method, path, content=content, headers={"Content-Type": "application/json"})

    refused(answer, 422 if case in NO_OBJECTS else 400, pointer)


@pytest.mark.parametrize("digits", [MAXIMUM_DIGITS, 19, 10])
async def test_a_large_integer_is_no_text(client: httpx2.AsyncClient, digits: int) -> None:
    answer = await client.post("/v1/onboardings", content=body_with("9" * digits), headers=JSON)

    refused(answer, 422, NAME)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("field", ["customerName", "address", "unknown"])
async def test_a_text_of_twenty_megabytes_is_refused(client: httpx2.AsyncClient, field: str) -> None:
    answer = await client.post("/v1/onboardings", content=body_with(f'"{"x" * 20_000_000}"', field), headers=JSON)

    assert refused(answer, 413, None)["code"] == "body_too_large"


async def test_a_body_that_does_not_say_its_size_is_counted(client: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 100_000

    refused(await client.post("/v1/onboardings", content=endless(), headers=JSON), 413, None)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "json",
        "",
    ],
)
async def test_another_content_type_is_refused(client: httpx2.AsyncClient, content_type: str) -> None:
    content = json.dumps(MINIMAL).encode()

    answer = await client.post("/v1/onboardings", content=content, headers={"Content-Type": content_type})

    refused(answer, 415, "header/Content-Type")


@pytest.mark.parametrize("key", ["", " ", '""', "a b", "k" * 256, '"open', "a\tb", "schlüssel"])
async def test_a_bad_idempotency_key_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}

    answer = await client.post("/v1/onboardings", json=MINIMAL, headers=headers)  # type: ignore[arg-type] # bytes pass

    refused(answer, 400, "header/Idempotency-Key")


async def test_two_idempotency_keys_are_refused(client: httpx2.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

    refused(await client.post("/v1/onboardings", json=MINIMAL, headers=headers), 400, "header/Idempotency-Key")


FORGED_CURSORS = {
    "garbage": "made-up",
    "empty": "",
    "no ASCII": "über",
    "too long": "A" * 1990,
    "a bare date": encode_cursor("2026-01-01"),
    "too few": encode_cursor("2026-01-01T00:00:00+00:00"),
    "too many": encode_cursor("2026-01-01T00:00:00+00:00", str(UUID(int=7)), 7),
    "NUL": encode_cursor("2026-01-01T00:00:00+00:00", "\0"),
    "no date": encode_cursor("yesterday", str(UUID(int=7))),
    "no identity": encode_cursor("2026-01-01T00:00:00+00:00", "7"),
    "a number": encode_cursor(7),
    "a huge number": encode_cursor(HUGE),
    "numbers": encode_cursor(7, 7),
    "a number as identity": encode_cursor("2026-01-01T00:00:00+00:00", 7),
    "before all time": encode_cursor("0001-01-01T00:00:00+14:00", str(UUID(int=7))),
    "after all time": encode_cursor("9999-12-31T23:59:59-14:00", str(UUID(int=7))),
    "lists in lists": encode_cursor(json.loads("[" * 500 + "]" * 500)),
}


@pytest.mark.parametrize("case", FORGED_CURSORS)
async def test_a_forged_cursor_of_the_list_is_refused(client: httpx2.AsyncClient, case: str) -> None:
    refused(await client.get("/v1/workflows", params={"cursor": FORGED_CURSORS[case]}), 422, "query/cursor")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        *(({"limit": value}, "query/limit") for value in ("0", "-1", "x", "1.5", "")),
        *(({"status": value}, "query/status") for value in ("dormant", "", "Running")),
        *(({"tenantId": value}, "query/tenantId") for value in ("", "a b", "x" * 65, "a'; --")),
        *(({"kind": value}, "query/kind") for value in ("", "on board", "x" * 65)),
        *(({"q": value}, "query/q") for value in ("", " ", "\x1b", "x" * 501)),
    ],
)
async def test_a_wrong_filter_is_refused_by_its_name(
    client: httpx2.AsyncClient, query: dict[str, str], pointer: str
) -> None:
    refused(await client.get("/v1/workflows", params=query), 422, pointer)


@pytest.mark.parametrize("path", ["/v1/workflows?q=%00", "/v1/workflows?cursor=%00", "/v1/events?tenantId=%00"])
async def test_nul_in_a_query_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    refused(await client.get(path), 400, None)


@pytest.mark.parametrize("workflow_id", ["7", "not-an-id", "0" * 33, "%2e%2e", "%C3%A9"])
@pytest.mark.parametrize("path", ["", "/history", "/events"])
async def test_a_malformed_workflow_id_is_refused(client: httpx2.AsyncClient, workflow_id: str, path: str) -> None:
    answer = await client.get(f"/v1/workflows/{workflow_id}{path}")

    refused(answer, 422, "path/workflow_id")


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", ""])
async def test_a_wrong_wait_is_refused(client: httpx2.AsyncClient, wait: str) -> None:
    answer = await client.get(f"/v1/workflows/{UUID(int=7)}", params={"wait": wait})

    refused(answer, 422, "query/wait")


@pytest.mark.parametrize("tenant_id", ["", "a b", "x" * 65])
async def test_events_need_a_tenant(client: httpx2.AsyncClient, tenant_id: str) -> None:
    refused(await client.get("/v1/events", params={"tenantId": tenant_id}), 422, "query/tenantId")
    refused(await client.get("/v1/events"), 422, "query/tenantId")


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "9" * 19, "\uff11", "1, 2"])
async def test_a_wrong_last_event_id_is_refused(client: httpx2.AsyncClient, last: str) -> None:
    answer = await client.get(
        "/v1/events",
        params={"tenantId": "t1"},
        headers={"Last-Event-ID": last.encode()},  # type: ignore[arg-type] # bytes pass
    )

    refused(answer, 422, "header/Last-Event-ID")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workflow_id(running_client: httpx2.AsyncClient) -> str:
    """A workflow that was begun before."""
    answer = await running_client.post("/v1/onboardings", json={**MINIMAL, "customerName": "Somebody Else"})
    workflow_id: str = answer.json()["id"]
    return workflow_id


@pytest.mark.parametrize("case", ["a huge number", "garbage", "empty", "numbers", "NUL", "no date", "a bare date"])
async def test_a_forged_cursor_of_the_history_is_refused(
    workflow_id: str, client: httpx2.AsyncClient, case: str
) -> None:
    answer = await client.get(f"/v1/workflows/{workflow_id}/history", params={"cursor": FORGED_CURSORS[case]})

    refused(answer, 422, "query/cursor")
