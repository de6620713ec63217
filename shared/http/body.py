r"""Bodies are read once, counted and judged before any route sees them.

A stock framework answers 500 to ``\u0000``, to lone surrogates and to ``1e400``; it takes the last of two equal keys,
reads UTF-16 and buffers whatever arrives. Here a body is at most 1 MiB, and JSON is what RFC 8259 and I-JSON (RFC 7493)
call JSON, no deeper than 32. The check is one pass of the standard library's decoder with hooks, about 10 microseconds
for 1 kB; orjson is faster but sees neither equal keys nor integers that it turns into floats. Only a refused body is
parsed a second time, to name the spot.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problems import FieldError, Problem, token

MAXIMUM_BODY = 1024 * 1024
"""The most bytes of a request's body."""

MAXIMUM_HEADERS = 32 * 1024
"""The most bytes of all headers of a request."""

MAXIMUM_DEPTH = 32
"""The most arrays and objects inside each other."""

MAXIMUM_DIGITS = 40
"""The most digits of an integer: more than any column takes, far less than what is slow to convert."""

_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_SECONDS = 5.0
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_JSON = re.compile(r"application/(?:[a-z0-9!#$&^_.-]+\+)?json")
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _Flaw(NamedTuple):
    """Stands in the decoded document where something is wrong, while the spot is searched."""

    complaint: str
    key: str | None = None


class _FlawFoundError(Exception):
    """The document has a flaw somewhere."""


class BodyGuard:
    """ASGI middleware that lets only small, well-formed bodies through.

    Args:
        app: what is guarded.
        media_types: accepted besides JSON, in lower case; their bodies are counted but not looked into.
    """

    def __init__(self, app: ASGIApp, media_types: Collection[str] = ()) -> None:
        self._app = app
        self._media_types = frozenset(media_types)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a bad body with a problem, hand a good one on unchanged and in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._checked_body(scope, receive)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _checked_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body, or None when the client went away before its end."""
        _check_target(scope)
        headers = Headers(scope=scope)
        _check_headers(headers)
        if not _may_have_body(scope["method"], headers):
            return b""
        body = await read_body(headers, receive)
        if body:
            self._check_content(headers, body)
        return body

    def _check_content(self, headers: Headers, body: bytes) -> None:
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:
            raise _unsupported(
                f"Content-Encoding {coding} is not accepted; send the body as it is.",
                header="Content-Encoding",
                remedy={"Accept-Encoding": "identity"},
            )
        media_type, _, parameters = headers.get("content-type", "").lower().partition(";")
        if _JSON.fullmatch(media_type.strip()):
            if "charset" in parameters and "utf-8" not in parameters:
                raise _unsupported("JSON is always UTF-8 (RFC 8259, section 8.1).")
            check_json(body)
        elif media_type.strip() not in self._media_types:
            raise _unsupported("The body must be sent as Content-Type application/json.")


def check_json(body: bytes) -> None:
    """Refuse what is not strict JSON.

    Raises:
        Problem: 400 with code ``malformed_json``, naming the spot where that is possible.
    """
    try:
        text = body.decode("utf-8")
        document = _STRICT.decode(text)
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise _too_deep() from None
    except _FlawFoundError:
        raise _located(text) from None
    if _SUSPECT_ESCAPE.search(body) and (flaw := next(_flaws(document), None)):
        raise _flawed(*flaw)
    _check_depth(document)


def _check_target(scope: Scope) -> None:
    """Refuse NUL in the path and the query: it is text that no database takes, and nobody means it."""
    if "\0" in scope["path"]:
        raise Problem(400, code="malformed_path", detail="The path must not contain NUL.")
    query: bytes = scope.get("query_string", b"")
    if b"%00" in query or b"\0" in query:
        raise Problem(400, code="malformed_query", detail="The query must not contain NUL.")


def _check_headers(headers: Headers) -> None:
    """Bound all headers together: not every HTTP parser below does."""
    if sum(len(name) + len(value) for name, value in headers.raw) > MAXIMUM_HEADERS:
        detail = f"The headers have more than {MAXIMUM_HEADERS} bytes together."
        raise Problem(431, code="headers_too_large", detail=detail, headers={"Connection": "close"})


def _may_have_body(method: str, headers: Headers) -> bool:
    return method in _METHODS_WITH_BODY or "content-length" in headers or "transfer-encoding" in headers


async def read_body(headers: Headers, receive: Receive) -> bytes | None:
    """Return a whole body, or None when the client went away before its end.

    Raises:
        Problem: 413, it has more than `MAXIMUM_BODY` bytes.
    """
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > MAXIMUM_BODY:
        raise await _too_large(receive)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAXIMUM_BODY:
            raise await _too_large(receive)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _too_large(receive: Receive) -> Problem:
    """Build a 413, and let the client finish: one that is cut off while it sends never reads its answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await _discard(receive)
    return Problem(
        413,
        code="body_too_large",
        detail=f"The body has more than {MAXIMUM_BODY} bytes.",
        headers={"Connection": "close"},  # there may be more to come
    )


