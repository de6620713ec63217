"""What every error looks like: RFC 9457 ``application/problem+json``, whatever went wrong and wherever.

``type`` is the relative reference ``/problems/<code>``. RFC 9457 (3.1.1) prefers absolute URIs; but each installation
has its own origin, which no code can know, and a host of ours could not be reached from behind a firewall. A reference
that begins with a slash names the same problem type from every path of the origin. ``code`` is the bare name.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg
import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_PATH_CHARACTERS = "/:@!$&'()*+,;=~"  # what RFC 3986 (3.3) lets stand in a path as it is
_RETRYABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})
_CODES = {404: "unknown_path", 405: "method_not_allowed", 413: "body_too_large"}
_SUBJECTS = ("Input ", "String ", "List ", "Dictionary ", "Value ", "Tuple ", "Set ", "Data ", "Decimal input ")
_COMPLAINTS = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "model_attributes_type": "should be a JSON object",
    "model_type": "should be a JSON object",
    "dict_type": "should be a JSON object",
    "string_unicode": "must be text that UTF-8 can carry",
}
_REQUEST_PARTS = {"query", "path", "header", "cookie"}


class FieldError(NamedTuple):
    """One thing that is wrong with one part of a request.

    Attributes:
        pointer: an RFC 6901 JSON pointer into the body (``/adminEmails/0``), or ``query/limit``, ``path/id``,
            ``header/If-Match`` for the parts of a request that have no pointer.
        detail: a sentence that names the field.
    """

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is an error; raise it anywhere between the request and its answer.

    Args:
        status: the HTTP status, 400 to 599.
        code: stable, machine-readable, snake_case; two problems with one code mean the same.
        detail: a sentence about this occurrence, for people.
        title: a summary that is the same for every occurrence; made from the code when not given.
        errors: what is wrong field by field.
        retryable: whether the same request may succeed later; by default true for 429, 502 and 503.
        headers: sent with the answer.
        more: members that another standard asks for besides (RFC 9457, 3.2).
    """

    def __init__(
        self,
        status: int,
        *,
        code: str,
        detail: str,
        title: str | None = None,
        errors: Sequence[FieldError] = (),
        retryable: bool | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = int(status)
        self.code = code
        self.detail = detail
        self.title = title or code.replace("_", " ").capitalize()
        self.errors = tuple(errors)
        self.retryable = status in _RETRYABLE if retryable is None else retryable
        self.headers = dict(headers or {})
        self.more = {name: _encodable(value) for name, value in (more or {}).items()}

    def response(self, instance: str) -> Response:
        """Render the answer.

        Args:
            instance: the path of the request that failed.
        """
        document = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": _encodable(self.detail),
            "instance": quote(instance, safe=_PATH_CHARACTERS, errors="replace"),
            "code": self.code,
            "errors": [
                {"pointer": _encodable(error.pointer), "detail": _encodable(error.detail)} for error in self.errors
            ],
            "retryable": self.retryable,
            **self.more,
        }
        return Response(orjson.dumps(document), self.status, self.headers, MEDIA_TYPE)


class FieldErrorDocument(BaseModel):
    """One field that is wrong."""

    pointer: str = Field(examples=["/adminEmails/0"])
    detail: str


