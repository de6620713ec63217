"""HTTP without sockets: a request is handled by the process that is up, and dies with it."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from tests.simulation.faults import Faults
from tests.simulation.load import Answer, Body, as_json
from tests.simulation.process import Process
from tests.simulation.trace import Trace

ADMIN_KEY = "simulated"
_GIVEN_UP_SECONDS = 20.0


class FrontDoor:
    """The origin of one service.

    Args:
        process: returns the process that is up now, or None.
    """

    def __init__(self, process: Callable[[], Process | None], faults: Faults, trace: Trace) -> None:
        self._process = process
        self._faults = faults
        self._trace = trace

    async def request(self, method: str, path: str, body: Body | None, key: str | None) -> Answer:
        """Send a request.

        Raises:
            ConnectionError: there was no answer; it may have been handled.
        """
        try:
            answer = await self._request(method, path, body, key)
        except ConnectionError as error:
            self._trace.add("client", method, path, key or "", error)
            raise
        self._trace.add("client", method, path, key or "", answer.status, "replayed" if answer.replayed else "")
        return answer

    async def _request(self, method: str, path: str, body: Body | None, key: str | None) -> Answer:
        process = self._process()
        if process is None or process.built is None:
            await asyncio.sleep(0.001)
            raise ConnectionRefusedError("nobody listens")
        if self._faults.strikes("request lost", "client"):
            raise ConnectionResetError("lost on the way")
        handling = process.start(_handled(process.built.api, method, path, as_json(body), key))
        handling.add_done_callback(_look)
        either: list[asyncio.Future[Any]] = [handling, process.died]
        await asyncio.wait(either, timeout=_GIVEN_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if process.is_dead:
            raise ConnectionResetError("the service died")
        if not handling.done():
            raise ConnectionAbortedError("given up")
        if self._faults.strikes("answer lost", "client"):
            raise ConnectionResetError("answer lost")
        return handling.result()


def _look(task: asyncio.Task[Any]) -> None:
    """Take note of a failure, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()


async def _handled(api: Any, method: str, path: str, body: bytes, key: str | None) -> Answer:
    path, _, query = path.partition("?")
    headers = [(b"authorization", b"Bearer " + ADMIN_KEY.encode()), (b"x-request-id", b"simulated")]
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if key:
        headers.append((b"idempotency-key", key.encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0
    answered: dict[str, str] = {}
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            answered.update({name.decode().lower(): value.decode() for name, value in message["headers"]})
        else:
            parts.append(message.get("body", b""))

    await api(scope, receive, send)
    content = b"".join(parts)
    return Answer(status, orjson.loads(content) if content else None, "idempotency-replayed" in answered)