async def _discard(receive: Receive) -> None:
    left = _LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body out as one message, then whatever comes after it: the client's disconnect."""
    pending: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replayed() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        message, pending = pending, None
        return message

    return replayed


def _decoder(flawed: Callable[[_Flaw], Any]) -> json.JSONDecoder:
    """Build a decoder that asks ``flawed`` what to put where the grammar is kept and the meaning is not."""

    def whole(digits: str) -> Any:
        if len(digits) > MAXIMUM_DIGITS:
            return flawed(_Flaw(f"must have at most {MAXIMUM_DIGITS} digits"))
        return int(digits)

    def fraction(digits: str) -> Any:
        number = float(digits)
        return number if math.isfinite(number) else flawed(_Flaw("must be a number within the range of a double"))

    def constant(name: str) -> Any:
        return flawed(_Flaw(f"must be a number, {name} is not JSON"))

    def members(pairs: list[tuple[str, Any]]) -> Any:
        unique = dict(pairs)
        if len(unique) == len(pairs):
            return unique
        keys = [key for key, _ in pairs]
        return flawed(_Flaw("must not be given twice", key=next(key for key in keys if keys.count(key) > 1)))

    return json.JSONDecoder(
        parse_int=whole, parse_float=fraction, parse_constant=constant, object_pairs_hook=members, strict=True
    )


def _give_up(_flaw: _Flaw) -> NoReturn:
    raise _FlawFoundError


_STRICT = _decoder(_give_up)
_LOCATING = _decoder(lambda flaw: flaw)


def _located(text: str) -> Problem:
    """Name the first flaw of a document that has one."""
    try:
        document = _LOCATING.decode(text)
        return _flawed(*next(_flaws(document)))
    except json.JSONDecodeError as error:
        return _malformed(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.")
    except RecursionError:
        return _too_deep()


def _flaws(document: Any) -> Iterator[tuple[str, str]]:
    """Yield the pointer and the complaint of everything that is wrong, without recursion."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        pointer, value = waiting.pop()
        match value:
            case _Flaw():
                yield (pointer if value.key is None else f"{pointer}/{token(value.key)}"), value.complaint
            case str() if complaint := _complaint(value):
                yield pointer, complaint
            case list():
                waiting.extend((f"{pointer}/{index}", each) for index, each in enumerate(value))
            case dict():
                yield from ((pointer, "has a key that is no text") for key in value if _complaint(key))
                waiting.extend((f"{pointer}/{token(key)}", each) for key, each in value.items())


def _complaint(text: str) -> str | None:
    if "\0" in text:
        return "must not contain NUL"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "must not contain half of a surrogate pair"
    return None


def _check_depth(document: Any) -> None:
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAXIMUM_DEPTH):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _flawed(pointer: str, complaint: str) -> Problem:
    field = f"`{pointer.removeprefix('/')}`" if pointer else "The body"
    return _malformed(f"{field} {complaint}.", pointer=pointer)


def _malformed(detail: str, pointer: str = "") -> Problem:
    return Problem(400, code="malformed_json", detail=detail, errors=[FieldError(pointer, detail)])


def _too_deep() -> Problem:
    return _malformed(f"The body is nested deeper than {MAXIMUM_DEPTH} levels.")


def _unsupported(
    detail: str, *, header: str = "Content-Type", remedy: Mapping[str, str] = {"Accept": "application/json"}
) -> Problem:
    """Build a 415; ``remedy`` is the header by which RFC 9110 (15.5.16) tells what would be accepted."""
    errors = [FieldError(f"header/{header}", detail)]
    return Problem(415, code="unsupported_media_type", detail=detail, errors=errors, headers=remedy)
