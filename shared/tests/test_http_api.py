"""What every service's application has without asking: identity, health, measurements, description."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr, create_model
from starlette.responses import StreamingResponse
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from shared.access import Principal, Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    IdempotencyKey,
    IfMatch,
    Limit,
    Page,
    RequestBody,
    Resource,
    create_api,
    everybody,
    permit,
    problems,
)
from shared.http import api as api_module
from shared.text import Name

KEY = "tenure_admin_0123456789"


class NewPet(RequestBody):
    pet_name: Name


class Pet(Resource):
    """An animal that somebody has."""

    pet_id: str
    born_at: datetime


def pets() -> APIRouter:
    router = APIRouter(tags=["pets"])

    @router.get("/v1/pets", dependencies=[permit(Role.SYSTEM_ADMIN)])
    async def list_pets(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Pet]:
        """List all pets.

        The youngest come first.

        Args:
            limit: at most so many.
            cursor: where to go on.
        """
        return Page(items=[Pet(pet_id=str(limit), born_at=datetime(2026, 1, 1, tzinfo=UTC))], next_cursor=cursor)

    @router.post("/v1/pets", status_code=202, dependencies=[permit(Role.TENANT_ADMIN, Role.SYSTEM_ADMIN)])
    async def register_pet(body: NewPet, who: Asker, key: IdempotencyKey) -> dict[str, str | None]:
        """Register a pet."""
        return {"name": body.pet_name, "who": who.id, "key": key}

    @router.patch("/v1/pets/{pet_id}", dependencies=[permit(Role.SYSTEM_ADMIN)])
    async def change_pet(pet_id: str, body: NewPet, version: IfMatch) -> str:
        """Change a pet."""
        return f"{pet_id} {body.pet_name} {version}"

    @router.get("/v1/request-id", dependencies=[everybody()])
    async def request_id() -> str:
        """Say which id is bound to the log."""
        return str(get_contextvars()["request_id"])

    @router.get("/v1/stream", dependencies=[everybody()])
    async def stream() -> StreamingResponse:
        """Begin well and break."""

        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("broken")

        return StreamingResponse(parts())

    return router


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    arguments = {"routers": [pets()], "admin_key": SecretStr(KEY), "checks": {}, "version": "1.2.3", **options}
    transport = httpx2.ASGITransport(app=create_api("pets", **arguments))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_the_administrators_key_opens() -> None:
    async with serving() as client:
        answer = await client.post("/v1/pets", json={"petName": "Rex"}, headers=bearer(KEY))
    assert (answer.status_code, answer.json()["who"]) == (202, "system-administrator")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(KEY + "x"),
        bearer(KEY[:-1]),
        bearer(KEY.upper()),
        bearer(""),
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": KEY},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/pets"), ("POST", "/v1/pets"), ("PATCH", "/v1/pets/1")])
async def test_nothing_else_opens(headers: dict[str, Any], method: str, path: str) -> None:
    async with serving() as client:
        answer = await client.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert KEY not in answer.text


async def test_who_has_no_key_learns_nothing_about_the_body() -> None:
    async with serving() as client:
        assert (await client.post("/v1/pets", json={"wrong": 1})).status_code == 401


@pytest.mark.parametrize("key", ["", SecretStr("")])
def test_an_empty_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        create_api("pets", routers=[], admin_key=key, checks={}, version="1")


def undeclared_route() -> APIRouter:
    router = APIRouter()

    @router.get("/v1/open")
    async def read() -> str:
        return "oops"

    return router


def undeclared_beside_declared() -> APIRouter:
    router = pets()
    router.include_router(undeclared_route(), prefix="/nested")
    return router


def undeclared_starlette_route() -> APIRouter:
    router = APIRouter(dependencies=[permit(Role.SYSTEM_ADMIN)])
    router.add_route("/v1/open", lambda _request: None)  # type: ignore[arg-type, return-value]
    return router


@pytest.mark.parametrize("make", [undeclared_route, undeclared_beside_declared, undeclared_starlette_route])
def test_a_route_that_does_not_say_who_may_use_it_is_refused(make: Callable[[], APIRouter]) -> None:
    with pytest.raises(TypeError, match="/v1/open declares 0 rules"):
        create_api("pets", routers=[make()], admin_key=KEY, checks={}, version="1")


ONE, ANOTHER = permit(Role.SYSTEM_ADMIN), permit(Role.TENANT_USER)


@pytest.mark.parametrize("rules", [(ONE, ANOTHER), (ONE, ONE), (ANOTHER, everybody()), (everybody(), everybody())])
def test_a_route_that_says_twice_who_may_use_it_is_refused(rules: tuple[Any, Any]) -> None:
    """Which of the two its author meant, nobody can tell."""
    router, nested = APIRouter(dependencies=[rules[0]]), APIRouter(dependencies=[rules[1]])
    nested.include_router(undeclared_route())
    router.include_router(nested)
    with pytest.raises(TypeError, match="/v1/open declares 2 rules"):
        create_api("pets", routers=[router], admin_key=KEY, checks={}, version="1")


def test_a_rule_hidden_in_another_dependency_counts() -> None:
    async def owner(who: Annotated[Principal, ANOTHER]) -> str:
        return who.id

    router = APIRouter(dependencies=[everybody(), Depends(owner)])
    router.include_router(undeclared_route())
    with pytest.raises(TypeError, match="/v1/open declares 2 rules"):
        create_api("pets", routers=[router], admin_key=KEY, checks={}, version="1")


async def test_a_principal_of_the_router_counts_for_its_nested_routes() -> None:
    router = APIRouter(dependencies=[permit(Role.SYSTEM_ADMIN)])
    router.include_router(undeclared_route())
    async with serving(routers=[router]) as client:
        assert (await client.get("/v1/open")).status_code == 401
        assert (await client.get("/v1/open", headers=bearer(KEY))).json() == "oops"


async def test_a_principal_may_be_declared_through_another_dependency() -> None:
    async def owner(who: Annotated[Principal, permit(Role.SYSTEM_ADMIN)]) -> str:
        return f"owner {who.id}"

    router = APIRouter()

    @router.get("/v1/owner")
    async def read(who: Annotated[str, Depends(owner)]) -> str:
        """Say who owns it."""
        return who

    async with serving(routers=[router]) as client:
        assert (await client.get("/v1/owner")).status_code == 401
        assert (await client.get("/v1/owner", headers=bearer(KEY))).json() == "owner system-administrator"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
async def test_the_pages_for_those_who_run_it_need_no_key(path: str) -> None:
    async with serving() as client:
        assert (await client.get(path)).status_code == 200


async def works() -> None:
    """Be fine."""


async def breaks() -> None:
    raise ConnectionError("postgres://tenant:secret@10.0.0.7")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_a_service_whose_parts_work_is_ready() -> None:
    async with serving(checks={"database": works, "broker": works}) as client:
        answer = await client.get("/readyz")
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "broker": "ok"}}


async def test_a_service_that_is_not_ready_says_why_and_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "CHECK_SECONDS", 0.05)
    async with serving(checks={"database": breaks, "schema": works, "broker": hangs}) as client:
        answer = await client.get("/readyz")
        assert (await client.get("/healthz")).json() == {"status": "alive"}
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"]
    assert answer.json()["errors"] == [
        {"pointer": "checks/database", "detail": "database failed with ConnectionError."},
        {"pointer": "checks/broker", "detail": "broker gave no answer within 0.05 s."},
    ]
    assert "secret" not in answer.text


async def test_checks_run_at_once() -> None:
    met = asyncio.Barrier(2)

    async def meet() -> None:
        await met.wait()

    async with serving(checks={"database": meet, "broker": meet}) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_requests_are_measured_by_route_and_never_by_path() -> None:
    registry = CollectorRegistry()
    Counter("tenure_pets_fed", "Meals.", registry=registry).inc()
    async with serving(registry=registry) as client:
        await client.patch("/v1/pets/4711", json={"petName": "Rex"}, headers=bearer(KEY))
        await client.get("/v1/nothing-of-ours")
        await client.request("BREW", "/v1/pets")
        text = (await client.get("/metrics")).text
    assert 'tenure_http_requests_total{method="PATCH",route="/v1/pets/{pet_id}",status="200"} 1.0' in text
    assert 'method="GET",route="",status="404"' in text
    assert 'method="other"' in text
    assert "tenure_pets_fed_total 1.0" in text
    assert "4711" not in text
    assert "nothing-of-ours" not in text
    assert "BREW" not in text


async def test_a_request_brings_its_id_or_gets_one() -> None:
    async with serving() as client:
        brought = await client.get("/v1/request-id", headers={"X-Request-Id": "trace-1:2"})
        made = await client.get("/v1/request-id")
    assert brought.headers["x-request-id"] == brought.json() == "trace-1:2"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])
    assert made.json() == made.headers["x-request-id"]


@pytest.mark.parametrize("odd", ["", "a b", "a\x1b[31m", "x" * 129, "a\tb"])
async def test_an_odd_request_id_is_replaced(odd: str) -> None:
    async with serving() as client:
        answer = await client.get("/v1/request-id", headers={"X-Request-Id": odd})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_each_request_is_one_line_in_the_log() -> None:
    async with serving() as client:
        with capture_logs() as lines:
            await client.post("/v1/pets", json={}, headers=bearer(KEY))
            await client.get("/healthz")
    refused, fine = (line for line in lines if line["action"] == "request")
    assert (refused["method"], refused["path"], refused["status"], refused["log_level"]) == (
        "POST",
        "/v1/pets",
        422,
        "info",
    )
    assert refused["duration_ms"] >= 0
    assert fine["log_level"] == "debug"


async def test_a_path_cannot_write_on_the_operators_terminal() -> None:
    async with serving() as client:
        with capture_logs() as lines:
            await client.get("/v1/%1b%5b2J%0aroot%20logged%20in")
    assert [line["path"] for line in lines] == ["/v1/%1B%5B2J%0Aroot%20logged%20in"]


async def test_an_answer_that_breaks_in_the_middle_breaks_the_connection() -> None:
    async with serving() as client:
        with pytest.raises(RuntimeError, match="broken"), capture_logs() as lines:
            await client.get("/v1/stream")
    assert any(line["action"] == "internal_error" for line in lines)


async def described() -> dict[str, Any]:
    async with serving() as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def references(content: Any) -> set[str]:
    if isinstance(content, dict):
        own = {content["$ref"]} if isinstance(content.get("$ref"), str) else set()
        return own.union(*map(references, content.values()))
    return set().union(*map(references, content)) if isinstance(content, list) else set()


async def test_the_description_is_openapi_3_1_and_all_its_references_lead_somewhere() -> None:
    document = await described()
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Tenure pets", "version": "1.2.3"}
    for reference in references(document):
        section, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][section], reference


async def test_every_operation_is_named_and_described_and_lists_its_problems() -> None:
    document = await described()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert {"listPets", "registerPet", "changePet", "readiness"} <= set(ids)
    assert len(ids) == len(set(ids))
    for operation in operations:
        assert operation["summary"]
        assert operation["tags"]
        assert {"400", "431", "503"} <= set(operation["responses"])
    problem = document["components"]["responses"]["Problem422"]["content"]
    assert problem == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


async def test_operations_of_nested_routers_are_named_alike_and_untagged_ones_get_a_tag() -> None:
    router = APIRouter(dependencies=[everybody()])
    router.include_router(undeclared_route())
    router.include_router(undeclared_route(), prefix="/again")
    async with serving(routers=[pets(), router]) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert paths["/v1/open"]["get"]["tags"] == ["Tenure pets"]
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert "listPets" in ids


async def test_an_operation_lists_the_problems_that_it_can_have() -> None:
    paths = (await described())["paths"]
    assert set(paths["/v1/pets"]["get"]["responses"]) == {"200", "400", "401", "403", "422", "431", "503"}
    assert {"401", "403", "404", "412", "413", "415", "422", "428"} <= set(
        paths["/v1/pets/{pet_id}"]["patch"]["responses"]
    )
    assert not {"409", "429"} & set(paths["/v1/pets/{pet_id}"]["patch"]["responses"])
    assert not {"401", "403"} & set(paths["/healthz"]["get"]["responses"])
    assert paths["/v1/pets"]["post"]["security"] == [{"bearer": []}]
    assert "security" not in paths["/healthz"]["get"]


async def test_a_route_declares_problems_of_its_own() -> None:
    router = APIRouter(tags=["pets"], dependencies=[everybody()])
    page = {"text/html": {"schema": {"type": "string"}}}

    @router.get("/v1/kennels", responses={**problems(404, 409), 429: {"description": "Wait."}, 401: {"content": page}})
    async def kennels() -> None:
        """List kennels."""

    async with serving(routers=[router]) as client:
        document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/v1/kennels"]["get"]["responses"]
    assert responses["404"] == {"$ref": "#/components/responses/Problem404"}
    assert responses["429"]["description"] == "Wait."
    assert "Retry-After" in responses["429"]["headers"]
    assert set(responses["429"]["content"]) == {"application/problem+json"}
    assert responses["401"]["content"] == page


async def test_a_docstring_is_the_summary_and_description_without_its_arguments() -> None:
    operation = (await described())["paths"]["/v1/pets"]["get"]
    assert operation["summary"] == "List all pets"
    assert operation["description"].partition("\n\n")[0] == "The youngest come first."


async def test_an_operation_says_whom_it_is_for() -> None:
    paths = (await described())["paths"]
    listing, registering = paths["/v1/pets"]["get"], paths["/v1/pets"]["post"]
    assert (listing["x-roles"], registering["x-roles"]) == (["SystemAdmin"], ["SystemAdmin", "TenantAdmin"])
    assert listing["description"].endswith("\n\nFor SystemAdmin, with the scope `read` or `pets:read`.")
    assert registering["description"] == "For SystemAdmin or TenantAdmin, with the scope `write` or `pets:write`."
    assert "scope `write` or `pets:write`" in paths["/v1/pets/{pet_id}"]["patch"]["description"]
    for path in ("/healthz", "/v1/stream"):
        assert not {"x-roles", "description"} & set(paths[path]["get"])


async def test_the_description_has_the_schemas_as_they_are_on_the_wire() -> None:
    schemas = (await described())["components"]["schemas"]
    assert set(schemas["PetPage"]["properties"]) == {"items", "nextCursor"}
    assert set(schemas["Pet"]["required"]) == {"petId", "bornAt"}
    assert "petName" in schemas["NewPet"]["properties"]
    assert not [name for name in schemas if "Validation" in name]


async def test_models_of_one_name_stay_two_models() -> None:
    router = APIRouter(tags=["pets"], dependencies=[everybody()])
    other = create_model("Pet", __base__=Resource, __module__="elsewhere", bark=(int, ...))

    @router.get("/v1/one")
    async def one() -> Page[Pet]:
        """One."""
        raise NotImplementedError

    @router.get("/v1/other", response_model=Page[other] | other)
    async def another() -> None:
        """Another."""

    async with serving(routers=[router]) as client:
        document = (await client.get("/openapi.json")).json()
    bodies = [set(schema["properties"]) for name, schema in document["components"]["schemas"].items() if "Pet" in name]
    assert sorted(map(sorted, bodies)) == [
        ["bark"],
        ["bornAt", "petId"],
        ["items", "nextCursor"],
        ["items", "nextCursor"],
    ]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.targets: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.targets.add(given.get("id", ""))
        self.links |= {given["href"]} if tag == "a" and "href" in given else set()
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]


async def test_the_documentation_needs_nothing_from_anywhere() -> None:
    async with serving() as client:
        answer = await client.get("/docs")
    page = Links()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not page.loaded
    assert "@import" not in answer.text
    assert "url(" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.targets
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    for words in ("List all pets", "/v1/pets/{pet_id}", "Idempotency-Key", "nextCursor", "ProblemDocument"):
        assert words in answer.text


async def test_the_documentation_is_text_and_never_markup() -> None:
    router = APIRouter(tags=["<script>alert(1)</script>"], dependencies=[everybody()])

    @router.get("/v1/odd", description="<img src=x onerror=alert(1)>", summary="<b>")
    async def odd() -> str:
        return ""

    async with serving(routers=[router]) as client:
        page = Links()
        page.feed((await client.get("/docs")).text)
    assert not page.tags & {"script", "img"}
