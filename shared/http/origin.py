"""One origin for all services in one process: each path goes to the service that owns it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.api import Health, Readiness, assemble, ready
from shared.http.merging import merge_metrics, merge_openapi
from shared.http.pages import documentation_page
from shared.http.problems import Problem
from shared.ids import Ids, TimeOrderedIds

_PAGES = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
"""What every service has at the same path; here it is the origin's, and the service's below ``/services/<name>``."""

_PAGE_SECONDS = 5.0  # above what a service gives each of its own checks


class _Origin:
    """The dispatcher; what no service owns is answered by the origin's own application."""

    def __init__(self, apis: Mapping[str, tuple[Sequence[str], ASGIApp]], own: FastAPI) -> None:
        self._own = own
        self._pages = {f"/services/{name}{page}": (page, app) for name, (_, app) in apis.items() for page in _PAGES}
        self._owners: dict[str, ASGIApp] = {}
        for name, (prefixes, app) in apis.items():
            for prefix in prefixes:
                if prefix in self._owners:
                    raise ValueError(f"{prefix} of {name} is owned by another service already")
                self._owners[prefix] = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._own(scope, receive, send)
            return
        if scope["path"] in self._pages:
            page, app = self._pages[scope["path"]]
            await app({**scope, "path": page, "raw_path": page.encode()}, receive, send)
            return
        await self._owner(scope["path"])(scope, receive, send)

    def _owner(self, path: str) -> ASGIApp:
        """Find the longest prefix of whole segments that somebody owns."""
        while path:
            if path in self._owners:
                return self._owners[path]
            path = path.rpartition("/")[0]
        return self._own


def one_origin(
    apis: Mapping[str, tuple[Sequence[str], ASGIApp]], *, version: str = "1", ids: Ids | None = None
) -> ASGIApp:
    """Put all services behind one origin. The lifespans of their applications stay the caller's matter.

    Args:
        apis: by the service's name, the path prefixes that it owns and its application.
        version: shown in the merged OpenAPI document.
        ids: makes the ids of requests that no service answers.

    Raises:
        ValueError: two services claim the same prefix.
    """
    registry = CollectorRegistry()
    own = assemble("origin", version=version, registry=registry, ids=ids or TimeOrderedIds())
    own.router.routes[:] = _routes({name: app for name, (_, app) in apis.items()}, registry, version).routes
    return _Origin(apis, own)


def _routes(apis: Mapping[str, ASGIApp], registry: CollectorRegistry, version: str) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def health() -> Health:
        return Health(status="alive")

    @router.get("/readyz")
    async def readiness() -> Readiness:
        answers = await _ask_all(apis, "/readyz")
        return ready(
            {name: "ok" if status == HTTPStatus.OK else _reason(body) for name, (status, body) in answers.items()}
        )

    @router.get("/metrics")
    async def metrics() -> Response:
        answers = await _ask_all(apis, "/metrics")
        texts = {name: body.decode() for name, (status, body) in answers.items() if status == HTTPStatus.OK}
        texts["origin"] = generate_latest(registry).decode()
        return Response(merge_metrics(texts), media_type=CONTENT_TYPE_LATEST)

    @router.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(await _document(apis, version))

    @router.get("/docs")
    async def documentation() -> HTMLResponse:
        return documentation_page(await _document(apis, version))

    return router


async def _document(apis: Mapping[str, ASGIApp], version: str) -> dict[str, Any]:
    answers = await _ask_all(apis, "/openapi.json")
    if missing := [f"{name} {_reason(body)}" for name, (status, body) in answers.items() if status != HTTPStatus.OK]:
        raise Problem(503, code="service_away", detail=f"The whole API cannot be shown: {', '.join(missing)}.")
    merged = merge_openapi({name: json.loads(body) for name, (_, body) in answers.items()})
    merged["info"]["version"] = version
    return merged


async def _ask_all(apis: Mapping[str, ASGIApp], path: str) -> dict[str, tuple[int, bytes]]:
    answers = await asyncio.gather(*(_answer_of(app, path) for app in apis.values()))
    return dict(zip(apis, answers, strict=True))


async def _answer_of(app: ASGIApp, path: str) -> tuple[int, bytes]:
    """Ask an application for a page; one that is away or frozen has a problem for an answer."""
    try:
        async with asyncio.timeout(_PAGE_SECONDS):
            return await _ask(app, path)
    except TimeoutError:
        problem = Problem(503, code="service_silent", detail=f"No answer within {_PAGE_SECONDS:g} s.")
    except Problem as error:
        problem = error
    return problem.status, bytes(problem.response(path).body)


def _reason(body: bytes) -> str:
    return f"says: {json.loads(body)['detail'].rstrip('.')}"


async def _ask(app: ASGIApp, path: str) -> tuple[int, bytes]:
    """Ask an application of this process, without a socket in between."""
    request = Request(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": None,
            "server": None,
        }
    )
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await app(request.scope, _nothing_more, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages[1:])


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
