"""One origin in front of services that run as processes of their own.

Requests are handed on as they are and answers as they come, a stream piece by piece. A service that is away is a
problem document like any other, not a broken connection.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http import Problem, one_origin
from shared.http.body import read_body

_CONNECT_SECONDS = 2.0
_KEEP_SECONDS = 2.0  # less than the 5 s after which uvicorn closes a connection that nobody uses
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1
_RETRY_AFTER = {"Retry-After": "1"}
_CLIENT = b"x-forwarded-for"
"""By which a service is told who asks; what the client says of that itself is not handed on."""
_OWN_HEADERS = frozenset(  # RFC 9110, 7.6.1: they belong to one connection, and are not handed on
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


@asynccontextmanager
async def gateway(services: Mapping[str, tuple[Sequence[str], str]]) -> AsyncIterator[ASGIApp]:
    """Put services behind one origin.

    Args:
        services: by name, the path prefixes that a service owns and the URL where it listens.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=_KEEP_SECONDS)
    timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)  # answers may take long: clients wait and follow
    async with httpx2.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
        apis = {name: (paths, _Forward(name, url, client)) for name, (paths, url) in services.items()}
        yield _Gateway(one_origin(apis))


class _Gateway:
    """Answers for services that cannot."""

    def __init__(self, origin: ASGIApp) -> None:
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._origin(scope, receive, send)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)


class _Forward:
    """One service, seen as an application of this process."""

    def __init__(self, name: str, url: str, client: httpx2.AsyncClient) -> None:
        self._name = name
        self._url = httpx2.URL(url)
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on.

        Raises:
            Problem: the service is away (503), has gone away meanwhile (502), or the body is too large (413).
        """
        body = await read_body(Headers(scope=scope), receive)
        if body is None:
            return
        try:
            response = await self._ask(scope, body)
        except Problem as problem:
            if scope["path"] != "/readyz":
                raise
            await problem.response(scope["path"])(scope, receive, send)  # the origin tells of all services together
            return
        try:
            await _unless_gone(receive, _hand_back(response, send))
        finally:
            await response.aclose()

    async def _ask(self, scope: Scope, body: bytes) -> httpx2.Response:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        headers = [pair for pair in scope["headers"] if pair[0].lower() not in _OWN_HEADERS | {_CLIENT}]
        if scope.get("client"):
            headers.append((_CLIENT, scope["client"][0].encode()))
        url = self._url.copy_with(raw_path=scope["raw_path"] + query)
        request = httpx2.Request(scope["method"], url, headers=headers, content=body)
        try:
            return await self._send(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            detail = f"The {self._name} service is not running at the moment. Nothing was done; try again."
            raise Problem(503, code="service_away", detail=detail, headers=_RETRY_AFTER) from error
        except httpx2.TransportError as error:
            detail = f"The {self._name} service went away before it answered; the request may have been done."
            raise Problem(502, code="service_lost", detail=detail, headers=_RETRY_AFTER) from error

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; once more if the connection was an old one of a process that is gone, and it does no harm."""
        try:
            return await self._client.send(request, stream=True)
        except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
            if request.method not in _SAFE_METHODS:
                raise
        return await self._client.send(request, stream=True)


async def _hand_back(response: httpx2.Response, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in _OWN_HEADERS]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    async for chunk in response.aiter_raw():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def _unless_gone(receive: Receive, answer: Coroutine[Any, Any, None]) -> None:
    """Hand an answer back, but not to a client that is gone: a stream of events would never end."""
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not answering.done():
            answering.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
    if not answering.cancelled():
        answering.result()


async def _disconnected(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        await asyncio.sleep(1.0)  # the origin's own questions have no client that could leave
