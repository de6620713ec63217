"""Signing in at a tenant's own provider: sent there, brought back, and let in as whoever it says that this is.

What we have to remember meanwhile is with the browser, encrypted: nobody can fill our tables by setting out, and nobody
can be brought back who has not set out with the same browser.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog
from cryptography.fernet import InvalidToken, MultiFernet
from pydantic import BaseModel, ConfigDict, ValidationError

from services.identity.admitting import Admitting, NotAdmittedError
from services.identity.oauth import challenge_of
from services.identity.providers.port import ProviderUnavailableError, Return
from services.identity.providers.realms import Realms
from services.identity.signin import Known, unavailable
from shared.clock import Clock
from shared.http import Problem

log = structlog.get_logger(__name__)

WAY = timedelta(minutes=10)
"""How long somebody may be at the provider."""

_LONGEST_COOKIE = 3800
"""What browsers keep, name and attributes included, is 4096 bytes (RFC 6265, 6.1)."""


@dataclass(frozen=True)
class Departure:
    """Somebody is sent to its provider.

    Attributes:
        url: where to.
        sealed: what its browser keeps until it is back.
    """

    url: str
    sealed: str


@dataclass(frozen=True)
class Homecoming:
    """Somebody is back.

    Attributes:
        asked: what the application had sent it here with.
        known: None where the provider did not recognise it, or we do not let it in.
        detail: why not.
    """

    asked: Mapping[str, str]
    known: Known | None
    detail: str = ""


class _Errand(BaseModel):
    """What somebody's browser keeps for us."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str
    state: str
    nonce: str
    verifier: str
    asked: dict[str, str]


class Federation:
    """Sends people to their tenants' providers and takes them back."""

    def __init__(self, realms: Realms, admitting: Admitting, *, vault: MultiFernet, clock: Clock) -> None:
        self._realms = realms
        self._admitting = admitting
        self._vault = vault
        self._clock = clock

    async def depart(self, tenant_id: str, asked: Mapping[str, str], *, email: str | None) -> Departure:
        """Send somebody to a tenant's provider.

        Args:
            asked: what the application has sent it here with.
            email: its address, if it has said so, for the provider's form.

        Raises:
            Problem: 400 where the application has sent too much along, 404 where the tenant has no provider of its
                own, 503 where that does not answer.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        try:
            organisation = await self._realms.organisation(tenant_id)
            url = await organisation.provider.authorization_url(
                state=state, nonce=nonce, challenge=challenge_of(verifier), login_hint=email
            )
        except ProviderUnavailableError as error:
            raise unavailable(error, tenant_id) from error
        errand = _Errand(tenant_id=tenant_id, state=state, nonce=nonce, verifier=verifier, asked=dict(asked))
        return Departure(url, self._seal(errand))

    async def come_back(self, tenant_id: str, sealed: str, brought: Mapping[str, str]) -> Homecoming:
        """Take somebody back whom a tenant's provider has sent.

        Args:
            sealed: what its browser has kept.
            brought: the query that it is sent with: ``state``, and ``code`` or ``error``.

        Raises:
            Problem: 403 for somebody who has not set out from here with this browser, 503 where the provider does not
                answer.
        """
        errand = self._unseal(sealed)
        is_same = hmac.compare_digest(errand.state.encode(), brought.get("state", "").encode())
        if errand.tenant_id != tenant_id or not is_same:
            raise _not_from_here()
        if "code" not in brought:
            log.info(
                "provider refused", action="provider_refused", realm=tenant_id, error=brought.get("error", "")[:100]
            )
            return Homecoming(errand.asked, None, "The organisation's identity provider has not let the user in.")
        proof = Return(brought["code"], errand.verifier, errand.nonce)
        try:
            organisation = await self._realms.organisation(tenant_id)
            recognised = await organisation.provider.recognise(proof)
        except ProviderUnavailableError as error:
            raise unavailable(error, tenant_id) from error
        if recognised is None:
            return Homecoming(errand.asked, None, "The organisation's identity provider does not know the user.")
        try:
            user_id = await self._admitting.admit(organisation.row, recognised)
        except NotAdmittedError as error:
            log.info("not admitted", action="not_admitted", realm=tenant_id, reason=str(error))
            return Homecoming(errand.asked, None, str(error))
        return Homecoming(errand.asked, Known(user_id, recognised.email, tenant_id))

    def _seal(self, errand: _Errand) -> str:
        now = int(self._clock.now().timestamp())
        sealed = self._vault.encrypt_at_time(errand.model_dump_json().encode(), now).decode()
        if len(sealed) > _LONGEST_COOKIE:
            detail = "The application has sent too much along for a sign-in elsewhere: shorten `state`."
            raise Problem(400, code="state_too_long", detail=detail)
        return sealed

    def _unseal(self, sealed: str) -> _Errand:
        now = int(self._clock.now().timestamp())
        try:
            opened = self._vault.decrypt_at_time(sealed.encode(), int(WAY.total_seconds()), now)
            return _Errand.model_validate_json(opened)
        except (InvalidToken, ValidationError):
            raise _not_from_here() from None


def _not_from_here() -> Problem:
    detail = "This sign-in has not begun in this browser, or too long ago. Go back to the application and try again."
    return Problem(403, code="foreign_sign_in", detail=detail)
