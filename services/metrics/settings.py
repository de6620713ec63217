"""What the metrics service is told from outside."""

from shared.settings import ServiceSettings, settings_of


class MetricsSettings(ServiceSettings):
    """The common settings; nothing of its own."""

    model_config = settings_of("metrics")
