"""The whole service, an OpenID provider of a tenant's own, and a browser that goes from one to the other and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from services.identity.tests.house import APPLICATION, PLACE, Challenge, House, open_house, sent
from services.identity.tests.oidc_kit import OidcServer
from shared.clock import ManualClock

TENANT = "acme"
DOMAIN = "acme.example"
SECRET = "what the provider knows us by"


@dataclass
class Organisation:
    """A tenant whose people sign in at a server of its own.

    Attributes:
        browser: what goes to the provider; the service's own client keeps the service's cookies.
    """

    house: House
    server: OidcServer
    browser: httpx2.AsyncClient

    async def token(self, email: str, **more: str) -> dict[str, str]:
        """Return the header of somebody who signs in with a password of ours."""
        tokens = await self.house.sign_in(email, **more)
        return {"Authorization": f"Bearer {tokens['access_token']}"}

    async def put(self, asker: dict[str, str] | None = None, *, tenant: str = TENANT, **more: Any) -> httpx2.Response:
        """Register the provider."""
        body = {"kind": "oidc", "issuer": self.server.issuer, "clientId": "tenure", "clientSecret": SECRET, **more}
        return await self.house.client.put(
            f"/v1/identity-providers/{tenant}", json=body, headers=asker or self.house.administrator
        )

    async def set_domains(self, *domains: str, tenant: str = TENANT) -> httpx2.Response:
        """Say whose addresses it may speak for."""
        return await self.house.client.put(
            f"/v1/identity-providers/{tenant}/domains",
            json={"domains": domains},
            headers=self.house.administrator,
        )

    async def set_up(self, *, tenant: str = TENANT, domain: str = DOMAIN, **more: Any) -> None:
        """Do both."""
        assert (answer := await self.put(tenant=tenant, **more)).status_code == 200, answer.text
        assert (answer := await self.set_domains(domain, tenant=tenant)).status_code == 200, answer.text

    async def leave(self, challenge: Challenge, *, email: str = f"anna@{DOMAIN}", **more: str) -> httpx2.Response:
        """Ask on the page for the organisation's sign-in, and return the answer that leads there."""
        form = await self.house.form(challenge, **more)
        return await self.house.post("/oauth/authorize/organisation", {**form, "email": email})

    async def recognised(self, departure: httpx2.Response, subject: str) -> str:
        """Go to the provider, say there who one is, and return where it sends the browser."""
        assert departure.status_code == 303, departure.text
        url = departure.headers["Location"]
        assert (await self.browser.get(url)).status_code == 200
        answer = await self.browser.post(url, data={"sub": subject})
        place: str = answer.headers["Location"]
        return place

    async def come_back(self, place: str) -> httpx2.Response:
        """Go where the provider has sent the browser."""
        parts = urlsplit(place)
        return await self.house.client.get(f"{parts.path}?{parts.query}")

    async def visit(self, subject: str, challenge: Challenge | None = None, **more: str) -> httpx2.Response:
        """Go all the way, and return the answer that leads back to the application."""
        departure = await self.leave(challenge or Challenge.new(), **more)
        return await self.come_back(await self.recognised(departure, subject))

    async def sign_in(self, subject: str, **more: str) -> dict[str, Any]:
        """Return the tokens of somebody who signs in at the organisation's provider."""
        challenge = Challenge.new()
        answer = await self.visit(subject, challenge, **more)
        assert answer.status_code == 303, answer.text
        exchanged = await self.house.exchange(sent(answer)["code"], challenge)
        assert exchanged.status_code == 200, exchanged.text
        tokens: dict[str, Any] = exchanged.json()
        return tokens


@asynccontextmanager
async def open_organisation(url: str) -> AsyncIterator[Organisation]:
    """Put the service and a provider side by side; the provider goes by the machine's own time."""
    networks = {"TENURE_IDENTITY_PROVIDER_NETWORKS": "127.0.0.0/8,::1/128"}
    with OidcServer().running() as server:
        async with (
            open_house(url, ManualClock(datetime.now(UTC)), **networks) as house,
            httpx2.AsyncClient(trust_env=False, timeout=5) as browser,
        ):
            await house.register()
            yield Organisation(house, server, browser)


def query_of(url: str) -> dict[str, str]:
    """Return what a URL carries."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


__all__ = ["APPLICATION", "PLACE", "Organisation", "open_organisation", "query_of"]
