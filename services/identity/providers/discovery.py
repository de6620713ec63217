"""What an OpenID provider says of itself (OpenID Connect Discovery 1.0), and whether we can do with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.identity.providers.id_tokens import ALGORITHMS
from services.identity.providers.network import ProviderClient, check_url
from services.identity.providers.port import ProviderUnavailableError
from services.identity.providers.remembered import Remembered
from shared.clock import Clock

_WELL_KNOWN = "/.well-known/openid-configuration"

_Text = Annotated[str, Field(min_length=1, max_length=2000)]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where a provider is asked.

    Attributes:
        authorize_url: where browsers are sent.
        token_url: where codes are exchanged.
        keys_url: the keys that its ID tokens are signed with.
        person_url: tells more of somebody, for an access token (userinfo); not every provider has it.
        takes_basic: whether a client shows its secret in a header; otherwise in the form.
    """

    issuer: str
    authorize_url: str
    token_url: str
    keys_url: str
    person_url: str | None
    takes_basic: bool


class Discovery:
    """Reads and remembers what providers say of themselves; one for all tenants."""

    def __init__(self, client: ProviderClient, *, clock: Clock) -> None:
        self._client = client
        self._remembered = Remembered(self._read, clock=clock)

    async def metadata(self, issuer: str) -> Metadata:
        """Return what an issuer has said within the last hour.

        Raises:
            ProviderUnavailableError: it says nothing that we can do with; the text is for whoever has named it.
        """
        return await self._remembered.get(issuer)

    async def check(self, issuer: str) -> Metadata:
        """Return what an issuer says now; raises what `metadata` raises."""
        return await self._remembered.get(issuer, younger_than=timedelta(0))

    async def _read(self, issuer: str) -> Metadata:
        if "?" in issuer:
            raise ProviderUnavailableError("An issuer has no query.")
        url = issuer.removesuffix("/") + _WELL_KNOWN
        document = _Document.read(await self._client.get_document(url), url)
        if document.issuer != issuer:
            raise ProviderUnavailableError(f"{url} is of another issuer; the issuer must be written as it is there.")
        return document.metadata()


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    issuer: _Text
    authorization_endpoint: _Text
    token_endpoint: _Text
    jwks_uri: _Text
    userinfo_endpoint: _Text | None = None
    token_endpoint_auth_methods_supported: Sequence[str] = ("client_secret_basic",)
    id_token_signing_alg_values_supported: Sequence[str] = ("RS256",)

    @classmethod
    def read(cls, document: Mapping[str, Any], url: str) -> Self:
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ProviderUnavailableError(f"{url} has no usable {name}.") from None

    def metadata(self) -> Metadata:
        """Return what matters of it.

        Raises:
            ProviderUnavailableError: we cannot do with it.
        """
        for url in (self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.userinfo_endpoint):
            self._check(url)
        if not ALGORITHMS & set(self.id_token_signing_alg_values_supported):
            raise ProviderUnavailableError(f"{self.issuer} signs with none of {', '.join(sorted(ALGORITHMS))}.")
        methods = self.token_endpoint_auth_methods_supported
        if not {"client_secret_basic", "client_secret_post"} & set(methods):
            raise ProviderUnavailableError(f"{self.issuer} takes no client's secret, neither as Basic nor in a form.")
        return Metadata(
            issuer=self.issuer,
            authorize_url=self.authorization_endpoint,
            token_url=self.token_endpoint,
            keys_url=self.jwks_uri,
            person_url=self.userinfo_endpoint,
            takes_basic="client_secret_basic" in methods,
        )

    def _check(self, url: str | None) -> None:
        # Only an issuer in a network that is allowed was read without TLS, so only that may go on without.
        if url is not None and check_url(url).scheme == "http" and not self.issuer.startswith("http://"):
            raise ProviderUnavailableError(f"{self.issuer} names an endpoint that does not begin with https://.")
