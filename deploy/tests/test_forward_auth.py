"""The sample configuration of nginx before an application, with a real nginx: nobody passes but whom Tenure lets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.local.ports import free_port
from deploy.local.throwaway import FreshDatabases
from deploy.tests.nginx import running_nginx
from services.identity.authorize import NAMES
from services.identity.tests.gatehouse import Gatehouse
from shared.access import Role
from shared.clock import SystemClock
from shared.http.server import HttpServer
from shared.postgres import open_pool
from shared.testing import eventually

SAMPLE = Path(__file__).parents[1] / "nginx" / "forward-auth.conf"
SPOOFED = dict.fromkeys(NAMES, "spoofed")


@dataclass
class Application:
    """What is behind nginx: it answers with the headers that reach it.

    Attributes:
        status: that it answers with.
        asked: how often it was.
    """

    status: int = 200
    asked: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        self.asked += 1
        self.headers = dict(request.headers)
        body = {"path": request.url.path, "query": request.url.query, "body": (await request.body()).decode()}
        await Response(orjson.dumps(body), self.status)(scope, receive, send)


@dataclass
class Site:
    """An application behind nginx, guarded by a gate.

    Attributes:
        asked: what nginx has asked the gate.
    """

    house: Gatehouse
    application: Application
    client: httpx2.AsyncClient
    tenure: HttpServer
    asked: list[Scope]

    async def get(self, credential: str | None = None, path: str = "/", **headers: str) -> httpx2.Response:
        """Ask nginx as a client of the application does."""
        sent = headers if credential is None else headers | {"Authorization": f"Bearer {credential}"}
        return await self.client.get(path, headers=sent)


@asynccontextmanager
async def serving(app: ASGIApp, port: int) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, host="127.0.0.1", port=port)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def site(fresh_database: FreshDatabases, tmp_path: Path) -> AsyncIterator[Site]:
    """The sample as it is in the repository, on ports of this test."""
    pool = await open_pool(await fresh_database("identity"))
    house = Gatehouse(pool, SystemClock())
    await house.publish()
    await house.plan(5, 100)
    application, gate = Application(), house.replica()
    front, tenure, behind = free_port(), free_port(), free_port()
    asked: list[Scope] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)
        await gate.app(scope, receive, send)

    replaced = {
        "127.0.0.1:8080": f"127.0.0.1:{tenure}",
        "127.0.0.1:3000": f"127.0.0.1:{behind}",
        "listen 8000": f"listen 127.0.0.1:{front}",
    }
    async with (
        serving(noting, tenure) as server,
        serving(application, behind),
        running_nginx(tmp_path, SAMPLE, replaced=replaced, port=front),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{front}") as client,
    ):
        yield Site(house, application, client, server, asked)
    await pool.close()


async def test_who_may_pass_reaches_the_application_which_is_told_who_it_is(site: Site) -> None:
    answer = await site.get(site.house.token(role=Role.TENANT_ADMIN, scope="orders:read"), "/orders/7?q=1")

    assert answer.status_code == 200
    assert answer.json() == {"path": "/orders/7", "query": "q=1", "body": ""}
    told = {name: site.application.headers.get(name) for name in NAMES}
    assert told == {
        "x-tenant-id": "t1",
        "x-user-id": "u1",
        "x-role": "TenantAdmin",
        "x-scope": "orders:read",
        "x-api-key-id": None,
        "x-tier": "standard",
        "x-tier-limits": "requests-per-second=5, requests-per-day=100",
        "x-ratelimit-limit": None,
        "x-ratelimit-remaining": None,
        "x-ratelimit-reset": None,
    }
    assert "authorization" not in site.application.headers
    assert answer.headers["x-ratelimit-limit"] == "5"
    assert answer.headers["x-ratelimit-remaining"] == "4"


async def test_what_a_client_says_of_itself_never_reaches_the_application(site: Site) -> None:
    key = await site.house.issue()

    await site.get(None, **SPOOFED, **{"X-Api-Key": key.text})
    assert site.application.headers["x-tenant-id"] == "t1"
    assert site.application.headers["x-api-key-id"] == key.id
    assert "x-user-id" not in site.application.headers
    assert "x-api-key" not in site.application.headers
    await site.get(site.house.token(tenant_id="t2"), **SPOOFED, X_Tenant_Id="spoofed")

    assert site.application.headers["x-tenant-id"] == "t2"
    assert "spoofed" not in site.application.headers.values()
    assert site.application.asked == 2


async def test_nothing_of_a_request_but_its_head_goes_to_tenure_and_all_of_it_to_the_application(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.house.token()}"}
    body = "x" * 100_000

    answer = await site.client.post("/orders?role=TenantAdmin&scope=none", headers=headers, content=body)

    assert answer.json() == {"path": "/orders", "query": "role=TenantAdmin&scope=none", "body": body}
    (asked,) = site.asked
    assert (asked["method"], asked["path"], asked["query_string"]) == ("GET", "/v1/authorize", b"")
    assert not {b"content-length", b"transfer-encoding"} & dict(asked["headers"]).keys()


async def test_who_proves_nothing_is_told_so(site: Site) -> None:
    for credential in (None, "garbage"):
        answer = await site.get(credential, **SPOOFED)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="tenure"')
    assert site.application.asked == 0


async def test_a_blocked_tenant_is_kept_out(site: Site) -> None:
    await site.house.change_access(epoch=1, is_blocked=True)

    assert (await site.get(site.house.token())).status_code == 403
    assert site.application.asked == 0


async def test_who_asks_too_often_is_told_when_to_come_back(site: Site) -> None:
    answers = [await site.get(site.house.token()) for _ in range(7)]

    refused = next(answer for answer in answers if answer.status_code != 200)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("5", "0")
    assert site.application.asked == sum(answer.status_code == 200 for answer in answers)


async def test_nobody_passes_while_tenure_cannot_tell(site: Site) -> None:
    site.tenure.should_exit = True
    await eventually(lambda: not any(server.is_serving() for server in site.tenure.servers))

    answer = await site.get(site.house.token())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert site.application.asked == 0


async def test_what_the_application_itself_answers_is_left_alone(site: Site) -> None:
    for status in (404, 429, 500, 503):
        site.application.status = status
        answer = await site.get(site.house.token())
        assert (answer.status_code, answer.json()["path"]) == (status, "/")


async def test_the_door_to_tenure_is_nginxs_own(site: Site) -> None:
    assert (await site.get(site.house.token(), "/_authorize")).status_code == 404


async def test_a_token_that_is_revoked_passes_for_no_more_than_five_seconds(site: Site) -> None:
    token = site.house.token(tenant_id="t3")
    assert (await site.get(token)).status_code == 200

    await site.house.change_access(epoch=1, is_blocked=True, tenant_id="t3")

    async def is_kept_out() -> bool:
        return (await site.get(token)).status_code == 403

    await eventually(is_kept_out, within=2.0)
