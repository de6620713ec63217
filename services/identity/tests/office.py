"""The routes of users, memberships and invitations on a real database, and people of two tenants who use them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import httpx2
import orjson

from services.identity.api import invitations, members, users
from services.identity.changes import Changes
from services.identity.delivery import Delivery, accept_url_of
from services.identity.inviting import Inviting
from services.identity.mail import Mail, MailError
from services.identity.memberships import Memberships
from services.identity.tests.realms import plain_realms
from shared.access import Principal, Role
from shared.access.authenticator import InvalidCredentialError
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION, Decision, Message
from shared.http import create_api
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Outgoing, decode
from shared.postgres import Pool
from shared.service import Kernel

ADMIN_KEY = "a-key-of-the-administrator"
ISSUER = "https://tenure.example.org"
WEEK = timedelta(days=7)
PASSWORD = "a rather long password"


class Postbox:
    """Takes mails and keeps them.

    Attributes:
        mails: those it has taken.
        trouble: what it raises instead, by recipient; ``*`` for all.
    """

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.trouble: dict[str, Exception] = {}

    async def send(self, mail: Mail) -> None:
        if error := self.trouble.get(mail.recipient) or self.trouble.get("*"):
            raise error
        self.mails.append(mail)

    def token(self, recipient: str) -> str:
        """Return the token of the last mail to somebody."""
        link = [mail.link for mail in self.mails if mail.recipient == recipient][-1]
        return link.partition("#token=")[2]


@dataclass
class Office:
    """Everything that the tests need."""

    pool: Pool
    clock: ManualClock
    client: httpx2.AsyncClient
    delivery: Delivery
    postbox: Postbox
    inviting: Inviting
    memberships: Memberships
    _known: dict[str, Principal] = field(default_factory=dict)

    async def of_token(self, text: str) -> Principal:
        if text not in self._known:
            raise InvalidCredentialError("The API key is not known.")
        return self._known[text]

    of_api_key = of_token

    async def member(self, email: str, tenant_id: str, role: str, *, accepted: bool = True) -> UUID:
        """Make somebody a member, who can ask as ``<email>/<tenant>`` from then on, and return the user."""
        now = self.clock.now()
        user_id: UUID = await self.pool.fetchval(
            "INSERT INTO users (user_id, email, email_key, created_at) VALUES ($1, $2, lower($2), $3) "
            "ON CONFLICT (email_key) DO UPDATE SET email = users.email RETURNING user_id",
            TimeOrderedIds().new(),
            email,
            now,
        )
        await self.pool.execute("INSERT INTO membership VALUES ($1, $2, $3, $4)", tenant_id, user_id, role, now)
        await self.pool.execute(
            "INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, delivery, created_at, "
            "expires_at, accepted_at, customer_name) "
            "VALUES ($1, $2, $3, $4, sha256($5), 'sent', $6, $7, $8, $9)",
            TimeOrderedIds().new(),
            tenant_id,
            user_id,
            role,
            f"{email}/{tenant_id}".encode(),
            now,
            now + WEEK,
            now if accepted else None,
            f"Customer {tenant_id}",
        )
        operator = tenant_id == INSTALLATION
        self._known[f"{email}/{tenant_id}"] = Principal(
            id=f"user:{user_id}",
            role=Role(role),
            tenant_id=None if operator else tenant_id,
            user_id=str(user_id),
        )
        return user_id

    def support(self, email: str, tenant_id: str) -> str:
        """Let an operator act in a tenant, and return what it asks with."""
        operator = self._known[f"{email}/{INSTALLATION}"]
        text = f"{email}>{tenant_id}"
        self._known[text] = Principal(
            id=operator.id,
            role=Role.CUSTOMER_SUPPORT,
            tenant_id=tenant_id,
            user_id=operator.user_id,
            reason="They asked.",
        )
        return text

    async def ask(self, who: str, method: str, path: str, **sent: Any) -> httpx2.Response:
        """Ask as somebody."""
        headers = {"Authorization": f"Bearer {who}"} | sent.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **sent)

    async def items(self, who: str, path: str, **query: str) -> list[dict[str, Any]]:
        """Return a list as somebody sees it, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            answer = (await self.ask(who, "GET", path, params=query)).raise_for_status().json()
            found += answer["items"]
            if answer["nextCursor"] is None:
                return found
            query["cursor"] = answer["nextCursor"]

    async def invite(self, who: str, email: str, role: str, **more: str) -> dict[str, Any]:
        """Invite somebody, which must be possible."""
        answer = await self.ask(who, "POST", "/v1/invitations", json={"email": email, "role": role} | more)
        assert answer.status_code in {200, 201}, answer.text
        invitation: dict[str, Any] = answer.json()
        return invitation

    async def deliver(self) -> int:
        """Send what is due now and return how many mails were begun."""
        total = 0
        while begun := await self.delivery.begin():
            await self.delivery.finish()
            total += begun
        return total

    async def accept(self, token: str, **more: str) -> httpx2.Response:
        """Accept an invitation, as anybody."""
        return await self.client.post("/v1/invitations/accept", json={"token": token} | more)

    async def invitation_of(self, tenant_id: str, email: str) -> dict[str, Any]:
        """Return the row of an invitation."""
        row = await self.pool.fetchrow(
            "SELECT invitation.* FROM invitation JOIN users USING (user_id) WHERE tenant_id = $1 AND email = $2",
            tenant_id,
            email,
        )
        assert row is not None
        return dict(row)

    async def members(self, tenant_id: str) -> set[tuple[str, str]]:
        """Return who is what in a tenant."""
        rows = await self.pool.fetch(
            "SELECT email, role FROM membership JOIN users USING (user_id) WHERE tenant_id = $1", tenant_id
        )
        return {(row["email"], row["role"]) for row in rows}

    async def session(self, user_id: UUID, tenant_id: str) -> str:
        """Begin a session and return it."""
        session_id: UUID = await self.pool.fetchval(
            "INSERT INTO session (session_id, user_id, tenant_id, client_id, scope, created_at, refreshed_at, "
            "expires_at) VALUES (gen_random_uuid(), $1, $2, 'shop', 'read', $3, $3, $4) RETURNING session_id",
            user_id,
            tenant_id,
            self.clock.now(),
            self.clock.now() + WEEK,
        )
        return str(session_id)

    async def told(self) -> Sequence[Message]:
        """Return what was told besides decisions, in no order."""
        rows = await self.pool.fetch("SELECT event FROM outbox")
        told = [decode(orjson.loads(row["event"])).message for row in rows]
        return [each for each in told if not isinstance(each, Decision)]


