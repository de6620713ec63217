"""Who is let in by a route's rule: by role and by scope, before anything is read of what was sent."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter

from shared.access import Principal, Role
from shared.access.authenticator import InvalidCredentialError
from shared.http import Asker, RequestBody, create_api, everybody, permit

KEY = "a-key-of-the-administrator"


class Note(RequestBody):
    text: str


class Known:
    """Whoever is known; a text with two dots is a token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.principals: dict[str, Principal] = {}

    async def of_token(self, text: str) -> Principal:
        return self._found("token", text)

    async def of_api_key(self, text: str) -> Principal:
        return self._found("key", text)

    def _found(self, kind: str, text: str) -> Principal:
        self.asked.append((kind, text))
        if text not in self.principals:
            raise InvalidCredentialError("Nobody is called so.")
        return self.principals[text]


def router() -> APIRouter:
    router = APIRouter(tags=["notes"])

    @router.get("/v1/notes", dependencies=[permit(Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)])
    async def read(asker: Asker) -> str:
        """Say who asks."""
        return asker.id

    @router.head("/v1/notes", dependencies=[permit(Role.TENANT_ADMIN)])
    async def look() -> None:
        """Look."""

    @router.post("/v1/notes", dependencies=[permit(Role.TENANT_ADMIN)])
    async def write(body: Note, asker: Asker) -> str:
        """Say who writes."""
        return f"{asker.id}: {body.text}"

    @router.get("/v1/open", dependencies=[everybody()])
    async def read_all() -> str:
        """Say nothing."""
        return ""

    return router


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
async def client(known: Known) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("notes", routers=[router()], admin_key=KEY, credentials=known, checks={}, version="1")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


def member(*scopes: str) -> Principal:
    return Principal(id="ada", role=Role.TENANT_ADMIN, tenant_id="t1", scopes=frozenset(scopes))


async def ask(client: httpx2.AsyncClient, method: str = "GET", text: str = "a", **sent: str) -> httpx2.Response:
    return await client.request(method, "/v1/notes", headers={"Authorization": f"Bearer {text}", **sent})


async def test_a_route_lets_in_who_has_one_of_its_roles(client: httpx2.AsyncClient, known: Known) -> None:
    known.principals = {
        "a": Principal(id="root", role=Role.SYSTEM_ADMIN),
        "b": Principal(id="bob", role=Role.CUSTOMER_SUPPORT),
        "c": Principal(id="ada", role=Role.TENANT_ADMIN, tenant_id="t1"),
        "d": Principal(id="eve", role=Role.TENANT_USER, tenant_id="t1"),
    }
    answers = {text: await ask(client, text=text) for text in known.principals}

    assert {text: answer.status_code for text, answer in answers.items()} == {"a": 403, "b": 200, "c": 200, "d": 403}
    assert (answers["b"].json(), answers["c"].json()) == ("bob", "ada")
    problem = answers["d"].json()
    assert (problem["code"], problem["detail"]) == ("forbidden", "This is not for a TenantUser.")


async def test_support_that_acts_in_a_tenant_has_its_administrators_rights(
    client: httpx2.AsyncClient, known: Known
) -> None:
    known.principals = {
        "a": Principal(id="bob", role=Role.CUSTOMER_SUPPORT),
        "b": Principal(id="bob", role=Role.CUSTOMER_SUPPORT, tenant_id="t1"),
    }
    body = {"text": "hello"}

    statuses = [
        (await client.post("/v1/notes", json=body, headers={"Authorization": f"Bearer {text}"})).status_code
        for text in "ab"
    ]

    assert statuses == [403, 200]


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        (["read", "write"], {"GET", "HEAD", "POST"}),
        (["read"], {"GET", "HEAD"}),
        (["write"], {"POST"}),
        (["notes:read"], {"GET", "HEAD"}),
        (["notes:write"], {"POST"}),
        (["notes"], set()),
        (["note:read", "notes:reads", "other:read", "other:write", ":read", "v1:read", "READ"], set()),
        ([], set()),
    ],
)
async def test_a_scope_covers_reading_or_writing_of_all_or_of_one_resource(
    client: httpx2.AsyncClient, known: Known, scopes: list[str], granted: set[str]
) -> None:
    known.principals = {"a": member(*scopes)}

    answers = {method: await ask(client, method) for method in ("GET", "HEAD", "POST")}

    assert {method for method, answer in answers.items() if answer.status_code != 403} == granted
    assert "GET" in granted or answers["GET"].json()["code"] == "insufficient_scope"


async def test_a_path_says_what_the_scope_has_to_be_of_whatever_else_is_in_it(
    client: httpx2.AsyncClient, known: Known
) -> None:
    known.principals = {"a": member("other:read")}

    for path in ("/v1/notes?x=/v1/other", "/v1/notes#/v1/other", "/v1/notes;/v1/other", "/v1/notes/../other"):
        assert (await client.get(path, headers={"Authorization": "Bearer a"})).status_code in {403, 404}


async def test_who_may_not_learns_nothing_about_the_body(client: httpx2.AsyncClient, known: Known) -> None:
    known.principals = {"a": member("read"), "b": Principal(id="eve", role=Role.TENANT_USER, tenant_id="t1")}
    for text in "ab":
        assert (await ask(client, "POST", text)).status_code == 403


async def test_whose_role_does_not_fit_learns_nothing_about_scopes(client: httpx2.AsyncClient, known: Known) -> None:
    known.principals = {"a": Principal(id="eve", role=Role.TENANT_USER, tenant_id="t1", scopes=frozenset())}

    assert (await ask(client)).json()["code"] == "forbidden"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("a.b.c", "token"), ("..", "token"), ("a", "key"), ("a.b", "key"), ("a.b.c.d", "key"), ("a.b.c.d.e", "key")],
)
async def test_what_looks_like_a_token_is_taken_for_one(
    client: httpx2.AsyncClient, known: Known, text: str, kind: str
) -> None:
    answer = await ask(client, text=text)

    assert known.asked == [(kind, text)]
    assert (answer.status_code, answer.json()["detail"]) == (401, "Nobody is called so.")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tenure", error="invalid_token"'


async def test_the_administrators_key_is_not_shown_to_anybody_else(client: httpx2.AsyncClient, known: Known) -> None:
    assert (await ask(client, text=KEY)).status_code == 403  # it is no member's
    assert known.asked == []


async def test_without_credentials_there_is_no_error_in_the_challenge(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/notes")

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tenure"')


async def test_a_public_route_does_not_look_at_what_was_sent(client: httpx2.AsyncClient, known: Known) -> None:
    answer = await client.get("/v1/open", headers={"Authorization": "Bearer nobody"})

    assert answer.status_code == 200
    assert known.asked == []
