"""What a body may be, and that nothing else gets anywhere."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from shared import text
from shared.access import Role
from shared.http import HttpServer, Problem, RequestBody, create_api, everybody, permit
from shared.http.body import MAXIMUM_BODY, MAXIMUM_DEPTH, check_json
from shared.testing import eventually

KEY = "a-key-for-tests"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class Order(RequestBody):
    customer_name: text.Name
    quantity: text.Count = 1
    attributes: dict[str, Any] = Field(default_factory=dict)


def api() -> Any:
    router = APIRouter(tags=["orders"])

    @router.post("/v1/orders", dependencies=[permit(Role.SYSTEM_ADMIN)])
    async def post(body: Order) -> dict[str, str]:
        """Take an order."""
        return {"name": body.customer_name}

    @router.post("/v1/echo", dependencies=[everybody()])
    async def echo(request: Request) -> JSONResponse:
        """Say how many bytes arrived."""
        return JSONResponse(len(await request.body()))

    return create_api("orders", routers=[router], admin_key=KEY, checks={}, version="1", media_types=["text/plain"])


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=api())
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=HEADERS) as client:
        yield client


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where a real server is, behind a real socket."""
    server = HttpServer(api(), host="127.0.0.1", port=0)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"/problems/{code}"
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}
    assert "Traceback" not in answer.text
    return problem


def nested(depth: int) -> bytes:
    return b'{"attributes":{"a":' + b"[" * (depth - 2) + b"]" * (depth - 2) + b"}}"


MALFORMED = {
    "nothing but a brace": (b"{", ""),
    "words": (b"hello", ""),
    "a trailing comma": (b'{"customerName":"a",}', ""),
    "two documents": (b"{}{}", ""),
    "NUL in text": (rb'{"customerName":"a\u0000b"}', "/customerName"),
    "NUL in depth": (rb'{"attributes":{"a":["\u0000"]}}', "/attributes/a/0"),
    "NUL in a key": (rb'{"attributes":{"\u0000":1}}', "/attributes"),
    "NUL as a byte": (b'{"customerName":"a\x00b"}', ""),
    "a high surrogate": (rb'{"customerName":"\ud800"}', "/customerName"),
    "a low surrogate": (rb'{"attributes":{"x":"\uDC00"}}', "/attributes/x"),
    "surrogates in the wrong order": (rb'{"customerName":"\udc00\ud800"}', "/customerName"),
    "a surrogate in a key": (rb'{"attributes":{"\udfff":1}}', "/attributes"),
    "NaN": (b'{"quantity":NaN}', "/quantity"),
    "Infinity": (b'{"quantity":Infinity}', "/quantity"),
    "minus Infinity": (b'{"attributes":{"a":-Infinity}}', "/attributes/a"),
    "1e400": (b'{"quantity":1e400}', "/quantity"),
    "minus 1e400": (b'{"attributes":{"a/b~c":[1,-1e400]}}', "/attributes/a~1b~0c/1"),
    "an integer of 5,000 digits": (b'{"quantity":' + b"9" * 5000 + b"}", "/quantity"),
    "an integer of 500 digits": (b'{"quantity":-' + b"9" * 500 + b"}", "/quantity"),
    "a key twice": (b'{"customerName":"a","customerName":"b"}', "/customerName"),
    "a key twice, once escaped": (rb'{"a":1,"\u0061":2}', "/a"),
    "a key twice in depth": (b'{"attributes":{"a":[{"b":1,"b":1}]}}', "/attributes/a/0/b"),
    "100,000 arrays": (b"[" * 100_000, ""),
    "100,000 arrays, closed": (b"[" * 100_000 + b"]" * 100_000, ""),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ""),
    "one level too deep": (nested(MAXIMUM_DEPTH + 1), ""),
    "deep and wrong": (b"[" * 900 + b"NaN" + b"]" * 900, None),
    "UTF-16": ('{"customerName":"a"}'.encode("utf-16"), ""),
    "UTF-16 without a mark": ('{"customerName":"a"}'.encode("utf-16-le"), ""),
    "UTF-32": ('{"customerName":"a"}'.encode("utf-32"), ""),
    "a byte order mark": (b"\xef\xbb\xbf{}", ""),
    "Latin-1": ('{"customerName":"Café"}'.encode("latin-1"), ""),
    "overlong UTF-8": (b'{"customerName":"\xc0\xaf"}', ""),
    "a surrogate in UTF-8": (b'{"customerName":"\xed\xa0\x80"}', ""),
    "only space": (b"   ", ""),
}


