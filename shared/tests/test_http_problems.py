"""Every error is a problem document that says what is wrong and gives nothing away."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import asyncpg
import httpx2
import pytest
from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from shared import text
from shared.http import FieldError, Problem, RequestBody, create_api, everybody


class Email(RequestBody):
    kind: Literal["email"]
    addresses: list[text.EmailAddress] = Field(min_length=1, max_length=3)


class Call(RequestBody):
    kind: Literal["call"]
    number: text.PhoneNumber


class Contact(RequestBody):
    by: Annotated[Email | Call, Field(discriminator="kind")]
    either: text.Count | text.Slug | None = None
    labels: text.Tags = Field(default_factory=dict)


class Answer(BaseModel):
    number: int


RAISED: dict[str, Exception] = {
    "bug": RuntimeError("the password is hunter2"),
    "problem": Problem(
        409, code="wrong_state", detail="It is over.", errors=[FieldError("/a", "`a` is old.")], headers={"X-A": "b"}
    ),
    "surrogate": Problem(400, code="odd", detail="\ud800 is odd."),
    "forbidden": HTTPException(403, "No"),
    "teapot": HTTPException(418),
    "refused-by-postgres": asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),
    "too-big-for-postgres": asyncpg.NumericValueOutOfRangeError("integer out of range"),
    "not-uuid": asyncpg.InvalidTextRepresentationError("invalid input syntax for type uuid"),
    "refused-by-asyncpg": asyncpg.DataError("invalid input for query argument $1: value out of int32 range"),
    "no-connection": ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 5432)"),
    "connection-lost": asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    "pool-closed": asyncpg.InterfaceError("pool is closed"),
    "pool-exhausted": TimeoutError(),
    "starting": asyncpg.CannotConnectNowError("the database system is starting up"),
    "misuse": asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    "constraint": asyncpg.UniqueViolationError("duplicate key value violates unique constraint"),
}


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter(tags=["things"], dependencies=[everybody()])

    @router.get("/v1/raise/{name}")
    async def fail(name: str) -> None:
        """Fail as told."""
        raise RAISED[name]

    @router.get("/v1/answer")
    async def answer() -> Answer:
        """Answer with what the model does not allow."""
        return {"number": "none"}  # type: ignore[return-value]

    @router.get("/v1/things/{size}")
    async def read(
        size: Annotated[int, Path(ge=0, le=9)], number: Annotated[int, Query(alias="theNumber", ge=1)] = 1
    ) -> int:
        """Read a number."""
        return size + number

    @router.patch("/v1/things/{size}")
    async def change(size: str) -> str:
        """Change a thing."""
        return size

    @router.post("/v1/contacts")
    async def contact(body: Contact) -> str:
        """Take a contact."""
        return body.by.kind

    api = create_api("things", routers=[router], admin_key="key", checks={}, version="1")
    transport = httpx2.ASGITransport(app=api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), document
    assert set(document) == {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}
    return document


async def test_a_problem_is_answered_as_it_was_raised(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/raise/problem")
    assert problem(answer, 409, "wrong_state") == {
        "type": "/problems/wrong_state",
        "title": "Wrong state",
        "status": 409,
        "detail": "It is over.",
        "instance": "/v1/raise/problem",
        "code": "wrong_state",
        "errors": [{"pointer": "/a", "detail": "`a` is old."}],
        "retryable": False,
    }
    assert answer.headers["x-a"] == "b"


async def test_a_bug_is_an_incident_in_the_log_and_nothing_of_it_in_the_answer(client: httpx2.AsyncClient) -> None:
    with capture_logs() as lines:
        answer = await client.get("/v1/raise/bug")
    document = problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    incident = next(line for line in lines if line.get("action") == "internal_error")
    assert incident["incident"] in document["detail"]
    assert incident["exc_info"] is RAISED["bug"]
    assert incident["incident"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("name", ["misuse", "constraint"])
async def test_a_wrong_statement_is_a_bug(client: httpx2.AsyncClient, name: str) -> None:
    problem(await client.get(f"/v1/raise/{name}"), 500, "internal_error")


async def test_an_answer_that_breaks_its_own_model_is_a_bug(client: httpx2.AsyncClient) -> None:
    problem(await client.get("/v1/answer"), 500, "internal_error")


@pytest.mark.parametrize("name", ["refused-by-postgres", "too-big-for-postgres", "not-uuid", "refused-by-asyncpg"])
async def test_a_value_that_the_database_cannot_hold_is_the_clients_and_our_mistake(
    client: httpx2.AsyncClient, name: str
) -> None:
    with capture_logs() as lines:
        problem(await client.get(f"/v1/raise/{name}"), 422, "unstorable_value")
    assert [line["log_level"] for line in lines if line.get("action") == "unstorable_value"] == ["error"]


@pytest.mark.parametrize("name", ["no-connection", "connection-lost", "pool-closed", "pool-exhausted", "starting"])
async def test_an_absent_database_is_worth_another_try(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/v1/raise/{name}")
    assert problem(answer, 503, "unavailable")["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0
    assert "10.0.0.7" not in answer.text


async def test_the_frameworks_own_refusals_are_problems(client: httpx2.AsyncClient) -> None:
    assert problem(await client.get("/v1/raise/forbidden"), 403, "forbidden")["detail"] == "No."
    problem(await client.get("/v1/raise/teapot"), 418, "im_a_teapot")


async def test_what_utf_8_cannot_carry_is_replaced(client: httpx2.AsyncClient) -> None:
    assert problem(await client.get("/v1/raise/surrogate"), 400, "odd")["detail"] == "? is odd."


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/contacts/", "//v1/contacts", "/docs/oauth2-redirect"])
async def test_an_unknown_path_is_a_problem(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(f"http://test{path}")
    assert problem(answer, 404, "unknown_path")["instance"] == path


async def test_a_method_that_is_not_there_is_told_which_are(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/v1/things/1")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, PATCH"


async def test_the_instance_is_a_uri_whatever_was_asked_for(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/%1b%5b31m%20%c3%a4%ff:a")
    assert problem(answer, 404, "unknown_path")["instance"].startswith("/v1/%1B%5B31m%20%C3%A4")


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs"])
async def test_the_pages_are_only_read(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"by": {"kind": "email", "addresses": ["ada@example.com", "bob"]}}, ["/by/addresses/1"]),
        ({"by": {"kind": "email", "addresses": []}}, ["/by/addresses"]),
        ({"by": {"kind": "email"}}, ["/by/addresses"]),
        ({"by": {"kind": "pigeon"}}, ["/by"]),
        ({"by": {"kind": "call", "number": "112", "x/y~z": 1}}, ["/by/x~1y~0z"]),
        ({"by": {"kind": "call", "number": "112"}, "either": "Not A Slug"}, ["/either", "/either"]),
        ({"by": {"kind": "call", "number": "112"}, "labels": {"a": "\x07"}}, ["/labels/a"]),
        ({"by": {"kind": "call", "number": "112"}, "labels": {"a b": "x"}}, ["/labels/a b"]),
        ({}, ["/by"]),
        ([], [""]),
        ({"by": {"kind": "call", "number": 1}, "labels": 7}, ["/by/number", "/labels"]),
    ],
)
async def test_each_wrong_field_is_pointed_at(client: httpx2.AsyncClient, body: Any, pointers: list[str]) -> None:
    document = problem(await client.post("/v1/contacts", json=body), 422, "validation_failed")
    assert [error["pointer"] for error in document["errors"]] == pointers
    for error in document["errors"]:
        assert error["detail"].startswith(f"`{error['pointer'][1:]}` " if error["pointer"] else "The body ")
        assert error["detail"].endswith(".")
        assert error["pointer"][1:] in document["detail"]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/things/1?theNumber=x", "query/theNumber"),
        ("/v1/things/1?theNumber=0", "query/theNumber"),
        ("/v1/things/1?theNumber=" + "9" * 5000, "query/theNumber"),
        ("/v1/things/x", "path/size"),
        ("/v1/things/10", "path/size"),
    ],
)
async def test_each_wrong_parameter_is_named(client: httpx2.AsyncClient, path: str, pointer: str) -> None:
    document = problem(await client.get(path), 422, "validation_failed")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert f"`{pointer}`" in document["detail"]


async def test_ten_thousand_parameters_do_no_harm(client: httpx2.AsyncClient) -> None:
    query = "&".join(f"p{index}" for index in range(10_000))
    assert (await client.get(f"/v1/things/1?{query}")).status_code == 200


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (409, False), (422, False), (429, True), (500, False), (503, True)]
)
def test_what_may_succeed_later_is_retryable(status: int, *, retryable: bool) -> None:
    assert Problem(status, code="x", detail="x").retryable is retryable
    assert Problem(status, code="x", detail="x", retryable=not retryable).retryable is not retryable
