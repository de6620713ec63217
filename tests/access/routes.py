"""Every route that there is, and an example of a request to each, made of what it says of itself.

A new route is in the matrix by itself. What a request can name is looked up in `EXAMPLES`, by its name.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from shared.http.api import rule_of
from shared.http.authorization import Everybody, Rule
from shared.service import Service
from tests.access.people import APPLICATION, PASSWORD, PLACE

LEFT_OUT = object()
"""Stands for no example: the parameter may be left out, and is."""


class MissingExampleError(Exception):
    """A route takes something that nothing is known to be sent as."""


@dataclass
class Owner:
    """Whose things a request names.

    Attributes:
        name: for those who read what went wrong.
        things: what it has, by kind.
        spares: what one route may destroy, by the route's name and kind; it takes the place of the thing.
    """

    name: str
    things: Mapping[str, str]
    spares: dict[tuple[str, str], str] = field(default_factory=dict)

    def thing(self, kind: str, route: str = "") -> str:
        """Return one of its things, the spare one of a route where there is one."""
        if (route, kind) in self.spares:
            return self.spares[route, kind]
        return self.things[kind]


@dataclass(frozen=True)
class Own:
    """An example that is another one for each owner.

    Attributes:
        kind: of the thing.
        form: what is sent, with the thing in its place.
        oneself: what stands for one's own, where a route knows a word for it.
    """

    kind: str
    form: str = "{}"
    oneself: str | None = None


@dataclass(frozen=True)
class Listed:
    """A list of one example."""

    item: Own


SPARE_PRODUCT, SPARE_VERSION = "spare", "1.0"
"""What of the catalog may be retired."""

TENANT, CUSTOMER, EMAIL, USER = Own("tenant"), Own("customer"), Own("email"), Own("user")

EXAMPLES: Mapping[str, Any] = {
    # What belongs to a tenant, by the name of a parameter or a field.
    "tenantId": TENANT,
    "tenant_id": TENANT,
    "accountId": TENANT,
    "tenantName": CUSTOMER,
    "customerName": CUSTOMER,
    "q": CUSTOMER,
    "email": EMAIL,
    "login_hint": EMAIL,
    "tenantEmail": EMAIL,
    "adminEmails": Listed(EMAIL),
    "user_id": USER,
    "userId": USER,
    "PATCH /v1/users/{user_id} user_id": Own("user", oneself="me"),
    "invitation_id": Own("invitation"),
    "key_id": Own("key"),
    "session_id": Own("session"),
    "workflow_id": Own("workflow"),
    "environment_id": Own("environment"),
    "export_id": Own("export"),
    "invoice_id": Own("invoice"),
    "invoiceId": Own("invoice"),
    "actor": Own("user", form="user:{}"),
    "subject": Own("user", form="user:{}"),
    "GET /v1/invoices state": "final",
    "GET /v1/invoices/preview at": LEFT_OUT,
    # What belongs to the installation.
    "PUT /v1/clients/{client_id} client_id": Own("client"),
    "DELETE /v1/clients/{client_id} client_id": Own("client"),
    "DELETE /v1/identity-providers/{tenant_id} tenant_id": Own("organisation"),
    "client_id": APPLICATION,
    "clientId": APPLICATION,
    "issuer": "https://127.0.0.1",  # where no provider may be
    "domains": ["example.org"],
    "GET /v1/tiers/{name} name": "standard",
    "POST /v1/tiers name": "free",  # which is there: nobody else is to notice
    "POST /v1/tiers/{name}/retire name": "free",  # which stays, because it is the default
    **dict.fromkeys(("PATCH /v1/tiers/{name} name", "POST /v1/tiers/{name}/reinstate name"), "premium"),
    "rank": 1,
    "plan": "free",
    "quotas": {},
    "POST /v1/products name": "notes",
    **dict.fromkeys((f"{method} /v1/products/{{name}} name" for method in ("GET", "PATCH")), "notes"),
    "GET /v1/products/{name}/versions name": "notes",
    "POST /v1/products/{name}/versions name": SPARE_PRODUCT,
    **{f"POST /v1/products/{{name}}{each} name": SPARE_PRODUCT for each in ("/retire", "/reinstate")},
    **{
        f"POST /v1/products/{{name}}/versions/{{version}}/{each} name": SPARE_PRODUCT
        for each in ("retire", "reinstate")
    },
    # A plan, which is there: nobody else is to notice.
    **dict.fromkeys(
        ("GET /v1/plans/{name} name", "POST /v1/plans name", "POST /v1/plans/{name}/versions name"), "free"
    ),
    "POST /v1/plans currency": "USD",
    "prices": {"USD": "0", "EUR": "0"},
    "version": SPARE_VERSION,
    "description": "an example",
    "name": "An example",
    "key": "0" * 64,
    "tier": "premium",
    "products": [{"name": "notes", "version": "2.0"}],
    "step": "register-tenant",
    "role": "TenantUser",
    "expiration": "2099-12-31",
    "reason": "an example",
    "POST /v1/offboardings graceDays": 0,  # so that it ends
    "redirectUris": [PLACE],
    "token": "not-one",
    "currentPassword": PASSWORD,
    "newPassword": PASSWORD,
    "password": PASSWORD,
    "If-Match": "*",
    "path": "some/where",
    # Signing in.
    "response_type": "code",
    "redirect_uri": PLACE,
    "code_challenge": "0" * 43,
    "code_challenge_method": "S256",
    "grant_type": "refresh_token",
    "form_token": "not-one",
    # What something would cost, which is nobody's.
    **dict.fromkeys((f"POST /v1/{each}-preview currency" for each in ("price", "proration")), "USD"),
    **{f"POST /v1/price-preview {name}": "1.00" for name in ("quantity", "flatAmount")},
    "periodStart": "2026-03-01",
    "periodEnd": "2026-04-01",
    "changeAt": "2026-03-15",
    **dict.fromkeys(("fromAmount", "toAmount"), "10.00"),
    # An event of a tenant's usage.
    "POST /v1/usage subject": TENANT,
    "POST /v1/usage specversion": "1.0",
    "POST /v1/usage source": "/an/example",
    "POST /v1/usage id": "1",
    "POST /v1/usage type": "api_call",
    # A meter, which is there: nobody else is to notice.
    **{f"POST /v1/meters {name}": value for name, value in {"name": "api_calls", "unit": "call"}.items()},
    **{f"POST /v1/meters {name}": value for name, value in {"eventType": "api_call", "aggregation": "count"}.items()},
    "GET /v1/meters/{name} name": "api_calls",
    "POST /v1/meters/{name}/retire name": "mail_subscriptions",
    # A correction of a tenant's usage.
    "POST /v1/usage/amendments meter": "mail_sends",
    "POST /v1/usage/amendments time": "2026-03-15T12:00:00Z",
    "POST /v1/usage/amendments quantity": "1",
    # What is paid, and what is given.
    **dict.fromkeys((f"POST /v1/{each} currency" for each in ("payments", "credits")), "USD"),
    **dict.fromkeys((f"POST /v1/{each} amount" for each in ("payments", "credits")), "0.01"),
    "POST /v1/payments reference": "an example",
    # What may be spent.
    "PUT /v1/spending-limits/{tenant_id} amount": "1000",
    "PUT /v1/spending-limits/{tenant_id} currency": "USD",
    "PUT /v1/spending-limits/{tenant_id} action": "alert",
    # Where in a list, which part of it, and how.
    **dict.fromkeys(("limit", "cursor", "kind", "status", "state", "action", "from", "to", "service"), LEFT_OUT),
    **dict.fromkeys(("window", "meter", "timeZone", "groupBy", "id", "format"), LEFT_OUT),
    **dict.fromkeys(("fromSeq", "most", "wait", "Idempotency-Key", "Last-Event-ID", "scope"), LEFT_OUT),
    **dict.fromkeys(("nonce", "client_secret", "code", "error", "code_verifier", "refresh_token"), LEFT_OUT),
}
"""What is sent as a parameter or as a field of a body, by its name, or by the route's name and its own.