@pytest.mark.parametrize(("body", "pointer"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_body_is_refused_with_its_spot(
    client: httpx2.AsyncClient, body: bytes, pointer: str | None
) -> None:
    problem = assert_problem(await client.post("/v1/orders", content=body), 400, "malformed_json")
    if pointer is not None:
        assert [error["pointer"] for error in problem["errors"]] == [pointer]
    if pointer:
        assert f"`{pointer[1:]}`" in problem["detail"]


WRONG = {
    "an empty object": (b"{}", "/customerName"),
    "nothing": (b"", ""),
    "null": (b"null", ""),
    "a list": (b"[]", ""),
    "a number": (b"7", ""),
    "an integer beyond int4": (b'{"customerName":"a","quantity":2147483648}', "/quantity"),
    "true as an integer": (b'{"customerName":"a","quantity":true}', "/quantity"),
    "text as an integer": (b'{"customerName":"a","quantity":"7"}', "/quantity"),
    "a fraction as an integer": (b'{"customerName":"a","quantity":7.0}', "/quantity"),
    "an unknown field": (b'{"customerName":"a","quantty":7}', "/quantty"),
    "a number as a name": (b'{"customerName":7}', "/customerName"),
    "a control character in a name": (rb'{"customerName":"a\u001b"}', "/customerName"),
    "a right-to-left override in a name": ('{"customerName":"a\u202e"}'.encode(), "/customerName"),
    "half a megabyte as a name": (b'{"customerName":"' + b"x" * 500_000 + b'"}', "/customerName"),
}


@pytest.mark.parametrize(("body", "pointer"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_value_is_refused_naming_its_field(client: httpx2.AsyncClient, body: bytes, pointer: str) -> None:
    problem = assert_problem(await client.post("/v1/orders", content=body), 422, "validation_failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert pointer[1:] in problem["detail"]


GOOD = {
    "plain": b'{"customerName":"Acme"}',
    "accents and CJK": '{"customerName":"Café 株式会社"}'.encode(),
    "an escaped rocket": rb'{"customerName":"a","attributes":{"x":"\ud83d\ude80"}}',
    "an escaped backslash before u0000": rb'{"customerName":"a","attributes":{"x":"\\u0000 \\ud800"}}',
    "as deep as allowed": b'{"customerName":"a",' + nested(MAXIMUM_DEPTH)[1:],
    "a big but finite number": b'{"customerName":"a","attributes":{"x":1e308,"y":12345678901234567890}}',
    "many brackets side by side": b'{"customerName":"a","attributes":{"x":[' + b"[],{}," * 5000 + b"[]]}}",
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
async def test_a_good_body_arrives(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/orders", content=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/cloudevents-batch+json"])
async def test_every_kind_of_json_is_checked(client: httpx2.AsyncClient, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    assert (await client.post("/v1/orders", content=GOOD["plain"], headers=headers)).status_code == 200
    assert_problem(await client.post("/v1/orders", content=b"[NaN]", headers=headers), 400, "malformed_json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/xml"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity, br"},
    ],
)
async def test_what_is_not_plain_json_is_refused(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post("/v1/orders", content=GOOD["plain"], headers=headers)
    problem = assert_problem(answer, 415, "unsupported_media_type")
    assert problem["errors"][0]["pointer"] == f"header/{next(iter(headers))}"
    assert {"accept", "accept-encoding"} & set(answer.headers)


async def test_a_media_type_that_the_service_names_is_accepted_unread(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/echo", content=b"\x00\xff", headers={"Content-Type": "text/plain; charset=x"})
    assert answer.json() == 2


def body_of(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
async def test_a_body_of_one_mebibyte_arrives_and_one_more_byte_does_not(
    client: httpx2.AsyncClient, *, chunked: bool
) -> None:
    def content(size: int) -> Any:
        return in_chunks(body_of(size)) if chunked else body_of(size)

    assert (await client.post("/v1/echo", content=content(MAXIMUM_BODY))).json() == MAXIMUM_BODY
    answer = await client.post("/v1/echo", content=content(MAXIMUM_BODY + 1))
    assert_problem(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers", [[(b"content-length", b"99999999999999999999999")], []], ids=["announced", "chunked"]
)
async def test_who_sends_without_end_is_refused_in_the_end(headers: list[tuple[bytes, bytes]]) -> None:
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    assert await ask("POST", headers, receive) == 413
    assert received <= (64 + 2) * 1024 * 1024 // 65_536


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
async def test_who_sends_far_too_much_reads_the_refusal(address: str, *, chunked: bool) -> None:
    body = b"x" * 20_000_000
    async with httpx2.AsyncClient(base_url=address) as sender:
        answer = await sender.post("/v1/echo", content=in_chunks(body) if chunked else body)
    assert_problem(answer, 413, "body_too_large")


async def ask(method: str, headers: list[tuple[bytes, bytes]], receive: Any) -> int | None:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/v1/echo",
        "raw_path": b"/v1/echo",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"text/plain"), *headers],
        "http_version": "1.1",
        "scheme": "http",
        "client": None,
        "server": None,
    }
    await api()(scope, receive, send)
    return messages[0]["status"] if messages else None


async def test_headers_are_bounded_together(client: httpx2.AsyncClient) -> None:
    fine = {f"X-{index}": "x" * 3000 for index in range(10)}
    assert (await client.get("/healthz", headers=fine)).status_code == 200
    assert_problem(await client.get("/healthz", headers={**fine, "X-More": "x" * 3000}), 431, "headers_too_large")


async def test_a_client_that_leaves_in_the_middle_is_not_answered() -> None:
    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(parts)

    assert await ask("POST", [], receive) is None


@pytest.mark.parametrize("target", ["/v1/orders?q=%00", "/v1/or%00ders"])
async def test_nul_in_the_target_is_refused(client: httpx2.AsyncClient, target: str) -> None:
    assert (await client.get(target)).status_code == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(st.characters()), children, max_size=4),
    max_leaves=20,
)
orders = st.fixed_dictionaries(
    {}, optional={"customerName": json_values, "quantity": json_values, "attributes": json_values}
)


@given(orders | json_values, st.booleans())
@settings(max_examples=300, deadline=None)
async def test_whatever_json_comes_in_no_5xx_comes_out(value: Any, ascii_only: bool) -> None:  # noqa: FBT001
    content = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    transport = httpx2.ASGITransport(app=api())
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=HEADERS) as client:
        answer = await client.post("/v1/orders", content=content)
    assert answer.status_code in {200, 400, 422}
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"]


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_whatever_bytes_come_in_they_are_json_or_a_problem(body: bytes) -> None:
    with suppress(Problem):
        check_json(body)
        json.loads(body)