class ProblemDocument(BaseModel):
    """An error as RFC 9457 problem details; the schema of every 4xx and 5xx in the OpenAPI document."""

    type: str = Field(
        description="A URI reference that names the kind of problem.", examples=["/problems/unknown_tier"]
    )
    title: str = Field(description="The kind of problem in a few words.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="A sentence about this occurrence.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="The kind of problem, for machines.", examples=["unknown_tier"])
    errors: list[FieldErrorDocument] = Field(description="What is wrong, field by field.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


async def answer(request: Request, error: Exception) -> Response:
    """Answer an exception that a route raised; the exception handler for everything that has a meaning of its own."""
    return problem_of(error, request).response(request.scope["path"])


def problem_of(error: Exception, request: Request | None = None) -> Problem:
    """Translate any exception into the problem it is for the client; what nobody expected is logged as an incident."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _wrong_fields(error)
        case HTTPException():
            return _framework_refusal(error, request)
    if isinstance(error, asyncpg.DataError):
        return _unstorable(error)
    if is_unavailable(error) or isinstance(error, CONTENTION):
        return _unavailable(error)
    return _unexpected(error)


def token(text: str) -> str:
    """Escape one reference token of a JSON pointer (RFC 6901, section 3)."""
    return text.replace("~", "~0").replace("/", "~1")


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON in UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()


def _wrong_fields(error: RequestValidationError) -> Problem:
    errors = [_field_error(each, error.body) for each in error.errors()]
    if len(errors) == 1:
        detail = errors[0].detail
    else:
        detail = f"{len(errors)} fields are wrong: {', '.join(_name(each.pointer) for each in errors)}."
    return Problem(422, code="validation_failed", detail=detail, errors=errors)


def _field_error(error: Mapping[str, Any], body: Any) -> FieldError:
    part, *path = error["loc"]
    if part in _REQUEST_PARTS:
        pointer = "/".join([part, *map(str, path)])
    else:
        pointer = _pointer(path, body, missing=error["type"] == "missing")
    return FieldError(pointer, f"{_name(pointer)} {_complaint(error)}.")


def _pointer(path: Sequence[str | int], body: Any, *, missing: bool) -> str:
    """Follow pydantic's location through the body; a step that leads nowhere names a branch of a model, not a field."""
    steps: list[str | int] = []
    for step in path:
        if _has(body, step):
            body = body[step]
            steps.append(step)
    if missing and path:
        steps.append(path[-1])
    return "".join(f"/{token(str(step))}" for step in steps)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value  # forms are mappings too


def _name(pointer: str) -> str:
    return f"`{pointer.removeprefix('/')}`" if pointer else "The body"


def _complaint(error: Mapping[str, Any]) -> str:
    """Turn pydantic's message into what follows the field's name."""
    if error["type"] in _COMPLAINTS:
        return _COMPLAINTS[error["type"]]
    if error["type"] == "too_long" and isinstance(error["input"], str):
        return f"should have at most {error['ctx']['max_length']} characters"
    message = str(error["msg"]).rstrip(".").removeprefix("Value error, ")
    for subject in _SUBJECTS:
        if message.startswith(f"{subject}should "):
            return message.removeprefix(subject)
    return message if message.startswith(("must ", "has ", "should ", "is ")) else f"is wrong: {message}"


def _framework_refusal(error: HTTPException, request: Request | None) -> Problem:
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    path = request.scope["path"] if request else ""
    match status:
        case HTTPStatus.NOT_FOUND:
            detail = f"There is nothing at {path}."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method if request else 'This method'} is not possible at {path}."
        case _:
            detail = f"{str(error.detail or status.phrase).rstrip('.')}."
    code = _CODES.get(status, status.name.lower())
    return Problem(status, code=code, detail=detail, headers=headers)


def _unstorable(error: Exception) -> Problem:
    """A value got past the edge: the client is told that it is wrong, the log that a check is missing."""
    log.error("value reached the database", action="unstorable_value", exc_info=error)
    return Problem(422, code="unstorable_value", detail="A value in the request cannot be stored.")


def _unavailable(error: Exception) -> Problem:
    log.warning("answered while away", action="unavailable", error=repr(error))
    return Problem(
        503,
        code="unavailable",
        detail="A part that this request needs is away for the moment. Nothing was lost; try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _unexpected(error: Exception) -> Problem:
    incident = structlog.contextvars.get_contextvars().get("request_id", "unknown")
    log.error("request failed", action="internal_error", incident=incident, exc_info=error)
    return Problem(
        500,
        code="internal_error",
        detail=f"This is a mistake of ours, recorded as incident {incident}.",
        retryable=False,
    )
