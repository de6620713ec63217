"""What starts each lifecycle: found by knocking at every route of onboarding, behind which only a notebook waits."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
from structlog.testing import capture_logs

from services.onboarding.api import Desk, routes
from services.onboarding.intake import Accepted, Application
from shared.clock import ManualClock
from shared.http import create_api
from shared.service import VERSION

_SAMPLE: Mapping[str, Any] = {
    "tenantId": "tenant",
    "accountId": "tenant",
    "customerName": "Acme",
    "adminEmails": ["ada@example.com"],
    "tier": "free",
    "products": [],
    "expiration": "2001-01-01",
}
"""What is said at a door, as far as it is asked for there."""

_CATALOG: Mapping[str, Any] = {"tiers": ["free"], "default_tier": "free", "products": []}
_NOW = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = "key"
_NOTHING: Any = object()


@dataclass(frozen=True)
class Door:
    """A route that starts something.

    Attributes:
        with_field: the fields of which the body must have one for that, besides those that it must have anyway.
    """

    method: str
    path: str
    with_field: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as Markdown."""
        fields = " or ".join(f"`{name}`" for name in self.with_field)
        return f"`{self.method} {self.path}`" + (f" with {fields}" if fields else "")


class _Notebook:
    """Stands where orders are accepted, and writes down what each has come from."""

    def __init__(self) -> None:
        self.led_to: dict[str, list[_Knock]] = {}

    def begin(self, knock: "_Knock") -> None:
        """Take down what is said next."""
        self._knock = knock

    async def submit(self, application: Application) -> Accepted:
        """Write down what it has led to."""
        self.led_to.setdefault(application.order.definition.kind, []).append(self._knock)
        return Accepted({"id": "workflow", "tenantId": "tenant"})

    async def replayed(self, *_: object) -> None:
        """Know of nothing that was accepted before."""


class _Catalog:
    """Stands where the catalog is kept."""

    async def current(self) -> Mapping[str, Any]:
        """Return a catalog in which there is what the sample orders."""
        return _CATALOG


def doors() -> dict[str, list[Door]]:
    """Return what starts each kind of workflow."""
    return asyncio.run(_knock_everywhere())


async def _knock_everywhere() -> dict[str, list[Door]]:
    notebook: Any = _Notebook()
    catalog: Any = _Catalog()
    desk = Desk(intake=notebook, catalog=catalog, clock=ManualClock(_NOW), grace_days=0)
    router = routes(_NOTHING, desk=desk, operators=_NOTHING, watch=_NOTHING, streams=_NOTHING)
    api = create_api("onboarding", routers=[router], admin_key=_KEY, checks={}, version=VERSION)
    transport, headers = httpx2.ASGITransport(api), {"Authorization": f"Bearer {_KEY}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://onboarding", headers=headers) as client:
        for knock in _knocks(api.openapi()):
            notebook.begin(knock)
            with capture_logs():  # nobody wants to read of them
                await client.request(knock.method, knock.path, json=knock.body)
    return {kind: list(_found(knocks)) for kind, knocks in notebook.led_to.items()}


@dataclass(frozen=True)
class _Knock:
    """Something that is said at a route; ``more`` is what is said besides the least."""

    method: str
    path: str
    body: Mapping[str, Any]
    more: str | None = None


def _knocks(document: Mapping[str, Any]) -> Iterator[_Knock]:
    """Yield the least that can be said at each route that takes a body, and that with one thing more."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation or "{" in path:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            model = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            least = {name: _SAMPLE[name] for name in model.get("required", ())}
            yield _Knock(method.upper(), path, least)
            for name in _SAMPLE:
                if name in model["properties"] and name not in least:
                    yield _Knock(method.upper(), path, least | {name: _SAMPLE[name]}, name)


def _found(knocks: Sequence[_Knock]) -> Iterator[Door]:
    """Yield the routes that were knocked at, each with what was said besides the least, if the least was too little."""
    for method, path in dict.fromkeys((knock.method, knock.path) for knock in knocks):
        here = [knock.more for knock in knocks if (knock.method, knock.path) == (method, path)]
        yield Door(method, path, () if None in here else tuple(more for more in here if more))