Of an optional one only what belongs to somebody is sent, and what is said of this route alone.
"""

PUBLISHED = "/openapi.json"
"""The one path that the framework itself answers, to everybody."""

_SERVICE_PAGES = {"/healthz", "/readyz", "/metrics", "/docs", PUBLISHED}
_TELLING = re.compile(r"(?i)(id|ids|name|email|emails)$")
"""What a field is called that may well name something of somebody's, so that it needs an example though optional."""

_READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True)
class Sent:
    """A request.

    Attributes:
        values: what it names of its owner, by a word for each.
    """

    method: str
    path: str
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    json: Any
    form: Mapping[str, str] | None
    values: Mapping[str, str]


@dataclass(frozen=True)
class Parameter:
    """What a request may carry.

    Attributes:
        place: ``path``, ``query`` or ``header``.
    """

    name: str
    place: str
    is_required: bool


@dataclass(frozen=True, eq=False)
class Route:
    """A method at a path.

    Attributes:
        path: at the common origin, with its parameters in braces.
        rule: who may use it.
        operation: its part of the OpenAPI document; None where that is silent about it.
        schemas: what the document refers to.
    """

    service: str
    method: str
    path: str
    rule: Rule | Everybody
    operation: Mapping[str, Any] | None
    schemas: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called in what went wrong, and in `EXAMPLES`."""
        return f"{self.method} {self.path}"

    @property
    def is_writing(self) -> bool:
        """Whether it may change something."""
        return self.method not in _READING

    @property
    def declared(self) -> frozenset[int] | None:
        """The statuses that the document names; None where it names none."""
        return None if self.operation is None else frozenset(map(int, self.operation["responses"]))

    @property
    def resource(self) -> str:
        """What the scopes are about."""
        return [*self.path.split("/"), "", ""][2]

    @property
    def is_list(self) -> bool:
        """Whether it answers with pages."""
        return self.method == "GET" and {"limit", "cursor"} <= {each.name for each in self.parameters}

    @property
    def parameters(self) -> Sequence[Parameter]:
        """What a request to it carries besides a body."""
        if self.operation is None:
            return [Parameter(name, "path", is_required=True) for name in re.findall(r"\{(\w+)(?::\w+)?\}", self.path)]
        return [
            Parameter(each["name"], each["in"], is_required=each.get("required", False))
            for each in self.operation.get("parameters", ())
        ]

    @property
    def body(self) -> tuple[str, Mapping[str, Any]] | None:
        """The first media type of its body and the schema of the object, if it takes one."""
        if self.operation is None or "requestBody" not in self.operation:
            return None
        media_type, content = next(iter(self.operation["requestBody"]["content"].items()))
        return media_type, self.resolved(content["schema"])

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a schema to where it says something: of several the first that is not null."""
        if "$ref" in schema:
            return self.resolved(self.schemas[schema["$ref"].rpartition("/")[2]])
        for several in ("anyOf", "allOf", "oneOf"):
            if several in schema:
                return self.resolved(next(each for each in schema[several] if each.get("type") != "null"))
        return schema

    def request(self, owner: Owner, *, as_oneself: bool = False) -> Sent:
        """Make a request that names an owner's things.

        Args:
            as_oneself: whether the owner is who asks.

        Raises:
            MissingExampleError: it takes what `EXAMPLES` does not know.
        """
        filled = _Filled(self, owner, as_oneself=as_oneself)
        by_place: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}, "cookie": {}}
        for each in self.parameters:
            value = filled.parameter(each)
            if value is not LEFT_OUT:
                by_place[each.place][each.name] = value
        media_type, body = self.body[0] if self.body else "", filled.body()
        is_form = media_type.startswith("application/x-www-form-urlencoded")
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda name: quote(str(by_place["path"][name[1]]), safe=""), self.path)
        return Sent(
            self.method, path, by_place["query"], by_place["header"],
            json=None if is_form else body, form=body if is_form else None, values=filled.values,
        )  # fmt: skip


