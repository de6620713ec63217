"""Who may do what while processes come and go: from the mail to every service, and on without identity."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from shared.testing import eventually
from tests.chaos.conftest import Report
from tests.chaos.harness import System

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

PASSWORD = "a rather long password"
APPLICATION, PLACE = "console", "http://127.0.0.1/callback"
SUSPENDED_SECONDS = 5.0
AWAY_SECONDS = 60.0
READS = {
    "onboarding": "/v1/workflows",
    "tenant": "/v1/tenants/{tenant_id}",
    "billing": "/v1/subscriptions",
    "metrics": "/v1/quotas?tenantId={tenant_id}",
    "provisioning": "/v1/environments",
    "identity": "/v1/users",
}
"""What a tenant's administrator may read at each service."""


@dataclass
class Member:
    """A tenant's administrator, with what it got by signing in, and a key."""

    tenant_id: str
    email: str
    access: str = ""
    refresh: str = ""
    key: str = ""


class Installation:
    """The system as people use it, each service at its own port."""

    def __init__(self, system: System, client: httpx2.AsyncClient, admin_key: str) -> None:
        self.system = system
        self._client = client
        self.last: list[Mapping[str, int]] = []
        self._admin = {"Authorization": f"Bearer {admin_key}"}

    async def call(
        self, service: str, method: str, path: str, token: str | None = None, **more: Any
    ) -> httpx2.Response:
        headers = self._admin if token is None else {"Authorization": f"Bearer {token}"}
        url = self.system.processes[service].url + path
        return await self._client.request(method, url, headers=headers, **more)

    async def member(self, customer_name: str) -> Member:
        """Onboard a tenant, accept the invitation that was mailed, and sign in."""
        email = f"{secrets.token_hex(4)}@tenants.example"
        body = {"customerName": customer_name, "adminEmails": [email], "tier": "standard"}
        accepted = await self.call("onboarding", "POST", "/v1/onboardings", json=body)
        workflow = await self.call("onboarding", "GET", f"/v1/workflows/{accepted.json()['id']}?wait=30")
        assert workflow.json()["status"] == "completed", workflow.text
        member = Member(workflow.json()["tenantId"], email)
        token = await self._mailed_token(email)
        answer = await self.call(
            "identity", "POST", "/v1/invitations/accept", json={"token": token, "password": PASSWORD}
        )
        assert answer.status_code == httpx2.codes.OK, answer.text
        await self.sign_in(member)
        key = await self.call(
            "identity", "POST", "/v1/api-keys", member.access, json={"name": "a machine", "role": "TenantAdmin"}
        )
        assert key.status_code == httpx2.codes.CREATED, key.text
        member.key = key.json()["key"]
        return member

    async def _mailed_token(self, email: str) -> str:
        # No JSON: a process that was killed has left half a line.
        shown = re.compile(rf'"mail_logged","recipient":"{re.escape(email)}","link":"[^"]+#token=([^"]+)"')

        def tokens() -> list[str]:
            return shown.findall(self.system.processes["identity"].log.read_text(encoding="utf-8", errors="replace"))

        await eventually(lambda: bool(tokens()), within=30, describe="the mail")
        return str(tokens()[-1])

    async def sign_in(self, member: Member) -> None:
        """Sign in as a browser and an application do."""
        details = {"name": "The console", "redirectUris": [PLACE]}
        registered = await self.call("identity", "PUT", f"/v1/clients/{APPLICATION}", json=details)
        assert registered.is_success, registered.text
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": APPLICATION,
            "redirect_uri": PLACE,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        page = await self.call("identity", "GET", "/oauth/authorize", params=asked)
        form_token = page.cookies["tenure_signin"]
        form = {**asked, "form_token": form_token, "email": member.email, "password": PASSWORD}
        sent = await self.call("identity", "POST", "/oauth/authorize", data=form)
        assert sent.status_code == httpx2.codes.SEE_OTHER, sent.text
        code = parse_qs(urlsplit(sent.headers["Location"]).query)["code"][0]
        grant = {
            "grant_type": "authorization_code",
            "client_id": APPLICATION,
            "redirect_uri": PLACE,
            "code": code,
            "code_verifier": verifier,
        }
        self._keep(member, await self.call("identity", "POST", "/oauth/token", data=grant))

    async def refresh(self, member: Member) -> None:
        """Go on with new tokens."""
        grant = {"grant_type": "refresh_token", "refresh_token": member.refresh}
        self._keep(member, await self.call("identity", "POST", "/oauth/token", data=grant))

    def _keep(self, member: Member, answer: httpx2.Response) -> None:
        assert answer.status_code == httpx2.codes.OK, answer.text
        member.access, member.refresh = answer.json()["access_token"], answer.json()["refresh_token"]

    async def statuses(self, member: Member, token: str, *, but: str = "") -> Mapping[str, int]:
        """Return what each service answers a token or a key."""
        return {
            service: (await self.call(service, "GET", path.format(tenant_id=member.tenant_id), token)).status_code
            for service, path in READS.items()
            if service != but
        }

    async def is_known_everywhere(self, member: Member, *, but: str = "") -> bool:
        """Return whether token and key open every service; they may have to hear of a new one first."""
        self.last = [await self.statuses(member, token, but=but) for token in (member.access, member.key)]
        return all(set(each.values()) == {200} for each in self.last)

    async def known_everywhere(self, member: Member) -> None:
        """Wait until every service has heard of the member's key and of what signed its token."""
        await eventually(lambda: self.is_known_everywhere(member), describe=lambda: f"known, but: {self.last}")


