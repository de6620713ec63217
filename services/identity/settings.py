"""What the identity service is told from outside."""

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, Self

from cryptography.fernet import MultiFernet
from pydantic import Field, SecretStr, field_validator, model_validator

from services.identity import sessions, signing
from services.identity.mail import MailTerms
from services.identity.providers.cognito.terms import POOL_ID, CognitoTerms, UserPool
from shared.settings import ServiceSettings, common, settings_of


class IdentitySettings(ServiceSettings):
    """The common settings, how long things are good, and where mail goes.

    Attributes:
        encryption_keys: what private keys are encrypted with in the database: keys of 32 bytes in URL-safe base64 with
            a comma between. The first encrypts, all decrypt (``TENURE_IDENTITY_ENCRYPTION_KEYS``).
        invitation_days: how long after it was made an invitation expires (``TENURE_IDENTITY_INVITATION_DAYS``).
        access_seconds: how long an access token is good.
        session_days: how long a session lasts that is not refreshed.
        session_days_longest: how long a session lasts, however often it is refreshed.
        signing_key_days: how long a key signs.
        signing_key_notice_hours: how long before it signs a key is published.
        smtp_url: the mail server, ``smtp://`` or ``smtps://``; mails are shown in the log where there is none, which is
            for development (``TENURE_SMTP_URL``).
        mail_from: whom mails come from; needed where there is a server (``TENURE_MAIL_FROM``).
        provider: where the people of new tenants prove who they are; ``cognito`` needs a region and a shared pool
            (``TENURE_IDENTITY_PROVIDER``).
        provider_networks: where tenants' providers may be although these addresses are not public: networks like
            ``10.0.0.0/8`` with a comma between (``TENURE_IDENTITY_PROVIDER_NETWORKS``).
        cognito_region: where Amazon Cognito is, such as ``eu-central-1``; None for an installation without it.
        cognito_pool_id: the pool that tenants share; see `services.identity.providers.cognito.shared_pool`.
        cognito_client_id: what we are in the shared pool.
        cognito_endpoint_url: of a stand-in for Amazon's endpoint.
        cognito_keys_url: where a stand-in has the keys of the pool ``{pool_id}``.
    """

    model_config = settings_of("identity")

    encryption_keys: SecretStr
    invitation_days: int = Field(default=7, ge=1, le=365)
    access_seconds: int = Field(default=600, ge=60, le=3600)
    session_days: int = Field(default=14, ge=1, le=365)
    session_days_longest: int = Field(default=90, ge=1, le=3650)
    signing_key_days: int = Field(default=30, ge=1, le=365)
    signing_key_notice_hours: int = Field(default=24, ge=1, le=24 * 30)
    smtp_url: SecretStr | None = Field(default=None, validation_alias=common("smtp_url"))
    mail_from: str | None = Field(default=None, validation_alias=common("mail_from"))
    provider: Literal["built-in", "cognito"] = "built-in"
    provider_networks: str = ""
    cognito_region: str | None = Field(default=None, pattern=r"^[a-z]+(-[a-z]+)+-[0-9]+$")
    cognito_pool_id: str | None = Field(default=None, pattern=r"^[\w-]+_[0-9a-zA-Z]+$", max_length=55)
    cognito_client_id: str | None = Field(default=None, pattern=r"^[\w+]+$", max_length=128)
    cognito_endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^/?#\s]+$")
    cognito_keys_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")

    @field_validator("encryption_keys")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        try:
            signing.vault(value.get_secret_value().split(","))
        except ValueError:
            raise ValueError("must be keys of 32 bytes in URL-safe base64, with a comma between") from None
        return value

    @field_validator("provider_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        _networks_of(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if wrong := next(self._wrong_cognito(), None):
            raise ValueError(wrong)
        return self

    def _wrong_cognito(self) -> Iterator[str]:
        """Say what does not fit together of what is told about Cognito."""
        told = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("cognito_")}
        if self.cognito_region is None and (of := [name for name, value in told.items() if value is not None]):
            yield f"{_variable(of[0])} needs TENURE_IDENTITY_COGNITO_REGION"
        if (self.cognito_pool_id is None) != (self.cognito_client_id is None):
            yield "set both TENURE_IDENTITY_COGNITO_POOL_ID and TENURE_IDENTITY_COGNITO_CLIENT_ID, or neither"
        if self.cognito_pool_id is not None and not self.cognito_pool_id.startswith(f"{self.cognito_region}_"):
            yield f"TENURE_IDENTITY_COGNITO_POOL_ID is of a pool in another region than {self.cognito_region}"
        if self.cognito_keys_url is not None and POOL_ID not in self.cognito_keys_url:
            yield f"TENURE_IDENTITY_COGNITO_KEYS_URL must contain {POOL_ID}"
        if self.provider == "cognito" and self.cognito_pool_id is None:
            yield (
                "TENURE_IDENTITY_PROVIDER=cognito needs TENURE_IDENTITY_COGNITO_REGION and, for tenants without a pool "
                "of their own, TENURE_IDENTITY_COGNITO_POOL_ID and TENURE_IDENTITY_COGNITO_CLIENT_ID"
            )

    @property
    def vault(self) -> MultiFernet:
        """What encrypts and decrypts private keys."""
        return signing.vault(self.encryption_keys.get_secret_value().split(","))

    @property
    def mail_terms(self) -> MailTerms:
        """How mails are sent."""
        url = None if self.smtp_url is None else self.smtp_url.get_secret_value()
        return MailTerms(url, self.mail_from)

    @property
    def cognito_terms(self) -> CognitoTerms | None:
        """Where Amazon Cognito is; None for an installation without it."""
        if self.cognito_region is None:
            return None
        pool_id, client_id = self.cognito_pool_id, self.cognito_client_id
        return CognitoTerms(
            region=self.cognito_region,
            shared_pool=None if pool_id is None or client_id is None else UserPool(pool_id, client_id),
            endpoint_url=self.cognito_endpoint_url,
            keys_url=self.cognito_keys_url,
        )

    @property
    def networks_of_providers(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where tenants' providers may be although these addresses are not public."""
        return _networks_of(self.provider_networks)

    @property
    def invitation_lifetime(self) -> timedelta:
        """How long an invitation is good."""
        return timedelta(days=self.invitation_days)

    @property
    def session_terms(self) -> sessions.Terms:
        """How long sessions and their tokens are good."""
        return sessions.Terms(
            access=timedelta(seconds=self.access_seconds),
            idle=timedelta(days=self.session_days),
            longest=timedelta(days=self.session_days_longest),
        )

    @property
    def signing_terms(self) -> signing.Terms:
        """How long keys sign."""
        return signing.Terms(
            lifetime=timedelta(days=self.signing_key_days), notice=timedelta(hours=self.signing_key_notice_hours)
        )


def _networks_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read networks with a comma between.

    Raises:
        ValueError: one of them is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError(
            f"TENURE_IDENTITY_PROVIDER_NETWORKS must be networks like 10.0.0.0/8 with a comma between: {error}"
        ) from None


def _variable(name: str) -> str:
    return f"TENURE_IDENTITY_{name.upper()}"
