"""A route whose rule is wrong, or that keeps its rule badly, is found by the matrix."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Response

from shared.access import Principal, Role
from shared.access.authenticator import InvalidCredentialError
from shared.http import Asker, Page, Problem, Resource, create_api, everybody, permit
from shared.service import Service
from tests.access.cells import AIMS, Credential, Judge, bearer
from tests.access.matrix import heard, leaks
from tests.access.routes import MissingExampleError, Owner, Route, routes_of

A, B = "tenant-a", "tenant-b"
THINGS = {str(uuid4()): tenant_id for tenant_id in (A, B)}
OWNERS = {
    aim: Owner(aim, {"workflow": thing, "tenant": tenant_id})
    for aim, (thing, tenant_id) in zip(AIMS, [*THINGS.items(), (str(uuid4()), "tenant-x")], strict=True)
}
MARKS = {tenant_id: {thing, f"secret of {tenant_id}"} for thing, tenant_id in THINGS.items()}
CREDENTIALS = [
    bearer("operator", "operator", Role.SYSTEM_ADMIN),
    bearer("admin", "admin", Role.TENANT_ADMIN, A),
    Credential("reader", "Bearer reader", Role.TENANT_ADMIN, A, frozenset({"read"})),
    bearer("user", "user", Role.TENANT_USER, A),
    bearer("stranger", "stranger"),
    Credential("nobody", None),
]
PRINCIPALS = {
    "operator": Principal(id="operator", role=Role.SYSTEM_ADMIN),
    "admin": Principal(id="admin", role=Role.TENANT_ADMIN, tenant_id=A),
    "reader": Principal(id="reader", role=Role.TENANT_ADMIN, tenant_id=A, scopes=frozenset({"read"})),
    "user": Principal(id="user", role=Role.TENANT_USER, tenant_id=A),
}
ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)


class Thing(Resource):
    text: str


class Known:
    """What knows the credentials of this play."""

    async def of_token(self, text: str) -> Principal:
        if text not in PRINCIPALS:
            raise InvalidCredentialError("Nobody is known by this.")
        return PRINCIPALS[text]

    of_api_key = of_token


def unknown(thing_id: str) -> Problem:
    return Problem(404, code="unknown_thing", detail=f"There is no thing {thing_id}.")


def find(thing_id: str, asker: Principal, _: Response) -> Thing:
    """Return a thing as it should be returned."""
    tenant_id = THINGS.get(thing_id)
    if tenant_id is None or not asker.reaches(tenant_id):
        raise unknown(thing_id)
    return Thing(text=f"the secret of {tenant_id}")


def listed(asker: Principal) -> list[str]:
    """Return what should be in a list."""
    return [tenant_id for tenant_id in THINGS.values() if asker.reaches(tenant_id)]


Find = Callable[[str, Principal, Response], Thing]
List = Callable[[Principal], list[str]]


def shop(
    find: Find = find, listed: List = listed, *, rule: Any = ADMINISTRATORS, writing_rule: Any = ADMINISTRATORS
) -> FastAPI:
    """Make an application with a thing, a list and a way to change something."""
    router = APIRouter()

    @router.get("/v1/things/{workflow_id}", dependencies=[rule])
    async def get(workflow_id: str, asker: Asker, response: Response) -> Thing:
        return find(workflow_id, asker, response)

    @router.get("/v1/things", dependencies=[rule])
    async def get_all(asker: Asker) -> Page[Thing]:
        return Page(items=[Thing(text=f"the secret of {tenant_id}") for tenant_id in listed(asker)])

    @router.post("/v1/things/{workflow_id}", dependencies=[writing_rule])
    async def post(workflow_id: str, asker: Asker, response: Response) -> Thing:
        return find(workflow_id, asker, response)

    return create_api("shop", routers=[router], admin_key="unused", credentials=Known(), checks={}, version="1")


def without_asking() -> FastAPI:
    """Make one that is for everybody."""
    router = APIRouter(dependencies=[everybody()])

    @router.get("/v1/things/{workflow_id}")
    async def get(workflow_id: str) -> Thing:
        return Thing(text=workflow_id)

    @router.get("/v1/things")
    async def get_all() -> Page[Thing]:
        return Page(items=[])

    @router.post("/v1/things/{workflow_id}")
    async def post(workflow_id: str) -> Thing:
        return Thing(text=workflow_id)

    return create_api("shop", routers=[router], admin_key="unused", checks={}, version="1")


def found_of_everybody(thing_id: str, _asker: Principal, _: Response) -> Thing:
    return Thing(text=f"the secret of {THINGS.get(thing_id)}")


def found_with(refusal: Problem) -> Find:
    """Return what answers about another's thing in its own way."""

    def found(thing_id: str, asker: Principal, response: Response) -> Thing:
        if not asker.reaches(THINGS.get(thing_id, asker.tenant_id or A)):
            raise refusal
        return find(thing_id, asker, response)

    return found


