"""A provider of a tenant's own that speaks OpenID Connect: the authorization code flow, with PKCE and a nonce.

The provider's people are sent there by their browsers and come back with a code; everything else is between us and the
provider, over TLS. What it says of somebody counts for the tenant that has named it, and for no other.
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

import structlog
from pydantic import TypeAdapter, ValidationError

from services.identity.providers.discovery import Discovery, Metadata
from services.identity.providers.id_tokens import IdTokens, InvalidIdTokenError
from services.identity.providers.network import ProviderClient
from services.identity.providers.port import Proof, ProviderUnavailableError, Recognised, Return
from shared.text import EmailAddress

log = structlog.get_logger(__name__)

SECONDS = 15.0
"""How long it may take to recognise somebody, whatever has to be asked for it."""

_SCOPE = "openid email profile"
_OK = 200
_REFUSALS = range(400, 500)
_UNAUTHORIZED = 401
_OUR_FAULT = frozenset({"invalid_client", "unauthorized_client"})
_BEARER = re.compile(r"[\x21-\x7e]{1,16384}")
_ADDRESS: TypeAdapter[str] = TypeAdapter(EmailAddress)


@dataclass(frozen=True, slots=True)
class OidcRegistration:
    """What a tenant's provider knows us as.

    Attributes:
        issuer: as the provider writes it, to the letter.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)


class OidcProvider:
    """The provider of one tenant.

    Args:
        redirect_uri: where browsers come back to, as it is registered at the provider.
    """

    def __init__(
        self,
        client: ProviderClient,
        discovery: Discovery,
        id_tokens: IdTokens,
        *,
        registration: OidcRegistration,
        redirect_uri: str,
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._id_tokens = id_tokens
        self._registration = registration
        self._redirect_uri = redirect_uri

    async def authorization_url(self, *, state: str, nonce: str, challenge: str, login_hint: str | None = None) -> str:
        """Return where a browser is sent to be recognised.

        Args:
            challenge: of the verifier that comes with what is brought back (RFC 7636, S256).
            login_hint: the address that somebody has typed already.

        Raises:
            ProviderUnavailableError: the provider does not say where that is.
        """
        metadata = await self._discovery.metadata(self._registration.issuer)
        query = {
            "response_type": "code",
            "client_id": self._registration.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": _SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({} if login_hint is None else {"login_hint": login_hint}),
        }
        separator = "&" if "?" in metadata.authorize_url else "?"
        return f"{metadata.authorize_url}{separator}{urlencode(query)}"

    async def recognise(self, proof: Proof) -> Recognised | None:
        """See `port.IdentityProvider.recognise`; the proof is a code, and it is good once whatever comes of it."""
        if not isinstance(proof, Return):
            return None
        try:
            async with asyncio.timeout(SECONDS):
                return await self._recognise(proof)
        except InvalidIdTokenError as error:
            log.warning(
                "what a provider says is not believed", action="id_token_refused", reason=str(error), **self._names
            )
            return None
        except TimeoutError:
            raise ProviderUnavailableError(f"{self._registration.issuer} does not answer in time.") from None

    async def _recognise(self, proof: Return) -> Recognised | None:
        metadata = await self._discovery.metadata(self._registration.issuer)
        tokens = await self._exchange(metadata, proof)
        if tokens is None:
            return None
        claims = await self._id_tokens.verify(
            tokens["id_token"],
            keys_url=metadata.keys_url,
            issuer=self._registration.issuer,
            audience=self._registration.client_id,
            nonce=proof.nonce,
        )
        if claims.get("email") is None and metadata.person_url is not None:
            person = await self._person(metadata.person_url, tokens)
            if person.get("sub") != claims["sub"]:  # somebody else's access token was put in its place (Core, 5.3.2)
                raise InvalidIdTokenError("userinfo is about somebody else")
            claims = {**claims, **person}
        return _recognised(claims)

    async def _exchange(self, metadata: Metadata, proof: Return) -> Mapping[str, Any] | None:
        """Return the tokens for a code (RFC 6749, 4.1.3), None for a code that is not good."""
        form = {
            "grant_type": "authorization_code",
            "code": proof.code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": proof.verifier,
        }
        us = self._registration
        if metadata.takes_basic:
            header = _basic(us.client_id, us.client_secret)
            status, answer = await self._client.post_form(metadata.token_url, form, authorization=header)
        else:
            form |= {"client_id": us.client_id, "client_secret": us.client_secret}
            status, answer = await self._client.post_form(metadata.token_url, form)
        error = answer.get("error")
        if status == _UNAUTHORIZED or (status in _REFUSALS and error in _OUR_FAULT):
            log.warning("a provider does not take us", action="provider_refuses_us", **self._names)
            raise ProviderUnavailableError(f"{us.issuer} does not take the client id with this secret.")
        if status in _REFUSALS and isinstance(error, str):
            return None
        if status != _OK or not isinstance(answer.get("id_token"), str):
            raise self._nonsense("token", status)
        return answer

    async def _person(self, url: str, tokens: Mapping[str, Any]) -> Mapping[str, Any]:
        token = tokens.get("access_token")
        if not isinstance(token, str) or not _BEARER.fullmatch(token):
            raise self._nonsense("token", _OK)
        status, person = await self._client.get_json(url, authorization=f"Bearer {token}")
        if status != _OK:
            raise self._nonsense("userinfo", status)
        return person

    def _nonsense(self, endpoint: str, status: int) -> ProviderUnavailableError:
        issuer = self._registration.issuer
        log.warning(
            "a provider answers something else", action="provider_unavailable", endpoint=endpoint, status=status,
            **self._names,
        )  # fmt: skip
        return ProviderUnavailableError(
            f"The {endpoint} endpoint of {issuer} does not answer as OpenID Connect has it."
        )

    @property
    def _names(self) -> Mapping[str, str]:
        return {"issuer": self._registration.issuer, "client_id": self._registration.client_id}


def _recognised(claims: Mapping[str, Any]) -> Recognised:
    # Not every provider says whether it has verified an address; one that says no is believed.
    if claims.get("email_verified", True) not in (True, "true"):
        raise InvalidIdTokenError("the e-mail address is not verified")
    try:
        return Recognised(claims["sub"], _ADDRESS.validate_python(claims.get("email")))
    except ValidationError:
        raise InvalidIdTokenError("there is no e-mail address, or none that mail can be sent to") from None


def _basic(client_id: str, client_secret: str) -> str:
    """Return a client's credentials as a header: each encoded as in a form first (RFC 6749, 2.3.1)."""
    return "Basic " + b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()).decode()
