"""What exists before anything is sent, so that not every answer is that there is no such thing."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2

from deploy.local.stack import Stack
from shared.access import Role
from shared.postgres import open_pool
from shared.testing import eventually
from tests.access.people import APPLICATION, PASSWORD, PLACE, Reception
from tests.e2e.test_metered_tenant import tier_is_known
from tests.system import System, Workflow

ADMINISTRATOR = "the system administrator"
TENANT_ADMINISTRATOR = "a tenant's administrator"
TENANT_USER = "a tenant's user"
PERSON = "an operator who has signed in"
NOBODY = "nobody"

NOTES = [{"name": "notes", "version": "1.0"}]

_DATABASE = "TENURE_IDENTITY_DATABASE_URL"
_SPARES = 5
_INVITED = "invited@people.example"
_SPARE_APPLICATION = "not-the-cast"
_CHALLENGE = "0" * 43
_FORM_TOKEN = "a-form-token"
_SIGN_IN = {
    "response_type": "code",
    "client_id": APPLICATION,
    "redirect_uri": PLACE,
    "code_challenge": _CHALLENGE,
    "code_challenge_method": "S256",
    "password": PASSWORD,
    "form_token": _FORM_TOKEN,
}
_TENANTS = (
    "kept", "spare", "spare too", "suspended", "changing", "leaving", "waiting", "waiting too", "gone",
)  # fmt: skip
_GENERAL: Mapping[str, Sequence[str]] = {
    "query.code_challenge": [_CHALLENGE],
    "header.If-Match": ["*"],
    "header.Last-Event-ID": ["1", "7"],
    "body.tier": ["standard", "premium"],
    "body.products[*].name": ["notes"],
    "body.products[*].version": ["1.0", "2.0"],
    "body.step": ["tenant.register"],
    "body.redirectUris[*]": [PLACE],
    "body.kind": ["oidc"],
    "body.domains[*]": ["people.example"],
    "body.code_challenge": [_CHALLENGE],
    "body.form_token": [_FORM_TOKEN],
    **{f"body.{name}": [PASSWORD, "another one!!"] for name in ("password", "currentPassword", "newPassword")},
    **{f"POST /v1/{each}-preview body.currency": ["USD", "JPY", "KWD"] for each in ("price", "proration")},
    "POST /v1/proration-preview body.timeZone": ["UTC", "Europe/Berlin"],
    "body.grant_type": ["client_credentials", "client_credentials", "authorization_code", "refresh_token"],
}
"""What is good for any of these, by the place where it is named."""

_TIER = {"plan": "free", "quotas": {"seats": 1}, "isolation": "pool"}
_CHARGE = {"meter": "api_calls", "currency": "JPY", "price": {"model": "per_unit", "unitAmount": "0.05"}}
_PLAN = {"currency": "USD", "prices": {"USD": "30", "JPY": "4500"}, "charges": [_CHARGE]}
_MONEY = {"amount": "0.01", "currency": "USD"}
_PREPAID = "prepaid"
_SPARE, _RETIRABLE = "spare", "spare-too"
"""What of the catalogs may be changed, and what may be retired: plans, tiers and products of these names."""

_ACCOUNT = {
    "customerName": "An account",
    "expiration": "2099-12-31",
    "products": NOTES,
    "adminEmails": ["ada@people.example"],
}
_MAIL_SECONDS = 60.0
_BOOKED_SECONDS = 30.0


@dataclass(frozen=True)
class Premises:
    """What there is.

    Attributes:
        documents: by service.
        authorizations: what each identity sends as ``Authorization``.
        words: as in `Run`.
        examples: as in `Run`.
        spared: as in `Run`.
    """

    documents: Mapping[str, Mapping[str, Any]]
    authorizations: Mapping[str, str | None]
    words: Mapping[str, Sequence[str]]
    examples: Mapping[str, Mapping[str, Any]]
    spared: Mapping[str, str]

    @property
    def operations(self) -> frozenset[str]:
        """Every operation of every document, such as ``GET /v1/users``; each service has its own ``/healthz``."""
        return frozenset(
            f"{method.upper()} {path}"
            for document in self.documents.values()
            for path, item in document["paths"].items()
            for method in item
        )


@asynccontextmanager
async def furnished(system: System, stack: Stack, *, issuer: str) -> AsyncIterator[Premises]:
    """Have some tenants onboarded and one off-boarded, and let people in.

    Args:
        issuer: an OpenID provider that answers.
    """
    pool = await open_pool(stack.environment["identity"][_DATABASE])
    try:
        reception = Reception(system.client, pool)
        await reception.open()
        yield await _Furnishing(system, reception, issuer).premises()
    finally:
        await pool.close()


class _Furnishing:
    """Makes what is needed, by the interfaces that everybody uses."""

    def __init__(self, system: System, reception: Reception, issuer: str) -> None:
        self._system = system
        self._reception = reception
        self._issuer = issuer
        self._names: dict[str, list[str]] = {}
        self._keys: dict[str, str] = {}

    async def premises(self) -> Premises:
        """Return what there is at the end."""
        await self._make_tenants()
        await self._make_debtor()
        await self._publish_spares()
        await self._make_keys()
        token, *own = await self._operator()
        visitor, invited = await self._visitor(), await self._invited()
        await self._make_members()
        await self._make_providers()
        await self._limit_spending()
        credentials = {who: self._keys[who] for who in (TENANT_ADMINISTRATOR, TENANT_USER)} | {PERSON: token}
        await self._known(credentials)
        return Premises(
            documents={service: await self._document(service) for service in self._system.services},
            authorizations={
                ADMINISTRATOR: self._system.client.headers["Authorization"],
                **{who: f"Bearer {credential}" for who, credential in credentials.items()},
                NOBODY: None,
            },
            words=await self._words(),
            examples=self._examples(visitor=visitor, invited=invited),
            spared=self._spared(own),
        )

    def _spared(self, own: Sequence[str]) -> Mapping[str, str]:
        kept = [_id(self._keys[name]) for name in (TENANT_ADMINISTRATOR, TENANT_USER, "good")]
        return {
            self._names["kept"][0]: self._names["spare"][0],
            **dict.fromkeys(kept, _id(self._keys["spare"])),
            **dict.fromkeys(own, str(UUID(int=1))),
            APPLICATION: _SPARE_APPLICATION,
            **dict.fromkeys(("free", "standard", "premium", "notes"), _RETIRABLE),
        }

    def _examples(self, *, visitor: str, invited: str) -> Mapping[str, Mapping[str, Any]]:
        key = self._keys["good"]
        return {
            "POST /oauth/token": {"grant_type": "client_credentials", "client_id": _id(key), "client_secret": key},
            "POST /oauth/authorize": _SIGN_IN | {"email": visitor},
            "POST /oauth/authorize/organisation": _SIGN_IN | {"tenant_id": self._names["changing"][0]},
            "POST /v1/invitations/accept": {"token": invited, "password": PASSWORD},
            "PUT /v1/accounts": _ACCOUNT,
            "POST /v1/usage/amendments": self._amendment(),
            "POST /v1/reactivations": {"tenantId": self._names["suspended"][0]},
            "POST /v1/tier-changes": {"tenantId": self._names["changing"][0], "tier": "premium"},
            "POST /v1/tiers": _TIER | {"name": "new", "rank": 1000},
            "POST /v1/plans": _PLAN | {"name": "new", "rank": 1000},
            "POST /v1/plans/{name}/versions": {"prices": {"USD": "60", "JPY": "9000"}, "charges": [_CHARGE]},
            "POST /v1/payments": {"invoiceId": self._names["invoice"][0], "reference": "a test", **_MONEY},
            "PUT /v1/spending-limits/{tenant_id}": {"action": "alert", **_MONEY},
            "POST /v1/credits": {"tenantId": self._names["kept"][0], "reason": "a test", **_MONEY},
            "POST /v1/products": {"name": "new", "description": "Something new."},
            "POST /v1/products/{name}/versions": {"version": "3.0"},
        }

    def _amendment(self) -> Mapping[str, Any]:
        now = datetime.now(UTC).isoformat()
        body = {"meter": "mail_sends", "time": now, "quantity": "1", "reason": "a test"}
        return {"tenantId": self._names["kept"][0], **body}

    async def _make_tenants(self) -> None:
        """Have tenants onboarded, each for what may become of it."""
        workflows = await asyncio.gather(*(self._onboarded(name) for name in _TENANTS))
        self._names |= {name: [each["tenantId"]] for name, each in zip(_TENANTS, workflows, strict=True)}
        self._names["workflow"] = [each["id"] for each in workflows[:2]]
        gone, suspended = self._names["gone"][0], self._names["suspended"][0]
        await self._completed("/v1/offboardings", tenantId=gone, graceDays=0, reason="a test")
        await self._completed("/v1/suspensions", tenantId=suspended)
        waiting = [*self._names["waiting"], *self._names["waiting too"]]
        self._names["cancellable"] = [await self._waiting(tenant_id) for tenant_id in waiting]

    async def _make_debtor(self) -> None:
        """Have a tenant that owes something: one that pays in advance."""
        await self._publish(_PREPAID, rank=99, paysIn="advance")
        debtor = await self._system.onboard("debtor", tier=_PREPAID, products=NOTES)
        tenant_id = (await self._ended(debtor))["tenantId"]

        async def owes() -> bool:
            found = await self._system.items("/v1/invoices", tenantId=tenant_id)
            self._names["invoice"] = [each["invoiceId"] for each in found if each["amountDue"] not in (None, "0.00")]
            return bool(self._names["invoice"])

        await eventually(owes, within=_BOOKED_SECONDS, describe="an invoice that is booked")

    async def _publish(self, name: str, *, rank: int, **terms: Any) -> None:
        """Publish a plan, and a tier for it that is known at the door."""
        for path, body in (("/v1/plans", _PLAN | terms), ("/v1/tiers", _TIER | {"plan": name})):
            answer = await self._system.client.post(path, json=body | {"name": name, "rank": rank})
            assert answer.status_code == httpx2.codes.CREATED, answer.text
        await tier_is_known(self._system, name)

    async def _publish_spares(self) -> None:
        """Have something in the catalog that no tenant has."""
        for rank, name in enumerate((_SPARE, _RETIRABLE), start=100):
            for path, body in (
                ("/v1/plans", _PLAN | {"name": name, "rank": rank}),
                ("/v1/tiers", _TIER | {"name": name, "rank": rank}),
                ("/v1/products", {"name": name, "description": "Spare."}),
                (f"/v1/products/{name}/versions", {"version": "1.0"}),
            ):
                answer = await self._system.client.post(path, json=body)
                assert answer.status_code == httpx2.codes.CREATED, answer.text

    async def _make_keys(self) -> None:
        kept, spare = self._names["kept"][0], self._names["spare"][0]
        self._keys = {
            TENANT_ADMINISTRATOR: await self._key(kept, Role.TENANT_ADMIN),
            TENANT_USER: await self._key(kept, Role.TENANT_USER),
            "good": await self._key(spare, Role.TENANT_ADMIN),
            "spare": await self._key(spare, Role.TENANT_ADMIN),
        }
        self._names["key"] = [_id(self._keys["spare"])]
        self._names["revocable"] = [_id(await self._key(spare, Role.TENANT_USER)) for _ in range(_SPARES)]

    async def _make_members(self) -> None:
        spare = self._names["spare"][0]
        emails = [f"{number}@people.example" for number in range(_SPARES)]
        self._names["member"] = [await self._reception.join(email, Role.TENANT_USER, spare) for email in emails]

    async def _make_providers(self) -> None:
        """Let tenants have an identity provider of their own: some that stay, and one to try things on."""
        body = {"kind": "oidc", "issuer": self._issuer, "clientId": "tenure", "clientSecret": "a secret"}
        for name in ("kept", "spare", "changing"):
            answer = await self._system.client.put(f"/v1/identity-providers/{self._names[name][0]}", json=body)
            assert answer.status_code == httpx2.codes.OK, answer.text

    async def _limit_spending(self) -> None:
        """Let tenants have a limit: one that stays, and one that may be taken away."""
        for name in ("kept", "spare"):
            path = f"/v1/spending-limits/{self._names[name][0]}"
            answer = await self._system.client.put(path, json={"action": "alert", **_MONEY})
            assert answer.status_code == httpx2.codes.CREATED, answer.text

    async def _waiting(self, tenant_id: str) -> str:
        """Return a workflow that does nothing for a month, so that it can be cancelled or told to go on."""
        workflow = await self._system.order("/v1/offboardings", tenantId=tenant_id, graceDays=30, reason="a test")
        workflow_id: str = workflow["id"]
        return workflow_id

    async def _invited(self) -> str:
        """Return a token that lets somebody accept an invitation."""
        invitation_id = await self._reception.invite(_INVITED, Role.TENANT_USER, self._names["spare"][0])
        pool, token = self._reception.identity, secrets.token_urlsafe(32)

        async def is_sent() -> bool:  # until then the mail would put another token in its place
            sent = "SELECT delivery FROM invitation WHERE invitation_id = $1"
            return bool(await pool.fetchval(sent, invitation_id) == "sent")

        await eventually(is_sent, within=_MAIL_SECONDS, describe="an invitation that was sent")
        digest = hashlib.sha256(token.encode()).digest()
        await pool.execute("UPDATE invitation SET token_hash = $2 WHERE invitation_id = $1", invitation_id, digest)
        return token

    async def _document(self, service: str) -> Mapping[str, Any]:
        answer = await self._system.client.get(f"/services/{service}/openapi.json")
        document: Mapping[str, Any] = answer.json()
        return document

    async def _onboarded(self, customer_name: str) -> Workflow:
        return await self._ended(await self._system.onboard(customer_name, tier="standard", products=NOTES))

    async def _completed(self, path: str, **body: Any) -> Workflow:
        return await self._ended(await self._system.order(path, **body))

    async def _ended(self, workflow: Workflow) -> Workflow:
        ended = await self._system.finished(workflow)
        assert ended["status"] == "completed", ended
        return ended

    async def _key(self, tenant_id: str, role: Role) -> str:
        body = {"name": "A key", "tenantId": tenant_id, "role": role}
        answer = await self._system.client.post("/v1/api-keys", json=body)
        assert answer.status_code == httpx2.codes.CREATED, answer.text
        key: str = answer.json()["key"]
        return key

    async def _operator(self) -> tuple[str, str, str]:
        """Let an operator sign in; return its token, its session and its identity."""
        email = f"root-{secrets.token_hex(4)}@operators.example"
        operator_id = await self._reception.join(email, Role.SYSTEM_ADMIN, None)
        tokens = await self._reception.sign_in(email)
        return tokens.access, tokens.session_id, operator_id

    async def _visitor(self) -> str:
        """Let somebody sign in whose sessions nobody needs, and return the address."""
        email = f"visitor-{secrets.token_hex(4)}@operators.example"
        await self._reception.join(email, Role.CUSTOMER_SUPPORT, None)
        for _ in range(_SPARES):
            await self._reception.sign_in(email)
        return email

    async def _known(self, credentials: Mapping[str, str]) -> None:
        """Wait until every service knows who is good."""
        lists = ("/v1/users/me", "/v1/tenants", "/v1/invoices", "/v1/meters", "/v1/environments", "/v1/workflows")

        async def are_known() -> bool:
            answers = [
                await self._system.client.get(path, headers={"Authorization": f"Bearer {credential}"})
                for path in lists
                for credential in credentials.values()
            ]
            return all(answer.status_code != httpx2.codes.UNAUTHORIZED for answer in answers)

        await eventually(are_known, describe="credentials that all services know")

    async def _words(self) -> Mapping[str, Sequence[str]]:
        """Return what exists by the places where it is named."""
        names = self._names
        tenants = [*names["spare"], *names["spare too"], *names["kept"]]
        emails = ["new@people.example", *await self._values("/v1/users", "email")]
        return {
            **_everywhere(("tenant_id", "tenantId", "accountId"), tenants),
            **_everywhere(("customerName", "tenantName"), ["spare", "spare too"]),
            **_everywhere(("user_id", "userId"), await self._values("/v1/users", "userId")),
            **_everywhere(("email", "login_hint"), emails),
            **_everywhere(("client_id",), [APPLICATION]),
            **_everywhere(("redirect_uri",), [PLACE]),
            "body.issuer": [self._issuer],
            "path.workflow_id": names["workflow"],
            "path.key_id": names["key"],
            "path.invitation_id": await self._values("/v1/invitations", "invitationId"),
            "path.session_id": await self._values("/v1/sessions", "sessionId"),
            "path.environment_id": await self._values("/v1/environments", "environmentId"),
            "path.export_id": await self._values("/v1/exports", "exportId"),
            **dict.fromkeys(("path.invoice_id", "body.invoiceId"), names["invoice"]),
            **{f"POST /v1/{each} body.currency": ["USD"] for each in ("payments", "credits")},
            "path.name": ["standard", "notes"],
            **_GENERAL,
            **self._words_of_operations(),
            **await self._cursors(),
        }

    def _words_of_operations(self) -> Mapping[str, Sequence[str]]:
        """Return what stands for something else where it is put to an end, or changed."""
        names = self._names
        membership, limit = "/v1/users/{user_id}/memberships/{tenant_id}", "/v1/spending-limits/{tenant_id}"
        tier, product = "/v1/tiers/{name}", "/v1/products/{name}"
        retirable = (tier, product, f"{product}/versions/{{version}}")
        return {
            **{f"PATCH {each} path.name": [_SPARE] for each in (tier, product)},
            **{f"POST {each}/versions path.name": [_SPARE] for each in (product, "/v1/plans/{name}")},
            **{f"POST {each}/{do} path.name": [_RETIRABLE] for each in retirable for do in ("retire", "reinstate")},
            **{f"POST {retirable[-1]}/{do} path.version": ["1.0"] for do in ("retire", "reinstate")},
            "POST /v1/suspensions body.tenantId": names["spare too"],
            "POST /v1/offboardings body.tenantId": names["leaving"],
            "POST /v1/offboardings body.customerName": ["leaving"],
            "GET /v1/tenants/{tenant_id}/certificate path.tenant_id": names["gone"],
            "POST /v1/workflows/{workflow_id}/cancel path.workflow_id": names["cancellable"],
            "DELETE /v1/api-keys/{key_id} path.key_id": names["revocable"],
            "DELETE /v1/identity-providers/{tenant_id} path.tenant_id": names["spare"],
            "GET /v1/identity-providers/{tenant_id} path.tenant_id": names["kept"],
            "PUT /v1/identity-providers/{tenant_id}/domains path.tenant_id": names["kept"],
            **{f"{method} {limit} path.tenant_id": names["kept"] for method in ("GET", "PUT")},
            f"DELETE {limit} path.tenant_id": names["spare"],
            "PATCH /v1/users/{user_id} path.user_id": ["me", *names["member"][:1]],
            **{f"{method} {membership} path.user_id": names["member"] for method in ("PUT", "DELETE")},
            **{f"{method} {membership} path.tenant_id": names["spare"] for method in ("PUT", "DELETE")},
        }

    async def _values(self, path: str, field: str) -> list[str]:
        found = [str(each[field]) for each in await self._system.items(path)]
        assert found, f"there is nothing in {path}"
        return found

    async def _cursors(self) -> dict[str, Sequence[str]]:
        """Return a cursor of each list that has more than one item."""
        paths = ("/v1/tenants", "/v1/tiers", "/v1/users", "/v1/workflows", "/v1/plans", "/v1/meters", "/v1/api-keys")
        answers = {path: await self._system.client.get(path, params={"limit": 1}) for path in paths}
        cursors = {path: answer.json()["nextCursor"] for path, answer in answers.items()}
        return {f"GET {path} query.cursor": [cursor] for path, cursor in cursors.items() if cursor is not None}


def _everywhere(names: Iterable[str], words: Sequence[str]) -> dict[str, Sequence[str]]:
    return {f"{place}.{name}": words for name in names for place in ("path", "query", "body")}


def _id(key: str) -> str:
    """Return the id of an API key."""
    return key.split("_")[1]
