"""The one way to make a service's HTTP application, so that all six behave alike."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import RouteContext, iter_route_contexts
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import SecretStr
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from shared.access.authenticator import Authenticator, Credentials
from shared.http.authorization import Everybody, Rule, everybody
from shared.http.body import BodyGuard
from shared.http.models import Resource
from shared.http.openapi import Access, described
from shared.http.pages import documentation_page
from shared.http.problems import FieldError, Problem, answer
from shared.http.records import RequestRecorder
from shared.ids import Ids, TimeOrderedIds

log = structlog.get_logger(__name__)

Checks = Mapping[str, Callable[[], Awaitable[None]]]
"""What must work for a service to be ready, by name; a check that raises or takes too long has failed."""

CHECK_SECONDS = 2.0
"""How long a readiness check may take."""


class Health(Resource):
    """A process that answers."""

    status: str


class Readiness(Resource):
    """A service that can do its work."""

    status: str
    checks: dict[str, str]


class Api(FastAPI):
    """A FastAPI application whose OpenAPI document is complete."""

    def openapi(self) -> dict[str, Any]:
        """Return the document; it is made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            self.openapi_schema = described(document, names=self._names(), access=self._access(), tag=self.title)
        return self.openapi_schema

    def _names(self) -> dict[tuple[str, str], str]:
        """Name each operation after its function, where no other function has that name."""
        routes = [context for context in iter_route_contexts(self.routes) if context.name and context.path_format]
        repeated = Counter(context.name for context in routes)
        return {
            (method.lower(), str(context.path_format)): to_camel(str(context.name))
            for context in routes
            for method in context.methods or ()
            if repeated[context.name] == 1
        }

    def _access(self) -> dict[tuple[str, str], Access]:
        """Tell of each operation that is not for everybody whom it is for."""
        return {
            (method.lower(), str(context.path_format)): rule.access(method, str(context.path_format))
            for context in iter_route_contexts(self.routes)
            for rule in _rules(context)
            if isinstance(rule, Rule)
            for method in context.methods or ()
        }


def create_api(
    name: str,
    *,
    routers: Sequence[APIRouter],
    admin_key: SecretStr | str,
    credentials: Credentials | None = None,
    checks: Checks,
    version: str,
    registry: CollectorRegistry | None = None,
    media_types: Collection[str] = (),
    ids: Ids | None = None,
) -> FastAPI:
    """Make the HTTP application of a service.

    Args:
        name: the service's name.
        routers: the service's own routes; each declares who may use it.
        admin_key: the system administrator's API key.
        credentials: what knows access tokens and all other API keys; nobody but the administrator is let in without.
        checks: what ``/readyz`` asks, concurrently.
        version: shown in the OpenAPI document.
        registry: what ``/metrics`` shows; made when not given.
        media_types: what bodies may be besides JSON, in lower case.
        ids: makes the ids of requests.

    Raises:
        TypeError: a route does not declare who may use it, or does so twice.
        ValueError: the key is empty.
    """
    key = admin_key.get_secret_value() if isinstance(admin_key, SecretStr) else admin_key
    registry = registry or CollectorRegistry()
    api = assemble(name, version=version, registry=registry, media_types=media_types, ids=ids or TimeOrderedIds())
    api.state.authenticator = Authenticator(key, credentials)
    for router in (*routers, _operations(checks, registry)):
        _adopt(api, router)
    return api


def assemble(
    name: str, *, version: str, registry: CollectorRegistry, media_types: Collection[str] = (), ids: Ids
) -> FastAPI:
    """Make an application that has everything but routes: the guards around it and the answers to errors."""
    api = Api(
        title=f"Tenure {name}",
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: answer,
            RequestValidationError: answer,
            HTTPException: _answer_refusal,
        },
    )
    # The last one added is the outermost.
    api.add_middleware(BodyGuard, media_types=media_types)
    api.add_middleware(RequestRecorder, service=name, registry=registry, ids=ids)
    return api


def _adopt(api: FastAPI, router: APIRouter) -> None:
    """Make a router's routes the application's own; including the router would match every request twice."""
    for context in iter_route_contexts(router.routes):
        rule_of(context)
    api.router.routes.extend(router.routes)


def rule_of(context: RouteContext) -> Rule | Everybody:
    """Return the one rule that a route declares.

    Raises:
        TypeError: there is none, or more than one.
    """
    rules = _rules(context)
    if len(rules) != 1:
        raise TypeError(
            f"{context.path} declares {len(rules)} rules of who may use it: give it one `permit` or `everybody`"
        )
    return rules[0]


def _rules(context: RouteContext) -> list[Rule | Everybody]:
    dependant = getattr(context, "dependant", None)
    calls = _dependencies(dependant) if dependant is not None else ()
    return [call for call in calls if isinstance(call, Rule | Everybody)]


def _dependencies(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _dependencies(each)


def _operations(checks: Checks, registry: CollectorRegistry) -> APIRouter:
    """Make the routes that every service has for those who run it; they need no key."""
    router = APIRouter(tags=["operations"], dependencies=[everybody()])

    @router.get("/healthz")
    async def health() -> Health:
        """Tell that the process is alive."""
        return Health(status="alive")

    @router.get("/readyz")
    async def readiness() -> Readiness:
        """Tell whether the service can do its work; 503 names what is missing."""
        return ready(await run_checks(checks))

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Show all measurements in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @router.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def documentation(request: Request) -> HTMLResponse:
        return documentation_page(request.app.openapi())

    return router


async def run_checks(checks: Checks) -> dict[str, str]:
    """Run all checks at once and return what each came to: ``ok``, or why not."""
    outcomes = await asyncio.gather(*(_outcome(name, check) for name, check in checks.items()))
    return dict(zip(checks, outcomes, strict=True))


async def _outcome(name: str, check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"gave no answer within {CHECK_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the service is not ready
        # The reason may hold hosts and logins, and everybody may ask: it goes to the log, its kind to the answer.
        log.info("not ready", action="check_failed", check=name, error=repr(error))
        return f"failed with {type(error).__name__}"
    return "ok"


def ready(outcomes: Mapping[str, str]) -> Readiness:
    """Answer with the outcomes of all checks.

    Raises:
        Problem: 503 naming every check that has failed.
    """
    failed = {name: outcome for name, outcome in outcomes.items() if outcome != "ok"}
    if not failed:
        return Readiness(status="ready", checks=dict(outcomes))
    raise Problem(
        503,
        code="not_ready",
        detail=f"Not ready: {', '.join(failed)}.",
        errors=[FieldError(f"checks/{name}", f"{name} {outcome}.") for name, outcome in failed.items()],
        headers={"Retry-After": "1"},
    )


async def _answer_refusal(request: Request, error: Exception) -> Response:
    """Answer the framework's own 404 and 405; ``Allow`` names the methods of all routes there (RFC 9110, 15.5.6)."""
    response = await answer(request, error)
    if response.status_code == 405:  # noqa: PLR2004 - the status is the reason
        response.headers["Allow"] = ", ".join(sorted(_methods(request.app.routes, request.scope)))
    return response


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> set[str]:
    contexts = [
        context for context in iter_route_contexts(routes) if context.route.matches(dict(scope))[0] != Match.NONE
    ]
    return set[str]().union(*(context.methods or () for context in contexts))
