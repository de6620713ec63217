"""What the tenant service is told from outside."""

from pydantic import AliasChoices, AnyHttpUrl, Field

from shared.settings import ServiceSettings, settings_of


class TenantSettings(ServiceSettings):
    """The settings of the tenant service.

    Attributes:
        pool_gateway_url: where the application of every pooled tenant answers (``TENURE_POOL_GATEWAY_URL``).
    """

    model_config = settings_of("tenant")

    pool_gateway_url: AnyHttpUrl = Field(
        default=AnyHttpUrl("http://127.0.0.1:8080"),
        validation_alias=AliasChoices("TENURE_POOL_GATEWAY_URL", "pool_gateway_url"),
    )

    @property
    def gateway_url(self) -> str:
        """The same address as people write it, without the slash at its end."""
        return str(self.pool_gateway_url).rstrip("/")
