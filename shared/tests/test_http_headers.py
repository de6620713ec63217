"""Headers with a meaning of their own: keys that make repeating safe, tags that keep changes apart."""

import re
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter

from shared.http import (
    IdempotencyKey,
    IfMatch,
    Problem,
    RequestBody,
    create_api,
    etag,
    everybody,
    fingerprint,
    require_match,
)


async def documented_form(client: httpx2.AsyncClient) -> str:
    """Return the pattern that the document has for keys."""
    operation = (await client.get("/openapi.json")).json()["paths"]["/v1/orders"]["post"]
    (parameter,) = operation["parameters"]
    pattern: str = parameter["schema"]["pattern"]
    return pattern


class Order(RequestBody):
    customer_name: str
    quantity: int = 1


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter(tags=["headers"], dependencies=[everybody()])

    @router.post("/v1/orders")
    async def post(key: IdempotencyKey) -> str | None:
        """Say the key."""
        return key

    @router.patch("/v1/orders")
    async def patch(version: IfMatch) -> str:
        """Change version 7."""
        require_match(version, 7)
        return "changed"

    api = create_api("headers", routers=[router], admin_key="key", checks={}, version="1")
    transport = httpx2.ASGITransport(app=api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"abc"', "abc"),
        ("abc", "abc"),
        ("  abc ", "abc"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (r'"a\"b\\c"', r"a\"b\c".replace('\\"', '"')),
        ("a:b/c?d=e", "a:b/c?d=e"),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
    ],
)
async def test_a_key_is_read_quoted_or_bare(client: httpx2.AsyncClient, header: str, key: str) -> None:
    assert (await client.post("/v1/orders", headers={"Idempotency-Key": header})).json() == key
    assert re.search(await documented_form(client), header.strip())


async def test_a_quoted_key_is_the_same_key_as_a_bare_one(client: httpx2.AsyncClient) -> None:
    quoted = await client.post("/v1/orders", headers={"Idempotency-Key": '"same"'})
    bare = await client.post("/v1/orders", headers={"Idempotency-Key": "same"})
    assert quoted.json() == bare.json() == "same"


async def test_no_key_is_none(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/orders")).json() is None


@pytest.mark.parametrize(
    "header", ["", '""', '"', '"abc', 'abc"def"'[3:] + "x", "a b", '"a b"', "a\tb", "ü", "x" * 256, '"a";p=1', '"a\\b"']
)
async def test_what_is_no_key_is_refused_by_name(client: httpx2.AsyncClient, header: str) -> None:
    answer = await client.post("/v1/orders", headers={b"Idempotency-Key": header.encode()})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_idempotency_key")
    assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"
    assert not re.search(await documented_form(client), header)


async def test_two_keys_are_refused(client: httpx2.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await client.post("/v1/orders", headers=headers)).status_code == 400


def test_bodies_that_mean_the_same_have_one_fingerprint() -> None:
    same = fingerprint(b'{"customerName":"Caf\\u00e9","quantity":1}')
    assert same == fingerprint('{ "quantity" : 1, "customerName" : "Café" }'.encode())
    assert same == fingerprint(Order(customerName="Café"))
    assert len(same) == 32


def test_bodies_that_differ_have_different_fingerprints() -> None:
    bodies = [b"", b"{}", b"[]", b"null", b"0", b'"0"', b"\xff", b"[1,2]", b"[2,1]", b'{"a":1}', b'{"a":1.5}']
    assert len({fingerprint(body) for body in bodies}) == len(bodies)


def test_an_integer_of_any_size_has_a_fingerprint() -> None:
    assert fingerprint(b"9" * 40) != fingerprint(b"9" * 39)


def test_a_version_is_a_strong_tag() -> None:
    assert etag(7) == '"7"'


@pytest.mark.parametrize("header", ['"7"', '"6", "7"', "*", ' "7" '])
async def test_who_has_seen_the_version_may_change_it(client: httpx2.AsyncClient, header: str) -> None:
    assert (await client.patch("/v1/orders", headers={"If-Match": header})).json() == "changed"


@pytest.mark.parametrize("header", ['"6"', 'W/"7"', "7", '"77"', '"7', "", '"*"', 'W/"7", "8"'])
async def test_who_has_seen_another_version_may_not(client: httpx2.AsyncClient, header: str) -> None:
    answer = await client.patch("/v1/orders", headers={"If-Match": header})
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert answer.headers["etag"] == '"7"'


async def test_who_has_not_looked_must_look(client: httpx2.AsyncClient) -> None:
    answer = await client.patch("/v1/orders")
    assert (answer.status_code, answer.json()["code"]) == (428, "precondition_required")
    assert answer.json()["errors"][0]["pointer"] == "header/If-Match"


def test_a_match_is_required_of_the_very_version() -> None:
    require_match('"1"', 1)
    with pytest.raises(Problem):
        require_match('"1"', 11)
