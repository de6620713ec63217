"""What the onboarding service is told from outside."""

from pydantic import Field

from shared.settings import ServiceSettings, settings_of


class OnboardingSettings(ServiceSettings):
    """The settings of the onboarding service.

    Attributes:
        backlog: how many requests may wait to be accepted; beyond it, clients are told to come back.
        under_way: how many workflows may be at work at once; beyond it, and where that is less beyond what ends in a
            few seconds, clients are told to come back.
        grace_days: how long an off-boarding can be taken back, unless its request says otherwise; also the time between
            the end of a contract and the off-boarding.
        warning_days: how long before its contract's end everybody is told that a tenant will be suspended.
    """

    model_config = settings_of("onboarding")

    backlog: int = Field(default=2000, ge=1)
    under_way: int = Field(default=5000, ge=1)
    grace_days: int = Field(default=30, ge=0, le=3650)
    warning_days: int = Field(default=14, ge=0, le=3650)
