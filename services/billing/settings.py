"""What the billing service is told from outside."""

from shared.settings import ServiceSettings, settings_of


class BillingSettings(ServiceSettings):
    """The settings of the billing service: those that all services have."""

    model_config = settings_of("billing")