class _Silence:
    """A relay that leaves everything in the outbox."""

    async def send(self, outgoing: Sequence[Outgoing]) -> None:
        pass


@asynccontextmanager
async def open_office(pool: Pool) -> AsyncIterator[Office]:
    """Put the routes together on a database."""
    clock, ids, postbox = ManualClock(), TimeOrderedIds(), Postbox()
    kernel = SimpleNamespace(
        pool=pool,
        dispatch=Dispatch(service="identity", subscriptions={}, clock=clock, ids=ids),
        relay=_Silence(),
        ports=SimpleNamespace(clock=clock, ids=ids),
    )
    changes = Changes(cast("Kernel", kernel))
    realms = plain_realms(pool, clock=clock)
    inviting = Inviting(pool, changes, realms, clock=clock, ids=ids, lifetime=WEEK)
    memberships = Memberships(changes, clock=clock)
    delivery = Delivery(pool, postbox, clock=clock, accept_url=accept_url_of(ISSUER))
    office = Office(pool, clock, cast("httpx2.AsyncClient", None), delivery, postbox, inviting, memberships)
    api = create_api(
        "identity",
        routers=[
            users.routes(pool, changes),
            members.routes(pool, memberships),
            invitations.routes(pool, inviting, clock=clock),
        ],
        admin_key=ADMIN_KEY,
        credentials=office,
        checks={},
        version="1",
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url=ISSUER) as client:
        office.client = client
        yield office


__all__ = ["ADMIN_KEY", "INSTALLATION", "ISSUER", "PASSWORD", "MailError", "Office", "open_office"]
