"""How people get in at a running system: invited, accepted, and signed in over OAuth as browser and application do."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from shared.postgres import Pool
from shared.testing import eventually
from tests.access.forging import claims_of

APPLICATION = "the-cast"
PLACE = "https://cast.example.org/callback"
PASSWORD = "a rather long password"


@dataclass(frozen=True)
class Tokens:
    """What somebody has who has signed in."""

    access: str
    identity: str
    session_id: str


@dataclass(frozen=True)
class Reception:
    """Lets people in.

    Attributes:
        client: an administrator at the common origin.
        identity: the identity service's own database.
    """

    client: httpx2.AsyncClient
    identity: Pool

    async def open(self) -> None:
        """Register the application that everybody signs in for."""
        answer = await self.client.put(f"/v1/clients/{APPLICATION}", json={"name": "Cast", "redirectUris": [PLACE]})
        assert answer.is_success, answer.text

    async def invite(self, email: str, role: str, tenant_id: str | None) -> str:
        """Invite somebody and return the invitation's id; without a tenant it is an operator."""
        body = {"email": email, "role": role, **({} if tenant_id is None else {"tenantId": tenant_id})}
        answer = await self.client.post("/v1/invitations", json=body)
        assert answer.is_success, answer.text
        invitation_id: str = answer.json()["invitationId"]
        return invitation_id

    async def accept(self, invitation_id: str) -> None:
        """Accept an invitation with the password of everybody here.

        Nobody but the mail knows its token, so another one takes its place; a mail that is being sent may do the same.
        """
        token = secrets.token_urlsafe(32)

        async def is_accepted() -> bool:
            await self.identity.execute(
                "UPDATE invitation SET token_hash = $2, delivery = 'sent' WHERE invitation_id = $1",
                invitation_id,
                hashlib.sha256(token.encode()).digest(),
            )
            body = {"token": token, "password": PASSWORD}
            return (await self.client.post("/v1/invitations/accept", json=body)).is_success

        await eventually(is_accepted, describe="an accepted invitation")

    async def join(self, email: str, role: str, tenant_id: str | None) -> str:
        """Let somebody become a member, or an operator, and return its id."""
        invitation_id = await self.invite(email, role, tenant_id)
        await self.accept(invitation_id)
        return await self.user_of(invitation_id)

    async def user_of(self, invitation_id: str) -> str:
        """Return who is invited."""
        return str(
            await self.identity.fetchval("SELECT user_id FROM invitation WHERE invitation_id = $1", invitation_id)
        )

    async def sign_in(self, email: str) -> Tokens:
        """Sign somebody in."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": APPLICATION,
            "redirect_uri": PLACE,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "scope": "openid read write",
        }
        async with httpx2.AsyncClient(base_url=self.client.base_url, timeout=30, trust_env=False) as browser:
            page = await browser.get("/oauth/authorize", params=asked)
            form = {"email": email, "password": PASSWORD, "form_token": page.cookies["tenure_signin"]}
            answer = await browser.post("/oauth/authorize", data=asked | form)
            assert answer.status_code == httpx2.codes.SEE_OTHER, answer.text
            sent_back = parse_qs(urlsplit(answer.headers["Location"]).query)
            grant = {
                "grant_type": "authorization_code",
                "client_id": APPLICATION,
                "redirect_uri": PLACE,
                "code": sent_back["code"][0],
                "code_verifier": verifier,
            }
            got = await self._token(browser, grant)
        return Tokens(got["access_token"], got["id_token"], claims_of(got["access_token"])["sid"])

    async def exchange(self, key: str) -> str:
        """Return the access token that an API key is good for, as client credentials."""
        grant = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
        token: str = (await self._token(self.client, grant))["access_token"]
        return token

    async def _token(self, client: httpx2.AsyncClient, grant: Mapping[str, str]) -> Mapping[str, Any]:
        answer = await client.post("/oauth/token", data=dict(grant))
        assert answer.is_success, answer.text
        got: Mapping[str, Any] = answer.json()
        return got
