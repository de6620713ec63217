"""All services behind one origin."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families
from pydantic import create_model
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http import Problem, Resource, create_api, everybody, merge_openapi, one_origin, origin

PATHS = {"tenant": ("/v1/tenants", "/v1/tiers"), "billing": ("/v1/plans", "/v1/tenants/special", "/.well-known/x")}


def service(name: str, *, broken: bool = False, marker: type[Any] = int) -> FastAPI:
    router = APIRouter(tags=[name], dependencies=[everybody()])
    detail = create_model(f"Detail{name}" if marker is int else "Detail", __base__=Resource, marker=(marker, ...))
    thing = create_model("Thing", __base__=Resource, detail=(detail, ...))

    async def answer(request: Request) -> Any:
        """Say who answers."""
        return f"{name} {request.url.path}"

    for prefix in PATHS[name]:
        router.get(prefix + "/{rest:path}", name=f"read_{prefix.rpartition('/')[2]}")(answer)
        router.get(prefix, response_model=thing | str, name=f"list_{prefix.rpartition('/')[2]}")(answer)

    async def check() -> None:
        if broken:
            raise ConnectionError

    return create_api(name, routers=[router], admin_key="key", checks={"database": check}, version="1")


def client_of(apis: dict[str, FastAPI]) -> httpx2.AsyncClient:
    origin = one_origin({name: (PATHS[name], app) for name, app in apis.items()}, version="9.9")
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=origin), base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of({"tenant": service("tenant"), "billing": service("billing")}) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/v1/tenants", "tenant"),
        ("/v1/tenants/x", "tenant"),
        ("/v1/tenants/x/y", "tenant"),
        ("/v1/tenants/special", "billing"),
        ("/v1/tenants/special/x", "billing"),
        ("/v1/tenants/specially", "tenant"),
        ("/v1/tiers/free", "tenant"),
        ("/v1/plans", "billing"),
        ("/.well-known/x", "billing"),
    ],
)
async def test_a_path_goes_to_the_owner_of_its_longest_prefix(
    client: httpx2.AsyncClient, path: str, owner: str
) -> None:
    assert (await client.get(path)).json() == f"{owner} {path}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/tenantsx",
        "/v1/tenant",
        "/services",
        "/services/tenant",
        "/services/nobody/healthz",
        "/v2/tenants",
    ],
)
async def test_a_path_that_nobody_owns_is_a_problem(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_path")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]


async def test_a_bad_body_to_nobody_is_a_problem_too(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/nothing", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code in {400, 404}


@pytest.mark.parametrize("page", ["healthz", "readyz", "metrics", "openapi.json", "docs"])
async def test_every_page_is_there_for_all_and_for_each(client: httpx2.AsyncClient, page: str) -> None:
    assert (await client.get(f"/{page}")).status_code == 200
    assert (await client.get(f"/services/tenant/{page}")).status_code == 200
    assert (await client.get(f"/services/billing/{page}")).status_code == 200


async def test_the_origin_is_ready_when_all_are(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready", "checks": {"tenant": "ok", "billing": "ok"}}


async def test_the_origin_names_the_service_that_is_not_ready() -> None:
    async with client_of({"tenant": service("tenant"), "billing": service("billing", broken=True)}) as client:
        answer = await client.get("/readyz")
        assert (await client.get("/services/tenant/readyz")).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["errors"] == [
        {"pointer": "checks/billing", "detail": "billing says: Not ready: database."},
    ]


async def test_measurements_of_all_are_one_valid_exposition(client: httpx2.AsyncClient) -> None:
    await client.get("/v1/tenants")
    await client.get("/v1/plans")
    await client.get("/v1/nothing")
    text = (await client.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    assert text.count("# TYPE tenure_http_request_seconds histogram") == 1
    assert text.count("# TYPE tenure_http_requests_total counter") == 1
    counts = {
        (sample.labels["service"], sample.labels["route"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "tenure_http_request_seconds_count"
    }
    assert counts["tenant", "/v1/tenants"] == counts["billing", "/v1/plans"] == counts["origin", ""] == 1


async def test_the_description_of_all_is_one_document(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["info"] == {"title": "Tenure", "version": "9.9"}
    assert {"/v1/tenants", "/v1/plans", "/healthz"} <= set(document["paths"])
    assert "/v1/tenants" in (await client.get("/docs")).text


async def test_what_is_no_http_request_does_not_reach_a_service() -> None:
    origin = one_origin({"tenant": (PATHS["tenant"], service("tenant"))})
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await origin({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_two_owners_of_one_prefix_are_refused() -> None:
    with pytest.raises(ValueError, match="/v1/tiers"):
        one_origin({"a": (("/v1/tiers",), service("tenant")), "b": (("/v1/tiers",), service("billing"))})


def references(content: Any) -> set[str]:
    if isinstance(content, dict):
        own = {content["$ref"]} if isinstance(content.get("$ref"), str) else set()
        return own.union(*map(references, content.values()))
    return set().union(*map(references, content)) if isinstance(content, list) else set()


def assert_complete(document: dict[str, Any]) -> None:
    for reference in references(document):
        section, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][section], reference


def test_what_all_describe_alike_is_described_once() -> None:
    documents = {"tenant": service("tenant").openapi(), "billing": service("billing").openapi()}
    merged = merge_openapi(documents)
    assert [name for name in merged["components"]["schemas"] if "Problem" in name] == ["ProblemDocument"]
    assert_complete(merged)


def test_components_that_differ_are_kept_apart_and_so_is_what_refers_to_them() -> None:
    documents = {
        "tenant": service("tenant", marker=str).openapi(),
        "billing": service("billing", marker=bool).openapi(),
    }
    before = copy.deepcopy(documents)
    merged = merge_openapi(documents)
    schemas = merged["components"]["schemas"]
    assert {"TenantDetail", "BillingDetail", "TenantThing", "BillingThing"} <= set(schemas)
    assert not {"Detail", "Thing"} & set(schemas)
    assert schemas["TenantThing"]["properties"]["detail"] == {"$ref": "#/components/schemas/TenantDetail"}
    assert_complete(merged)
    assert documents == before


def test_a_field_that_has_a_components_name_is_not_renamed() -> None:
    def document(kind: str) -> dict[str, Any]:
        thing = {"type": "object", "properties": {"Thing": {"type": kind}, "schemas": {"type": kind}}}
        return {"info": {"title": "x", "version": "1"}, "paths": {}, "components": {"schemas": {"Thing": thing}}}

    merged = merge_openapi({"a": document("string"), "b": document("integer")})
    assert merged["components"]["schemas"]["AThing"]["properties"] == {
        "Thing": {"type": "string"},
        "schemas": {"type": "string"},
    }


def test_a_discriminator_follows_its_schemas() -> None:
    def document(kind: str) -> dict[str, Any]:
        choice = {"discriminator": {"propertyName": "kind", "mapping": {"a": "#/components/schemas/Thing"}}}
        schemas = {"Thing": {"type": kind}, "Choice": choice}
        return {"info": {"title": "x", "version": "1"}, "paths": {}, "components": {"schemas": schemas}}

    schemas = merge_openapi({"a": document("string"), "b": document("integer")})["components"]["schemas"]
    assert schemas["AChoice"]["discriminator"]["mapping"] == {"a": "#/components/schemas/AThing"}


def test_operations_with_one_name_are_kept_apart() -> None:
    def document(path: str) -> dict[str, Any]:
        return {
            "info": {"title": "x", "version": "1"},
            "paths": {path: {"get": {"operationId": "listThings"}}, "/healthz": {"get": {"operationId": "health"}}},
        }

    merged = merge_openapi({"tenant": document("/a"), "billing": document("/b")})
    names = [item["get"]["operationId"] for item in merged["paths"].values()]
    assert sorted(names) == ["billingListThings", "health", "tenantListThings"]


def test_one_path_with_two_meanings_is_refused() -> None:
    def document(summary: str) -> dict[str, Any]:
        return {
            "info": {"title": "x", "version": "1"},
            "paths": {"/a": {"get": {"operationId": "a", "summary": summary}}},
        }

    with pytest.raises(ValueError, match="GET /a"):
        merge_openapi({"tenant": document("one"), "billing": document("two")})


async def _silent(_scope: Scope, _receive: Receive, _send: Send) -> None:
    await asyncio.sleep(3600)


async def _away(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Problem(503, code="service_away", detail="The billing service is not running.")


@pytest.mark.parametrize(("app", "reason"), [(_silent, "No answer within"), (_away, "is not running")])
async def test_a_service_that_is_frozen_or_away_holds_up_no_page(
    app: ASGIApp, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "_PAGE_SECONDS", 0.1)
    apis: dict[str, tuple[tuple[str, ...], ASGIApp]] = {
        "tenant": (PATHS["tenant"], service("tenant")),
        "billing": (PATHS["billing"], app),
    }
    transport = httpx2.ASGITransport(app=one_origin(apis))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        ready, metrics, api = [await client.get(page) for page in ("/readyz", "/metrics", "/openapi.json")]

    assert ready.status_code == api.status_code == 503
    assert reason in ready.json()["errors"][0]["detail"]
    assert reason in api.json()["detail"]
    assert metrics.status_code == 200
    assert 'service="tenant"' in metrics.text
