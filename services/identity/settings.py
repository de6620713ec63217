"""What the identity service is told from outside."""

from datetime import timedelta

from cryptography.fernet import MultiFernet
from pydantic import Field, SecretStr, field_validator

from services.identity import sessions, signing
from services.identity.mail import MailTerms
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

    @field_validator("encryption_keys")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        try:
            signing.vault(value.get_secret_value().split(","))
        except ValueError:
            raise ValueError("must be keys of 32 bytes in URL-safe base64, with a comma between") from None
        return value

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
