"""HTTP of ``/v1/authorize``: a gateway asks it of each request to an application whether that may pass.

It is an application of its own in front of the service's, because it is asked so often: what every other route has
around it, the framework, the request's id and its line in the log, costs several times what the answer does.
"""

from collections.abc import Sequence
from http import HTTPMethod
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from services.identity.authorize import (
    NAMES,
    NOTHING,
    Admission,
    Authorizer,
    Needs,
    needs_of_headers,
    needs_of_query,
)
from services.identity.standing import UnknownStandingError
from shared.http import Problem, everybody
from shared.http.problems import problem_of

PATH = "/v1/authorize"

_BELOW = f"{PATH}/"
_BEARER = b"bearer "
_ALL_METHODS = [method.value for method in HTTPMethod if method is not HTTPMethod.CONNECT]
_RETRY_SECONDS = 1


class _Sent(NamedTuple):
    """What a request brings that concerns us."""

    credential: str | None
    needs: Needs


class Gate:
    """Answers gateways.

    Args:
        registry: where ``tenure_identity_authorized_total`` is kept, by outcome: ``allowed``, or the problem's code.
    """

    def __init__(self, authorizer: Authorizer, registry: CollectorRegistry) -> None:
        self._authorizer = authorizer
        self._outcomes = Counter(
            "authorized",
            "Requests to applications that were judged, by outcome.",
            ("outcome",),
            namespace="tenure",
            subsystem="identity",
            registry=registry,
        )
        self._allowed = self._outcomes.labels("allowed")

    def before(self, api: ASGIApp) -> ASGIApp:
        """Put the gate before an application, which gets all requests but those to the gate."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and _is_ours(scope["path"]):
                await self._serve(scope, receive, send)
            else:
                await api(scope, receive, send)

        return app

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            admission = await self._judge(scope)
        except Exception as error:  # noqa: BLE001 - nobody else is there to answer it
            await self._refusal(error, scope)(scope, receive, send)
            return
        self._allowed.inc()
        await send({"type": "http.response.start", "status": 200, "headers": [*admission.headers, _EMPTY]})
        await send({"type": "http.response.body", "body": b""})

    async def response(self, scope: Scope) -> Response:
        """Answer a request that has come by another way."""
        try:
            admission = await self._judge(scope)
        except (Problem, UnknownStandingError) as error:
            return self._refusal(error, scope)
        self._allowed.inc()
        return Response(headers={name.decode(): value.decode() for name, value in admission.headers})

    async def _judge(self, scope: Scope) -> Admission:
        sent = _sent(scope)
        return await self._authorizer.judge(sent.credential, sent.needs)

    def _refusal(self, error: Exception, scope: Scope) -> Response:
        problem = _unknown() if isinstance(error, UnknownStandingError) else problem_of(error)
        self._outcomes.labels(problem.code).inc()
        return problem.response(scope["path"])


def routes(gate: Gate) -> APIRouter:
    """Return the same as routes, for whoever has the service without what is before it, and for its document."""
    router = APIRouter(tags=["authorize"], dependencies=[everybody()])

    async def authorize(request: Request) -> Response:
        """Tell a gateway whether a request to an application may pass, and of whom it is.

        The credential is an access token or an API key, as `Authorization: Bearer` or `X-Api-Key`. What passes is
        counted for the tenant's tier. The gateway may ask for more by `role` (one of those given) and `scope` (all of
        those given), or, where its query is the client's own, by the headers `X-Required-Role` and `X-Required-Scope`.
        """
        return await gate.response(request.scope)

    described: dict[str, Any] = {"response_class": Response, "responses": _RESPONSES}
    others = [method for method in _ALL_METHODS if method != HTTPMethod.GET]
    router.add_api_route(PATH, authorize, methods=["GET"], openapi_extra=_QUERY, **described)
    router.add_api_route(PATH, authorize, methods=others, name="others", include_in_schema=False)
    router.add_api_route(
        f"{PATH}/{{path:path}}", authorize, methods=_ALL_METHODS, name="below", include_in_schema=False
    )
    return router


def _is_ours(path: str) -> bool:
    return path == PATH or path.startswith(_BELOW)


def _sent(scope: Scope) -> _Sent:
    authorizations: list[bytes] = []
    keys: list[bytes] = []
    roles: list[bytes] = []
    scopes: list[bytes] = []
    places = {
        b"authorization": authorizations,
        b"x-api-key": keys,
        b"x-required-role": roles,
        b"x-required-scope": scopes,
    }
    for name, value in scope["headers"]:
        if (place := places.get(name)) is not None:
            place.append(value)
    # Below the path the query is the client's own, which must not weaken what the gateway asks for.
    needs = needs_of_query(scope["query_string"]) if scope["path"] == PATH and scope["query_string"] else NOTHING
    if roles or scopes:
        needs = needs.and_also(needs_of_headers(roles, scopes))
    return _Sent(_credential(authorizations, keys), needs)


def _credential(authorizations: Sequence[bytes], keys: Sequence[bytes]) -> str | None:
    """Return the one credential that was sent; of several nobody can tell which the application would go by."""
    bearers = [value[len(_BEARER) :] for value in authorizations if value[: len(_BEARER)].lower() == _BEARER]
    sent = bearers or keys
    if len(sent) != 1 or len(authorizations) > 1:
        return None
    return sent[0].strip().decode("latin-1")


def _unknown() -> Problem:
    return Problem(
        503,
        code="unavailable",
        detail="Whether this may pass cannot be told at the moment. Try again.",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


_EMPTY = (b"content-length", b"0")
_TEXT = {"schema": {"type": "string"}}
_QUERY = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "array", "items": {"type": "string"}},
        }
        for name, description in (
            ("role", "Who may pass: one of these."),
            ("scope", "What the credential must be good for: all of these."),
        )
    ]
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The request may pass.",
        "headers": {"-".join(part.capitalize() for part in name.split("-")): _TEXT for name in NAMES},
    },
    **{
        status: {"description": description}
        for status, description in (
            (401, "Nobody is proven."),
            (403, "Whoever it is may not, its tenant is blocked, or it is an operator's and no tenant's."),
            (429, "The tenant's tier lets no more pass; `Retry-After` tells when it does."),
            (503, "That cannot be told at the moment."),
        )
    },
}
