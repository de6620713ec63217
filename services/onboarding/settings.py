"""What the onboarding service is told from outside."""

from pydantic import Field

from shared.settings import ServiceSettings, settings_of


class OnboardingSettings(ServiceSettings):
    """The settings of the onboarding service.

    Attributes:
        backlog: how many requests may wait to be accepted; beyond it, clients are told to come back.
    """

    model_config = settings_of("onboarding")

    backlog: int = Field(default=2000, ge=1)
