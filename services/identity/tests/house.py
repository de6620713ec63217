"""The whole service with a broker in memory, on a clock that tests move, and people who sign in."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx2
import orjson
from cryptography.fernet import Fernet
from joserfc import jws

from services.identity.app import FORM, build
from services.identity.passwords import hash_password
from services.identity.settings import IdentitySettings
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION, Message
from shared.messaging.event import decode
from shared.messaging.topology import Manifest, work_queue_of
from shared.postgres import Pool, open_pool
from shared.service import Ports, Service
from shared.testing.memory_bus import MemoryBroker, MemoryBus

ADMIN_KEY = "a-key-of-the-administrator"
ISSUER = "https://tenure.example.org"
APPLICATION = "shop"
PLACE = "https://shop.example.org/callback"
PASSWORD = "a rather long password"
ENCRYPTION_KEY = Fernet.generate_key().decode()


@dataclass(frozen=True)
class Challenge:
    """What an application keeps to itself until it exchanges the code."""

    verifier: str

    @classmethod
    def new(cls) -> "Challenge":
        return cls(secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass
class House:
    """The service, its database, and a browser that keeps cookies."""

    service: Service
    pool: Pool
    clock: ManualClock
    broker: MemoryBroker
    client: httpx2.AsyncClient
    url: str

    async def user(
        self, email: str, roles: Mapping[str, str], *, password: str | None = PASSWORD, accepted: bool = True
    ) -> UUID:
        """Make a user with a role in each of these tenants, who has accepted the invitations."""
        now = self.clock.now()
        user_id: UUID = await self.pool.fetchval(
            "INSERT INTO users (user_id, email, email_key, created_at) VALUES (gen_random_uuid(), $1, lower($1), $2) "
            "RETURNING user_id",
            email,
            now,
        )
        for tenant_id, role in roles.items():
            await self.pool.execute(
                "INSERT INTO membership (tenant_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)",
                tenant_id, user_id, role, now,
            )  # fmt: skip
            await self.pool.execute(
                "INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, created_at, expires_at, "
                "accepted_at) "
                "VALUES (gen_random_uuid(), $1, $2, $3, sha256('x'), $4, $4::timestamptz + interval '7 d', $5)",
                tenant_id, user_id, role, now, now if accepted else None,
            )  # fmt: skip
        if password is not None:
            await self.pool.execute(
                "INSERT INTO password VALUES ($1, $2, $3)", user_id, await hash_password(password), now
            )
        return user_id

    async def operator(self, email: str, role: str) -> UUID:
        """Make one of those who run the installation."""
        return await self.user(email, {INSTALLATION: role})

    async def register(self) -> None:
        """Register the application."""
        answer = await self.client.put(
            f"/v1/clients/{APPLICATION}",
            json={"name": "The shop", "redirectUris": [PLACE]},
            headers=self.administrator,
        )
        assert answer.status_code in {200, 201}, answer.text

    @property
    def administrator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {ADMIN_KEY}"}

    async def form(self, challenge: Challenge, **more: str) -> dict[str, str]:
        """Open the page and return the fields of its form."""
        asked = {
            "response_type": "code",
            "client_id": APPLICATION,
            "redirect_uri": PLACE,
            "code_challenge": challenge.challenge,
            "code_challenge_method": "S256",
            "state": "where I was",
            **more,
        }
        page = await self.client.get("/oauth/authorize", params=asked)
        assert page.status_code == 200, page.text
        return {**asked, "form_token": page.cookies["tenure_signin"]}

    async def post(self, path: str, form: Mapping[str, str], **more: Any) -> httpx2.Response:
        """Send a form."""
        return await self.client.post(path, data=dict(form), **more)

    async def code(self, email: str, challenge: Challenge, *, password: str = PASSWORD, **more: str) -> str:
        """Sign in and return the code that the application is sent."""
        form = await self.form(challenge, **more)
        answer = await self.post("/oauth/authorize", {**form, "email": email, "password": password})
        assert answer.status_code == 303, answer.text
        return sent(answer)["code"]

    async def exchange(self, code: str, challenge: Challenge, /, **other: str) -> httpx2.Response:
        """Exchange a code."""
        form = {
            "grant_type": "authorization_code",
            "client_id": APPLICATION,
            "redirect_uri": PLACE,
            "code": code,
            "code_verifier": challenge.verifier,
        }
        return await self.post("/oauth/token", {**form, **other})

    async def sign_in(self, email: str, *, password: str = PASSWORD, **more: str) -> dict[str, Any]:
        """Return the tokens of somebody who signs in."""
        challenge = Challenge.new()
        answer = await self.exchange(await self.code(email, challenge, password=password, **more), challenge)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def refresh(self, token: str, **more: str) -> httpx2.Response:
        """Refresh."""
        return await self.post("/oauth/token", {"grant_type": "refresh_token", "refresh_token": token, **more})

    async def get(self, path: str, token: str, **more: Any) -> httpx2.Response:
        """Ask with a token."""
        return await self.client.get(path, headers={"Authorization": f"Bearer {token}"}, **more)

    def told(self, to: str = "billing") -> list[Message]:
        """Return what another service has been told and not yet taken."""
        return [
            decode(event).message
            for message in self.broker.messages(work_queue_of(to))
            for event in orjson.loads(message.body)
        ]


def claims_of(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the access token says of somebody who has signed in."""
    claims: dict[str, Any] = orjson.loads(jws.extract_compact(tokens["access_token"].encode()).payload)
    return claims


def sent(answer: httpx2.Response) -> dict[str, str]:
    """Return the query that somebody is sent back with."""
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def settings_for(url: str, **more: str) -> IdentitySettings:
    return IdentitySettings.from_environment(
        {
            "TENURE_IDENTITY_DATABASE_URL": url,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
            "TENURE_ADMIN_KEY": ADMIN_KEY,
            "TENURE_ISSUER": ISSUER,
            "TENURE_IDENTITY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            **more,
        }
    )


@asynccontextmanager
async def open_house(url: str, clock: ManualClock, **more: str) -> AsyncIterator[House]:
    """Put the service together on a database; nothing runs in the background."""
    broker = MemoryBroker(Manifest.load(), clock)
    pool = await open_pool(url)
    ports = Ports(clock=clock, bus=lambda service: MemoryBus(broker, service))
    try:
        async with (
            build(settings_for(url, **more), ports) as service,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.api), base_url=ISSUER) as client,
        ):
            yield House(service, pool, clock, broker, client, url)
    finally:
        await broker.close()
        await pool.close()


__all__ = ["FORM", "Challenge", "House", "claims_of", "open_house", "sent", "settings_for"]