def found_or_broken(thing_id: str, asker: Principal, response: Response) -> Thing:
    if thing_id not in THINGS:
        raise Problem(500, code="broken", detail="Broken.")
    return find(thing_id, asker, response)


def found_in_a_teapot(thing_id: str, asker: Principal, response: Response) -> Thing:
    response.status_code = 418
    return find(thing_id, asker, response)


def refused_as_unproven(_thing_id: str, _asker: Principal, _: Response) -> Thing:
    raise Problem(401, code="unauthenticated", detail="Who are you?")


WRONG: Mapping[str, tuple[FastAPI, str]] = {
    "a role too many": (shop(rule=permit(*Role)), "GET /v1/things/{workflow_id} by user of own: 200 instead of 403"),
    "a role too few": (shop(rule=permit(Role.TENANT_ADMIN)), "by operator of own: 403: This is not for"),
    "everybody": (without_asking(), "GET /v1/things by nobody of absent: 200 instead of 401"),
    "another's thing": (shop(found_of_everybody), f"by admin of other: tells 'secret of {B}'"),
    "another's thing told apart by its status": (
        shop(found_with(Problem(403, code="forbidden", detail="It is another's."))),
        "by admin of other: 403",
    ),
    "another's thing told apart by a word": (
        shop(found_with(Problem(404, code="unknown_thing", detail="There is no such thing of yours."))),
        "by reader of other: told apart",
    ),
    "another's thing told apart by a header": (
        shop(found_with(Problem(404, code="unknown_thing", detail="There is none.", headers={"ETag": '"7"'}))),
        "by admin of other: told apart",
    ),
    "a list of everybody's": (
        shop(listed=lambda _: list(THINGS.values())), f"GET /v1/things by reader of own: tells 'secret of {B}'"
    ),
    "a mistake of ours": (shop(found_or_broken), "by operator of absent: 500"),
    "a status that nobody knows of": (shop(found_in_a_teapot), "by admin of own: 418, which the OpenAPI document"),
    "whoever is proven taken for nobody": (shop(refused_as_unproven), "by admin of own: 401"),
    "a writing route that forgets the scopes": (
        shop(writing_rule=permit(Role.TENANT_USER)), "POST /v1/things/{workflow_id} by user of own"
    ),
}  # fmt: skip


def declared() -> Sequence[Route]:
    """Return the routes of the shop as it should be."""
    services = [cast("Service", SimpleNamespace(name="shop", api=shop()))]
    return [route for route in routes_of(services) if route.path.startswith("/v1/")]


async def complaints(api: FastAPI) -> list[str]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://shop") as client:
        answers = await heard(client, declared(), CREDENTIALS, owners=OWNERS, throwaway=OWNERS)
    return leaks(Judge(A, own=MARKS[A], other=MARKS[B]), answers)


async def test_nothing_is_wrong_with_a_route_that_keeps_its_rule() -> None:
    assert await complaints(shop()) == []


@pytest.mark.parametrize(("api", "complaint"), WRONG.values(), ids=WRONG)
async def test_a_route_that_does_not_keep_its_rule_is_found(api: FastAPI, complaint: str) -> None:
    found = await complaints(api)

    assert any(complaint in each for each in found), found


@pytest.mark.parametrize("path", ["/v1/things/{gadget}", "/v1/things"], ids=["in the path", "in the query"])
def test_a_parameter_of_which_nobody_knows_an_example_is_named(path: str) -> None:
    router = APIRouter(dependencies=[ADMINISTRATORS])

    @router.get(path)
    async def get(gadget: str) -> Thing:
        return Thing(text=gadget)

    api = create_api("shop", routers=[router], admin_key="unused", checks={}, version="1")
    routes = routes_of([cast("Service", SimpleNamespace(name="shop", api=api))])
    route = next(each for each in routes if each.path == path)

    with pytest.raises(MissingExampleError, match=r"`gadget`.*Add one line to EXAMPLES"):
        route.request(OWNERS["own"])
