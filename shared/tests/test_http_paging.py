"""Lists in pages."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Query
from hypothesis import given
from hypothesis import strategies as st

from shared.http import (
    DEFAULT_LIMIT,
    MAXIMUM_LIMIT,
    Cursor,
    Limit,
    Page,
    Problem,
    Resource,
    create_api,
    decode_cursor,
    encode_cursor,
    everybody,
    page,
)

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC)
IDENTITY = UUID(int=7)


class Number(Resource):
    its_value: int


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter(tags=["numbers"], dependencies=[everybody()])

    @router.get("/v1/numbers")
    async def list_numbers(
        below: Annotated[int, Query()] = 7, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
    ) -> Page[Number]:
        """List the numbers below another."""
        after = decode_cursor(cursor, int)
        start = after[0] + 1 if after else 0
        rows = list(range(below))[start : start + limit + 1]
        return page(rows, limit=limit, item=lambda row: Number(its_value=row), key=lambda row: (row,))

    api = create_api("numbers", routers=[router], admin_key="key", checks={}, version="1")
    transport = httpx2.ASGITransport(app=api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def walk(client: httpx2.AsyncClient, **query: Any) -> list[list[int]]:
    pages: list[list[int]] = []
    cursor = None
    while True:
        answer = await client.get("/v1/numbers", params={**query, **({"cursor": cursor} if cursor else {})})
        document = answer.json()
        assert set(document) == {"items", "nextCursor"}, document
        pages.append([item["itsValue"] for item in document["items"]])
        cursor = document["nextCursor"]
        if cursor is None:
            return pages


async def test_pages_follow_each_other_without_gap_or_repeat(client: httpx2.AsyncClient) -> None:
    assert await walk(client, below=7, limit=3) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_last_page_that_is_full_is_the_last(client: httpx2.AsyncClient) -> None:
    assert await walk(client, below=6, limit=3) == [[0, 1, 2], [3, 4, 5]]


async def test_an_empty_list_is_one_empty_page(client: httpx2.AsyncClient) -> None:
    assert await walk(client, below=0) == [[]]


async def test_a_limit_that_is_too_large_is_the_largest(client: httpx2.AsyncClient) -> None:
    pages = await walk(client, below=MAXIMUM_LIMIT + 1, limit=10**6)
    assert [len(each) for each in pages] == [MAXIMUM_LIMIT, 1]


async def test_no_limit_is_fifty(client: httpx2.AsyncClient) -> None:
    assert [len(each) for each in await walk(client, below=60)] == [50, 10]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "9" * 5000])
async def test_what_is_no_limit_is_refused(client: httpx2.AsyncClient, limit: str) -> None:
    answer = await client.get("/v1/numbers", params={"limit": limit})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query/limit")


FOREIGN = {
    "nothing": "",
    "words": "hello",
    "not base64": "%%%",
    "not ASCII": "ü",
    "JSON without a checksum": base64.urlsafe_b64encode(b"[1]").decode(),
    "SQL": "1; drop table tenant",
    "another list's": encode_cursor("a", 1),
    "another type": encode_cursor("a"),
    "a boolean": encode_cursor(True),
    "shortened": encode_cursor(123456)[:-1],
    "edited": "B" + encode_cursor(123456)[1:],
    "long": "A" * 3000,
}


@pytest.mark.parametrize("cursor", FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_cursor_that_was_never_given_out_is_refused(client: httpx2.AsyncClient, cursor: str) -> None:
    answer = await client.get("/v1/numbers", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query/cursor"), answer.text


def test_a_cursor_brings_back_what_was_put_in() -> None:
    cursor = encode_cursor(MOMENT, IDENTITY, "ä", 7)
    assert decode_cursor(cursor, datetime, UUID, str, int) == (MOMENT, IDENTITY, "ä", 7)


def test_no_cursor_is_the_beginning() -> None:
    assert decode_cursor(None, str) is None


def test_a_value_that_no_list_is_ordered_by_is_our_mistake() -> None:
    with pytest.raises(TypeError):
        encode_cursor(object())


@given(st.text(max_size=80))
def test_whatever_is_given_as_a_cursor_is_one_or_a_problem(cursor: str) -> None:
    with pytest.raises(Problem):
        decode_cursor(cursor, str)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
)
def test_every_cursor_is_read_back_and_travels_in_a_url(
    text: str, number: int, moment: datetime, identity: UUID
) -> None:
    cursor = encode_cursor(text, number, moment, identity)
    assert decode_cursor(cursor, str, int, datetime, UUID) == (text, number, moment, identity)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