class _Filled:
    """Fills in the examples of one request, and remembers which were somebody's."""

    def __init__(self, route: Route, owner: Owner, *, as_oneself: bool) -> None:
        self.values: dict[str, str] = {}
        self._route = route
        self._owner = owner
        self._as_oneself = as_oneself

    def parameter(self, parameter: Parameter) -> Any:
        example = self._example(parameter.name, parameter.place, needed=parameter.is_required)
        if parameter.is_required or isinstance(example, Own | Listed):
            return self._value(example)
        return _text_of(example) if parameter.place == "header" else LEFT_OUT

    def body(self) -> Any:
        if self._route.body is None:
            return None
        _, schema = self._route.body
        required = schema.get("required", ())
        sent: dict[str, Any] = {}
        for name, described in schema.get("properties", {}).items():
            if name not in required and not self._is_telling(name):
                continue
            example = self._example(name, "body", self._route.resolved(described), needed=name in required)
            if name in required or isinstance(example, Own | Listed) or f"{self._route.name} {name}" in EXAMPLES:
                sent[name] = self._value(example)
        return sent

    def _is_telling(self, name: str) -> bool:
        own = f"{self._route.name} {name}"
        return own in EXAMPLES or name in EXAMPLES or bool(_TELLING.search(name))

    def _example(self, name: str, place: str, schema: Mapping[str, Any] | None = None, *, needed: bool = False) -> Any:
        for known in (f"{self._route.name} {name}", name):
            if known in EXAMPLES and not (needed and EXAMPLES[known] is LEFT_OUT):
                return EXAMPLES[known]
        for telling in ("const", "default"):
            if schema is not None and telling in schema:
                return schema[telling]
        if schema is not None and "enum" in schema:
            return schema["enum"][0]
        raise MissingExampleError(
            f"Nobody knows what to send as `{name}` ({place}) of {self._route.name}. Add one line to EXAMPLES in "
            f'tests/access/routes.py: "{name}": Own("<kind>") if it names something of a tenant\'s, else a value.'
        )

    def _value(self, example: Any) -> Any:
        if isinstance(example, Listed):
            return [self._value(example.item)]
        if not isinstance(example, Own):
            return example
        if self._as_oneself and example.oneself is not None:
            return example.oneself
        thing = self._owner.thing(example.kind, self._route.name)
        self.values[example.kind] = thing
        return example.form.format(thing)


