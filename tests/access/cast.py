"""Two tenants with everything that a tenant can have, and everybody who may ask for it, let in or not."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
from cryptography.fernet import Fernet

from deploy.local.stack import Stack
from deploy.logins import ENCRYPTION_KEYS
from shared.access import Role, api_keys
from shared.access.tokens import SKEW
from shared.http.authorization import Rule
from shared.postgres import Pool, open_pool
from shared.testing import eventually
from tests.access.cells import Aim, Credential, Judge, ask, bearer
from tests.access.forging import Signer, claims_of, forged
from tests.access.people import Reception
from tests.access.routes import SPARE_PRODUCT, SPARE_VERSION, Owner, Route, kinds_of, routes_of
from tests.system import System, Workflow

NOTES = [{"name": "notes", "version": "1.0"}]
OTHER_NOTES = [{"name": "notes", "version": "2.0"}]

_IDENTITY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KNOWN_SECONDS = 20.0
_SHORT_SECONDS = 30.0


@dataclass(frozen=True)
class Tenant:
    """A tenant with a bit of everything.

    Attributes:
        canary: a part of every text that is its own.
        owner: what can be named of it.
        early: the token of an administrator who has signed in before the tenant was suspended.
        admin: the token of an administrator.
        user: the token of a user.
        key: an API key of an administrator.
    """

    canary: str
    owner: Owner
    early: str
    admin: str
    user: str
    key: str

    @property
    def id(self) -> str:
        """Its identity."""
        return self.owner.things["tenant"]


@dataclass(frozen=True)
class Cast:
    """Everybody, and what they have.

    Attributes:
        client: nobody at the common origin, until a request says otherwise.
        a: the tenant whose members ask.
        b: the one that they must not notice.
        owners: whose things are asked for.
        throwaway: whose things operators ask for, and may change.
        marks: what tells of a tenant and nobody else, in lower case, by the tenant's id.
    """

    system: System
    client: httpx2.AsyncClient
    reception: Reception
    routes: Sequence[Route]
    a: Tenant
    b: Tenant
    owners: Mapping[Aim, Owner]
    throwaway: Mapping[Aim, Owner]
    credentials: Sequence[Credential]
    marks: Mapping[str, frozenset[str]]

    @property
    def judge(self) -> Judge:
        """Who says what is wrong."""
        return Judge(self.a.id, self.marks[self.a.id], self.marks[self.b.id])

    def credential(self, name: str) -> Credential:
        """Return one of the credentials."""
        return next(each for each in self.credentials if each.name == name)


@asynccontextmanager
async def assembled(system: System, stack: Stack) -> AsyncIterator[Cast]:
    """Have everybody come, by the interfaces that everybody uses wherever there are any."""
    async with AsyncExitStack() as exits:
        pools = {
            name: await exits.enter_async_context(_pool(stack.environment[name][f"TENURE_{name.upper()}_DATABASE_URL"]))
            for name in ("identity", "billing", "provisioning")
        }
        reception = Reception(system.client, pools["identity"])
        await reception.open()
        nobody = httpx2.AsyncClient(base_url=system.client.base_url, timeout=60, trust_env=False)
        client = await exits.enter_async_context(nobody)
        yield await _Stage(system, stack, client, reception, pools).set_up()


@asynccontextmanager
async def _pool(url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(url)
    try:
        yield pool
    finally:
        await pool.close()


class _Stage:
    """Sets the scene."""

    def __init__(
        self,
        system: System,
        stack: Stack,
        client: httpx2.AsyncClient,
        reception: Reception,
        pools: Mapping[str, Pool],
    ) -> None:
        self.system = system
        self.stack = stack
        self.client = client
        self.reception = reception
        self.pools = pools
        self.routes = routes_of(system.services.values())

    async def set_up(self) -> Cast:
        expired = await self._expired()
        await self._publish_spares()
        (a, b, c, d), lost, operators = await asyncio.gather(
            asyncio.gather(*(self._tenant(letter) for letter in "abcd")),
            asyncio.gather(self._suspended(), self._gone()),
            self._operators(),
        )
        suspended, (gone, left_behind) = lost
        await asyncio.gather(*(self._leave_papers(each, left_behind) for each in (a, b, c, d)))
        for each in (a, b, c, d):
            each.owner.spares["GET /v1/tenants/{tenant_id}/certificate", "tenant"] = left_behind
        signer = await self._signer()
        good = [*operators, *await self._of_tenant(a, operators[-1])]
        good = [each for each in good if each.name != "support that visits"]
        bad = await self._bad(a, operators, signer, b, [*expired, *suspended, *gone])
        absent = Owner("nobody", {kind: _unlike(thing, b.canary) for kind, thing in b.owner.things.items()})
        await asyncio.gather(*(self._spare(each, is_tenant=False) for each in (a.owner,)))
        await asyncio.gather(*(self._spare(each, is_tenant=True) for each in (c.owner, d.owner)))
        self._spare_nothing(absent)
        await self._all_know(good, bad)
        marks = {each.id: await self._marks(each) for each in (a, b)}
        return Cast(
            self.system, self.client, self.reception, self.routes, a, b,
            owners={"own": a.owner, "other": b.owner, "absent": absent},
            throwaway={"own": c.owner, "other": d.owner, "absent": absent},
            credentials=[*good, *bad],
            marks={a.id: marks[a.id] - marks[b.id], b.id: marks[b.id] - marks[a.id]},
        )  # fmt: skip

    # Tenants

    async def _tenant(self, letter: str) -> Tenant:
        canary = f"canary-{letter}-{secrets.token_hex(4)}"
        workflow = await self._onboarded(canary)
        tenant_id = workflow["tenantId"]
        admin, user, early = (f"{who}-{canary}@people.example" for who in ("admin", "user", "early"))
        admin_id, _, _ = await asyncio.gather(
            self.reception.join(admin, Role.TENANT_ADMIN, tenant_id),
            self.reception.join(user, Role.TENANT_USER, tenant_id),
            self.reception.join(early, Role.TENANT_ADMIN, tenant_id),
        )
        early_token = (await self.reception.sign_in(early)).access
        await self._done("/v1/suspensions", tenantId=tenant_id, reason=f"because of {canary}")
        await self._done("/v1/reactivations", tenantId=tenant_id, reason=f"no more {canary}")
        await self._done("/v1/product-changes", tenantId=tenant_id, products=OTHER_NOTES)
        admin_tokens, user_tokens = await asyncio.gather(self.reception.sign_in(admin), self.reception.sign_in(user))
        await self._called(admin_tokens.access, canary)
        key = await self._key(admin_tokens.access, name=f"Key of {canary}", role=Role.TENANT_ADMIN)
        await self._provider(tenant_id, canary)
        things = {
            "tenant": tenant_id,
            "customer": workflow["customerName"],
            "email": admin,
            "user": admin_id,
            "invitation": await self.reception.invite(f"open-{canary}@people.example", Role.TENANT_USER, tenant_id),
            "key": key.split("_")[1],
            "session": admin_tokens.session_id,
            "workflow": workflow["id"],
            "environment": await self._environment(tenant_id),
            "export": str(uuid4()),
            "invoice": str(uuid4()),
            "client": f"client-{canary}",
            "organisation": tenant_id,
        }
        return Tenant(canary, Owner(letter, things), early_token, admin_tokens.access, user_tokens.access, key)

    async def _environment(self, tenant_id: str) -> str:
        answer = await self.system.client.get("/v1/environments", params={"tenantId": tenant_id})
        (environment,) = answer.json()["items"]
        return str(environment["environmentId"])

    async def _onboarded(self, canary: str) -> Workflow:
        """Onboard a customer whose every text tells whose it is."""
        workflow = await self.system.onboard(
            f"Customer {canary}",
            adminEmails=[f"first-{canary}@people.example"],
            tier="standard",
            products=NOTES,
            address=f"{canary} Street 1",
            billingAddress=f"{canary} Street 2",
            tags={f"tag-{canary}": f"tagged {canary}"},
            attributes={f"attribute-{canary}": f"attributed {canary}"},
        )
        return await self._completed(workflow)

    async def _suspended(self) -> list[Credential]:
        """Return what members of a suspended tenant have."""
        workflow = await self._onboarded(f"canary-s-{secrets.token_hex(4)}")
        held = await self._holdings(workflow["tenantId"], "suspended")
        await self._done("/v1/suspensions", tenantId=workflow["tenantId"])
        return held

    async def _gone(self) -> tuple[list[Credential], str]:
        """Return what members of a tenant have that was off-boarded, and the tenant."""
        workflow = await self._onboarded(f"canary-g-{secrets.token_hex(4)}")
        held = await self._holdings(workflow["tenantId"], "gone")
        await self._done("/v1/offboardings", tenantId=workflow["tenantId"], graceDays=0, reason="it wants to go")
        return held, workflow["tenantId"]

    async def _holdings(self, tenant_id: str, fate: str) -> list[Credential]:
        email = f"admin-{tenant_id}@people.example"
        await self.reception.join(email, Role.TENANT_ADMIN, tenant_id)
        token = (await self.reception.sign_in(email)).access
        key = await self._key(token, name="A key", role=Role.TENANT_ADMIN)
        return [
            bearer(f"a token of a {fate} tenant", token),
            bearer(f"an API key of a {fate} tenant", key),
            bearer(f"a token for an API key of a {fate} tenant", await self.reception.exchange(key)),
        ]

    async def _leave_papers(self, tenant: Tenant, left_by: str) -> None:
        """Give a tenant copies of what only an off-boarding leaves, mails as only Amazon tells of them, and a limit."""
        things = tenant.owner.things
        await self.pools["provisioning"].execute(
            """
            WITH sending AS (
                INSERT INTO mail_sending (tenant_id, paused_at, reason, grounds)
                VALUES ($1, now(), 'bounce_rate', '{"sends": 9, "bounces": 9, "complaints": 0}')
            )
            INSERT INTO mail_count (tenant_id, hour, event, count, judged, told)
            VALUES ($1, date_trunc('hour', now(), 'UTC'), 'permanent_bounce', 9, 9, 9)
            """,
            things["tenant"],
        )
        await self.pools["provisioning"].execute(
            """
            WITH kept AS (
                INSERT INTO export (export_id, tenant_id, created_at, expires_at, rows, bytes, sha256)
                SELECT $2, $3, created_at, expires_at, rows, bytes, sha256 FROM export WHERE tenant_id = $1
            )
            INSERT INTO export_chunk (export_id, number, content)
            SELECT $2, number, content FROM export_chunk JOIN export USING (export_id) WHERE tenant_id = $1
            """,
            left_by, things["export"], things["tenant"],
        )  # fmt: skip
        await self.pools["billing"].execute(
            """
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, currency, state, total, drafted_at, issued_at)
            SELECT $2, $3, $4, currency, state, total, drafted_at, issued_at FROM invoice WHERE tenant_id = $1
            """,
            left_by, things["invoice"], things["tenant"], things["customer"],
        )  # fmt: skip
        await self.pools["billing"].execute(
            "INSERT INTO spending_limit (tenant_id, amount, action) VALUES ($1, 1000, 'alert')", things["tenant"]
        )
        await eventually(self._are_invoices_booked, describe="invoices that are booked")

    async def _are_invoices_booked(self) -> bool:
        last = "SELECT last >= (SELECT max(number) FROM invoice) FROM booking"
        return bool(await self.pools["billing"].fetchval(last))

    async def _done(self, path: str, **body: Any) -> Workflow:
        return await self._completed(await self.system.order(path, **body))

    async def _completed(self, workflow: Workflow) -> Workflow:
        ended = await self.system.finished(workflow)
        assert ended["status"] == "completed", ended
        return ended

    async def _called(self, token: str, name: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "If-Match": "*"}
        answer = await self.system.client.patch("/v1/users/me", json={"name": name}, headers=headers)
        assert answer.is_success, answer.text

    async def _key(self, credential: str | None, **body: Any) -> str:
        """Make an API key by somebody's token, or as the administrator of the installation."""
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}

        answers: list[httpx2.Response] = []

        async def is_there() -> bool:  # a tenant that was let in again a moment ago may not be known as such yet
            answers.append(await self.system.client.post("/v1/api-keys", json=body, headers=headers))
            return answers[-1].status_code == httpx2.codes.CREATED

        await eventually(is_there, describe=lambda: f"a key, but {answers[-1].text}")
        key: str = answers[-1].json()["key"]
        return key

    # Credentials

    async def _operators(self) -> list[Credential]:
        emails = {who: f"{who}-{secrets.token_hex(4)}@operators.example" for who in ("root", "support", "visitor")}
        await asyncio.gather(
            self.reception.join(emails["root"], Role.SYSTEM_ADMIN, None),
            self.reception.join(emails["support"], Role.CUSTOMER_SUPPORT, None),
            self.reception.join(emails["visitor"], Role.CUSTOMER_SUPPORT, None),
        )
        root, support, visitor = [(await self.reception.sign_in(email)).access for email in emails.values()]
        key = await self._key(None, name="An operator's", role=Role.SYSTEM_ADMIN)
        return [
            bearer("the key of the installation", self.stack.admin_key, Role.SYSTEM_ADMIN),
            bearer("a system administrator", root, Role.SYSTEM_ADMIN),
            bearer("a system administrator's API key", key, Role.SYSTEM_ADMIN),
            bearer(
                "a token for a system administrator's API key", await self.reception.exchange(key), Role.SYSTEM_ADMIN
            ),
            bearer("support", support, Role.CUSTOMER_SUPPORT),
            bearer("support that visits", visitor, Role.CUSTOMER_SUPPORT),
        ]

    async def _of_tenant(self, tenant: Tenant, visitor: Credential) -> list[Credential]:
        visit = await self.system.client.post(
            "/v1/support-sessions",
            json={"tenantId": tenant.id, "reason": f"called about {tenant.canary}", "minutes": 60},
            headers=visitor.headers,
        )
        assert visit.is_success, visit.text
        read = await self._key(tenant.admin, name=f"Reads for {tenant.canary}", role=Role.TENANT_ADMIN, scopes=["read"])
        user = await self._key(tenant.admin, name=f"Uses {tenant.canary}", role=Role.TENANT_USER)
        reading = Credential(
            "a tenant administrator's API key that reads", f"Bearer {read}", Role.TENANT_ADMIN, tenant.id,
            frozenset({"read"}),
        )  # fmt: skip
        key_token = await self.reception.exchange(tenant.key)
        return [
            bearer("support in the tenant", visit.json()["accessToken"], Role.TENANT_ADMIN, tenant.id),
            bearer("a tenant administrator", tenant.admin, Role.TENANT_ADMIN, tenant.id),
            bearer("a tenant administrator's API key", tenant.key, Role.TENANT_ADMIN, tenant.id),
            bearer("a token for a tenant administrator's API key", key_token, Role.TENANT_ADMIN, tenant.id),
            reading,
            bearer("a tenant user", tenant.user, Role.TENANT_USER, tenant.id),
            bearer("a tenant user's API key", user, Role.TENANT_USER, tenant.id),
        ]

    async def _bad(
        self, tenant: Tenant, operators: Sequence[Credential], signer: Signer, other: Tenant, lost: Sequence[Credential]
    ) -> list[Credential]:
        operator = next(each for each in operators if each.name == "a system administrator")
        assert operator.header is not None
        forgeries = forged(tenant.admin, operator.header.removeprefix("Bearer "), signer, other_tenant_id=other.id)
        admin_key = self.stack.admin_key
        key = api_keys.parse(tenant.key)
        assert key is not None
        return [
            Credential("nothing", None),
            Credential("an empty key", "Bearer"),
            Credential("the right key by another scheme", f"Token {admin_key}"),
            Credential("the right key without a scheme", admin_key),
            bearer("garbage", "garbage"),
            bearer("garbage with dots", "a.b.c"),
            bearer("garbage that is not ASCII", "ätenure.ß.ç"),
            bearer("most of the key of the installation", admin_key[:-1]),
            bearer("an API key with a wrong letter", tenant.key[:-1] + ("a" if tenant.key[-1] != "a" else "b")),
            bearer("an API key with another secret", api_keys.new_key(key.id).text),
            bearer("an API key of nobody", api_keys.new_key(api_keys.new_id()).text),
            *lost,
            *await self._over(tenant),
            *(bearer(what, token) for what, token in forgeries),
        ]

    async def _expired(self) -> list[Credential]:
        """Return what was good until its time was over: an operator's, so that it would open every door."""
        expires_at = self.system.clock.now() + timedelta(seconds=_SHORT_SECONDS)
        key = await self._key(None, name="Expired", role=Role.SYSTEM_ADMIN, expiresAt=expires_at.isoformat())
        token = await self.reception.exchange(key)
        self.system.clock.put_forward(_SHORT_SECONDS + SKEW.total_seconds())
        return [
            bearer("an API key that has expired", key),
            bearer("a token for an API key that has expired", token),
        ]

    async def _over(self, tenant: Tenant) -> list[Credential]:
        """Return what was good once."""
        signed_out, member, less, known = await asyncio.gather(
            *(self._member(tenant, who) for who in ("signed-out", "member", "less", "known"))
        )
        client = self.system.client
        revoked = await self._key(None, name="Revoked", tenantId=tenant.id, role=Role.TENANT_ADMIN)
        of_revoked = await self.reception.exchange(revoked)
        rotated = await self._key(None, name="Rotated", tenantId=tenant.id, role=Role.TENANT_ADMIN)
        membership = f"/v1/users/{{}}/memberships/{tenant.id}"
        for ended in (
            await client.delete(f"/v1/sessions/{claims_of(signed_out[1])['sid']}"),
            await client.delete(membership.format(member[0])),
            await client.put(membership.format(less[0]), json={"role": Role.TENANT_USER}),
            await client.delete(f"/v1/api-keys/{revoked.split('_')[1]}"),
            await client.post(f"/v1/api-keys/{rotated.split('_')[1]}/rotate", json={"overlapSeconds": 0}),
        ):
            assert ended.is_success, ended.text
        return [
            bearer("a token of before a suspension", tenant.early),
            bearer("a token of a session that was ended", signed_out[1]),
            bearer("a token of somebody who is no member any more", member[1]),
            bearer("a token of somebody who was an administrator", less[1]),
            bearer("an ID token", known[2]),
            bearer("an API key that was revoked", revoked),
            bearer("a token for an API key that was revoked", of_revoked),
            bearer("an API key as it was before its rotation", rotated),
        ]

    async def _member(self, tenant: Tenant, who: str) -> tuple[str, str, str]:
        """Return the identity, the access token and the ID token of a new administrator."""
        email = f"{who}-{tenant.canary}@people.example"
        user_id = await self.reception.join(email, Role.TENANT_ADMIN, tenant.id)
        tokens = await self.reception.sign_in(email)
        return user_id, tokens.access, tokens.identity

    async def _signer(self) -> Signer:
        """Return the private key of the installation, as whoever has its database and its secrets could."""
        row = await self.pools["identity"].fetchrow(
            "SELECT private_key FROM signing_key WHERE active_at <= now() ORDER BY active_at DESC LIMIT 1"
        )
        assert row is not None
        secret = self.stack.environment["identity"][ENCRYPTION_KEYS].split(",")[0]
        return Signer.of(json.loads(Fernet(secret).decrypt(row["private_key"])))

    async def _all_know(self, good: Iterable[Credential], bad: Iterable[Credential]) -> None:
        """Wait until each service knows who is good and who is good no more."""
        probes = {
            route.service: route
            for route in reversed(self.routes)
            if route.method == "GET"
            and isinstance(route.rule, Rule)
            and not any(p.is_required for p in route.parameters)
        }
        unknown: list[str] = []

        async def is_known() -> bool:
            unknown[:] = [
                f"{credential.name} at {service}"
                for service, route in probes.items()
                for credential in (*good, *bad)
                if credential.is_good != await self._lets_in(route, credential)
            ]
            return not unknown

        await eventually(
            is_known, within=_KNOWN_SECONDS, describe=lambda: f"let in, or turned away, as it should be: {unknown}"
        )

    async def _lets_in(self, route: Route, credential: Credential) -> bool:
        answer = await ask(self.client, route.request(Owner("nobody", _NOTHING)), credential)
        return answer.status != httpx2.codes.UNAUTHORIZED

    # Things that may be destroyed

    async def _spare(self, owner: Owner, *, is_tenant: bool) -> None:
        """Give each route that writes things of its own to destroy.

        Args:
            is_tenant: whether whole tenants too.
        """
        writing = [route for route in self.routes if route.is_writing and isinstance(route.rule, Rule)]
        await asyncio.gather(*(self._spare_for(route, owner, is_tenant=is_tenant) for route in writing))

    async def _spare_for(self, route: Route, owner: Owner, *, is_tenant: bool) -> None:
        kinds = kinds_of(route)
        spares: dict[str, str] = {}
        if is_tenant and "tenant" in kinds and route.service == "onboarding":
            workflow = await self._onboarded(f"canary-t-{secrets.token_hex(4)}")
            spares |= {"tenant": workflow["tenantId"], "customer": workflow["customerName"]}
        tenant_id = spares.get("tenant", owner.things["tenant"])
        if kinds & {"user", "invitation"}:
            email = f"spare-{secrets.token_hex(8)}@people.example"
            spares["invitation"] = await self.reception.invite(email, Role.TENANT_USER, tenant_id)
            spares["user"] = await self.reception.user_of(spares["invitation"])
        if "email" in kinds:
            spares["email"] = f"new-{secrets.token_hex(8)}@people.example"
        if "key" in kinds:
            spares["key"] = (await self._key(None, name="Spare", tenantId=tenant_id)).split("_")[1]
        if is_tenant and "organisation" in kinds:
            canary = f"canary-t-{secrets.token_hex(4)}"
            spares["organisation"] = (await self._onboarded(canary))["tenantId"]
            await self._provider(spares["organisation"], canary)
        if "session" in kinds:
            spares["session"] = await self._session(tenant_id, owner.things["user"])
        if "client" in kinds:
            spares["client"] = f"client-canary-t-{secrets.token_hex(4)}"
            body = {"name": "Spare", "redirectUris": ["https://spare.example.org/callback"]}
            assert (await self.system.client.put(f"/v1/clients/{spares['client']}", json=body)).is_success
        owner.spares.update({(route.name, kind): spare for kind, spare in spares.items()})

    async def _provider(self, tenant_id: str, canary: str) -> None:
        """Have a tenant with an identity provider of its own, whose every text tells whose it is."""
        await self.pools["identity"].execute(
            """
            WITH made AS (
                INSERT INTO identity_provider (tenant_id, kind, is_required, admits, issuer, client_id, client_secret,
                                               changed_at)
                VALUES ($1, 'oidc', false, 'members', 'https://' || $2 || '.example', $2, 'secret', now())
            )
            INSERT INTO identity_provider_domain (domain, tenant_id) VALUES ($2 || '.example', $1)
            """,
            tenant_id, canary,
        )  # fmt: skip

    async def _session(self, tenant_id: str, user_id: str) -> str:
        session_id = str(uuid4())
        await self.pools["identity"].execute(
            """
            INSERT INTO session (session_id, user_id, tenant_id, client_id, scope, created_at, refreshed_at, expires_at)
            SELECT $1, $2, $3, 'spare', 'read', now(), now(), now() + interval '1 day'
            """,
            session_id, user_id, tenant_id,
        )  # fmt: skip
        return session_id

    async def _publish_spares(self) -> None:
        """Have something in the catalog that may be retired."""
        for path, body in (
            ("/v1/products", {"name": SPARE_PRODUCT, "description": "Spare."}),
            (f"/v1/products/{SPARE_PRODUCT}/versions", {"version": SPARE_VERSION}),
        ):
            answer = await self.system.client.post(path, json=body)
            assert answer.is_success, answer.text

    def _spare_nothing(self, absent: Owner) -> None:
        """See that what one route makes under a made-up name is not there for the others."""
        for route in self.routes:
            if route.is_writing:
                for kind in ("customer", "email", "client"):
                    absent.spares[route.name, kind] = _varied(absent.things[kind])

    async def _marks(self, tenant: Tenant) -> frozenset[str]:
        """Return all that an answer could tell a tenant by."""
        found = {tenant.canary, *tenant.owner.things.values()}
        administrator = bearer("the administrator", self.stack.admin_key, Role.SYSTEM_ADMIN)
        for route in self.routes:
            if route.is_list and any(each.name == "tenantId" for each in route.parameters):
                answer = await ask(self.client, route.request(tenant.owner), administrator)
                found.update(_IDENTITY.findall(answer.body.decode()))
        return frozenset(each.lower() for each in found)


_NOTHING = dict.fromkeys(("tenant", "customer", "email", "user", "workflow"), "nothing")


def _unlike(thing: str, canary: str) -> str:
    """Return something of the same form and length that is nobody's."""
    if _IDENTITY.fullmatch(thing):
        return str(uuid4())
    if canary in thing:
        return thing.replace(canary, f"canary-x-{secrets.token_hex(4)}")
    return api_keys.new_id()


def _varied(thing: str) -> str:
    return re.sub(r"[0-9a-f]{8}", lambda _: secrets.token_hex(4), thing, count=1)
