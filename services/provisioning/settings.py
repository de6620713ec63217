"""What the provisioning service is told from outside."""

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import NoDecode

from shared.settings import ServiceSettings, settings_of

Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class ProvisioningSettings(ServiceSettings):
    """The settings of the provisioning service.

    Attributes:
        application_database_url: a login that owns the database in which pooled tenants live and may make roles
            (``TENURE_APPLICATION_DATABASE_URL``).
        regions: where environments can be, separated by commas, the default first (``TENURE_REGIONS``).
        export_lifetime_days: how long an export of a tenant's data can be fetched.
    """

    model_config = settings_of("provisioning")

    application_database_url: SecretStr = Field(validation_alias="TENURE_APPLICATION_DATABASE_URL")
    regions: Annotated[tuple[Region, ...], NoDecode] = Field(
        default=("local", "eu-central", "us-east"), min_length=1, validation_alias="TENURE_REGIONS"
    )
    export_lifetime_days: int = Field(default=30, ge=1, le=3650)

    @field_validator("regions", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [region.strip() for region in value.split(",")] if isinstance(value, str) else value