def _text_of(example: Any) -> Any:
    return example if isinstance(example, str) else LEFT_OUT


def kinds_of(route: Route) -> set[str]:
    """Return what kinds of things a request to a route names."""
    asked: set[str] = set()

    class Anybody(Owner):
        def thing(self, kind: str, route: str = "") -> str:
            asked.add(kind)
            return f"{kind}-{route}"

    route.request(Anybody("anybody", {}))
    return asked


def routes_of(services: Iterable[Service]) -> list[Route]:
    """Return every route of these services, with the rule that each declares.

    Raises:
        TypeError: one declares none, or more than one.
    """
    return [route for service in services for route in _of_application(service.name, application(service.api))]


def application(api: Any) -> FastAPI:
    """Return a service's application, also where something stands before it."""
    if isinstance(api, FastAPI):
        return api
    for held in inspect.getclosurevars(api).nonlocals.values():
        if isinstance(held, FastAPI):
            return held
    raise LookupError(f"no application behind {api!r}")


def _of_application(service: str, api: FastAPI) -> Iterator[Route]:
    document = api.openapi()
    for context in iter_route_contexts(api.routes):
        path = str(context.path_format)
        rule: Rule | Everybody = Everybody() if path == PUBLISHED else rule_of(context)
        for method in sorted(context.methods or ()):
            operation = document["paths"].get(path, {}).get(method.lower())
            where = f"/services/{service}{path}" if path in _SERVICE_PAGES else path
            yield Route(service, method, where, rule, operation, document["components"]["schemas"])
