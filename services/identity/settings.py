"""What the identity service is told from outside."""

from datetime import timedelta

from pydantic import Field

from shared.settings import ServiceSettings, settings_of


class IdentitySettings(ServiceSettings):
    """The common settings and how long an invitation is good for.

    Attributes:
        invitation_days: how long after it was made an invitation expires (``TENURE_IDENTITY_INVITATION_DAYS``).
    """

    model_config = settings_of("identity")

    invitation_days: int = Field(default=7, ge=1, le=365)

    @property
    def invitation_lifetime(self) -> timedelta:
        """The same as a duration."""
        return timedelta(days=self.invitation_days)