@asynccontextmanager
async def installation_of(system: System) -> AsyncIterator[Installation]:
    async with httpx2.AsyncClient(timeout=20, trust_env=False) as client:
        yield Installation(system, client, system.stack.admin_key)


async def test_from_the_mail_to_every_service_and_out_again_when_suspended(system: System, report: Report) -> None:
    async with installation_of(system) as installation:
        anna, bela = await installation.member("Apart One"), await installation.member("Apart Two")
        await installation.known_everywhere(anna)
        await installation.known_everywhere(bela)
        for service, path in READS.items():
            own = await installation.call(service, "GET", path.format(tenant_id=anna.tenant_id), anna.access)
            assert bela.tenant_id not in own.text
            assert bela.email not in own.text

        order = await installation.call("onboarding", "POST", "/v1/suspensions", json={"tenantId": anna.tenant_id})
        began = time.monotonic()

        async def is_out() -> bool:
            answers = [await installation.statuses(anna, token) for token in (anna.access, anna.key)]
            return all(set(each.values()) == {401} for each in answers)

        await eventually(is_out, within=SUSPENDED_SECONDS, describe="out everywhere")
        report(
            f"token and API key refused by all six {time.monotonic() - began:.2f} s after the suspension was ordered"
        )
        assert await installation.is_known_everywhere(bela)
        ended = await installation.call("onboarding", "GET", f"/v1/workflows/{order.json()['id']}?wait=30")
        assert ended.json()["status"] == "completed"


@pytest.mark.timeout(240)
async def test_everybody_who_is_in_goes_on_while_identity_is_away_for_a_minute(system: System, report: Report) -> None:
    async with installation_of(system) as installation:
        anna = await installation.member("Away One")
        await installation.known_everywhere(anna)

        identity = system.processes["identity"]
        identity.kill()
        began, rounds = time.monotonic(), 0
        while time.monotonic() - began < AWAY_SECONDS:
            assert await installation.is_known_everywhere(anna, but="identity")
            rounds += 1
            await asyncio.sleep(1)
        assert identity.exit_code is not None
        with pytest.raises(httpx2.TransportError):
            await installation.refresh(anna)
        forged = anna.access[:-8] + ("A" * 8)
        assert set((await installation.statuses(anna, forged, but="identity")).values()) == {401}

        await system.mend()
        await installation.refresh(anna)
        assert await installation.is_known_everywhere(anna)
        report(
            f"identity killed for {AWAY_SECONDS:g} s: {rounds} rounds of token and key at five services, none refused"
        )


@pytest.mark.timeout(240)
async def test_no_good_token_is_refused_while_the_signing_key_is_replaced(system: System, report: Report) -> None:
    async with installation_of(system) as installation:
        anna = await installation.member("Rotated One")
        await installation.known_everywhere(anna)
        first = _key_of(anna.access)
        await installation.call("identity", "POST", "/v1/signing-keys/rotate")

        began, seen, calls = time.monotonic(), {first}, 0
        while time.monotonic() - began < 45:
            await installation.refresh(anna)
            seen.add(_key_of(anna.access))
            answers = await installation.statuses(anna, anna.access)
            assert set(answers.values()) == {200}, answers
            calls += len(answers)
            await asyncio.sleep(0.2)
        assert len(seen) == 2
        report(f"{calls} calls with fresh tokens over a change of the signing key, none refused")


def _key_of(token: str) -> str:
    header = token.split(".", maxsplit=1)[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid
